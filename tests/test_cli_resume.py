"""`nas search --resume DIR` with flags: what may be given again, what needs a warm start, and a real search that goes on by it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import call
from commands import output as nas
from conftest import GLANCE, RunFactory, check_consistent, wait_for_records

from nas.cli.app import app, main
from nas.cli.options import parse_target
from nas.cli.resume import renewal
from nas.common.errors import InputError
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.renewal import Renewal
from nas.spaces.files import load_space

NAS = [sys.executable, "-m", "nas.cli"]
SETTINGS = SearchSettings(
    load_space("digits"),
    "digits",
    evaluation=EvaluationSettings(targets=(parse_target("edge=batch:8,max:5ms", "cpu"),)),
    trials=12,
    seed=4,
)
COMMAND = "nas search digits --data digits --seed 4 --trials 12 --target edge=batch:8,max:5ms --out first"


@pytest.fixture
def run(make_run: RunFactory) -> RunDirectory:
    run = make_run(SETTINGS)
    content = replace(run.content, provenance=replace(run.provenance, command=COMMAND))
    return RunDirectory(run.path, content)


def given(run: RunDirectory, *arguments: str) -> Renewal:
    """What `nas search --resume RUN ARGUMENTS` gives a run again."""
    search = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    context = search.make_context("search", ["--resume", str(run.path), *arguments])
    return renewal(context, run)


@pytest.mark.parametrize(
    ("arguments", "renewed"),
    [
        ([], Renewal()),
        (["--time-budget", "2h"], Renewal(time_budget_s=7200.0)),
        (["--trials", "40", "--confirm", "0.3"], Renewal(trials=40, confirm=0.3)),
        (["--max-macs", "300k", "--max-params", "5k"], Renewal(max_macs=300_000, max_params=5_000)),
        (["--max-latency", "800us"], Renewal(max_latency_ms=0.8)),
        (["--max-concurrent", "0", "--max-failures", "50"], Renewal(max_concurrent=0, max_failures=50)),
        (["--trial-timeout", "90s"], Renewal(trial_timeout_s=90.0)),
        (["--target", "edge=max:2ms"], Renewal(targets={"edge": 2.0})),
        (["--target", "edge=batch:8,max:2ms"], Renewal(targets={"edge": 2.0})),
        (["--log", "", "--replica", "off"], Renewal()),
    ],
)
def test_what_may_be_given_anew(run: RunDirectory, arguments: list[str], renewed: Renewal) -> None:
    assert given(run, *arguments) == renewed


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits"],
        ["--data", "digits", "--seed", "4", "--split-seed", "0"],
        ["--objectives", "accuracy, latency", "--metric", "accuracy", "--sampler", "front"],
        ["--epochs", "10", "--batch-size", "64", "--set", "optimizer=adamw", "--set", "precision=auto"],
        ["--init", "scratch", "--device", "auto", "--latency", "mode:eager,threads:1"],
        ["--train-device", "cpu", "--latency", "device:cpu"],
        ["--cpus-per-trial", "1", "--gpus-per-trial", "0"],
        ["--trials", "12", "--target", "edge=batch:8,max:5ms"],
    ],
)
def test_what_the_run_has_already_may_be_given_again(run: RunDirectory, arguments: list[str]) -> None:
    assert given(run, *arguments).applied(run.settings) == run.settings


@pytest.mark.parametrize(
    ("arguments", "flags", "pasted"),
    [
        (["--seed", "5"], "--seed", ["--seed", "5"]),
        (["cifar"], "SPACE", ["search", "cifar"]),
        (["--data", "fashion_mnist"], "--data", ["--data", "fashion_mnist"]),
        (["--sampler", "tpe", "--stop-early"], "--sampler and --stop-early", ["--stop-early", "--sampler", "tpe"]),
        (["--epochs", "3"], "--epochs", ["--epochs", "3"]),
        (["--set", "dropout=0.2"], "--set", ["--set", "dropout=0.2"]),
        (["--latency", "batch:2"], "--latency", ["--latency", "batch:2"]),
        (["--latency", "device:cuda"], "--latency", ["--latency", "device:cuda"]),
        (["--train-device", "cuda"], "--train-device", ["--train-device", "cuda"]),
        (["--init", "efficientnet_lite0"], "--init", ["--init", "efficientnet_lite0"]),
        (["--objectives", "accuracy,macs"], "--objectives", ["--objectives", "accuracy,macs"]),
        (["--target", "edge=batch:4,max:5ms"], "--target", ["--target", "edge=batch:4,max:5ms"]),
        (["--target", "phone=max:5ms"], "--target", ["--target", "phone=max:5ms"]),
        (["--enqueue", "largest"], "--enqueue", ["--enqueue", "largest"]),
        (["--out", "other place"], "--out", ["--out", "other place"]),
        (["--seed", "5", "--time-budget", "90s", "--max-latency", "2ms"], "--seed", ["--time-budget", "90"]),
    ],
)
def test_what_cannot_change_is_named_with_the_search_that_takes_the_trials_over(
    run: RunDirectory,
    arguments: list[str],
    flags: str,
    pasted: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        given(run, *arguments)
    told = str(refused.value)
    assert told.startswith(
        f"{flags} cannot change in a search that is resumed, which may be given --trials, --time-budget"
    )
    words = shlex.split(told.rpartition(": ")[2])
    assert words[:2] == ["nas", "search"]
    assert words[-2:] == ["--warm-start", str(run.path)]
    assert "--resume" not in words
    assert set(pasted) <= set(words)
    assert ("--out" in words) == ("--out" in arguments)
    # It is read as a command, and asks for what both commands did, the later one first.
    search = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    parameters = search.make_context("search", words[2:]).params
    asked: dict[str, Any] = search.make_context("search", list(arguments)).params
    before: dict[str, Any] = search.make_context("search", shlex.split(COMMAND)[2:]).params
    default: dict[str, Any] = search.make_context("search", []).params
    for name, value in parameters.items():
        if name == "warm_start":
            continue
        expected = asked[name] if asked[name] != default[name] else before[name]
        assert value == (default[name] if name == "out" and "--out" not in arguments else expected), name


def test_a_run_that_trains_elsewhere_than_it_measures_keeps_both_devices(run: RunDirectory) -> None:
    evaluation = replace(run.settings.evaluation, train_device="cuda")
    split = RunDirectory(run.path, replace(run.content, settings=replace(run.settings, evaluation=evaluation)))
    for flags in (["--train-device", "cuda"], ["--train-device", "auto"], ["--device", "cuda"]):
        assert given(split, *flags, "--latency", "device:cpu,mode:eager").applied(split.settings) == split.settings
    for flags in (["--train-device", "cpu"], ["--latency", "device:cuda"]):
        with pytest.raises(InputError, match=f"^{flags[0]} cannot change"):
            given(split, *flags)


@pytest.mark.parametrize("command", ["nas search", "nas search --data digits --trials 4"])
def test_a_space_that_was_chosen_by_the_images_is_named_for_other_ones(run: RunDirectory, command: str) -> None:
    started = RunDirectory(run.path, replace(run.content, provenance=replace(run.provenance, command=command)))
    with pytest.raises(InputError, match=r"nas search digits .*--data photos"):
        given(started, "--data", "photos")


def test_the_sentence_and_exit_code_of_the_command(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], make_run: RunFactory
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["search", "--resume", str(run.path), "--seed", "9"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("nas: --seed cannot change in a search that is resumed")


def test_a_refusal_tells_nothing_of_what_would_have_changed(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "search", "--resume", run.path, "--trials", "40", "--confirm", "0.9")
    assert (code, out, err) == (2, "", "nas: --confirm 0.9: needs a share from 0 to 0.5\n")


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_under_other_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    flags = ["digits", "--objectives", "accuracy,macs", "--sampler", "random", "--epochs", "1", "--confirm", "0"]
    command = [*NAS, "search", *flags, "--device", "cpu", "--max-concurrent", "1"]
    command += ["--latency", GLANCE]
    with log.open("wb") as file:
        driver = subprocess.Popen(
            [*command, "--trials", "40", "--max-params", "9k", "--out", str(out)],
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_records(driver, out, 4, log)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    before = open_run(out).recorded()
    macs = sorted(record.evaluation.cost.macs for record in before if record.evaluation.cost)
    limit = macs[len(macs) // 2]
    again = ["search", "--resume", str(out), "--objectives", "accuracy,macs"]
    told = nas(capsys, *again, "--max-macs", str(limit), "--max-params", "20k", "--trials", str(len(before) + 3))
    assert f"Max MACs {limit:,}, before none" in told
    assert "Max params 20,000, before 9,000" in told
    run = open_run(out)
    records = check_consistent(run)
    assert run.recorded()[: len(before)] == before
    assert {r.number for r in records} == {
        r.number for r in run.recorded()
    }  # none was rejected, so none is a candidate again
    over = [record for record in records if record.over_limit]
    assert over
    assert all(record.number in {each.number for each in before} for record in over)
    assert sum(record.counts for record in records) == len(before) + 3
    new = [r for r in records if r.number not in {each.number for each in before} and r.outcome is Outcome.DONE]
    assert new
    assert all(record.objectives["macs"] <= limit for record in new)
    shown = nas(capsys, "front", str(out), "--csv")
    assert all(record.digest[:12] not in shown for record in over)
    assert "macs at most" in nas(capsys, "status", str(out))
