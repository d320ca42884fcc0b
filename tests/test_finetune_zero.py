"""Candidates that are scored with the weights of a supernet as they are: `--finetune 0`."""

from __future__ import annotations

import io
import json
import random
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import call
from conftest import GLANCE, RunFactory, check_consistent

from nas.cli.app import main
from nas.data.sets import load_data
from nas.export.folder import ExportOptions, export_candidate
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.sources import SUPERNET
from nas.runs.picks import pick
from nas.runs.record import AuditRecord, Evaluation, Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.evaluate import evaluate_candidate, starting_network
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.loop import predict
from nas.training.recipe import Recipe
from nas.views.audit_text import counts
from nas.views.page.views import curves_figure
from nas.workflows.fidelity.audit import audit_of, full_recipe, trainings_of
from nas.workflows.supernet import plan_supernet, train_supernet

SPACE = load_space("digits")
NONE = Recipe(epochs=0)
QUICK = LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1)


TINY = """
name: tiny
data: digits
input: {channels: 1, size: 8}
stem: {kernel_size: 3, stride: 1, out_channels: 8}
stages:
  - {depth: [1, 2], out_channels: 16, stride: 2, kernel_size: [3, 5], dilation: 1, expansion: [1, 2], separable: true}
head_channels: 32
"""
"""Twenty networks, so that seconds of training are enough for all of them."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def supernet(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.02, precision="float32")
    plan = plan_supernet(
        tmp_path_factory.mktemp("supernets") / "tiny", load_space(str(tiny)), "digits", recipe, random=0
    )
    assert train_supernet(plan) is None
    return plan.folder


@pytest.fixture(scope="module")
def searched(tiny: Path, supernet: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, str]:
    """A search of four candidates, and what it printed."""
    out, told = tmp_path_factory.mktemp("search") / "run", io.StringIO()
    command = ["search", str(tiny), "--init", f"{SUPERNET}{supernet}", "--finetune", "0", "--trials", "4"]
    command += ["--objectives", "accuracy,macs", "--max-concurrent", "1", "--latency", GLANCE, "--out", str(out)]
    with redirect_stdout(told), pytest.raises(SystemExit) as end:
        main(command)
    assert not end.value.code
    return open_run(out), " ".join(told.getvalue().split())


def nas(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code, out, err = call(capsys, *arguments)
    return code, " ".join(out.split()), " ".join(err.split())


def no_optimiser(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing is to be optimised")


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


# ---------------------------------------------------------------- one candidate


def test_a_candidate_scores_what_it_inherits_and_is_not_changed(
    tiny: Path, supernet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", no_optimiser)
    architecture = load_space(str(tiny)).largest
    digits = load_data("digits", channels=1, size=8).without_test()
    settings = EvaluationSettings(NONE, QUICK, init=f"{SUPERNET}{supernet}")
    told: list[EpochMetrics] = []
    found = evaluate_candidate(architecture, digits, settings, told.append)
    assert found.evaluation.outcome is Outcome.DONE, found.evaluation.reason
    (only,) = found.evaluation.history
    assert told == [only]
    assert (only.epoch, only.train_loss, only.learning_rate) == (0, None, None)
    assert only.score > 0.3  # chance is 0.1
    assert found.evaluation.epochs == 0
    data = DeviceData(digits, "cpu")
    network, _ = starting_network(architecture, data, settings)
    predicted = predict(network, data, data.validation, 8)
    assert only.score == (predicted.predictions == digits.validation.labels).mean()
    assert found.network is not None
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)


@pytest.mark.usefixtures("brief_measurements")
def test_nas_evaluate_says_that_nothing_was_trained(
    tiny: Path, supernet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--space", str(tiny), "--init", f"{SUPERNET}{supernet}", "--finetune", "0", "--device", "cpu")
    code, out, err = nas(capsys, "evaluate", "smallest", *given)
    assert code == 0, err
    assert "without fine-tuning validation loss" in out
    assert "epoch" not in out
    code, out, err = nas(capsys, "evaluate", "smallest", *given, "--json")
    assert code == 0, err
    history = json.loads(out, parse_constant=no_constant)["history"]
    assert [(epoch["epoch"], epoch["train_loss"]) for epoch in history] == [(0, None)]


# ---------------------------------------------------------------- a search


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_scores_each_candidate_once_and_confirms_none(searched: tuple[RunDirectory, str]) -> None:
    run, told = searched
    records = check_consistent(run)
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert len(done) == 4
    for record in done:
        (only,) = record.evaluation.history
        assert only.epoch == 0
        assert only.score == record.objectives["accuracy"]
    assert max(record.objectives["accuracy"] for record in done) > 0.3
    for line in (run.path / "trials.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=no_constant)
    assert (run.settings.confirm, run.confirmations()) == (0.0, [])
    assert "4 candidates scored without fine-tuning" in told
    assert "4 candidates scored (" in told
    assert "No forecast" not in told
    assert "0 epochs" not in told


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_its_report_and_page_say_that_nothing_was_trained(searched: tuple[RunDirectory, str]) -> None:
    run, _ = searched
    report = run.report_path.read_text(encoding="utf-8")
    body = report[report.index("<body>") : report.index("<script")]
    assert "Candidates scored without fine-tuning, with the weights of supernet:" in body
    assert "scored candidates" in body
    assert "Learning curves" not in body
    assert "0 epochs" not in body
    figure = curves_figure({record.digest: record for record in run.records()}, run.settings.evaluation.score)
    assert "no learning curve" in figure.to_json()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_it_is_gone_on_with(searched: tuple[RunDirectory, str], tmp_path: Path) -> None:
    before, _ = searched
    folder, told = Path(shutil.copytree(before.path, tmp_path / "run")), io.StringIO()
    with redirect_stdout(told), pytest.raises(SystemExit) as end:
        main(["search", "--resume", str(folder), "--trials", "5"])
    assert not end.value.code
    records = check_consistent(open_run(folder))
    assert records[: len(before.records())] == before.records()
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert [len(record.evaluation.history) for record in done] == [1] * 5


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_is_exported_tells_where_its_weights_are_from(searched: tuple[RunDirectory, str], tmp_path: Path) -> None:
    run, _ = searched
    record = pick(run.records(), run.settings.objectives, "most-accurate")
    folder = export_candidate(run, record, tmp_path / "model", ExportOptions(measure=False))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "- Training: none of its own: the weights `supernet:" in card
    assert "The weights in this folder are those of the search, without fine-tuning:" in card
    assert json.loads((folder / "model.json").read_text())["measured"]["epochs"] == 0


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_candidate_is_trained_in_full(
    searched: tuple[RunDirectory, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(searched[0].path, tmp_path / "run")
    code, out, err = nas(capsys, "train", str(folder), "--pick", "fastest", "--epochs", "1", "--device", "cpu")
    assert code == 0, err
    assert "1 epoch (the search: none), from the search's weights" in out
    (record,) = open_run(folder).training_records()
    assert len(record.losses) == len(record.evaluation.history) == 1


# ---------------------------------------------------------------- a fidelity check


def audited_run(make_run: RunFactory, full: Recipe) -> RunDirectory:
    """Eight candidates that were scored, and two full trainings of each."""
    run = make_run(SearchSettings(SPACE, "digits", evaluation=EvaluationSettings(NONE, init=f"{SUPERNET}x")))
    for number in range(8):
        architecture = SPACE.architecture(SPACE.sample(random.Random(number))).canonical
        score, ms = 0.5 + number / 20, 1.0 + number
        latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), QUICK)
        done = Evaluation(Outcome.DONE, None, architecture_cost(architecture, 10), latency, (at(0, score),))
        values = {"accuracy": score, "latency": ms}
        trial = TrialRecord(number, architecture.digest, str(architecture), architecture, {}, done, values)
        run.append(trial)
        for training in trainings_of(trial, NONE, full, 0):
            history = tuple(at(epoch, score + epoch / 1000) for epoch in range(1, full.epochs + 1))
            evaluation = Evaluation(Outcome.DONE, history=history)
            run.append_audit(AuditRecord(number, trial.digest, training.recipe, training.seed, evaluation))
    return run


def at(epoch: int, score: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0 if epoch else None, 1.0, score, {"accuracy": score}, 1.0, 1.0)


def test_an_audit_takes_the_score_as_it_is_for_what_would_be_the_same_again(make_run: RunFactory) -> None:
    run = audited_run(make_run, Recipe(epochs=3))
    assert len(run.audit_records()) == 16
    audit = audit_of(run)
    assert audit is not None
    assert (len(audit.audited), audit.unfinished) == (8, 0)
    assert all(candidate.brief[0] == candidate.brief[1] for candidate in audit.audited)
    assert audit.verdict.sentence.startswith("Scoring without fine-tuning ranks well enough")
    assert "trained twice for 3 epochs, with new seeds. The search scored them without fine-tuning" in counts(audit)


@pytest.mark.parametrize(("steps", "wanted"), [(None, "to 2 epochs"), (9, "to 1 epoch")], ids=["curves", "guess"])
def test_an_audit_that_finds_a_loss_asks_for_epochs(make_run: RunFactory, steps: int | None, wanted: str) -> None:
    from nas.workflows.fidelity.audit import conclude

    run = audited_run(make_run, Recipe(epochs=3))
    audit = audit_of(run)
    assert audit is not None
    rng = np.random.default_rng(0)
    audited = []
    for number, candidate in enumerate(audit.audited * 6):
        luck, final = rng.normal(size=2), number / 50
        curves = ((luck[0], final, final), (luck[1], final, final))
        brief = rng.normal()
        audited.append(replace(candidate, brief=(brief, brief), full=(final, final), curves=curves))
    verdict = conclude(replace(NONE, steps=steps), Recipe(epochs=3), audited, ("accuracy", "latency")).verdict
    assert verdict.kind == "raise"
    assert f"Raise the budget {wanted}: scoring without fine-tuning ranks with τ" in verdict.sentence


def test_a_full_recipe_is_four_times_the_default_where_nothing_was_trained() -> None:
    assert full_recipe(NONE).epochs == 4 * Recipe().epochs
    assert full_recipe(NONE, 7).epochs == 7


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--finetune", "0"], "--epochs/--finetune 0: with --init scratch random weights would be scored"),
        (["--epochs", "0"], "--epochs/--finetune 0: with --init scratch random weights would be scored"),
        (["--set", "epochs=0"], "--epochs/--finetune 0: with --init scratch random weights would be scored"),
        (["--recipe", "zero.yaml"], "--epochs/--finetune 0: with --init scratch random weights would be scored"),
        (["--finetune", "-1"], "--epochs/--finetune -1: must be at least 0"),
        (["--finetune", "0", "--init", "supernet:SUPERNET", "--stop-early"], "--stop-early: a training of 0 epochs"),
        (["--finetune", "0", "--init", "supernet:SUPERNET", "--confirm", "0.2"], "--confirm 0.2: without fine-tuning"),
        (
            ["--finetune", "0", "--init", "supernet:OTHER"],
            "was trained for 10 classes (cat, 1, 2, 3, …), and digits has",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_search_that_would_score_what_is_random_or_makes_no_sense_is_refused(
    tiny: Path,
    supernet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zero.yaml").write_text("epochs: 0\n")
    other = Path(shutil.copytree(supernet, tmp_path / "other"))
    known = yaml.safe_load((other / "supernet.yaml").read_text())
    (other / "supernet.yaml").write_text(yaml.safe_dump(known | {"classes": ["cat", *known["classes"][1:]]}))
    given = [flag.replace("SUPERNET", str(supernet)).replace("OTHER", str(other)) for flag in flags]
    code, _, err = nas(capsys, "search", str(tiny), "--device", "cpu", "--out", "run", *given)
    assert (code, err.count("nas: ")) == (2, 1)
    assert sentence in err
    assert not (tmp_path / "run").exists()


def test_a_supernet_of_a_newer_version_is_said_to_be_one(
    tiny: Path, supernet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = Path(shutil.copytree(supernet, tmp_path / "newer"))
    known = yaml.safe_load((newer / "supernet.yaml").read_text())
    (newer / "supernet.yaml").write_text(yaml.safe_dump(known | {"schema": 99}))
    code, _, err = nas(capsys, "search", str(tiny), "--init", f"supernet:{newer}", "--out", str(tmp_path / "run"))
    assert (code, err) == (2, f"nas: --init: {newer / 'supernet.yaml'}: written by a newer version of nas")


def test_one_candidate_with_random_weights_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = nas(capsys, "evaluate", "smallest", "--set", "epochs=0", "--device", "cpu")
    assert code == 2
    assert "random weights would be scored; use --init supernet:DIR" in err


@pytest.mark.parametrize(
    "command",
    [["train", "RUN", "--device", "cpu"], ["audit", "RUN"], ["supernet", "train", "digits", "--out", "new"]],
    ids=lambda command: " ".join(command[:2]),
)
def test_what_trains_in_full_needs_an_epoch(
    make_run: RunFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = audited_run(make_run, Recipe(epochs=3))
    given = [str(run.path) if word == "RUN" else word for word in command]
    code, _, err = nas(capsys, *given, "--epochs", "0")
    assert code == 2
    assert "--epochs 0: must be at least 1" in err
    code, _, err = nas(capsys, *given, "--set", "epochs=0")
    assert code == 2
    assert "epochs 0: this training needs at least 1" in err


def test_baselines_are_not_trained_by_a_recipe_that_trains_nothing(
    make_run: RunFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = audited_run(make_run, Recipe(epochs=3))
    code, _, err = nas(capsys, "baseline", str(run.path), "--train", "--networks", "resnet18")
    assert code == 2
    assert "--train: the run scored its candidates without fine-tuning" in err
