"""Candidates that are nearly certainly dominated: who is skipped, and that a search goes on and ends with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from answers import answer
from conftest import RunFactory
from optuna.trial import TrialState
from test_broker import DIGITS, settings, study_of
from test_evaluate import SETTINGS

import nas.search.dominated
from nas.cli.old_spellings import as_now
from nas.data.sets import load_data
from nas.runs.record import Evaluation, Outcome
from nas.runs.store import open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.dominance import DominanceEstimate, Rival
from nas.search.dominated import FEWEST
from nas.search.evaluate import evaluate_steps
from nas.training.device_data import DeviceData

# On a scale where less is better: a fast rival that is bad, and one of middling cost that is good.
ESTIMATE = DominanceEstimate(
    ("latency",), 0.0, 0.5, 0.7, "accuracy", "%", (Rival((1.0,), 1.0, 0.1, 0.5), Rival((2.0,), -2.0, 0.1, 0.9))
)


def known(ms: float, contended: bool = False) -> Evaluation:
    evaluation = answer(Candidate(0, {}, DIGITS.smallest, 0.0, settings().evaluation))
    assert evaluation.latency is not None
    return replace(evaluation, history=(), latency=replace(evaluation.latency, median_ms=ms, contended=contended))


def test_hopeless_is_who_is_surely_worse_than_a_network_that_costs_no_more() -> None:
    assert ESTIMATE.dominated(known(0.9)) is None  # nothing is as fast
    assert ESTIMATE.dominated(known(1.5)) is None  # what is as fast is worse
    reason = ESTIMATE.dominated(known(2.0))
    assert reason is not None
    assert "about 70.0 % is predicted" in reason
    assert "about 90.0 %" in reason
    assert ESTIMATE.chance((2.0,)) == pytest.approx(4.4e-5, rel=0.02)  # 3.92 standard deviations
    assert replace(ESTIMATE, std=1.0).dominated(known(2.0)) is None  # 2.3 % is not sure enough


def test_nobody_is_hopeless_by_a_cost_that_is_not_known_for_sure() -> None:
    assert ESTIMATE.dominated(known(9.0, contended=True)) is None
    assert ESTIMATE.dominated(replace(known(9.0), latency=None)) is None
    two = DominanceEstimate(
        ("latency", "latency:phone"), 0.0, 0.1, 0.7, "accuracy", "%", (Rival((1.0, 1.0), -2.0, 0.1, 0.9),)
    )
    assert two.dominated(known(9.0)) is None
    latency = known(9.0).latency
    assert latency is not None
    assert two.dominated(replace(known(9.0), latencies={"phone": latency})) is not None


def test_a_hopeless_candidate_is_measured_but_not_trained() -> None:
    data = DeviceData(load_data("digits", channels=1).without_test(), "cpu")
    steps = evaluate_steps(DIGITS.smallest, data, SETTINGS, dominated=lambda known: "told so")
    with pytest.raises(StopIteration) as end:
        next(steps)
    evaluation = end.value.value.evaluation
    assert (evaluation.outcome, evaluation.reason, evaluation.history) == (Outcome.SKIPPED, "told so", ())
    assert evaluation.latency is not None
    assert evaluation.cost is not None


def smaller_is_better(candidate: Candidate) -> Evaluation:
    """What a worker would send back where accuracy falls with cost: all but the smallest networks are dominated."""
    whole = answer(candidate)
    assert whole.cost is not None
    accuracy = 1 / (1 + whole.cost.macs / 1e5)
    reason = candidate.dominance.dominated(replace(whole, history=())) if candidate.dominance else None
    if reason is not None:
        return replace(whole, outcome=Outcome.SKIPPED, reason=reason, history=())
    return replace(whole, history=tuple(replace(epoch, score=accuracy) for epoch in whole.history))


@pytest.mark.parametrize("sampler", ["random", pytest.param("tpe", marks=pytest.mark.slow)])
def test_a_search_skips_what_is_hopeless_and_trains_as_many_as_it_was_told(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr(nas.search.dominated, "MAX_SKIPS_IN_A_ROW", 6)  # here all but a handful are dominated
    run = make_run(settings(trials=FEWEST + 2, sampler=sampler, skip_dominated=True))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        if broker.trained < FEWEST:
            assert candidate.dominance is None
        broker.finish(candidate, smaller_is_better(candidate))
    records = run.records()
    assert sum(record.outcome is Outcome.DONE for record in records) == FEWEST + 2
    skipped = [record for record in records if record.outcome is Outcome.SKIPPED]
    assert skipped
    for record in skipped:
        assert record.evaluation.latency is not None
        assert "nearly certainly dominated" in (record.evaluation.reason or "")
        assert study_of(run).trials[record.number].state is TrialState.PRUNED


def test_skips_in_a_row_are_bounded_also_over_a_restart(make_run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.search.dominated, "MAX_SKIPS_IN_A_ROW", 4)
    run = make_run(settings(trials=FEWEST + 2, skip_dominated=True))
    broker = Broker(run)
    outcomes = []
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        evaluation = smaller_is_better(candidate)
        if candidate.dominance is not None:  # a model that sees no hope for anybody
            evaluation = replace(evaluation, outcome=Outcome.SKIPPED, reason="told so", history=())
        outcomes.append(broker.finish(candidate, evaluation).outcome)
        if len(outcomes) == FEWEST + 2:
            broker = Broker(open_run(run.path))
    assert outcomes[FEWEST:] == 2 * [*4 * [Outcome.SKIPPED], Outcome.DONE]


def test_runs_and_commands_of_before_the_name_was_this_one_skip_too(make_run: RunFactory) -> None:
    run = make_run(settings(skip_dominated=True))
    file = run.path / "run.yaml"
    text = file.read_text(encoding="utf-8")
    assert "skip_dominated: true" in text
    file.write_text(text.replace("skip_dominated: true", "skip_hopeless: true"), encoding="utf-8")
    assert open_run(run.path).settings.skip_dominated
    assert as_now(["search", "--skip-hopeless", "--no-skip-hopeless"]) == [
        *("search", "--skip-dominated", "--no-skip-dominated")
    ]
