"""The broker without Ray: repeats, budgets, the order of truth, resume after a crash at any instant."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from answers import answer
from conftest import RunFactory
from mobile import mobile_space
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import nas.search.ending
from nas.common.files import weights_content
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.limits import budget_violation
from nas.runs.record import Evaluation, Outcome
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import MAX_LOSSES, Broker
from nas.search.candidate import Candidate
from nas.search.ending import MAX_LOSSES_IN_A_ROW, MAX_REJECTIONS
from nas.search.samplers.partial import STEPS
from nas.search.time_budget import TimeBudget
from nas.spaces.mobile.space import SearchSpace
from nas.views.report import write_report
from nas.views.terminal.front import front_csv

DIGITS = mobile_space("digits")
TINY = SearchSpace.model_validate(
    {
        "name": "tiny",
        "input": {"channels": 1, "size": 8},
        "stem": {"out_channels": 8},
        # dilation of a 1x1 kernel is a second spelling: 2 x 3 networks behind 2 x 2 x 2 settings
        "stages": [{"out_channels": [8, 16], "kernel_size": [1, 3], "dilation": [1, 2], "expansion": 2}],
    }
)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them, which a search spreads over hours, would take most of the time of these tests."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def settings(space: SearchSpace = DIGITS, **changes: Any) -> SearchSettings:
    return replace(SearchSettings(space=space, data="digits", sampler="random"), **changes)


def finish_all(broker: Broker) -> None:
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))


def study_of(run: RunDirectory) -> optuna.Study:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(run.study_path)))
    return optuna.load_study(storage=storage, study_name="nas")


def test_budget_counts_distinct_trained_candidates(make_run: RunFactory) -> None:
    run = make_run(settings(trials=12))
    broker = Broker(run)
    finish_all(broker)
    done = [record for record in run.records() if record.outcome is Outcome.DONE]
    assert len(done) == len({record.digest for record in done}) == 12
    assert broker.stop_reason == "12 candidates trained"


@pytest.mark.parametrize("sampler", [pytest.param("front", marks=pytest.mark.slow), "tpe", "nsga2", "random"])
def test_small_space_is_exhausted_and_repeats_are_answered_from_the_records(make_run: RunFactory, sampler: str) -> None:
    run = make_run(settings(TINY, trials=100, sampler=sampler))
    broker = Broker(run)
    assert TINY.size == 6
    evaluated = []
    while not broker.finished:
        candidate = broker.ask()
        if candidate is not None:
            evaluated.append(candidate.digest)
            broker.finish(candidate, answer(candidate))
    assert len(evaluated) == len(set(evaluated)) == TINY.size
    assert broker.stop_reason == "the space has nothing new"
    by_number = {record.number: record for record in run.records()}
    repeats = [record for record in by_number.values() if record.outcome is Outcome.REPEAT]
    assert repeats
    for repeat in repeats:
        assert repeat.repeat_of is not None
        original = by_number[repeat.repeat_of]
        assert original.digest == repeat.digest
        assert original.objectives == repeat.objectives
        told = study_of(run).trials[repeat.number]
        assert told.state is TrialState.COMPLETE
        assert told.values == [repeat.objectives["accuracy"], repeat.objectives["latency"]]


def test_a_repeat_of_a_running_candidate_waits_for_its_outcome(make_run: RunFactory) -> None:
    run = make_run(settings(TINY, trials=100))
    broker = Broker(run)
    running = list(iter(broker.ask, None))
    assert len({candidate.digest for candidate in running}) == TINY.size  # none is handed out twice
    assert not any(record.outcome is Outcome.REPEAT for record in run.records())
    for candidate in running:
        broker.finish(candidate, answer(candidate))
    assert sum(record.outcome is Outcome.REPEAT for record in run.records()) > 0
    assert broker.ask() is None
    assert broker.finished
    assert not [trial for trial in study_of(run).trials if trial.state is TrialState.RUNNING]


def test_waiting_for_the_last_candidates_of_a_space_asks_no_repeats(make_run: RunFactory) -> None:
    run = make_run(settings(TINY, trials=100))
    broker = Broker(run)
    running = list(iter(broker.ask, None))
    asked = len(study_of(run).trials)
    assert [broker.ask() for _ in range(50)] == [None] * 50
    assert len(study_of(run).trials) == asked
    broker.report_lost(running[0], "its worker died")
    again = broker.ask()
    assert again is not None
    assert again.digest == running[0].digest
    for candidate in [again, *running[1:]]:
        broker.finish(candidate, answer(candidate))
    assert broker.ask() is None
    assert broker.stop_reason == "the space has nothing new"


def test_failed_candidates_are_recorded_bounded_and_not_tried_again(make_run: RunFactory) -> None:
    run = make_run(settings(trials=50, max_failures=3))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate, Outcome.FAILED))
    records = run.records()
    assert [record.outcome for record in records] == [Outcome.FAILED] * 4
    assert all(record.evaluation.reason == "told so" for record in records)
    assert all(trial.state is TrialState.FAIL for trial in study_of(run).trials)
    assert broker.stop_reason == "4 candidates failed, more than the 3 allowed"


def test_rejected_candidates_reach_the_sampler_as_a_constraint_and_cost_no_budget(make_run: RunFactory) -> None:
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=0.2))
    run = make_run(settings(trials=5, evaluation=evaluation, sampler="tpe"))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        over = answer(candidate).latency.median_ms / 0.2 - 1  # type: ignore[union-attr]
        broker.finish(candidate, answer(candidate, Outcome.REJECTED, over) if over > 0 else answer(candidate))
    records = run.records()
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    assert rejected
    assert sum(record.outcome is Outcome.DONE for record in records) == 5
    trials = study_of(run).trials
    for record in rejected:
        assert set(record.objectives) == {"latency"}  # true values alone
        assert trials[record.number].values == [0.0, record.objectives["latency"]]
        assert trials[record.number].constraints == {"budget": record.evaluation.violation}
    feasible = {trial.number for trial in study_of(run).best_trials}
    assert feasible <= {record.number for record in records if record.objectives["latency"] <= 0.2}


def judged(candidate: Candidate) -> Evaluation:
    """What a worker of an older version sent back under a limit: it measured nothing of a candidate over it."""
    evaluation = answer(candidate)
    assert evaluation.cost is not None
    assert evaluation.latency is not None
    on_targets = [(target, evaluation.latency) for target in candidate.settings.targets]
    violation, reason = budget_violation(Budgets(), evaluation.cost, None, on_targets)
    return Evaluation(Outcome.REJECTED, reason, evaluation.cost, violation=violation) if violation else evaluation


def limited(max_ms: float) -> EvaluationSettings:
    """Settings with a limit that only a worker can judge."""
    return EvaluationSettings(targets=(LatencyTarget("edge", LatencyProtocol(), max_ms),))


def search_under(run: RunDirectory, asks: int) -> Broker:
    """The broker after so many candidates were judged by the run's limit."""
    broker = Broker(run)
    for _ in range(asks):
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, judged(candidate))
    return broker


def under_limit(sampler: str, space: SearchSpace = DIGITS) -> SearchSettings:
    """A search of which about half of the space is over the limit."""
    return settings(space, trials=100, sampler=sampler, evaluation=limited(0.1))


@pytest.mark.slow
def test_the_default_sampler_learns_the_budget(make_run: RunFactory) -> None:
    def rejected(sampler: str) -> int:
        records = search_under(make_run(under_limit(sampler), sampler), 35).records
        return sum(record.outcome is Outcome.REJECTED for record in records)

    assert rejected("tpe") < 0.7 * rejected("random")


@pytest.mark.parametrize(
    ("sampler", "asks"), [pytest.param("gp", 12, marks=pytest.mark.slow), ("nsga2", 25)]
)  # the first 10 and 20 are random
def test_other_samplers_run_with_rejected_candidates(make_run: RunFactory, sampler: str, asks: int) -> None:
    broker = search_under(make_run(under_limit(sampler)), asks)
    assert {record.outcome for record in broker.records} >= {Outcome.REJECTED, Outcome.DONE}


def test_a_rejected_candidate_without_a_latency_is_told_with_what_was_predicted_or_the_worst_before_it(
    make_run: RunFactory,
) -> None:
    run = make_run(under_limit("random"))
    search_under(run, 20)
    records = run.records()
    trials = study_of(run).trials
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    assert len(rejected) > 3
    for record in rejected:
        assert record.objectives == {}  # no stand-in is ever written down
        before = [r.objectives["latency"] for r in records[: records.index(record)] if r.objectives]
        predicted = record.evaluation.predicted
        assert trials[record.number].state is TrialState.COMPLETE
        assert trials[record.number].values == [0.0, predicted.mean_ms if predicted else max(before, default=0.0)]
        assert trials[record.number].constraints["budget"] > 0
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert {trials[record.number].constraints["budget"] for record in done} == {-1.0}
    front = {record.digest for record in pareto_front(records, run.settings.objectives)}
    assert front == {trial.user_attrs["digest"] for trial in study_of(run).best_trials}
    assert all(record.text in front_csv(run, records) for record in done if record.digest in front)
    assert open_run(write_report(run).parent).records() == records


@pytest.mark.parametrize("max_ms", [0.02, 0.001])
def test_repeats_of_rejected_candidates_and_a_rebuilt_study_are_told_alike(make_run: RunFactory, max_ms: float) -> None:
    evaluation = limited(max_ms)
    run = make_run(settings(TINY, trials=100, evaluation=evaluation))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        if candidate is not None:
            broker.finish(candidate, judged(candidate))
    assert broker.stop_reason == "the space has nothing new"
    before = study_of(run).trials
    records = run.records()
    repeats = [record for record in records if record.outcome is Outcome.REPEAT and record.evaluation.violation > 0]
    assert repeats
    for repeat in repeats:
        assert repeat.repeat_of is not None
        assert before[repeat.number].values == before[repeat.repeat_of].values
        assert before[repeat.number].constraints == before[repeat.repeat_of].constraints
    run.study_path.unlink()
    rebuilt = Broker(open_run(run.path)).study.trials
    assert [(t.state, t.values, t.params, t.constraints) for t in rebuilt] == [
        (t.state, t.values, t.params, t.constraints) for t in before
    ]


def over(violation: float) -> Evaluation:
    """A rejection that a worker would send back."""
    return Evaluation(Outcome.REJECTED, f"{1 + violation:.3f} ms, {100 * violation:.0f} % over the budget of 1 ms",
                      violation=violation)  # fmt: skip


def test_a_budget_that_nothing_meets_ends_and_names_the_closest(make_run: RunFactory) -> None:
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=1.0))
    run = make_run(settings(trials=5, evaluation=evaluation))
    broker = Broker(run)
    violations = iter(range(1000, 0, -1))
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        failed = not run.records()
        broker.finish(candidate, answer(candidate, Outcome.FAILED) if failed else over(float(next(violations))))
    assert len(run.records()) == MAX_REJECTIONS + 1
    closest = f"{run.records()[-1].text} came closest, with 942.000 ms, 94100 % over the budget of 1 ms"
    assert (
        broker.ending == f"60 candidates are over a hard budget, and none within; of those over a hard budget {closest}"
    )
    assert not broker.resumable


@pytest.mark.parametrize("cause", ["time", "failures", pytest.param("space", marks=pytest.mark.slow)])
def test_however_a_search_ends_it_names_the_closest_where_nothing_met_the_budget(
    make_run: RunFactory, cause: str
) -> None:
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=1.0))
    run = make_run(settings(TINY, trials=50, evaluation=evaluation, max_failures=1))
    broker = Broker(run)
    count = 0
    while not broker.finished:
        candidate = broker.ask()
        if candidate is None:
            continue
        count += 1
        broker.finish(
            candidate, answer(candidate, Outcome.FAILED) if cause == "failures" and count > 3 else over(count)
        )
        if cause == "time" and count == 3:
            broker.budget = TimeBudget(0.0, 0.0)
    first = {
        "time": "the time budget is spent",
        "failures": "2 candidates failed",
        "space": "the space has nothing new",
    }
    assert broker.ending.startswith(first[cause])
    assert broker.ending.endswith(f"{run.records()[0].text} came closest, with 2.000 ms, 100 % over the budget of 1 ms")


def test_a_search_that_trained_says_nothing_of_the_closest_and_ends_where_few_meet_the_budget(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.search.ending, "MAX_REJECTIONS_IN_A_ROW", 15)
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=1.0))
    broker = Broker(make_run(settings(trials=50, evaluation=evaluation)))
    count = 0
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        count += 1
        broker.finish(candidate, answer(candidate) if count == 10 else over(1.0))
    assert count == 25
    assert broker.ending == "15 candidates in a row are over a hard budget"


def test_a_candidate_whose_memory_is_not_known_fails_where_it_is_an_objective(make_run: RunFactory) -> None:
    run = make_run(settings(trials=5, objectives=("accuracy", "memory")))
    broker = Broker(run)
    candidate = broker.ask()
    assert candidate is not None
    record = broker.finish(candidate, answer(candidate))  # its cost is in closed form, without peak activations
    assert record.outcome is Outcome.FAILED
    assert record.evaluation.reason == "its memory, which is an objective, is not known"
    assert broker.trained == 0


def test_lost_candidates_are_queued_again_a_bounded_number_of_times(make_run: RunFactory) -> None:
    run = make_run(settings(trials=40))
    broker = Broker(run)
    tries: Counter[str] = Counter()
    while max(tries.values(), default=0) < MAX_LOSSES + 1 or tries.total() < 20:
        candidate = broker.ask()
        assert candidate is not None
        tries[candidate.digest] += 1
        if candidate.digest == DIGITS.smallest.digest:
            broker.report_lost(candidate, "its worker died")
        else:
            broker.finish(candidate, answer(candidate))
    assert tries[DIGITS.smallest.digest] == MAX_LOSSES + 1
    assert {count for digest, count in tries.items() if digest != DIGITS.smallest.digest} == {1}
    lost = [record for record in run.records() if record.outcome is Outcome.LOST]
    assert [record.evaluation.reason for record in lost] == ["its worker died"] * (MAX_LOSSES + 1)


def test_the_ends_of_the_space_and_its_backbone_come_first(make_run: RunFactory) -> None:
    broker = Broker(make_run(settings(trials=10)))
    first = [candidate.digest for _ in range(3) if (candidate := broker.ask()) is not None]
    assert first == [DIGITS.smallest.digest, DIGITS.backbone.digest, DIGITS.largest.digest]


def test_a_search_whose_every_worker_dies_ends(make_run: RunFactory) -> None:
    broker = Broker(make_run(settings(trials=100)))
    count = 0
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.report_lost(candidate, "no memory")
        count += 1
    assert count == MAX_LOSSES_IN_A_ROW
    assert "no memory" in (broker.stop_reason or "")


def test_time_budget_starts_nothing_more(make_run: RunFactory) -> None:
    broker = Broker(make_run(settings(trials=100, time_budget_s=0.0)))
    assert broker.ask() is None
    assert broker.finished
    assert broker.stop_reason == "the time budget is spent"


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "trials"), [("front", 14), ("random", 9), ("tpe", 14), ("gp", 9), ("nsga2", 26)])
def test_same_seed_and_outcomes_give_the_same_proposals_also_after_a_restart(
    make_run: RunFactory, sampler: str, trials: int
) -> None:
    sequences: dict[str, list[str]] = {}
    for name in ("whole", "restarted", "from the records alone"):
        run = make_run(settings(trials=trials, seed=5, sampler=sampler), name)
        broker = Broker(run)
        digests = sequences[name] = []
        while not broker.finished:
            if name != "whole" and len(digests) == trials - 5:
                if name != "restarted":
                    run.study_path.unlink()
                broker = Broker(open_run(run.path))
            candidate = broker.ask()
            assert candidate is not None
            digests.append(candidate.digest)
            broker.finish(candidate, answer(candidate))
    assert sequences["restarted"] == sequences["whole"]
    if sampler == "nsga2":  # it notes generations in its study
        assert sequences["from the records alone"] != sequences["whole"]
    else:
        assert sequences["from the records alone"] == sequences["whole"]
    other = Broker(make_run(settings(trials=14, seed=6, sampler=sampler), "other"))
    asked = []
    for _ in range(6):
        candidate = other.ask()
        assert candidate is not None
        asked.append(candidate.digest)
        other.finish(candidate, answer(candidate))
    assert asked != sequences["whole"][:6]


def test_resume_tells_what_was_recorded_but_not_told_and_queues_what_ran(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(settings(trials=6))
    broker = Broker(run)
    first, second, third = broker.ask(), broker.ask(), broker.ask()
    assert first is not None
    assert second is not None
    assert third is not None
    broker.finish(first, answer(first))

    def die(*_: object) -> None:
        raise KeyboardInterrupt  # the driver dies between the record and the telling

    monkeypatch.setattr(broker.study, "tell", die)
    with pytest.raises(KeyboardInterrupt):
        broker.finish(second, answer(second))

    resumed = Broker(open_run(run.path))
    states = [trial.state for trial in resumed.study.trials]
    assert states[:3] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert resumed.trained == 2
    again = resumed.ask()
    assert again is not None
    assert again.digest == third.digest  # what ran is tried again, first
    resumed.finish(again, answer(again))
    finish_all(resumed)
    done = [record for record in run.records() if record.outcome is Outcome.DONE]
    assert len(done) == len({record.digest for record in done}) == 6


def test_a_driver_that_dies_while_it_asks_leaves_no_half_chosen_trial(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(settings(trials=6))
    broker = Broker(run)
    for _ in range(4):  # the first three are queued
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    chosen: list[str] = []

    def die(_self: object, _study: object, _trial: object, name: str, distribution: Any) -> Any:
        if len(chosen) == 3:
            raise KeyboardInterrupt
        chosen.append(name)
        return distribution.choices[0]

    before, entries = broker.study.trials, run.study_path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(optuna.samplers.RandomSampler, "sample_independent", die)
        with pytest.raises(KeyboardInterrupt):
            broker.ask()
    assert len(chosen) == 3
    assert run.study_path.read_bytes() == entries
    resumed = Broker(open_run(run.path))
    assert resumed.study.trials == before
    assert resumed.ask() is not None


def test_what_others_write_to_the_study_file_meanwhile_is_kept_in_its_order(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As optuna-dashboard does, between two parameters of a trial that begins."""
    run = make_run(settings())
    broker = Broker(run)
    for _ in range(3):  # the queued ones
        assert broker.ask() is not None
    others = study_of(run)
    drawn = optuna.samplers.RandomSampler.sample_independent

    def noted(sampler: Any, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        others.set_user_attr(f"note on {name}", "good")
        return drawn(sampler, study, trial, name, distribution)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.samplers.RandomSampler, "sample_independent", noted)
        candidate = broker.ask()
    assert candidate is not None
    broker.finish(candidate, answer(candidate))
    for study in (others, broker.study):
        assert [trial.state.name for trial in study.trials] == ["RUNNING"] * 3 + ["COMPLETE"]
        assert study.trials[3].params == candidate.parameters
    assert len(others.user_attrs) >= len(candidate.parameters)


def test_a_search_that_lost_many_trials_can_be_resumed(make_run: RunFactory) -> None:
    run = make_run(settings(trials=30))
    broker = Broker(run)
    running = [candidate for _ in range(MAX_LOSSES_IN_A_ROW + 3) if (candidate := broker.ask()) is not None]
    resumed = Broker(open_run(run.path))  # the driver died with all of them in flight
    assert sum(record.outcome is Outcome.LOST for record in run.records()) == len(running)
    assert resumed.stop_reason is None
    again = [candidate.digest for _ in running if (candidate := resumed.ask()) is not None]
    assert set(again) == {candidate.digest for candidate in running}


def test_weights_on_their_way_to_the_broker_are_kept(make_run: RunFactory) -> None:
    run = make_run(settings(trials=20))
    broker = Broker(run)
    running = [candidate for _ in range(10) if (candidate := broker.ask()) is not None]
    for candidate in running:
        run.save_weights(candidate.digest, weights_content({"w": torch.zeros(1)}))
    for candidate in running:
        broker.finish(candidate, answer(candidate))
    for member in pareto_front(run.records(), run.settings.objectives):
        assert run.weights_path(member.digest).is_file()


@pytest.mark.parametrize("damage", ["torn", "foreign", "overwritten"])
def test_a_damaged_study_file_is_set_aside_and_rebuilt(
    make_run: RunFactory, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(settings(trials=6))
    broker = Broker(run)
    for _ in range(3):
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    lost = broker.ask()
    assert lost is not None
    broker.report_lost(lost, "its worker died")
    content = run.study_path.read_bytes()
    run.study_path.write_bytes(
        {"torn": content[:-30] + b"\n", "foreign": content + b"what\n", "overwritten": b"\0" * 200}[damage]
    )
    resumed = Broker(open_run(run.path))
    assert "made again from the records" in caplog.text
    assert list(run.path.glob("study.journal.damaged-*"))
    assert resumed.trained == 3
    again = resumed.ask()
    assert again is not None
    assert again.digest == lost.digest
    resumed.finish(again, answer(again))
    finish_all(resumed)
    assert sum(record.outcome is Outcome.DONE for record in run.records()) == 6


def test_a_lost_study_file_is_rebuilt_from_the_records(make_run: RunFactory) -> None:
    run = make_run(settings(trials=8, sampler="tpe"))
    finish_all(Broker(run))
    before = study_of(run).trials
    copy = run.path.with_name("copy")
    shutil.copytree(run.path, copy)
    (copy / "study.journal").unlink()
    rebuilt = Broker(open_run(copy))
    assert [(t.state, t.values, t.params) for t in rebuilt.study.trials] == [
        (t.state, t.values, t.params) for t in before
    ]
    assert rebuilt.finished


def test_a_torn_last_record_costs_that_record_alone(make_run: RunFactory, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(settings(trials=4))
    finish_all(Broker(run))
    path = run.path / "trials.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    resumed = Broker(open_run(run.path))
    assert "not a record" in caplog.text
    assert resumed.trained == 3
    finish_all(resumed)
    records = open_run(run.path).records()
    assert sum(record.outcome is Outcome.DONE for record in records) == 4
    assert len({record.digest for record in records if record.outcome is Outcome.DONE}) == 4


def test_front_of_the_study_is_the_front_of_the_records(make_run: RunFactory) -> None:
    run = make_run(settings(trials=15, sampler="tpe"))
    finish_all(Broker(run))
    records = run.records()
    ours = {record.digest for record in pareto_front(records, run.settings.objectives)}
    theirs = {trial.user_attrs["digest"] for trial in study_of(run).best_trials}
    assert ours == theirs


def test_the_study_holds_the_values_after_each_epoch_also_when_it_is_made_anew(make_run: RunFactory) -> None:
    run = make_run(settings(trials=4))
    broker = Broker(run)
    for outcome in (Outcome.DONE, Outcome.STOPPED, Outcome.FAILED):
        candidate = broker.ask()
        assert candidate is not None
        whole = answer(candidate)
        assert whole.latency is not None
        history = tuple(replace(whole.history[0], epoch=epoch, score=0.2 * epoch) for epoch in (1, 2))
        broker.finish(candidate, replace(whole, outcome=outcome, reason="told so", history=history))
    first = study_of(run).trials
    for trial, record in zip(first[:2], run.records(), strict=False):
        assert record.evaluation.latency is not None
        latency_ms = record.evaluation.latency.median_ms
        assert trial.user_attrs[STEPS] == [[0.2, latency_ms], [0.4, latency_ms]]
    assert STEPS not in first[2].user_attrs
    run.study_path.unlink()
    Broker(open_run(run.path))
    assert [t.user_attrs.get(STEPS) for t in study_of(run).trials[:3]] == [t.user_attrs.get(STEPS) for t in first[:3]]
