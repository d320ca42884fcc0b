"""Early stopping: who is stopped at a rung and why, and a search on real Ray in which a fast, inaccurate net survives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nas.record import Cost, EpochMetrics, Evaluation, Outcome
from nas.search.rungs import FEWEST, Rungs, ahead_of, levels

OBJECTIVES = ("accuracy", "macs")
EPOCHS = 10
RUNG = levels(EPOCHS)[-1]


def so_far(score: float, macs: int | None, epochs: int = RUNG) -> Evaluation:
    """What is known of a candidate whose accuracy has been the same after each epoch."""
    history = tuple(EpochMetrics(epoch, 1.0, 1.0, score, score, 1.0, 1.0) for epoch in range(1, epochs + 1))
    return Evaluation(Outcome.STOPPED, cost=None if macs is None else Cost(macs, 1), history=history)


def filled(count: int = 30) -> Rungs:
    """Candidates on one line, the dearer the more accurate: each is on the front."""
    rungs = Rungs(OBJECTIVES, EPOCHS)
    for index in range(count):
        rungs.remember(f"member {index}", so_far(0.5 + index / 100, 1000 + 100 * index))
    return rungs


def test_a_fast_inaccurate_candidate_goes_on_and_a_dominated_one_is_stopped() -> None:
    assert filled().judge("fast", so_far(0.01, 999)) is None
    reason = filled().judge("dominated", so_far(0.01, 1500))
    assert reason is not None
    assert f"after epoch {RUNG} of {EPOCHS}" in reason
    assert "accuracy and macs together" in reason
    # Less accurate than nearly all, yet better than the cheaper ones.
    assert filled().judge("between", so_far(0.505, 1050)) is None


def test_what_comes_between_rungs_or_before_enough_others_is_not_judged() -> None:
    for epoch in set(range(1, EPOCHS + 1)) - set(levels(EPOCHS)):
        assert filled().judge("hopeless", so_far(0.01, 9000, epoch)) is None
    few = filled(FEWEST - 2)
    assert few.judge("hopeless", so_far(0.01, 9000)) is None
    assert few.judge("hopeless too", so_far(0.01, 9000)) is not None


def test_a_candidate_without_all_of_its_values_is_never_stopped_and_counts_for_nobody() -> None:
    rungs = Rungs(OBJECTIVES, EPOCHS)
    for index in range(2 * FEWEST):
        assert rungs.judge(f"unknown {index}", so_far(0.9, None)) is None
    assert rungs.judge("hopeless", so_far(0.01, 9000)) is None


def test_judgements_are_the_same_after_a_resume() -> None:
    """What is remembered from records stands where it stood when it was judged, on every rung that it came to."""
    rng = np.random.default_rng(0)
    judged, records, reasons = Rungs(OBJECTIVES, EPOCHS), {}, {}
    for index in range(60):
        curve = so_far(float(rng.random()), int(rng.integers(1, 1000)), EPOCHS)
        for epoch in range(1, EPOCHS + 1):
            records[str(index)] = replace(curve, history=curve.history[:epoch])
            reasons[str(index)] = judged.judge(str(index), records[str(index)])
            if reasons[str(index)]:
                break
    assert any(reasons.values())
    assert not all(reasons.values())
    resumed = Rungs(OBJECTIVES, EPOCHS)
    for digest, evaluation in records.items():
        resumed.remember(digest, evaluation)
    for macs in range(1, 1000, 50):
        for score in (0.1, 0.5, 0.9):
            new = so_far(score, macs)
            assert resumed.judge("new", new) == judged.judge("new", new)


def test_ahead_by_rank_then_by_what_a_point_adds() -> None:
    front = [(0.0, 10.0), (5.0, 5.0), (10.0, 0.0)]
    behind = [(5.5, 9.0), (5.6, 8.9), (9.0, 5.5), (9.5, 9.9)]  # the first two are close to each other
    losses = np.array([*front, *behind])
    assert [ahead_of(index, losses) for index in range(3)] == [0, 0, 0]
    places = [ahead_of(index, losses) for index in range(3, 7)]
    assert places[2] == 3  # alone in its corner
    assert sorted(places) == [3, 4, 5, 6]
    assert places[3] == 6  # a rank further behind
