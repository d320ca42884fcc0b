"""The time left: what candidates took themselves, by how many ran at once."""

from __future__ import annotations

import random

import pytest

from nas.runs.pace import left_text, seconds_left
from nas.runs.record import Confirmation, Evaluation, Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.spaces.files import load_space

SETTINGS = SearchSettings(space=load_space("digits"), data="digits", trials=20, confirm=0.0)


def record(number: int, started: float, finished: float, took: float, outcome: Outcome = Outcome.DONE) -> TrialRecord:
    values = SETTINGS.space.sample(random.Random(number))
    architecture = SETTINGS.space.architecture(values).canonical
    evaluation = Evaluation(outcome, "no memory" if outcome is Outcome.FAILED else None, seconds=took)
    return TrialRecord(
        number,
        architecture.digest,
        str(architecture),
        architecture,
        values,
        evaluation,
        started=started,
        finished=finished,
    )


def test_a_workers_start_is_no_part_of_what_a_candidate_takes() -> None:
    """Two workers took 60 s to start; the first candidate then took 10 s: 19 are left, of which two run at once."""
    first = record(0, started=1000.0, finished=1070.0, took=10.0)
    assert seconds_left(SETTINGS, [], [], 990.0, 1060.0, [1000.0, 1000.0]) is None
    assert seconds_left(SETTINGS, [first], [], 990.0, 1070.0, [1000.0]) == pytest.approx(19 * 10 / 2)


def test_what_failed_takes_time_and_is_no_candidate() -> None:
    ended = [record(0, 1000.0, 1010.0, 10.0), record(1, 1010.0, 1015.0, 5.0, Outcome.FAILED)]
    assert seconds_left(SETTINGS, ended, [], 1000.0, 1015.0) == pytest.approx(19 * 15)


def test_what_ran_before_says_what_is_left_and_nothing_of_the_pace() -> None:
    before = [record(number, 100.0, 200.0, 100.0) for number in range(9)]
    now = record(9, 1000.0, 1004.0, 4.0)
    assert seconds_left(SETTINGS, before, [], 1000.0, 1004.0) is None
    assert seconds_left(SETTINGS, [*before, now], [], 1000.0, 1004.0) == pytest.approx(10 * 4)


def test_a_confirmation_takes_the_time_of_two_candidates_and_a_time_budget_bounds_all() -> None:
    settings = SearchSettings(space=SETTINGS.space, data="digits", trials=20, confirm=0.2, time_budget_s=60.0)
    ended = [record(number, 1000.0 + number, 1001.0 + number, 1.0) for number in range(10)]
    again = Confirmation(ended[0].digest, 0, 7, 20, Evaluation(Outcome.DONE, seconds=2.0), 1010.0, 1012.0)
    assert seconds_left(settings, ended, [again], 1000.0, 1012.0) == pytest.approx(20 - 10 - 2)
    assert seconds_left(settings, ended, [again], 955.0, 1012.0) == pytest.approx(3.0)
    assert left_text(3.0) == "a few seconds left"
