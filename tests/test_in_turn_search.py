"""Whole searches on real Ray whose front is measured again in turn, also when the driver is killed in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nas.cli.app import main
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.record import Outcome
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, Resources, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.spaces.files import load_space
from nas.training.recipe import Recipe
from nas.views.reported import run_search
from nas.workflows.plan import plan_search

QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)
PATIENCE_S = 300.0


def check_measured(run: RunDirectory, target: str | None = None) -> None:
    """The front is that of latencies measured in one turn, each of a trial of the run."""
    objectives, found = run.settings.objectives, [each for each in run.latencies() if each.target == target]
    judged = run.judged()
    front = pareto_front(judged, objectives)
    last = {each.digest: each.latency for each in found if each.latency.session == found[-1].latency.session}
    assert front
    assert {record.digest for record in front} <= last.keys()
    trials = {record.number: record for record in run.records()}
    for each in found:
        assert trials[each.trial].digest == each.digest
        assert trials[each.trial].outcome is Outcome.DONE
        assert len(each.latency.rounds_ms) > 1
        assert each.latency.interval_ms is not None
    for record in front:
        measured = record.evaluation.latencies[target] if target else record.evaluation.latency
        assert measured == last[record.digest]


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_measures_its_front_in_turn_on_its_own_device_and_on_a_target(tmp_path: Path) -> None:
    target = LatencyTarget("batch", replace(QUICK, batch_size=4))
    settings = SearchSettings(
        space=load_space("digits"),
        data="digits",
        objectives=("accuracy", "latency", "latency:batch"),
        evaluation=EvaluationSettings(
            Recipe(epochs=1, precision="float32"), QUICK, Budgets(max_latency_ms=1e6), targets=(target,)
        ),
        trials=4,
        resources=Resources(max_concurrent=1),
    )
    ended = run_search(plan_search(settings, tmp_path / "run"))
    assert "single" not in ended.reason
    assert not ended.resumable
    for name in (None, "batch"):
        check_measured(ended.run, name)
    own, batch = (
        {each.digest: each.latency.protocol.batch_size for each in ended.run.latencies() if each.target == name}
        for name in (None, "batch")
    )
    assert set(own.values()) == {1}
    assert set(batch.values()) == {4}
    assert "measured in turn" in ended.run.report_path.read_text()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_driver_killed_while_it_measures_in_turn_loses_that_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    command = [sys.executable, "-m", "nas.cli", "search", "digits", "--epochs", "1", "--set", "precision=float32"]
    command += [
        "--trials",
        "4",
        "--confirm",
        "0",
        "--max-concurrent",
        "1",
        "--latency",
        "warmup:0.02,seconds:0.3,attempts:1",
        "--out",
        str(out),
    ]
    with log.open("wb") as output:
        driver = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + PATIENCE_S
        while b"in turn" not in log.read_bytes():
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    run = open_run(out)
    before = (out / "trials.jsonl").read_bytes()
    assert run.latencies() == []
    assert run.judged() == run.records()
    with pytest.raises(SystemExit) as ended:
        main(["search", "--resume", str(out)])
    said = capsys.readouterr().out
    assert not ended.value.code, said
    assert "4 candidates trained" in said
    assert "in turn 20 times" in " ".join(said.split())
    assert (out / "trials.jsonl").read_bytes() == before
    check_measured(open_run(out))
