"""Pareto front, hypervolume and reference point, on hand-made records."""

from __future__ import annotations

import random

import pytest

from nas.runs.front import (
    REFERENCE_TRIALS,
    hypervolume,
    hypervolume_history,
    pareto_front,
    reference_point,
)
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.spaces.files import load_space

OBJECTIVES = ("accuracy", "latency")
SPACE = load_space("digits")


def record(number: int, accuracy: float, latency: float, outcome: Outcome = Outcome.DONE) -> TrialRecord:
    values = SPACE.sample(random.Random(number))
    architecture = SPACE.architecture(values).canonical
    return TrialRecord(
        number=number,
        digest=architecture.digest,
        text=str(architecture),
        architecture=architecture,
        parameters=values,
        evaluation=Evaluation(outcome),
        objectives={"accuracy": accuracy, "latency": latency},
    )


def test_front_holds_the_non_dominated_trained_candidates_cheapest_first() -> None:
    records = [
        record(0, 0.9, 2.0),
        record(1, 0.8, 1.0),
        record(2, 0.79, 1.5),  # dominated by 1
        record(3, 0.95, 3.0),
        record(4, 0.99, 0.1, Outcome.REJECTED),  # never trained
        record(5, 0.99, 0.1, Outcome.REPEAT),
    ]
    assert [r.number for r in pareto_front(records, OBJECTIVES)] == [1, 0, 3]


def test_equal_values_are_both_kept() -> None:
    assert len(pareto_front([record(0, 0.9, 1.0), record(1, 0.9, 1.0)], OBJECTIVES)) == 2


def test_no_trial_no_front() -> None:
    assert pareto_front([], OBJECTIVES) == []


def test_hypervolume_by_hand() -> None:
    # Eight trained candidates span accuracy 0.5-0.9 and latency 1-5 ms: the reference point is a tenth of each
    # range beyond the worst, (0.46, 5.4), the ideal (0.9, 1).
    records = [record(i, 0.5, 5.0) for i in range(REFERENCE_TRIALS - 2)] + [record(6, 0.9, 5.0), record(7, 0.5, 1.0)]
    assert reference_point(records[:-1], OBJECTIVES) is None
    reference = reference_point(records, OBJECTIVES)
    assert reference is not None
    assert reference.worst == pytest.approx((0.46, 5.4))
    assert reference.ideal == pytest.approx((0.9, 1.0))
    # In units of the box: (0.9, 5.0) covers 1 x 0.4/4.4, (0.5, 1.0) covers 0.04/0.44 x 1, they share 1/11 x 1/11.
    assert hypervolume(records, OBJECTIVES, reference) == pytest.approx(1 / 11 + 1 / 11 - 1 / 121)
    later = [*records, record(8, 0.9, 1.0)]
    assert reference_point(later, OBJECTIVES) == reference
    assert hypervolume(later, OBJECTIVES, reference) == pytest.approx(1.0)
    counts, volumes = zip(*hypervolume_history(later, OBJECTIVES), strict=True)
    assert counts == (8, 9)
    assert volumes == pytest.approx((1 / 11 + 1 / 11 - 1 / 121, 1.0))


def test_hypervolume_history_never_falls_and_ends_at_the_hypervolume() -> None:
    rng = random.Random(0)
    records = [record(i, rng.random(), rng.random()) for i in range(60)]
    history = hypervolume_history(records, OBJECTIVES)
    volumes = [volume for _, volume in history]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(hypervolume(records, OBJECTIVES, reference_point(records, OBJECTIVES)))


def test_three_objectives() -> None:
    records = [record(i, 0.5 + i / 100, 1.0 + i) for i in range(10)]
    records = [TrialRecord(**{**vars(r), "objectives": {**r.objectives, "params": 100.0 - r.number}}) for r in records]
    objectives = ("accuracy", "latency", "params")
    assert len(pareto_front(records, objectives)) == 10
    volume = hypervolume(records, objectives, reference_point(records, objectives))
    assert volume is not None
    assert 0 < volume < 2
