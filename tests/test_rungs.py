"""Early stopping: who is stopped at a rung and why, and a search on real Ray in which a fast, inaccurate net survives."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import nas.search.broker
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.record import Evaluation, Outcome
from nas.runs.settings import EvaluationSettings, Resources, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.rungs import FEWEST, Rungs, ahead_of, levels
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.views.report.curves import learning_curves_figure
from nas.views.reported import run_search
from nas.workflows.plan import plan_search

OBJECTIVES = ("accuracy", "macs")
EPOCHS = 10
RUNG = levels(EPOCHS)[-1]


def so_far(score: float, macs: int | None, epochs: int = RUNG) -> Evaluation:
    """What is known of a candidate whose accuracy has been the same after each epoch."""
    history = tuple(
        EpochMetrics(epoch, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0) for epoch in range(1, epochs + 1)
    )
    return Evaluation(Outcome.STOPPED, cost=None if macs is None else Cost(macs, 1), history=history)


def filled(count: int = 30) -> Rungs:
    """Candidates on one line, the more expensive the more accurate: each is on the front."""
    rungs = Rungs(OBJECTIVES, EPOCHS)
    for index in range(count):
        rungs.remember(f"member {index}", so_far(0.5 + index / 100, 1000 + 100 * index))
    return rungs


def test_a_fast_inaccurate_candidate_goes_on_and_a_dominated_one_is_stopped() -> None:
    assert filled().should_stop("fast", so_far(0.01, 999)) is None
    reason = filled().should_stop("dominated", so_far(0.01, 1500))
    assert reason is not None
    assert f"epoch {RUNG} of {EPOCHS}" in reason
    assert "accuracy and macs together" in reason
    # Less accurate than nearly all, yet better than the cheaper ones.
    assert filled().should_stop("between", so_far(0.505, 1050)) is None


def test_what_comes_between_rungs_or_before_enough_others_is_not_judged() -> None:
    for epoch in set(range(1, EPOCHS + 1)) - set(levels(EPOCHS)):
        assert filled().should_stop("hopeless", so_far(0.01, 9000, epoch)) is None
    few = filled(FEWEST - 2)
    assert few.should_stop("hopeless", so_far(0.01, 9000)) is None
    assert few.should_stop("hopeless too", so_far(0.01, 9000)) is not None


def test_a_candidate_without_all_of_its_values_is_never_stopped_and_counts_for_nobody() -> None:
    rungs = Rungs(OBJECTIVES, EPOCHS)
    for index in range(2 * FEWEST):
        assert rungs.should_stop(f"unknown {index}", so_far(0.9, None)) is None
    assert rungs.should_stop("hopeless", so_far(0.01, 9000)) is None


def test_judgements_are_the_same_after_a_resume() -> None:
    """What is remembered from records stands where it stood when it was judged, on every rung that it came to."""
    rng = np.random.default_rng(0)
    judged, records, reasons = Rungs(OBJECTIVES, EPOCHS), {}, {}
    for index in range(60):
        curve = so_far(float(rng.random()), int(rng.integers(1, 1000)), EPOCHS)
        for epoch in range(1, EPOCHS + 1):
            records[str(index)] = replace(curve, history=curve.history[:epoch])
            reasons[str(index)] = judged.should_stop(str(index), records[str(index)])
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
            assert resumed.should_stop("new", new) == judged.should_stop("new", new)


def test_ahead_by_rank_then_by_what_a_point_adds() -> None:
    front = [(0.0, 10.0), (5.0, 5.0), (10.0, 0.0)]
    behind = [(5.5, 9.0), (5.6, 8.9), (9.0, 5.5), (9.5, 9.9)]  # the first two are close to each other
    losses = np.array([*front, *behind])
    assert [ahead_of(index, losses) for index in range(3)] == [0, 0, 0]
    places = [ahead_of(index, losses) for index in range(3, 7)]
    assert places[2] == 3  # alone in its corner
    assert sorted(places) == [3, 4, 5, 6]
    assert places[3] == 6  # a rank further behind


# ---------------------------------------------------------------- a search


DIGITS = load_space("digits")
ORDER = (
    "r8-c8k3-k3e1s16/2-h32",
    "r8-c4k3-k5e1s8-k5e1s8-k5e1s16/2-k5e1s16-k5e1s16-h0",
    # Two that are more expensive than the one before, and learn more slowly.
    "r8-c8k3-k3e4f16/2-h32",
    "r8-c8k3-k3e4f16/2-k3e4f16-h32",
    str(DIGITS.smallest.canonical),
)
QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A search one candidate at a time, in the order above, that stops after epoch 2 of 3, from 3 candidates on."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.search.broker, "Rungs", functools.partial(Rungs, shares=(2 / 3,), fewest=3))
        settings = SearchSettings(
            space=DIGITS,
            data="digits",
            objectives=OBJECTIVES,
            evaluation=EvaluationSettings(Recipe(epochs=3, precision="float32"), QUICK),
            trials=len(ORDER),
            sampler="random",
            stop_early=True,
            enqueue=ORDER,
            resources=Resources(max_concurrent=1),
        )
        ended = run_search(plan_search(settings, tmp_path_factory.mktemp("stopping") / "run"))
        assert ended.reason == f"{len(ORDER)} candidates trained"
        yield ended.run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_in_a_search_the_fast_inaccurate_network_is_trained_to_its_end(searched: RunDirectory) -> None:
    by_text = {record.text: record for record in searched.records()}
    assert list(by_text) == list(ORDER)
    smallest = by_text[ORDER[-1]]
    assert smallest.outcome is Outcome.DONE
    assert len(smallest.evaluation.history) == 3
    stopped = [record for record in by_text.values() if record.outcome is Outcome.STOPPED]
    # By accuracy alone it would have gone before some of those that were stopped.
    assert any(smallest.evaluation.history[1].score < record.evaluation.history[1].score for record in stopped)
    assert smallest.digest in {member.digest for member in pareto_front(searched.records(), OBJECTIVES)}


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_a_search_stopped_keeps_its_curve_costs_and_reason(searched: RunDirectory) -> None:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(searched.study_path)))
    trials = optuna.load_study(storage=storage, study_name="nas").trials
    stopped = [record for record in searched.records() if record.outcome is Outcome.STOPPED]
    assert stopped
    for record in stopped:
        evaluation = record.evaluation
        assert [epoch.epoch for epoch in evaluation.history] == [1, 2]
        assert evaluation.cost is not None
        assert evaluation.latency is not None
        assert evaluation.worker
        assert evaluation.reason is not None
        assert "epoch 2 of 3" in evaluation.reason
        assert not record.objectives
        assert trials[record.number].state is TrialState.PRUNED
        assert not searched.weights_path(record.digest).exists()
    curves = learning_curves_figure(searched.records(), OBJECTIVES)
    (grey,) = [trace for trace in curves.data if trace.name == "stopped early"]
    assert [x for x in grey.x if x is not None] == [1, 2] * len(stopped)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_that_goes_on_judges_by_what_came_before(searched: RunDirectory) -> None:
    broker = Broker(open_run(searched.path))
    for record in searched.records():
        candidate = Candidate(record.number, record.parameters, record.architecture, 0.0, searched.settings.evaluation)
        at_the_rung = replace(record.evaluation, history=record.evaluation.history[:2])
        if record.outcome is Outcome.STOPPED:
            assert broker.should_stop(candidate, at_the_rung) is not None
        if record.text == ORDER[-1]:
            assert broker.should_stop(candidate, at_the_rung) is None
