"""Latencies measured again in turn: which candidates are, what the records say then, and that nothing of it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from answers import answer
from conftest import RunFactory
from test_broker import _no_fsync  # noqa: F401
from test_report import SETTINGS, make_record

from nas.front import pareto_front
from nas.in_turn import with_remeasured
from nas.picks import pick
from nas.record import Evaluation, LatencyRecord, Outcome, TrialRecord
from nas.rivals import RIVALS, rivals, to_measure
from nas.run import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.search.remeasuring import MAX_LOSSES, MOST_TURNS, Remeasurer
from nas.settings import Budgets, EvaluationSettings, LatencyProtocol, LatencyTarget, SearchSettings
from nas.space_file import load_space

OBJECTIVES = ("accuracy", "latency")


def in_turn(
    record: TrialRecord,
    ms: float,
    session: str = "one",
    target: str | None = None,
    noise: Sequence[float] = (0.999, 1.0, 1.001, 1.0),
) -> LatencyRecord:
    """A latency of rounds that are `ms` times `noise`, as a worker would send it back."""
    single = record.evaluation.latency
    assert single is not None
    rounds = tuple(ms * each for each in noise)
    latency = replace(
        single, median_ms=ms, interval_ms=(min(rounds), max(rounds)), rounds_ms=rounds, session=session, contended=False
    )
    return LatencyRecord(record.digest, record.number, target, latency)


def spread(record: TrialRecord, share: float) -> TrialRecord:
    """The record with a latency that spreads by so much to either side."""
    latency = record.evaluation.latency
    assert latency is not None
    wide = replace(latency, p10_ms=(1 - share) * latency.median_ms, p90_ms=(1 + share) * latency.median_ms)
    return replace(record, evaluation=replace(record.evaluation, latency=wide))


def digests(records: Sequence[TrialRecord]) -> list[str]:
    return [record.digest for record in records]


# ---------------------------------------------------------------- who is measured


def test_rivals_are_those_that_the_spread_of_latencies_alone_may_keep_behind_the_front_nearest_first() -> None:
    fast, slow = make_record(0, 0.80, 1.0), make_record(1, 0.90, 2.0)
    close, closer = spread(make_record(2, 0.85, 2.2), 0.1), spread(make_record(3, 0.89, 2.05), 0.1)
    worse, far = make_record(4, 0.70, 1.05), spread(make_record(5, 0.88, 4.0), 0.1)
    records = [fast, slow, close, closer, worse, far]
    found = rivals(records, OBJECTIVES)
    assert digests(found) == digests([closer, worse, close])  # the last one is far behind
    assert digests(to_measure(records, OBJECTIVES))[:2] == digests([fast, slow])  # members first
    many = [*records, *(spread(make_record(10 + i, 0.85, 2.1 + i / 100), 0.3) for i in range(12))]
    assert len(rivals(many, OBJECTIVES)) == RIVALS


def test_one_far_behind_in_another_cost_is_no_rival_however_wide_latencies_spread() -> None:
    objectives = ("accuracy", "macs")
    records = [make_record(0, 0.9, 1.0, macs=1000), make_record(1, 0.8, 1.01, macs=2000)]
    assert rivals(records, objectives) == []
    assert rivals([], OBJECTIVES) == []


# ---------------------------------------------------------------- what the records say


def test_the_front_goes_by_the_newest_latencies_measured_in_turn() -> None:
    lucky, other, best = make_record(0, 0.80, 1.0), make_record(1, 0.82, 1.1), make_record(2, 0.95, 3.0)
    records = [lucky, other, best]
    assert digests(pareto_front(records, OBJECTIVES)) == digests(records)
    again = [in_turn(lucky, 1.2), in_turn(other, 1.1), in_turn(best, 3.1)]
    judged = with_remeasured(records, again, SETTINGS)
    assert digests(pareto_front(judged, OBJECTIVES)) == digests([other, best])
    assert judged[0].objectives["latency"] == 1.2
    assert judged[0].evaluation.latency == again[0].latency
    later = [*again, in_turn(lucky, 0.9, "two"), in_turn(other, 1.0, "two"), in_turn(best, 3.0, "two")]
    assert digests(pareto_front(with_remeasured(records, later, SETTINGS), OBJECTIVES)) == digests(records)
    assert with_remeasured(records, [], SETTINGS) == records


def test_what_was_not_measured_in_turn_stands_at_the_level_of_what_was() -> None:
    # The device is twice as slow now: those left out must not come to the front for that.
    members = [make_record(i, 0.8 + i / 100, 1.0 + i) for i in range(4)]
    behind = make_record(9, 0.80, 1.5)
    again = [in_turn(record, 2 * record.objectives["latency"]) for record in members]
    judged = with_remeasured([*members, behind], again, SETTINGS)
    assert digests(pareto_front(judged, OBJECTIVES)) == digests(members)
    assert judged[-1].objectives["latency"] == pytest.approx(3.0)
    assert judged[-1].evaluation == behind.evaluation  # what was measured of it stays


def test_a_member_surely_over_a_limit_when_measured_in_turn_leaves_the_front_and_says_why() -> None:
    settings = replace(SETTINGS, evaluation=EvaluationSettings(budgets=Budgets(max_latency_ms=1.5)))
    within, over = make_record(0, 0.80, 1.0), make_record(1, 0.90, 1.45)
    judged = with_remeasured([within, over], [in_turn(within, 1.0), in_turn(over, 1.8)], settings)
    assert digests(pareto_front(judged, OBJECTIVES)) == [within.digest]
    assert judged[1].outcome is Outcome.REJECTED
    assert judged[1].evaluation.reason == "measured in turn: 1.800 ms, 20 % over the budget of 1.5 ms"


def test_targets_are_judged_by_their_own_turns() -> None:
    target = LatencyTarget("edge", LatencyProtocol(batch_size=8))
    objectives = ("accuracy", "latency:edge")
    settings = replace(SETTINGS, objectives=objectives, evaluation=EvaluationSettings(targets=(target,)))

    def on_edge(record: TrialRecord, ms: float) -> TrialRecord:
        latency = record.evaluation.latency
        assert latency is not None
        evaluation = replace(record.evaluation, latencies={"edge": replace(latency, median_ms=ms)})
        return replace(record, evaluation=evaluation, objectives=record.objectives | {"latency:edge": ms})

    a, b = on_edge(make_record(0, 0.8, 1.0), 5.0), on_edge(make_record(1, 0.9, 9.0), 6.0)
    again = [in_turn(a, 7.0, target="edge"), in_turn(b, 6.0, target="edge")]
    judged = with_remeasured([a, b], again, settings)
    assert digests(pareto_front(judged, objectives)) == [b.digest]
    assert judged[0].evaluation.latencies["edge"].ms == 7.0
    assert judged[0].evaluation.latency == a.evaluation.latency


def test_fastest_is_the_most_accurate_of_those_that_do_not_differ_from_the_smallest_latency() -> None:
    records = [make_record(0, 0.50, 1.0), make_record(1, 0.70, 1.01), make_record(2, 0.90, 2.0)]
    wild, other = (0.8, 1.3, 0.9, 1.2, 1.0, 0.7, 1.1, 1.25), (1.2, 0.8, 1.3, 0.8, 1.1, 1.0, 0.7, 0.9)
    again = [in_turn(records[0], 1.0, noise=wild), in_turn(records[1], 1.01, noise=other), in_turn(records[2], 2.0)]
    judged = with_remeasured(records, again, SETTINGS)
    assert pick(judged, OBJECTIVES, "fastest").number == 1
    assert pick(judged, OBJECTIVES, "accuracy>=40%").number == 1
    sure = [in_turn(records[0], 1.0), in_turn(records[1], 1.1), in_turn(records[2], 2.0)]
    assert pick(with_remeasured(records, sure, SETTINGS), OBJECTIVES, "fastest").number == 0


# ---------------------------------------------------------------- the asker


def settings(**changes: Any) -> SearchSettings:
    given = SearchSettings(space=load_space("digits"), data="digits", sampler="random", trials=14, confirm=0.3)
    return replace(given, **changes)


def measured(candidate: Candidate, session: str = "one", factor: float = 1.0) -> Evaluation:
    """What a worker would send back for networks that are measured in turn."""
    assert candidate.in_turn is not None
    found = {}
    for digest, architecture in candidate.in_turn.networks.items():
        single = answer(replace(candidate, architecture=architecture)).latency
        assert single is not None
        ms = factor * single.ms
        found[digest] = replace(single, median_ms=ms, interval_ms=(ms, ms), rounds_ms=(ms,) * 4, session=session)
    return Evaluation(Outcome.DONE, latencies=found)


def drive(run: RunDirectory, on_turn: Any = measured) -> tuple[Confirmer, list[Candidate]]:
    """A search of made-up answers to its end; what was measured in turn."""
    confirmer = Confirmer(Broker(run), remeasurer=Remeasurer(run))
    turns: list[Candidate] = []
    for _ in range(1000):
        if confirmer.finished:
            return confirmer, turns
        candidate = confirmer.ask()
        assert candidate is not None
        if candidate.in_turn is None:
            confirmer.finish(candidate, answer(candidate))
            continue
        turns.append(candidate)
        assert confirmer.ask() is None  # confirmations wait for what the front will be
        found = on_turn(candidate)
        confirmer.lose(candidate, found) if isinstance(found, str) else confirmer.finish(candidate, found)
    raise AssertionError("the search does not end")


def test_the_front_is_measured_in_turn_once_the_search_is_over_and_before_it_is_confirmed(make_run: RunFactory) -> None:
    run = make_run(settings())
    confirmer, turns = drive(run)
    assert len(turns) == 1
    assert turns[0].in_turn is not None
    front = {record.digest for record in pareto_front(run.records(), OBJECTIVES)}
    assert front <= turns[0].in_turn.networks.keys()
    kept = run.latencies()
    assert {each.digest for each in kept} == turns[0].in_turn.networks.keys()
    by_digest = {record.digest: record for record in run.records()}
    assert all(by_digest[each.digest].number == each.trial for each in kept)
    assert len(run.confirmations()) == run.settings.confirmations
    assert "single" not in confirmer.ending
    assert not confirmer.resumable


def test_a_turn_that_lets_others_onto_the_front_is_followed_by_one_with_them_but_not_for_ever(
    make_run: RunFactory,
) -> None:
    run = make_run(settings(confirm=0.0))
    sessions = iter("abcdefgh")

    def slow(candidate: Candidate) -> Evaluation:
        # One member alone turns out ten times as slow, so that others pass it.
        assert candidate.in_turn is not None
        evaluation = measured(candidate, next(sessions))
        first = next(iter(candidate.in_turn.networks))
        latency = evaluation.latencies[first]
        evaluation.latencies[first] = replace(latency, median_ms=10 * latency.median_ms)
        return evaluation

    confirmer, turns = drive(run, slow)
    assert 1 <= len(turns) <= MOST_TURNS
    assert confirmer.finished


def test_what_was_measured_is_not_measured_again_when_a_search_goes_on_but_a_new_front_is(make_run: RunFactory) -> None:
    run = make_run(settings(confirm=0.0))
    drive(run)
    before = run.latencies()
    assert drive(open_run(run.path))[1] == []
    _, turns = drive(open_run(run.path).with_trials(40), lambda candidate: measured(candidate, "two"))
    front = {record.digest for record in pareto_front(run.judged(), OBJECTIVES)}
    assert len(turns) == (0 if front <= {each.digest for each in before} else 1)
    assert run.latencies()[: len(before)] == before
    assert front <= {each.digest for each in run.latencies()}


def test_a_file_torn_in_the_middle_of_a_turn_is_measured_anew(make_run: RunFactory) -> None:
    run = make_run(settings(confirm=0.0))
    drive(run)
    path = run.path / "latencies.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + lines[1][:40])
    _, turns = drive(open_run(run.path), lambda candidate: measured(candidate, "two"))
    assert len(turns) == 1
    assert {each.latency.session for each in run.latencies()} == {"one", "two"}


def test_a_turn_whose_worker_dies_is_asked_for_again_a_few_times_and_never_ends_the_search(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(settings())
    confirmer, turns = drive(run, lambda candidate: "its worker died")
    assert len(turns) == MAX_LOSSES
    assert run.latencies() == []
    assert len(run.confirmations()) == run.settings.confirmations
    assert "stay single ones: its worker died" in caplog.text
    assert "latencies of its front are of single measurements" in confirmer.ending


def test_a_turn_that_fails_is_one_warning(make_run: RunFactory, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(settings(confirm=0.0))
    _, turns = drive(run, lambda candidate: Evaluation(Outcome.FAILED, "RuntimeError: no room"))
    assert len(turns) == 1
    assert "RuntimeError: no room" in caplog.text


def test_a_search_that_is_stopped_or_out_of_time_measures_nothing_more_and_says_so(make_run: RunFactory) -> None:
    run = make_run(settings(confirm=0.0))
    confirmer = Confirmer(Broker(run), remeasurer=Remeasurer(run))
    for _ in range(9):
        candidate = confirmer.ask()
        assert candidate is not None
        confirmer.finish(candidate, answer(candidate))
    confirmer.stop("stopped by SIGINT")
    assert confirmer.finished
    assert confirmer.ending == (
        "stopped by SIGINT; latencies of its front are of single measurements, not taken in turn"
    )
    late = make_run(settings(confirm=0.0, time_budget_s=0.0), "late")
    for record in run.records():
        late.append(record)
    confirmer = Confirmer(Broker(late), remeasurer=Remeasurer(late))
    assert confirmer.finished
    assert confirmer.resumable


@pytest.mark.parametrize("objectives", [("accuracy", "macs"), ("accuracy", "params", "memory")])
def test_where_latency_decides_nothing_nothing_is_measured_again(
    make_run: RunFactory, objectives: tuple[str, ...]
) -> None:
    run = make_run(settings(objectives=objectives, confirm=0.0))
    confirmer, turns = drive(run)
    assert turns == []
    assert "single" not in confirmer.ending


def test_a_limit_of_latency_is_reason_enough_and_each_target_has_a_turn_of_its_own(make_run: RunFactory) -> None:
    targets = (LatencyTarget("edge", LatencyProtocol(batch_size=8), max_ms=50.0),)
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=50.0), targets=targets)
    run = make_run(settings(objectives=("accuracy", "macs"), evaluation=evaluation, confirm=0.0))
    _, turns = drive(run, lambda candidate: measured(candidate, f"{candidate.in_turn.target}"))
    assert [turn.in_turn.target for turn in turns if turn.in_turn] == [None, "edge"]
    assert {each.target for each in run.latencies()} == {None, "edge"}


def test_weights_of_rivals_are_kept_as_those_of_the_front_are(make_run: RunFactory) -> None:
    run = make_run(settings(confirm=0.0, trials=30))
    confirmer = Confirmer(Broker(run), remeasurer=Remeasurer(run))
    while True:
        candidate = confirmer.ask()
        assert candidate is not None
        if candidate.in_turn:
            break
        run.save_weights(candidate.digest, b"weights")
        evaluation = answer(candidate)
        assert evaluation.latency is not None
        wide = replace(evaluation.latency, p10_ms=0.3 * evaluation.latency.ms, p90_ms=3 * evaluation.latency.ms)
        confirmer.finish(candidate, replace(evaluation, latency=wide))
    near = to_measure(run.records(), OBJECTIVES)
    assert len(near) > len(pareto_front(run.records(), OBJECTIVES))
    assert all(run.weights_path(record.digest).is_file() for record in near)
