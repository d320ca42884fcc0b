"""Whole searches on real Ray, in this process: what they leave behind, and what each candidate's fate is."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunFactory, check_consistent
from rich.console import Console

import nas.latency.at_work
from nas.common.errors import InputError
from nas.export.folder import ExportOptions, export_candidate
from nas.latency.cache import cache_folder
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.objectives import COSTS
from nas.runs.picks import pick
from nas.runs.record import Outcome
from nas.runs.settings import Budgets, EvaluationSettings, Resources, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.evaluate import evaluate_candidate
from nas.search.latency import candidate_latency
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.training.recipe import Recipe
from nas.views.reported import resume_search, run_search
from nas.views.terminal.front import front_csv, front_table
from nas.workflows.plan import plan_search

QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)
ONE_AT_A_TIME = Resources(max_concurrent=1)
NAS = [sys.executable, "-m", "nas.cli"]


def nan_for_some(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Not a number when the digit 8 is predicted less than the digit 1: for about half of the candidates."""
    return math.nan if (predictions == 8).sum() < (predictions == 1).sum() else float((labels == predictions).mean())


def settings(metric: str = "accuracy", trials: int = 6) -> SearchSettings:
    return SearchSettings(
        space=load_space("digits"),
        data="digits",
        evaluation=EvaluationSettings(Recipe(epochs=1, precision="float32"), QUICK, metric=metric),
        trials=trials,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    out = tmp_path_factory.mktemp("search") / "run"
    ended = run_search(plan_search(replace(settings(trials=7), confirm=0.3, max_failures=0), out))
    reason = "5 candidates trained; 1 training to confirm the front"
    assert (ended.reason, ended.resumable) == (reason, False)
    return ended.run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_leaves_front_weights_and_report(finished: RunDirectory) -> None:
    records = check_consistent(finished)
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert len(done) == 5
    for record in done:
        assert record.evaluation.latency is not None
        assert record.evaluation.cost is not None
        assert len(record.evaluation.history) == 1
        assert record.finished >= record.started > 0
    front = pareto_front(records, finished.settings.objectives)
    for record in front:
        assert finished.weights_path(record.digest).is_file()
    confirmations = finished.confirmations()
    assert len(confirmations) == len({confirmation.digest for confirmation in confirmations}) == 1
    judged = pareto_front(finished.judged(), finished.settings.objectives)
    assert {confirmation.digest for confirmation in confirmations} <= {record.digest for record in judged}
    for confirmation in confirmations:
        assert confirmation.evaluation.outcome is Outcome.DONE
        assert len(confirmation.evaluation.history) == confirmation.epochs == 2
    assert finished.report_path.stat().st_size > 1_000_000
    assert finished.settings.resources.max_concurrent == 0  # as many as fit, wherever it goes on


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_searched_candidate_scores_the_same_outside_the_search_and_is_exported(
    finished: RunDirectory, tmp_path: Path
) -> None:
    from nas.data.sets import load_data

    record = pick(finished.records(), finished.settings.objectives, "most-accurate")
    digits = load_data("digits", channels=1).without_test()
    alone = evaluate_candidate(record.architecture, digits, finished.settings.evaluation).evaluation
    assert alone.history[-1].score == pytest.approx(record.objectives["accuracy"], abs=0.02)
    assert export_candidate(finished, record, tmp_path / "model", ExportOptions(measure=False)).is_dir()


def undisturbed(first: Collection[float]) -> None:
    """As if nobody had disturbed what the cache holds, or would now, which would be measured again; those measured `first` stay."""
    folder = cache_folder()
    assert folder is not None
    kept: dict[str, dict[str, Any]] = {}
    for path in folder.glob("*.jsonl"):
        for entry in map(json.loads, path.read_text().splitlines()):
            latency = entry["latency"]
            latency |= {"noisy": False, "reference_ms": (1e-3, 1e3)}
            key = json.dumps([entry["digest"], latency["protocol"]])
            if key not in kept or latency["measured"] in first:
                kept[key] = entry
        path.unlink()
    (folder / "undisturbed.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in kept.values()))


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_second_search_measures_nothing_twice_and_memory_is_an_objective_beside_others(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {record.digest: record.evaluation.latency for record in finished.records()}
    monkeypatch.setitem(nas.latency.at_work.OTHERS_LIMIT, "cpu", 1.0)  # which says nothing to Ray's workers
    for record in finished.records():  # what was contended in the first search is in the cache now too
        candidate_latency(record.architecture, 10, QUICK)
    undisturbed({latency.measured for latency in first.values() if latency is not None})
    objectives = ("accuracy", "latency", "memory")
    known = tuple(record.text for record in finished.records()[:4])
    again = replace(settings(trials=4), objectives=objectives, enqueue=known, resources=ONE_AT_A_TIME)
    run = run_search(plan_search(again, tmp_path / "run")).run
    records = run.records()
    assert tuple(record.text for record in records) == known
    for record in records:
        latency, before, cost = record.evaluation.latency, first[record.digest], record.evaluation.cost
        assert latency is not None
        assert before is not None
        assert latency.cached
        assert before.contended or latency.measured == before.measured
        assert cost is not None
        assert cost.size_bytes is not None
        assert cost.peak_activation_bytes is not None
        assert record.objectives["memory"] == cost.size_bytes + cost.peak_activation_bytes
    page = run.report_path.read_text(encoding="utf-8")
    assert "4 candidates, measured before" in page
    memories = [record.objectives["memory"] for record in pareto_front(records, ("accuracy", "memory"))]
    assert memories == sorted(memories)
    shown = [COSTS["memory"].show(value) for value in memories]
    table = Console(width=300, record=True, file=io.StringIO())
    table.print(front_table(run, records))
    text = table.export_text()
    assert all(value in text and value in page for value in shown)
    assert all(value.endswith((" kB", " MB")) for value in shown)
    assert "pareto-memory" in page
    rows = list(csv.DictReader(io.StringIO(front_csv(run, records))))
    assert {float(row["memory_bytes"]) for row in rows} >= set(memories)


@pytest.mark.slow
def test_what_is_over_a_budget_or_has_no_score_takes_nothing_from_the_others(tmp_path: Path) -> None:
    """Under a budget of MACs nothing over it is asked for; where the metric is no number the candidate fails alone."""
    limited = settings("test_search:nan_for_some", trials=3)
    evaluation = replace(limited.evaluation, budgets=Budgets(max_macs=60_000))
    limited = replace(limited, evaluation=evaluation, resources=ONE_AT_A_TIME)
    run = run_search(plan_search(limited, tmp_path / "run")).run
    records = check_consistent(run)
    of = {outcome: [record for record in records if record.outcome is outcome] for outcome in Outcome}
    assert not of[Outcome.REJECTED]
    assert all(architecture_cost(record.architecture, 10).macs <= 60_000 for record in records)
    assert {record.evaluation.reason for record in of[Outcome.FAILED]} == {"the metric gave nan"}
    assert len(of[Outcome.DONE]) == 3


def test_a_run_is_not_resumed_on_another_model_of_device(make_run: RunFactory) -> None:
    """Its front would compare latencies of two machines."""
    with pytest.raises(InputError, match="its latencies were measured on test and this is"):
        resume_search(make_run().path)
    by_cost = replace(make_run(name="macs").settings, objectives=("accuracy", "macs"))
    run = make_run(by_cost, name="by cost")
    with pytest.raises(InputError, match="the data set digits has changed"):  # which is looked at afterwards
        resume_search(run.path)
