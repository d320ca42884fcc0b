"""A clock that somebody sets, or that jumps when a host wakes: no search ends by it, none goes on for ever, no trial fails. No Ray runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from answers import answer
from conftest import RunFactory
from driving import searcher_of

from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory
from nas.search.broker import Broker
from nas.search.candidate import Candidate, Losses
from nas.search.confirming import Confirmer
from nas.search.ray.artifacts import ArtifactStore
from nas.search.ray.clock import Stall
from nas.spaces.files import load_space
from nas.workflows.heartbeat import Heartbeat

HOUR = 3600.0
REAL = time.monotonic
Jump = Callable[[float], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Sets the time of day so many seconds forward, or back."""
    real = time.time

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return set_clock


class Keeper(ArtifactStore):
    """One that heard of so many candidates, by trial, that they hang."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(None)
        self._numbers = numbers

    def was_hung(self, candidate: Candidate) -> bool:
        return candidate.number in self._numbers


def settings(**changes: object) -> SearchSettings:
    given = SearchSettings(load_space("digits"), "digits", sampler="random", trials=6)
    return replace(given, **changes)  # type: ignore[arg-type]


def died(run: RunDirectory, keeper: Keeper, jump: Jump, jumps_s: float) -> TrialRecord:
    """The record of the first candidate, whose process died after the clock was set."""
    broker = Broker(run)
    searcher = searcher_of(broker, keeper)
    assert isinstance(searcher.suggest("a"), dict)
    jump(jumps_s)
    searcher.on_trial_complete("a", error=True)
    assert searcher.error is None
    return broker.records[0]


@pytest.mark.parametrize("jumps_s", [HOUR, 0.0, -HOUR])
def test_what_died_is_lost_and_asked_for_again_unless_it_was_said_to_hang(
    make_run: RunFactory, jump: Jump, jumps_s: float
) -> None:
    lost = died(make_run(settings(trial_timeout_s=60.0)), Keeper(), jump, jumps_s)
    assert (lost.outcome, lost.evaluation.reason) == (Outcome.LOST, "its worker died: no reason given")
    hung = died(make_run(settings(trial_timeout_s=60.0), name="other"), Keeper(0), jump, jumps_s)
    assert hung.outcome is Outcome.FAILED
    assert hung.evaluation.reason == (
        "it took longer than the trial timeout of 1 min, and hung: its process was killed"
    )


@pytest.mark.parametrize("jumps_s", [HOUR, -HOUR])
def test_a_time_budget_is_what_it_was_after_the_clock_jumped(make_run: RunFactory, jump: Jump, jumps_s: float) -> None:
    run = make_run(settings(time_budget_s=600.0))
    broker = Broker(run)
    first = broker.ask()
    assert first is not None
    jump(jumps_s)
    assert broker.stop_reason is None
    assert not first.out_of_time
    assert broker.budget.trainings_left_s == pytest.approx(600.0, abs=300.0)
    broker.finish(first, answer(first))
    searcher = searcher_of(broker, Keeper())
    sent = searcher.suggest("a")
    assert isinstance(sent, dict)
    assert json.loads(sent["candidate"])["left_s"] == pytest.approx(600.0, abs=300.0)  # seconds, no time of day
    over = Broker(run, began=time.monotonic() - 601.0)
    assert over.stop_reason == "the time budget is spent"


def test_what_is_lost_after_the_clock_went_back_counts_as_a_loss(make_run: RunFactory, jump: Jump) -> None:
    broker, losses = Broker(make_run(settings())), Losses()
    for passed in range(3):
        jump(-passed * HOUR)
        candidate = broker.ask()
        assert candidate is not None
        losses.lost(candidate)
    assert losses.in_a_row == 3


@pytest.mark.parametrize("jumps_s", [HOUR, -HOUR])
def test_the_time_that_a_search_took_is_no_difference_of_times_of_day(
    make_run: RunFactory, jump: Jump, jumps_s: float
) -> None:
    run = make_run(settings())
    for sessions in (1, 2):
        confirmer = Confirmer(Broker(run))
        heartbeat = Heartbeat(confirmer, began=time.monotonic() - 100.0)
        with heartbeat:
            jump(jumps_s)
        state = run.state()
        assert state is not None
        assert state.seconds == heartbeat.seconds == pytest.approx(100.0 * sessions, abs=60.0)
        jump(0.0)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Lets so many seconds pass, by the clock that nobody sets, and sets the other one ahead by so many since the start."""
    passed, clock = 0.0, time.time

    def go(seconds: float, ahead_s: float = 0.0) -> None:
        nonlocal passed
        passed += seconds
        monkeypatch.setattr(time, "monotonic", lambda: REAL() + passed)
        monkeypatch.setattr(time, "time", lambda: clock() + passed + ahead_s)

    return go


Passes = Callable[[float, float], None]


def test_a_search_ends_that_hears_of_no_worker_since_the_clock_was_set_back(passes: Passes) -> None:
    stall = Stall()
    passes(50.0, 0.0)
    stall.heard()
    passes(1.0, -HOUR)
    assert stall.reason() is None
    passes(140.0, -HOUR)
    assert stall.reason() is None  # less than three times what it took before
    stall.heard()
    passes(300.0, -HOUR)
    assert stall.reason() is None
    passes(130.0, -HOUR)
    reason = stall.reason()
    assert reason is not None
    assert reason.startswith("the clock was set back by 1 h, and no worker was heard of for 7 min 10 s since")


def test_a_search_goes_on_whose_clock_was_set_ahead_or_has_caught_up(passes: Passes) -> None:
    stall = Stall()
    passes(600.0, HOUR)
    assert stall.reason() is None
    passes(600.0, HOUR - 20.0)  # too little to matter
    assert stall.reason() is None
    passes(1.0, HOUR - 300.0)
    assert stall.reason() is None
    passes(301.0, HOUR - 300.0)
    assert stall.reason() is None
    passes(9000.0, HOUR - 300.0)
    assert stall.reason() is None
