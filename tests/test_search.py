"""Whole searches on real Ray: finished, failing, with workers killed, and with the driver killed and resumed."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import RunFactory, check_consistent, wait_for_records
from rich.console import Console

import nas.latency
from nas.errors import InputError
from nas.evaluate import evaluate_candidate
from nas.export import ExportOptions, export_candidate
from nas.front import pareto_front
from nas.latency_cache import candidate_latency
from nas.objectives import OBJECTIVES
from nas.picks import pick
from nas.recipe import Recipe
from nas.record import Outcome
from nas.run import RunDirectory, open_run
from nas.search.launch import resume_search, run_search
from nas.search.plan import plan_search
from nas.settings import Budgets, EvaluationSettings, LatencyProtocol, SearchSettings
from nas.show import front_csv, front_table
from nas.show_status import phase_text
from nas.space_file import load_space
from nas.status import Phase, status_of

QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)
NAS = [sys.executable, "-m", "nas.cli"]


def nan_for_some(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Not a number when the digit 8 is predicted less than the digit 1: for about half of the candidates."""
    return math.nan if (predictions == 8).sum() < (predictions == 1).sum() else float((labels == predictions).mean())


def kill_twice(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Kills the worker process that calls it, the first two times."""
    for attempt in (1, 2):
        marker = Path(os.environ["NAS_LEASE_DIR"]) / f"killed-{attempt}"
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return float((labels == predictions).mean())


def settings(metric: str = "accuracy", trials: int = 6) -> SearchSettings:
    return SearchSettings(
        space=load_space("digits"),
        data="digits",
        evaluation=EvaluationSettings(Recipe(epochs=1), QUICK, metric=metric),
        trials=trials,
    )


@pytest.fixture(scope="module", autouse=True)
def _ray_stops_at_the_end() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    out = tmp_path_factory.mktemp("search") / "run"
    ended = run_search(plan_search(replace(settings(trials=10), confirm=0.4, max_failures=0), out))
    reason = "6 candidates trained; 2 trainings to confirm the front"
    assert (ended.reason, ended.resumable) == (reason, False)
    return ended.run


def test_a_search_leaves_front_weights_and_report(finished: RunDirectory) -> None:
    records = check_consistent(finished)
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert len(done) == 6
    for record in done:
        assert record.evaluation.latency is not None
        assert record.evaluation.cost is not None
        assert len(record.evaluation.history) == 1
        assert record.finished >= record.started > 0
    front = pareto_front(records, finished.settings.objectives)
    for record in front:
        assert finished.weights_path(record.digest).is_file()
    confirmations = finished.confirmations()
    assert len(confirmations) == len({confirmation.digest for confirmation in confirmations}) == 2
    assert {confirmation.digest for confirmation in confirmations} <= {record.digest for record in front}
    for confirmation in confirmations:
        assert confirmation.evaluation.outcome is Outcome.DONE
        assert len(confirmation.evaluation.history) == confirmation.epochs == 2
    assert finished.report_path.stat().st_size > 1_000_000
    assert finished.settings.resources.max_concurrent == 0  # as many as fit, wherever it goes on


def test_a_searched_candidate_scores_the_same_outside_the_search_and_is_exported(
    finished: RunDirectory, tmp_path: Path
) -> None:
    from nas.data import load_data

    record = pick(finished.records(), finished.settings.objectives, "most-accurate")
    digits = load_data("digits", channels=1).without_test()
    alone = evaluate_candidate(record.architecture, digits, finished.settings.evaluation).evaluation
    assert alone.history[-1].score == pytest.approx(record.objectives["accuracy"], abs=0.02)
    assert export_candidate(finished, record, tmp_path / "model", ExportOptions(measure=False)).is_dir()


def test_a_second_search_measures_nothing_twice(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {record.digest: record.evaluation.latency for record in finished.records()}
    monkeypatch.setitem(nas.latency.OTHERS_LIMIT, "cpu", 1.0)  # which says nothing to Ray's workers
    for record in finished.records():  # what was contended in the first search is in the cache now too
        candidate_latency(record.architecture, 10, QUICK)
    run = run_search(plan_search(settings(), tmp_path / "run")).run
    records = run.records()
    assert {record.digest for record in records} == set(first)  # the same seed
    for record in records:
        latency, before = record.evaluation.latency, first[record.digest]
        assert latency is not None
        assert before is not None
        assert latency.cached
        assert before.contended or latency.measured == before.measured
    assert "6 candidates, measured before" in run.report_path.read_text(encoding="utf-8")


def test_memory_is_an_objective_beside_others(tmp_path: Path) -> None:
    protocol = replace(QUICK, batch_size=2, dtype="bfloat16")
    small = replace(settings(trials=3), evaluation=EvaluationSettings(Recipe(epochs=1), protocol))
    for objectives in (("accuracy", "memory"), ("accuracy", "latency", "memory")):
        run = run_search(plan_search(replace(small, objectives=objectives), tmp_path / str(len(objectives)))).run
        records = run.records()
        assert [record.outcome for record in records] == [Outcome.DONE] * 3
        for record in records:
            cost = record.evaluation.cost
            assert cost is not None
            assert cost.size_bytes is not None
            assert cost.peak_activation_bytes is not None
            assert set(record.objectives) == set(objectives)
            assert record.objectives["memory"] == cost.size_bytes // 2 + cost.peak_activation_bytes
        memories = [record.objectives["memory"] for record in pareto_front(records, ("accuracy", "memory"))]
        assert memories == sorted(memories)
        shown = [OBJECTIVES["memory"].show(value) for value in memories]
        table = Console(width=300, record=True, file=io.StringIO())
        table.print(front_table(run, records))
        text, page = table.export_text(), run.report_path.read_text(encoding="utf-8")
        assert all(value in text and value in page for value in shown)
        assert all(value.endswith((" kB", " MB")) for value in shown)
        assert "pareto-memory" in page
        rows = list(csv.DictReader(io.StringIO(front_csv(run, records))))
        assert {float(row["memory_bytes"]) for row in rows} >= set(memories)


def test_a_search_under_a_budget_of_macs_measures_only_what_is_within(tmp_path: Path) -> None:
    limited = settings(trials=3)
    budgets = Budgets(max_macs=40_000)
    limited = replace(limited, evaluation=replace(limited.evaluation, budgets=budgets))
    run = run_search(plan_search(limited, tmp_path / "run")).run
    records = check_consistent(run)
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    assert rejected  # the space's largest network is asked for first
    assert all(record.evaluation.latency is None and not record.objectives for record in rejected)
    assert all("the budget of 40,000" in (record.evaluation.reason or "") for record in rejected)
    assert sum(record.outcome is Outcome.DONE for record in records) == 3


def test_candidates_whose_metric_is_not_a_number_fail_alone(tmp_path: Path) -> None:
    run = run_search(plan_search(settings("test_search:nan_for_some", trials=4), tmp_path / "run")).run
    records = check_consistent(run)
    failed = [record for record in records if record.outcome is Outcome.FAILED]
    assert failed
    assert {record.evaluation.reason for record in failed} == {"the metric gave nan"}
    assert sum(record.outcome is Outcome.DONE for record in records) == 4


def test_killed_workers_cost_no_candidate(tmp_path: Path) -> None:
    run = run_search(plan_search(settings("test_search:kill_twice", trials=5), tmp_path / "run")).run
    records = check_consistent(run)
    lost = [record for record in records if record.outcome is Outcome.LOST]
    assert 1 <= len(lost) <= 4  # two kills; a trial that shares the fate of its neighbour is allowed
    done = {record.digest for record in records if record.outcome is Outcome.DONE}
    assert len(done) == 5
    assert {record.digest for record in lost} <= done  # each was tried again
    assert re.match("its worker died: .*(died|killed|SIGKILL|exit)", lost[0].evaluation.reason or "", re.I)


def test_a_killed_driver_loses_no_finished_trial_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*NAS, "search", "--trials", "8", "--confirm", "0.25", "--epochs", "1", "--out", str(out)]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        wait_for_records(driver, out, 3, tmp_path / "log")
        with pytest.raises(InputError, match="another search is running on this directory"):
            resume_search(out)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    killed = status_of(open_run(out))
    assert (killed.phase, killed.resumable) == (Phase.DEAD, True)
    assert f"pid {driver.pid}) is gone" in phase_text(killed)
    before = open_run(out).records()
    assert len(before) < 6
    with (out / "trials.jsonl").open("a") as file:  # and its last record is torn
        file.write('{"number": 99, "digest": "12')
    # A run of a version that knew no precision trained in float32, and goes on so.
    written = yaml.safe_load((out / "run.yaml").read_text())
    del written["settings"]["evaluation"]["recipe"]["precision"]
    (out / "run.yaml").write_text(yaml.safe_dump(written))
    resumed = subprocess.run(
        [*NAS, "search", "--resume", str(out)], capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert open_run(out).settings.evaluation.recipe.precision == "float32"
    after = check_consistent(open_run(out))
    assert after[: len(before)] == before
    assert sum(record.outcome is Outcome.DONE for record in after) == 6  # the rest of the budget confirms
    assert len(open_run(out).confirmations()) == 1
    assert "Pareto front" in resumed.stdout


def test_a_run_is_not_resumed_on_another_model_of_device(make_run: RunFactory) -> None:
    """Its front would compare latencies of two machines."""
    with pytest.raises(InputError, match="its latencies were measured on test and this is"):
        resume_search(make_run().path)
    by_cost = replace(make_run(name="macs").settings, objectives=("accuracy", "macs"))
    run = make_run(by_cost, name="by cost")
    with pytest.raises(InputError, match="the data set digits has changed"):  # which is looked at afterwards
        resume_search(run.path)
