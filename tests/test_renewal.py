"""A search resumed under other limits and budgets: records judged again, the study told alike, and nothing lost on the way."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import answers
import pytest
from answers import answer
from conftest import RunFactory
from optuna.trial import TrialState

from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Predicted
from nas.runs.front import pareto_front, reference_point
from nas.runs.limits import budget_violation
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.renewal import Renewal, renewal_notes
from nas.search.study import RunStudy
from nas.spaces.files import load_space
from nas.views.report import write_report

DIGITS = load_space("digits")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def evaluated(candidate: Candidate) -> Evaluation:
    """What a worker would send back under the limits of latency, own and of a target that is twice as slow."""
    evaluation, settings = answer(candidate), candidate.settings
    assert evaluation.latency is not None
    assert evaluation.cost is not None
    twice = replace(evaluation.latency, median_ms=2 * evaluation.latency.median_ms)
    latencies = {target.name: twice for target in settings.targets}
    cost, evaluation = evaluation.cost, replace(evaluation, latencies=latencies)
    violation, reason = budget_violation(
        settings.budgets, cost, evaluation.latency, [(t, latencies[t.name]) for t in settings.targets]
    )
    if violation <= 0:
        return evaluation
    return replace(evaluation, outcome=Outcome.REJECTED, reason=reason, violation=violation, history=())


def search(run: RunDirectory, count: int, storage: Any = None) -> list[str]:
    """Candidates asked for and evaluated, at most so many."""
    return answers.search(run, count, storage, evaluated)


def limited(max_latency_ms: float | None = None, **changes: Any) -> SearchSettings:
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=max_latency_ms))
    return replace(SearchSettings(DIGITS, "digits", sampler="random", trials=60, evaluation=evaluation), **changes)


def renewed(run: RunDirectory, **given: Any) -> RunDirectory:
    run = open_run(run.path)
    return run.with_settings(Renewal(**given).applied(run.settings))


def told(run: RunDirectory) -> list[tuple[Any, ...]]:
    trials = RunStudy(run).trials
    return [(trial.number, trial.state, trial.values, trial.params, trial.constraints) for trial in trials]


def median_ms(run: RunDirectory) -> float:
    measured = sorted(r.evaluation.latency.median_ms for r in run.recorded() if r.evaluation.latency)
    return measured[len(measured) // 2]


def test_a_tighter_limit_takes_trained_networks_off_the_front_and_a_looser_one_brings_them_back(
    make_run: RunFactory,
) -> None:
    run = make_run(limited())
    search(run, 20)
    written, front = run.recorded(), pareto_front(run.records(), ("accuracy", "latency"))
    limit = median_ms(run)
    run = renewed(run, max_latency_ms=limit)
    records = run.records()
    over = [record for record in records if record.over_limit]
    assert 0 < len(over) < 20
    assert all(record.evaluation.latency and record.evaluation.latency.median_ms > limit for record in over)
    assert all("the budget of" in (record.evaluation.reason or "") for record in over)
    members = pareto_front(records, ("accuracy", "latency"))
    assert members
    assert all(record.objectives["latency"] <= limit for record in members)
    broker = Broker(run)
    assert broker.trained == 20  # what was trained is spent
    assert {member.digest for member in broker.front} == {member.digest for member in members}
    trials = broker.study.trials
    assert all(trials[record.number].constraints["budget"] > 0 for record in over)
    assert all(trials[r.number].constraints["budget"] < 0 for r in records if r.outcome is Outcome.DONE)
    assert reference_point(records, ("accuracy", "latency")) == reference_point(written, ("accuracy", "latency"))
    write_report(run)
    back = renewed(run, max_latency_ms=1e6)
    assert back.records() == back.recorded() == written
    assert pareto_front(back.records(), ("accuracy", "latency")) == front


@pytest.mark.slow
def test_what_was_rejected_and_fits_a_looser_limit_is_a_candidate_again(make_run: RunFactory) -> None:
    run = make_run(limited(0.06))
    search(run, 24)
    rejected = {record.digest for record in run.records() if record.outcome is Outcome.REJECTED}
    assert len(rejected) > 4
    before = run.recorded()
    run = renewed(run, max_latency_ms=1e6)
    assert not any(record.outcome is Outcome.REJECTED for record in run.records())
    broker = Broker(run)
    assert not rejected & broker.answers.keys()
    first = [broker.ask() for _ in range(3)]  # the reference networks that were rejected come first, again
    assert {candidate.digest for candidate in first if candidate} & rejected == {
        network.digest for network in (DIGITS.backbone, DIGITS.largest) if network.digest in rejected
    }
    for candidate in first:
        assert candidate is not None
        assert candidate.number > max(record.number for record in before)  # numbers of old records are not given again
        broker.finish(candidate, evaluated(candidate))
    assert run.recorded()[: len(before)] == before
    numbers = [record.number for record in run.recorded()]
    assert len(numbers) == len(set(numbers))
    tight = renewed(run, max_latency_ms=0.06)
    assert {r.number for r in tight.records()} == set(numbers)  # both what was rejected then and what was trained since


def test_what_is_still_over_a_looser_limit_stays_rejected_with_its_new_excess(make_run: RunFactory) -> None:
    run = make_run(limited(0.03))
    search(run, 20)
    costs = [
        r.evaluation.latency.median_ms for r in run.records() if r.outcome is Outcome.REJECTED and r.evaluation.latency
    ]
    limit = sorted(costs)[len(costs) // 2]
    run = renewed(run, max_latency_ms=limit)
    rejected = [record for record in run.records() if record.outcome is Outcome.REJECTED]
    assert 0 < len(rejected) < len(costs)
    for record in rejected:
        assert record.evaluation.latency is not None
        assert record.evaluation.violation == record.evaluation.latency.median_ms / limit - 1 > 0


def test_a_limit_of_a_target_is_judged_anew_too(make_run: RunFactory) -> None:
    target = LatencyTarget("edge", LatencyProtocol(), 1e6)
    evaluation = EvaluationSettings(targets=(target,))
    run = make_run(limited(evaluation=evaluation))
    search(run, 16)
    limit = 2 * median_ms(run)
    run = renewed(run, targets={"edge": limit})
    over = [record for record in run.records() if record.over_limit]
    assert 0 < len(over) < 16
    assert all("on target edge" in (record.evaluation.reason or "") for record in over)
    with pytest.raises(InputError, match="target phone: the run has no such target"):
        renewed(run, targets={"phone": 1.0})


def test_limits_of_macs_and_parameters_are_judged_anew_and_proposals_keep_to_them(make_run: RunFactory) -> None:
    run = make_run(limited())
    search(run, 12)
    for given, name in (({"max_macs": 80_000}, "macs"), ({"max_params": 3_000}, "params")):
        run = renewed(run, **given)
        over = [record for record in run.records() if record.over_limit]
        assert over
        broker = Broker(run)
        for _ in range(6):
            candidate = broker.ask()
            assert candidate is not None
            evaluation = evaluated(candidate)
            assert evaluation.cost is not None
            assert getattr(evaluation.cost, name) <= next(iter(given.values()))
            broker.finish(candidate, evaluation)


def test_a_prediction_is_held_against_the_limit_of_now(make_run: RunFactory) -> None:
    run = make_run(limited(1.0))
    broker = Broker(run)
    predictions = [Predicted(5.0, 0.1, 20), Predicted(2.0, 0.1, 20), Predicted(2.5, 1.0, 20)]
    for predicted in predictions:
        candidate = broker.ask()
        assert candidate is not None
        broker._predicted[candidate.digest] = predicted
        broker.finish(candidate, Evaluation(Outcome.REJECTED, "a predicted latency", violation=1.0))
    run = renewed(run, max_latency_ms=2.2)
    kept = run.records()
    assert [record.evaluation.predicted for record in kept] == predictions[:1]  # the others may be within
    assert kept[0].evaluation.violation == pytest.approx(5.0 / 2.2 - 1)


def test_repeats_follow_their_originals(make_run: RunFactory) -> None:
    run = make_run(limited())
    broker = Broker(run)
    for _ in range(3):  # the reference networks
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, evaluated(candidate))
        broker.study.enqueue(candidate.parameters)
    assert broker.ask() is not None
    repeats = [record for record in run.records() if record.outcome is Outcome.REPEAT]
    assert repeats
    run = renewed(run, max_latency_ms=1e-6)
    judged = {record.number: record for record in run.records()}
    for repeat in repeats:
        assert repeat.repeat_of is not None
        assert judged[repeat.number].evaluation.violation == judged[repeat.repeat_of].evaluation.violation > 0
    broker = Broker(run)
    trials = broker.study.trials
    for repeat in repeats:
        assert repeat.repeat_of is not None
        assert trials[repeat.number].values == trials[repeat.repeat_of].values
        assert trials[repeat.number].constraints["budget"] > 0


@pytest.mark.parametrize(
    "sampler", [pytest.param("front", marks=pytest.mark.slow), pytest.param("tpe", marks=pytest.mark.slow), "random"]
)
def test_the_same_records_and_limits_give_the_same_proposals(
    make_run: RunFactory, sampler: str, tmp_path: Path
) -> None:
    """However a run came to its limits, and whatever was left of its study."""
    run = make_run(limited(sampler=sampler))
    search(run, 14)
    limit = median_ms(run)
    asked = {}
    for name in ("at once", "there and back", "killed before the study was made again", "without its study"):
        path = tmp_path / name
        shutil.copytree(run.path, path)
        copy = open_run(path)
        if name == "there and back":
            copy = renewed(copy, max_latency_ms=100 * limit)
            Broker(copy)
            copy = renewed(copy, max_latency_ms=limit / 2)
            Broker(copy)
        copy = renewed(copy, max_latency_ms=limit)
        if name.startswith("killed"):
            copy = open_run(path)
        if name.startswith("without"):
            copy.study_path.unlink()
        asked[name] = search(copy, 4)
    assert len({tuple(digests) for digests in asked.values()}) == 1, asked


@pytest.mark.slow
def test_a_driver_that_dies_at_any_step_of_the_change_loses_nothing(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(limited())
    search(run, 8)
    broker = Broker(run)
    running = broker.ask()  # as a driver that was killed leaves it
    assert running is not None
    limit = median_ms(run)

    class Killed(BaseException):
        pass

    def whole(path: Path) -> tuple[list[TrialRecord], list[tuple[Any, ...]]]:
        copy = open_run(path)
        Broker(copy)
        return [replace(record, started=0.0, finished=0.0) for record in copy.recorded()], told(copy)

    shutil.copytree(run.path, tmp_path / "whole")
    renewed(open_run(tmp_path / "whole"), max_latency_ms=limit)
    expected = whole(tmp_path / "whole")
    assert expected[0][-1].outcome is Outcome.LOST
    assert expected[0][-1].digest == running.digest
    real, rng = RunStudy.put_back, random.Random(0)
    for step in sorted({0, 1, *rng.sample(range(2, 8), 3)}):
        path = tmp_path / f"killed at {step}"
        shutil.copytree(run.path, path)
        copy = renewed(open_run(path), max_latency_ms=limit)
        steps = iter(range(100))

        def put_back(self: RunStudy, *arguments: Any, last: int = step, steps: Any = steps) -> None:
            if next(steps) == last:
                raise Killed
            real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(RunStudy, "put_back", put_back)
            with pytest.raises(Killed):
                Broker(copy)
        records, trials = whole(path)
        assert records == expected[0]
        assert [trial for trial in trials if trial[1] is not TrialState.WAITING] == [
            trial for trial in expected[1] if trial[1] is not TrialState.WAITING
        ]
        resumed = Broker(open_run(path))
        queued = [resumed.ask() for _ in range(4)]
        assert running.digest in {candidate.digest for candidate in queued if candidate}


@pytest.mark.slow
def test_a_study_in_a_database_is_made_anew_as_well(make_run: RunFactory, tmp_path: Path) -> None:
    own = make_run(limited(), "own")
    kept = make_run(limited(storage=f"sqlite:///{tmp_path / 'studies.db'}"), "kept")
    for run in (own, kept):
        search(run, 12)
    limit = median_ms(own)
    own, kept = renewed(own, max_latency_ms=limit), renewed(kept, max_latency_ms=limit)
    assert any(record.over_limit for record in kept.records())
    assert search(own, 4) == search(kept, 4)
    assert [trial[1:] for trial in told(own)] == [trial[1:] for trial in told(kept)]


def test_what_held_before_stays_in_run_yaml_with_the_trials_that_it_held_for(make_run: RunFactory) -> None:
    run = make_run(limited(0.5))
    search(run, 5)
    run = renewed(run, max_latency_ms=0.2, trials=90)
    search(run, 3)
    run = renewed(run, time_budget_s=60.0)
    changes = open_run(run.path).content.changes
    assert [(change.trials, change.before) for change in changes] == [
        (5, {"trials": 60, "max_latency_ms": 0.5}),
        (8, {"time_budget_s": None}),
    ]
    assert changes[0].when < changes[1].when
    assert renewed(run, time_budget_s=60.0, trials=90).content.changes == changes  # nothing changed


def test_without_other_limits_records_are_read_as_they_were_written(make_run: RunFactory) -> None:
    run = make_run(limited(0.05))
    search(run, 10)
    run = renewed(run, trials=70, confirm=0.2, max_failures=3, trial_timeout_s=9.0, max_concurrent=2)
    assert run.records() == run.recorded()
    settings = open_run(run.path).settings
    assert (settings.trials, settings.confirm, settings.max_failures, settings.trial_timeout_s) == (70, 0.2, 3, 9.0)
    assert settings.resources.max_concurrent == 2


def test_fewer_trials_than_were_trained_end_the_search(make_run: RunFactory) -> None:
    run = make_run(limited())
    search(run, 6)
    broker = Broker(renewed(run, trials=4))
    assert broker.ask() is None
    assert broker.finished
    assert broker.ending == "6 candidates trained"


def test_more_failures_allowed_let_a_search_go_on(make_run: RunFactory) -> None:
    run = make_run(limited(max_failures=1))
    broker = Broker(run)
    while not broker.finished:
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate, Outcome.FAILED))
    assert broker.ending == "2 candidates failed, more than the 1 allowed"
    assert Broker(renewed(run, max_failures=5)).ask() is not None


def test_the_change_is_told_with_what_it_means_for_the_records(make_run: RunFactory) -> None:
    run = make_run(limited(0.06))
    search(run, 24)
    rejected = sum(record.outcome is Outcome.REJECTED for record in run.records())
    assert renewal_notes(run, Renewal(trials=60)) == []
    assert renewal_notes(run, Renewal(trials=80)) == ["Trials 80, before 60"]
    told = renewal_notes(run, Renewal(max_latency_ms=1e6))
    assert told[0] == "Max latency 1e+06 ms, before 0.06 ms"
    assert told[1] == f"Judged by that: {rejected} rejected ones within them, to be asked for like any other"
