"""Latencies measured again in turn: which candidates are, what the records say then, and that nothing of it is lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answers import answer
from conftest import RunFactory
from test_broker import _no_fsync  # noqa: F401
from test_report import PROVENANCE, SETTINGS, make_record
from typer.testing import CliRunner

from nas.cli.app import app
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Predicted
from nas.runs.front import pareto_front
from nas.runs.in_turn import with_remeasured
from nas.runs.picks import pick
from nas.runs.record import Evaluation, LatencyRecord, Outcome, TrialRecord
from nas.runs.rivals import RIVALS, near_front, rivals, to_measure
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.search.remeasuring import MAX_LOSSES, MOST_TURNS, Remeasurer
from nas.spaces.files import load_space
from nas.views.page.candidate import figures
from nas.views.page.runs import LiveRun
from nas.views.report import write_report
from nas.views.report.choices import choices_figure
from nas.views.report.progress import hypervolume_figure
from nas.views.terminal.front import front_csv

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


# ---------------------------------------------------------------- the source


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
        confirmer.report_lost(candidate, found) if isinstance(found, str) else confirmer.finish(candidate, found)
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


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again_when_a_search_goes_on_but_a_new_front_is(make_run: RunFactory) -> None:
    run = make_run(settings(confirm=0.0))
    drive(run)
    before = run.latencies()
    assert drive(open_run(run.path))[1] == []
    more = open_run(run.path)
    more = more.with_settings(replace(more.settings, trials=40))
    _, turns = drive(more, lambda candidate: measured(candidate, "two"))
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
    behind = near_front(run.records(), OBJECTIVES)  # the turn may bring these onto the front
    assert len(behind) > RIVALS
    assert all(run.weights_path(record.digest).is_file() for record in behind)


# ---------------------------------------------------------------- what is shown


WILD, OTHER = (0.8, 1.3, 0.9, 1.2, 1.0, 0.7, 1.1, 1.25), (1.2, 0.8, 1.3, 0.8, 1.1, 1.0, 0.7, 0.9)


def crowded(record: TrialRecord) -> TrialRecord:
    """The record as it is where others used the device."""
    assert record.evaluation.latency is not None
    latency = replace(record.evaluation.latency, contended=True)
    return replace(record, evaluation=replace(record.evaluation, latency=latency))


@pytest.fixture
def shared(tmp_path: Path) -> RunDirectory:
    """A run on a shared machine, its front measured in turn: two that do not differ, and one that does."""
    run = RunDirectory.create(tmp_path / "shared", SETTINGS, PROVENANCE)
    records = [make_record(0, 0.50, 1.0), make_record(1, 0.70, 1.01), make_record(2, 0.90, 2.0)]
    for record in records:
        run.append(crowded(record))
    noises = (WILD, OTHER, (1.0, 1.001) * 4)
    run.append_latencies(
        [
            in_turn(record, record.objectives["latency"], noise=noise)
            for record, noise in zip(records, noises, strict=True)
        ]
    )
    return run


def lines_of(run: RunDirectory) -> list[str]:
    return CliRunner().invoke(app, ["front", str(run.path)], env={"COLUMNS": "80"}).output.splitlines()


def test_the_table_groups_what_does_not_differ_and_says_what_others_did(shared: RunDirectory) -> None:
    first, second, third = (record.digest[:8] for record in shared.records())
    lines = lines_of(shared)
    assert all(len(line) <= 80 for line in lines if line.startswith((first, second, third, "digest")))
    assert "latency ms (95 %)" in lines[1]
    assert "1.000 (0.700-1.300)a" in next(line for line in lines if line.startswith(first))
    assert "1.010 (0.707-1.313)a  " in (row := next(line for line in lines if line.startswith(second)))
    assert "fastest" in row
    assert "2.000 (2.000-2.002) " in next(line for line in lines if line.startswith(third))
    text = " ".join(" ".join(lines).split())
    assert "latencies with the same letter (a) do not differ (95 % intervals, measured in turn 8 times)" in text
    assert "All 3 latencies were measured while others used the device" in text
    assert "members of the front were measured again, in turn 8 times" in text
    rows = list(csv.DictReader(io.StringIO(front_csv(shared, shared.judged()))))
    assert [row["latency_group"] for row in rows] == ["a", "a", ""]
    assert [row["latency_rounds"] for row in rows] == ["8"] * 3
    assert [row["latency_low_ms"] for row in rows[:1]] == ["0.7"]


def test_what_others_did_to_a_single_latency_is_said_in_the_singular(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "one", SETTINGS, PROVENANCE)
    run.append(crowded(make_record(0, 0.50, 1.0)))
    text = " ".join(" ".join(lines_of(run)).split())
    assert "The only latency was measured while others used the device" in text
    assert "none was measured again" in text


def test_report_and_page_show_the_groups_and_what_others_did(shared: RunDirectory) -> None:
    page = write_report(shared).read_text()
    assert "0.700–1.300 · a" in page.replace("noisy · ", "")
    assert "Latencies with the same letter (a) do not differ" in page
    assert "All 3 latencies were measured while others used the device" in page
    assert "Bars: 95 % intervals of the latency" in page
    seen = LiveRun(shared).look()
    assert seen.front == tuple(pareto_front(shared.judged(), OBJECTIVES))
    assert any("while others used the device" in problem for problem in seen.problems)
    fast, slow = seen.front[0], seen.front[2]
    assert figures(seen, fast)["Does not differ in latency from"] == seen.front[1].digest[:8]
    assert figures(seen, slow)["Does not differ in latency from"] == "–"


def test_a_page_that_is_open_takes_up_what_is_measured_in_turn_and_leaves_out_what_is_no_number(
    tmp_path: Path,
) -> None:
    run = RunDirectory.create(tmp_path / "run", SETTINGS, PROVENANCE)
    lucky, other = make_record(0, 0.80, 1.0), make_record(1, 0.82, 1.1)
    run.append(lucky)
    run.append(other)
    live = LiveRun(run)
    assert digests(live.look().front) == digests([lucky, other])
    run.append_latencies([in_turn(lucky, float("nan"), "zero"), in_turn(other, float("inf"), "zero")])
    assert digests(live.look().front) == digests([lucky, other])
    run.append_latencies([in_turn(lucky, 1.2), in_turn(other, 1.1)])
    seen = live.look()
    assert digests(seen.front) == digests([other])
    assert seen.recorded == (lucky, other)


def test_runs_without_that_file_are_as_before(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", SETTINGS, PROVENANCE)
    for record in (make_record(0, 0.50, 1.0), make_record(1, 0.90, 2.0)):
        run.append(record)
    assert run.latencies() == []
    assert run.judged() == run.records()
    lines = lines_of(run)
    assert "latency ms (p10-p90)" in lines[1]
    text = " ".join(lines)
    assert "in turn" not in text
    assert "while others" not in text
    assert "in turn" not in write_report(run).read_text()
    assert pick(run.judged(), OBJECTIVES, "fastest").number == 0


def test_what_was_looked_up_has_a_mark(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", SETTINGS, PROVENANCE)
    fresh, known = make_record(0, 0.50, 1.0), make_record(1, 0.90, 2.0)
    assert known.evaluation.latency is not None
    cached = replace(known.evaluation, latency=replace(known.evaluation.latency, cached=True))
    run.append(fresh)
    run.append(replace(known, evaluation=cached))
    lines = lines_of(run)
    assert ")*" in next(line for line in lines if line.startswith(known.digest[:8]))
    assert ")*" not in next(line for line in lines if line.startswith(fresh.digest[:8]))
    assert any("* looked up, measured before this run" in line for line in lines)
    assert "looked up*" in write_report(run).read_text()
    assert "Not looked up" not in write_report(run).read_text()
    doubted = make_record(2, 0.95, 3.0)
    assert doubted.evaluation.latency is not None
    again = replace(doubted.evaluation.latency, doubted="the reference network takes 1.300 ms now and took 1.000 ms")
    run.append(replace(doubted, evaluation=replace(doubted.evaluation, latency=again)))
    one = "<dd>1 candidate, as the reference network took another time before</dd>"
    assert f"<dt>Not looked up</dt>{one}" in write_report(run).read_text()


# ---------------------------------------------------------------- shares and charts of too little


def test_shares_of_a_small_front_say_why_they_are_not_shown_and_those_of_a_larger_one_are() -> None:
    small, large = ([make_record(i, 0.5 + i / 50, 1.0 + i) for i in range(count)] for count in (2, 9))
    figure = choices_figure(small, OBJECTIVES, SETTINGS.space)
    assert figure.data == ()
    assert "The front has 2 members" in figure.layout.annotations[0].text
    figure = choices_figure(large, OBJECTIVES, SETTINGS.space)
    assert len(figure.data) == 1
    counted = [text for row in figure.data[0].hovertext for text in row if "front: 1 of 1<br>" in text]
    shown = [
        text
        for texts, row in zip(figure.data[0].hovertext, figure.data[0].z, strict=True)
        for text, value in zip(texts, row, strict=True)
        if value is not None
    ]
    assert all(text not in shown for text in counted)  # a layer that one network has is no share of 100 %


def test_a_hypervolume_without_a_course_or_a_range_says_so() -> None:
    def told(records: list[TrialRecord]) -> str:
        figure = hypervolume_figure(records, OBJECTIVES)
        return figure.layout.annotations[0].text if not figure.data else ""

    records = [make_record(i, 0.5 + i / 50, 1.0 + i) for i in range(9)]
    assert "fixed once 8 candidates" in told(records[:7])
    assert "its course begins with the next candidate" in told(records[:8])
    assert told(records) == ""
    equal = [make_record(i, 0.1, 1.0 + i) for i in range(12)]
    assert "do not differ in accuracy" in told(equal)
    equal = [make_record(i, 0.5 + i / 50, 1.0) for i in range(12)]
    assert "do not differ in latency" in told(equal)


@pytest.mark.slow
def test_predictions_put_to_the_test_too_seldom_are_not_shown_as_shares(tmp_path: Path) -> None:
    def predicted(record: TrialRecord) -> TrialRecord:
        return replace(record, evaluation=replace(record.evaluation, predicted=Predicted(1.0, 10.0, 8)))

    records = [make_record(i, 0.5 + i / 50, 1.0 + i, macs=1000 * (i + 1)) for i in range(20)]
    for name, count in (("few", 2), ("many", 12)):
        run = RunDirectory.create(tmp_path / name, SETTINGS, PROVENANCE)
        for number, record in enumerate(records):
            run.append(predicted(record) if number < count else record)
        page = write_report(run).read_text()
        assert ("2 networks, too few to say how well" in page) == (count == 2)
        assert ("(68 % expected)" in page) == (count == 12)
