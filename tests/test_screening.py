"""Latency predicted in a search: who is rejected, in which order, and what the report says of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from answers import answer
from conftest import RunFactory
from mobile import mobile_space
from test_broker import settings, study_of

from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency, Predicted
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings
from nas.runs.store import open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.ending import MAX_LOSSES_IN_A_ROW
from nas.search.screening import MIN_NETWORKS, LatencyScreen, chance_within
from nas.spaces.base import Architecture
from nas.spaces.families import architecture_cost
from nas.workflows.fidelity.proxy import foresight, macs_mislead

SPACE = mobile_space("digits")


def latency(ms: float, contended: bool = False) -> Latency:
    return Latency(ms, ms, ms, 0.0, 30, 1, False, contended, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())


def true_ms(architecture: Architecture) -> float:
    return 0.05 + architecture_cost(architecture, 10).macs / 1e6


def drawn(count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [SPACE.architecture(SPACE.sample(rng)) for _ in range(count)]


def test_nothing_is_predicted_from_too_few_networks() -> None:
    screen = LatencyScreen(SPACE, 10)
    networks = drawn(MIN_NETWORKS)
    for network in networks[:-1]:
        screen.learn(network, latency(true_ms(network)))
    assert screen.predict(networks) is None
    screen.learn(networks[-1], latency(true_ms(networks[-1])))
    assert screen.predict(networks) is not None


def test_contended_latencies_teach_nothing() -> None:
    screen = LatencyScreen(SPACE, 10)
    for network in drawn(3 * MIN_NETWORKS):
        screen.learn(network, latency(1000.0, contended=True))
    assert screen.predict(drawn(1)) is None


def test_predictions_depend_on_what_was_measured_and_not_on_when_they_were_asked_for() -> None:
    often, once = LatencyScreen(SPACE, 10), LatencyScreen(SPACE, 10)
    for network in drawn(2 * MIN_NETWORKS - 2):
        for screen in (often, once):
            screen.learn(network, latency(true_ms(network)))
        often.predict([network])
    new = drawn(5, seed=1)
    assert once.predict(new) == often.predict(new)


def test_predictions_are_fitted_to_no_more_networks_than_is_said() -> None:
    few = LatencyScreen(SPACE, 10, max_networks=20)
    for network in drawn(60):
        few.learn(network, latency(true_ms(network)))
    assert [predicted.networks for predicted in few.predict(drawn(1, seed=1)) or ()] == [13]


def test_predictions_order_networks_that_were_never_measured() -> None:
    screen = LatencyScreen(SPACE, 10)
    for network in drawn(60):
        screen.learn(network, latency(true_ms(network)))
    unseen = drawn(60, seed=1)
    predictions = screen.predict(unseen)
    assert predictions is not None
    predicted = np.array([one.mean_ms for one in predictions])
    truth = np.array([true_ms(network) for network in unseen])
    assert np.corrcoef(predicted.argsort().argsort(), truth.argsort().argsort())[0, 1] > 0.9


def test_spellings_of_one_network_have_one_encoding() -> None:
    rng = random.Random(0)
    encodings: dict[str, set[tuple[int, ...]]] = {}
    for _ in range(300):
        network = SPACE.architecture(SPACE.sample(rng))
        encodings.setdefault(network.digest, set()).add(SPACE.encode_canonical(network))
    assert all(len(spellings) == 1 for spellings in encodings.values())
    assert len({next(iter(spellings)) for spellings in encodings.values()}) == len(encodings)


def test_parameters_of_a_missing_layer_have_a_choice_of_their_own() -> None:
    names = list(SPACE.parameters)
    shallow = SPACE.encode_canonical(SPACE.smallest)
    deep = SPACE.encode_canonical(SPACE.largest)
    missing = [names[i] for i, index in enumerate(shallow) if index == len(SPACE.parameters[names[i]])]
    assert missing
    assert all(".l" in name for name in missing)
    assert not [names[i] for i, index in enumerate(deep) if index == len(SPACE.parameters[names[i]])]


def test_chance_is_a_probability_of_the_normal_distribution() -> None:
    assert chance_within(Predicted(1.0, 0.1, 10), 1.0) == pytest.approx(0.5)
    assert chance_within(Predicted(1.0, 0.1, 10), 1.1) == pytest.approx(0.8413, abs=1e-4)
    assert chance_within(Predicted(1.0, 0.0, 10), 0.9) == 0.0


def with_budget(limit_ms: float, **changes: Any) -> Any:
    return settings(evaluation=EvaluationSettings(budgets=Budgets(max_latency_ms=limit_ms)), **changes)


def worker(candidate: Candidate, limit_ms: float) -> Evaluation:
    """What a worker does: measure, reject what is over the budget, train the rest."""
    ms = true_ms(candidate.architecture)
    violation = max(0.0, ms / limit_ms - 1)
    evaluation = answer(candidate, Outcome.REJECTED if violation else Outcome.DONE, violation)
    return replace(evaluation, latency=latency(ms))


@pytest.mark.slow
def test_a_candidate_surely_over_the_budget_is_rejected_unmeasured_and_the_others_are_not(
    make_run: RunFactory,
) -> None:
    limit_ms = float(np.quantile([true_ms(network) for network in drawn(200)], 0.3))
    run = make_run(with_budget(limit_ms, trials=20))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, worker(candidate, limit_ms))
    records = run.records()
    unmeasured = [r for r in records if r.outcome is Outcome.REJECTED and r.evaluation.latency is None]
    assert unmeasured
    trials = study_of(run).trials
    for record in unmeasured:
        assert true_ms(record.architecture) > limit_ms, "a candidate within the budget was rejected"
        assert "predicted" in (record.evaluation.reason or "")
        assert record.evaluation.predicted is not None
        assert "latency" not in record.objectives, "a prediction is no measurement"
        told = trials[record.number]
        assert told.state.name == "COMPLETE"
        assert told.constraints["budget"] > 0
    assert len([r for r in records if r.outcome is Outcome.DONE]) == 20
    again = Broker(open_run(run.path))
    assert [trial.values for trial in again.study.trials] == [trial.values for trial in trials]


def test_without_a_budget_predictions_are_kept_with_the_record_and_nobody_is_rejected(make_run: RunFactory) -> None:
    run = make_run(settings(trials=20))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    done = [record for record in run.records() if record.outcome is Outcome.DONE]
    predicted = [record for record in done if record.evaluation.predicted is not None]
    assert len(done) == 20
    assert len(predicted) == 20 - MIN_NETWORKS
    found = foresight(run.records())
    assert found is not None
    assert found.networks == len(predicted)
    assert 0 <= found.within_one <= found.within_two <= 1


def record_of(number: int, macs: int, ms: float) -> TrialRecord:
    architecture = drawn(number + 1)[number]
    cost = replace(architecture_cost(architecture, 10), macs=macs)
    evaluation = Evaluation(Outcome.DONE, cost=cost, latency=latency(ms))
    return TrialRecord(number, architecture.digest, str(architecture), architecture, {}, evaluation)


def test_macs_that_order_as_latency_does_mislead_nobody() -> None:
    found = macs_mislead([record_of(i, 1000 * (i + 1), float(i + 1)) for i in range(10)])
    assert found is not None
    assert found.spearman == pytest.approx(1.0)
    assert found.wrong_pairs == 0
    assert found.cheaper is None


def test_the_pair_that_misleads_most_has_fewer_macs_and_is_slower() -> None:
    records = [record_of(i, 1000 * (i + 1), float(i + 1)) for i in range(10)]
    records[2] = record_of(2, 3000, 50.0)  # few MACs, slowest of all
    found = macs_mislead(records)
    assert found is not None
    assert found.cheaper is records[2]
    assert found.faster is not None
    assert found.faster.number > 2
    assert found.wrong_pairs == pytest.approx(7 / 45)
    assert found.spearman < 0.9


def test_too_few_networks_say_nothing() -> None:
    assert macs_mislead([record_of(i, 1000, 1.0) for i in range(3)]) is None


def test_who_is_rejected_says_nothing_of_the_workers_that_are_lost(make_run: RunFactory) -> None:
    networks = drawn(60)
    limit_ms = float(np.quantile([true_ms(network) for network in networks], 0.3))
    budgets = EvaluationSettings(budgets=Budgets(max_latency_ms=limit_ms))
    broker = Broker(make_run(settings(evaluation=budgets, trials=50)))
    for _ in range(3 * MIN_NETWORKS):
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    before = len(broker.records)
    lost = 0
    while (candidate := broker.ask()) is not None:
        broker.report_lost(candidate, "out of memory")
        lost += 1
        assert lost <= MAX_LOSSES_IN_A_ROW
    assert Outcome.REJECTED in {record.outcome for record in broker.records[before:]}
    assert "in a row were lost" in (broker.stop_reason or "")
