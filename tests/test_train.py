"""Full trainings: gone on with to the bit, each tested once, recorded, shown; with real processes that are killed."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import nas
import nas.workflows.train
from nas.cli.app import main
from nas.common.files import weights_content
from nas.common.jsonl import json_line
from nas.data.sets import ImageData, Split, load_data
from nas.latency.device import device_name
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.models.seen import together
from nas.runs.record import Evaluation, Outcome, TrainingRecord, TrialRecord
from nas.runs.replica import fetch_run, replicated
from nas.runs.run_file import Provenance
from nas.runs.run_images import RunImages
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.runs.trained import best_training
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.tasks.classification import CLASSIFICATION
from nas.tasks.classification_report import split_report
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.loop import TrainingState, finetune, predict
from nas.training.recipe import Recipe
from nas.training.unseen import seen_text
from nas.views.page.candidate import figures
from nas.views.page.runs import LiveRun
from nas.views.report import write_report
from nas.views.reported import run_training
from nas.views.terminal.pulse import Pulse
from nas.views.terminal.training_progress import BarProgress, LineProgress
from nas.workflows.train import FullTraining, TrainingProgress, plan_training, recipe_on

SPACE = load_space("digits")
HOSTILE = "<img src=x onerror=alert(1)>"
BRIEF = Recipe(epochs=1, batch_size=256, precision="float32")
QUICK = EvaluationSettings(BRIEF, LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1))


def digits_without_test_split() -> ImageData:
    return replace(load_data("digits", channels=1, size=8), name="no-test", test=None)


def train(capsys: pytest.CaptureFixture[str], run: RunDirectory, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, and standard error without line breaks of `nas train` on the CPU."""
    with pytest.raises(SystemExit) as end:
        main(["train", str(run.path), "--device", "cpu", *arguments])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, " ".join(err.split())


def trial(number: int, accuracy: float, ms: float) -> TrialRecord:
    drawn = SPACE.architecture(SPACE.sample(random.Random(number)))
    architecture = (SPACE.smallest, SPACE.backbone, drawn)[number].canonical
    latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, device_name("cpu"), (1, 1, 8, 8), QUICK.protocol)
    epoch = EpochMetrics(1, 1.0, 1.0, accuracy, {"accuracy": accuracy}, 1.0, 0.1)
    evaluation = Evaluation(Outcome.DONE, None, Cost(1000, 100), latency, (epoch,))
    objectives = {"accuracy": accuracy, "latency": ms}
    return TrialRecord(number, architecture.digest, str(architecture), architecture, {}, evaluation, objectives)


def searched(path: Path, data: str = "digits") -> RunDirectory:
    """A run of three candidates, of which the last one's weights are not kept, as a search would leave it."""
    images = load_data(data, channels=1, size=8)
    provenance = Provenance(
        time.time(), "nas search", {}, "here", device_name("cpu"), 2, None, images.fingerprint(), images.classes,
        len(images.train), len(images.validation), images.mean, images.std,
    )  # fmt: skip
    known = RunImages(images.train.image_hashes, images.validation.image_hashes, together())
    run = RunDirectory.create(path, SearchSettings(SPACE, data, evaluation=QUICK), provenance, images=known)
    for number in range(3):
        record = trial(number, 0.5 + number / 10, 1.0 + number)
        run.append(record)
        if number < 2:
            run.save_weights(record.digest, weights_content(build(record.architecture, 10, seed=7).state_dict()))
    return run


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return searched(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(_made: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the run for one test."""
    return open_run(shutil.copytree(_made.path, tmp_path / "run"))


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits", channels=1, size=8)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=3, batch_size=256),
        Recipe(epochs=4, steps=14, batch_size=256, optimizer="sgd", schedule="cosine", ema=0.9, dropout=0.2, balance="sampling"),
        Recipe(epochs=3, batch_size=256, trainable="gradual", clip_norm=0.1, mixup=0.2, cutmix=1.0, balance="loss"),
        Recipe(epochs=3, batch_size=256, cutout=0.2, colour=0.2, resized_crop=0.6, hflip=True, patience=3),
    ],
)  # fmt: skip
def test_a_training_goes_on_behind_any_epoch_as_if_nothing_had_happened(digits: ImageData, recipe: Recipe) -> None:
    data, metric = DeviceData(digits.without_test(), "cpu"), CLASSIFICATION.load_metric("accuracy")
    files: list[bytes] = []

    def keep(metrics: EpochMetrics, state: TrainingState) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        files.append(file.getvalue())

    def timeless(epochs: list[EpochMetrics]) -> list[EpochMetrics]:
        return [replace(epoch, seconds=0.0, images_per_s=0.0) for epoch in epochs]

    whole = build(SPACE.smallest, 10, seed=1)
    history = list(finetune(whole, data, 8, recipe, metric, seed=5, keep=keep))
    assert len(files) == len(history) - 1 >= 2
    for epoch, file in enumerate(files, 1):
        state = torch.load(io.BytesIO(file), weights_only=True)
        network = build(SPACE.smallest, 10, seed=2)  # other weights, which the state replaces
        rest = list(finetune(network, data, 8, recipe, metric, seed=5, resume=state))
        assert timeless(rest) == timeless(history[epoch:])
        for name, tensor in whole.state_dict().items():
            assert torch.equal(network.state_dict()[name], tensor), name


def test_without_a_metric_the_validation_part_is_not_looked_at(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.training.loop.predict", lambda *_, **__: pytest.fail("looked at"))
    recipe = Recipe(epochs=3, batch_size=256, patience=1)
    history = list(finetune(build(SPACE.smallest, 10), DeviceData(digits, "cpu"), 8, recipe, None, seed=0))
    assert len(history) == 3
    assert all(np.isnan([epoch.score, epoch.validation_loss]).all() for epoch in history)


LONG = ("--pick", "fastest", "--epochs", "20")


def kill_amid(run: RunDirectory, checkpoint: Path, log: Path) -> None:
    """Begin, or go on, with a training in a process of its own, and kill it once another epoch is kept."""
    before = checkpoint.read_bytes() if checkpoint.is_file() else None
    command = [sys.executable, "-m", "nas.cli", "train", str(run.path), "--device", "cpu", *LONG]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    deadline = time.monotonic() + 100
    while not checkpoint.is_file() or checkpoint.read_bytes() == before:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.subprocess
@pytest.mark.slow
def test_a_training_that_was_stopped_and_killed_ends_with_the_weights_of_one_that_was_not(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = open_run(shutil.copytree(run.path, tmp_path / "alone"))
    (training,) = plan_training(run, [run.records()[0]], recipe_on(run, "cpu", 20), device="cpu").trainings
    checkpoint = run.checkpoint_path(training.key)

    with monkeypatch.context() as patch:
        patch.setattr(LineProgress, "epoch", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        code, out, _ = train(capsys, run, *LONG)
    assert code == 75
    assert "Ended early: stopped by SIGTERM. The same command goes on." in out
    assert checkpoint.is_file()

    kill_amid(run, checkpoint, tmp_path / "log")
    assert "goes on after epoch 1 of 20" in (tmp_path / "log").read_text()
    assert run.training_records() == []

    code, out, err = train(capsys, run, *LONG)
    assert code == 0, err
    assert "goes on after epoch" in out
    assert not checkpoint.exists()
    assert train(capsys, alone, *LONG)[0] == 0
    (after,), (whole,) = run.training_records(), alone.training_records()
    assert run.trained_weights(after).read_bytes() == alone.trained_weights(whole).read_bytes()
    assert (after.losses, after.score, after.before, after.after) == (
        whole.losses,
        whole.score,
        whole.before,
        whole.after,
    )
    assert [epoch.epoch for epoch in after.evaluation.history] == list(range(1, 21))
    assert after.evaluation.history[-1].score > 0.2  # chance is 0.1


def test_a_checkpoint_that_cannot_be_read_is_said_in_a_sentence(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (training,) = plan_training(run, [run.records()[0]], device="cpu").trainings
    run.checkpoint_path(training.key).parent.mkdir()
    run.checkpoint_path(training.key).write_bytes(b"torn")
    code, _, err = train(capsys, run, "--pick", "fastest")
    assert code == 2
    assert f"{training.key}.checkpoint: cannot be read, so that the training cannot go on; delete it" in err


@pytest.mark.parametrize("links", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_was_planned_is_trained_though_the_search_deletes_its_weights_meanwhile(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: os.link(run.path, run.path / "no"))  # EPERM, as on exFAT
    plan = plan_training(run, run.records()[:2], BRIEF, device="cpu")
    begun = [run.weights_path(training.trial.digest).read_bytes() for training in plan.trainings]

    class Search(TrainingProgress):
        """Its front moved on when the first training began."""

        def begin(self, training: FullTraining, epoch: int) -> None:
            for number in range(4):
                run.save_weights(f"other{number}", b"weights")
            run.prune_weights(())
            assert not run.weights_path(training.trial.digest).exists()
            assert run.start_path(training.key).read_bytes() == begun[plan.trainings.index(training)]

    assert nas.workflows.train.run_training(plan, Search()) is None
    assert [record.evaluation.outcome for record in run.training_records()] == [Outcome.DONE] * 2
    assert all(not run.start_path(training.key).exists() for training in plan.trainings)
    assert plan_training(run, run.records()[:2], BRIEF, device="cpu").missing() == []


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_each_training_is_tested_once_and_recorded_once(
    run: RunDirectory, digits: ImageData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = run.records()[:2]
    asked = ["--pick", f"fastest,{second.digest[:8]}", "--seeds", "2", "--epochs", "2"]
    with run.locked():  # beside a search
        code, out, err = train(capsys, run, *asked)
    assert code == 0, err
    records = run.training_records()
    assert [(record.digest, record.seed) for record in records] == [
        (first.digest, 0), (first.digest, 1), (second.digest, 0), (second.digest, 1),
    ]  # fmt: skip
    assert "Training 2 candidates, each from 2 seeds, by a recipe of 2 epochs (the search: 1)" in " ".join(out.split())
    assert f"{first.digest[:8]} seed 1: epoch 2/2" in out
    assert out.count("confusion") + out.count("true class ↓") == 2  # one a candidate
    assert out.count("macro average") == 2
    assert out.count("mean ") == 2

    data = DeviceData(digits, "cpu")
    assert data.test is not None
    assert digits.test is not None
    for record in records:
        assert record.evaluation.outcome is Outcome.DONE
        assert record.recipe == replace(BRIEF, epochs=2)
        network = build((first if record.digest == first.digest else second).architecture, 10)
        for state, report in (
            (run.load_weights(record.digest), record.before),
            (run.load_trained(record), record.after),
        ):
            network.load_state_dict(state)
            predicted = predict(network, data, data.test, 8).predictions
            assert split_report(digits.test.labels, predicted, digits.classes) == report
        assert (
            predict(network, data, data.validation, 8).predictions == digits.validation.labels
        ).mean() == record.score
        assert record.evaluation.latency is not None
        assert record.evaluation.latency.protocol == QUICK.protocol
        assert not record.evaluation.latency.cached
    assert len({run.trained_weights(record).read_bytes() for record in records}) == 4

    lines = (run.path / "trainings.jsonl").read_bytes()
    for name in ("finetune", "predict", "measure"):
        monkeypatch.setattr(nas.workflows.train, name, lambda *_, **__: pytest.fail("done again"))
    code, out, _ = train(capsys, run, *asked)
    assert code == 0
    assert "4 of 4 trainings recorded already" in out
    assert out.count("macro average") == 2
    assert (run.path / "trainings.jsonl").read_bytes() == lines
    code, out, _ = train(capsys, run, *asked, "--json")
    shown = json.loads(out)["trainings"]
    assert [row["score"] for row in shown] == [record.score for record in records]
    assert [row["brief_score"] for row in shown] == [0.5, 0.5, 0.6, 0.6]
    assert all(Path(row["weights"]).is_file() for row in shown)
    page = run.report_path.read_text(encoding="utf-8")
    assert "Trained in full" in page
    assert page.count("Test split, class by class") == 2


def test_with_the_validation_part_nothing_is_left_to_score_by(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(network: Any, data: DeviceData, *rest: Any, **options: Any) -> Any:
        seen.append(len(data.train))
        return finetune(network, data, *rest, **options)

    monkeypatch.setattr(nas.workflows.train, "finetune", watched)
    asked = ["--pick", "fastest", "--epochs", "2", "--set", "patience=1", "--with-validation"]
    code, out, err = train(capsys, run, *asked)
    assert code == 0, err
    assert "no score is left, and the last epoch counts" in out
    assert "validation accuracy" not in out
    assert "nan" not in out.lower().replace("nas", "")
    (record,) = run.training_records()
    assert seen == [run.provenance.train_images + run.provenance.validation_images]
    assert (record.score, record.evaluation.history, len(record.losses)) == (None, (), 2)
    assert record.recipe.patience == 0
    assert record.after is not None

    def never(constant: str) -> float:
        pytest.fail(f"{constant} is not JSON")

    json.loads((run.path / "trainings.jsonl").read_text(), parse_constant=never)


@pytest.mark.slow
def test_weights_to_begin_with(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    most_accurate = run.records()[2]
    asked = ["--pick", "most-accurate", "--epochs", "1"]
    code, _, err = train(capsys, run, *asked)
    assert code == 2
    assert f"--from search: the search did not keep the weights of {most_accurate.digest}" in err
    assert "use --from scratch" in err
    code, _, err = train(capsys, run, *asked, "--from", "init")
    assert code == 2
    assert "--from init: the run's candidates inherited nothing; use search or scratch" in err
    assert train(capsys, run, *asked, "--from", "scratch", "--seeds", "2")[0] == 0
    first, second = run.training_records()
    assert first.before != second.before  # each seed has random weights of its own
    assert nas.best_training(run, most_accurate.digest) in (first, second)


@pytest.mark.subprocess
def test_inherited_weights_are_those_of_the_search(
    run: RunDirectory, digits: ImageData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder that `nas export` made: the network itself, so that its training begins with exactly its weights."""
    backbone = run.records()[1]
    folder = nas.export_candidate(run, backbone, tmp_path / "exported", nas.ExportOptions(measure=False))
    settings = replace(run.settings, evaluation=replace(run.settings.evaluation, init=str(folder)))
    inheriting = run.with_settings(settings)
    run.weights_path(backbone.digest).unlink()
    code, _, err = train(capsys, run, "--pick", backbone.digest[:8], "--epochs", "1", "--from", "init")
    assert code == 0, err
    (record,) = inheriting.training_records()
    network = build(backbone.architecture, 10, seed=7).eval()
    data = DeviceData(digits, "cpu")
    assert data.test is not None
    assert digits.test is not None
    predicted = predict(network, data, data.test, 8).predictions
    assert record.before == split_report(digits.test.labels, predicted, digits.classes)
    assert (record.start, record.evaluation.fresh) == ("init", ())


def test_a_training_that_fails_is_said_and_tried_again(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--pick", "fastest", "--epochs", "2", "--set", "learning_rate=1e30"]
    for times in (1, 2):
        code, out, _ = train(capsys, run, *asked)
        assert code == 1
        assert "trial 0, seed 0, failed: " in out
        assert [record.evaluation.outcome for record in run.training_records()] == [Outcome.FAILED] * times
    assert all(record.after is None for record in run.training_records())
    assert not list((run.path / "trained").glob("*.safetensors"))
    assert "Trained in full" not in run.report_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pick", "latency<=1us"], "--pick 'latency<=1us': no trained candidate is within it"),
        (["--set", "epocs=9"], "--set epocs=9: unknown key 'epocs'"),
        (["--set", "precision=float16"], "precision float16: only on cuda"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--recipe", "none.yaml"], "--recipe none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, _, err = train(capsys, run, *arguments)
    assert code == 2
    assert sentence in err
    assert not (run.path / "trainings.jsonl").exists()


def test_changed_data_and_a_second_process_are_refused(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    (training,) = plan_training(run, [run.records()[0]], device="cpu").trainings
    with run.training_locked(training.key):
        code, _, err = train(capsys, run, "--pick", "fastest")
    assert code == 2
    assert "another process is at this training already" in err
    text = (run.path / "run.yaml").read_text()
    (run.path / "run.yaml").write_text(text.replace(run.provenance.data_fingerprint, "f" * 16))
    code, _, err = train(capsys, run, "--pick", "fastest")
    assert code == 2
    assert "the data set digits has changed since the search began" in err
    told = text.replace("test_fingerprint: null", "test_fingerprint: ffffffffffffffff")
    assert told != text
    (run.path / "run.yaml").write_text(told)
    code, _, err = train(capsys, run, "--pick", "fastest")
    assert code == 2
    assert "the test split of the data set digits has changed since the search began" in err


def test_data_without_a_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = searched(tmp_path / "run", "test_train:digits_without_test_split")
    code, out, err = train(capsys, run, "--pick", "fastest", "--epochs", "1")
    assert code == 0, err
    assert "The data set has no test split" in out
    (record,) = run.training_records()
    assert (record.before, record.after) == (None, None)
    assert record.score is not None


def test_a_terminal_has_a_bar_and_keeps_a_line_for_each_training(run: RunDirectory) -> None:
    shown = io.StringIO()
    plan = plan_training(run, [run.records()[0]], replace(BRIEF, epochs=2), device="cpu")
    terminal = Pulse(Console(file=shown, force_terminal=True, width=120), "nothing")
    progress = BarProgress(terminal, plan.missing(), run.settings.evaluation)
    assert run_training(plan, progress) is None
    (record,) = run.training_records()
    for epoch in (1, 2):
        assert f"epoch {epoch}/2, training loss" in shown.getvalue()
    assert f"{record.digest[:8]} seed 0: trained in" in shown.getvalue()
    assert shown.getvalue().rfind("\x1b[?25h") > shown.getvalue().rfind("\x1b[?25l") >= 0  # the cursor is back


# ---------------------------------------------------------------- what came of it


def recorded(seed: int, score: float, test: float, *, with_validation: bool = False, epochs: int = 2) -> TrainingRecord:
    """Two images a class: a test accuracy is a multiple of 0.25."""
    labels = np.array([0, 0, 1, 1])
    wrong = np.arange(4) >= 4 * test
    report = split_report(labels, np.where(wrong, 1 - labels, labels), [HOSTILE, "b"])
    history = () if with_validation else (EpochMetrics(1, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0),)
    evaluation = Evaluation(Outcome.DONE, history=history)
    recipe = replace(BRIEF, epochs=epochs)
    return TrainingRecord(
        0, trial(0, 0.5, 1.0).digest, recipe, seed, "search", with_validation, f"key{seed}", evaluation, (1.0,), report, report
    )  # fmt: skip


def test_the_best_training_is_that_of_the_best_validation_score_never_of_the_test_part(run: RunDirectory) -> None:
    digest = run.records()[0].digest
    assert best_training(run, digest) is None
    for record in (recorded(0, 0.8, 1.0), recorded(1, 0.9, 0.25), recorded(2, 0.7, 1.0)):
        run.append_training(record)
    best = best_training(run, digest)
    assert best is not None
    assert best.seed == 1
    for seed, epochs, test in ((0, 3, 1.0), (1, 5, 1.0), (0, 5, 0.5)):
        run.append_training(recorded(seed, 0.0, test, with_validation=True, epochs=epochs))
    run.append_training(replace(recorded(3, 0.99, 1.0), evaluation=Evaluation(Outcome.FAILED, "out of memory")))
    best = best_training(run, digest)
    assert best is not None
    assert (best.seed, best.recipe.epochs, best.with_validation) == (0, 5, True)
    assert best_training(run, run.records()[1].digest) is None


def test_the_live_page_shows_a_training_as_soon_as_it_is_recorded(run: RunDirectory) -> None:
    live = LiveRun(run)
    before = live.look()
    assert figures(before, run.records()[0])["Trained in full"] == "–"
    for record in (recorded(0, 0.8, 1.0), recorded(1, 0.9, 0.5), recorded(2, 0.0, 0.75, with_validation=True)):
        run.append_training(record)
    run.append_training(replace(recorded(3, 0.99, 1.0), evaluation=Evaluation(Outcome.FAILED, "out of memory")))
    after = live.look()
    assert after.version > before.version
    assert figures(after, run.records()[0])["Trained in full"] == (
        "75.00 ± 35.36 % test accuracy, 85.00 ± 7.07 % validation (2 seeds × 1 epoch from search, 1 failed); "
        "75.00 % test accuracy (1 seed × 1 epoch from search, validation split too)"
    )
    assert figures(after, run.records()[1])["Trained in full"] == "–"


def test_the_report_tells_seeds_apart_from_recipes_and_escapes_class_names(run: RunDirectory) -> None:
    for record in (recorded(0, 0.8, 1.0), recorded(1, 0.9, 0.5), recorded(0, 0.6, 0.25, epochs=9)):
        run.append_training(record)
    page = write_report(run).read_text(encoding="utf-8")
    section = page[page.index("<h2>Trained in full</h2>") : page.index("<h2>Pareto front</h2>")]
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in section
    assert section.count("Mean of 2 seeds") == 1
    assert "85.00 ± 7.07 %" in section
    assert "75.00 ± 35.36 %" in section
    assert section.count("<details>") == 2


# ---------------------------------------------------------------- whose numbers


SEARCHED, AFTER = 0.51, Latency(
    7.25, 7.0, 7.5, 0.0, 30, 1, False, False, 0.0, True, device_name("cpu"), (1, 1, 8, 8), QUICK.protocol,
    measured=1_796_000_000.0,
)  # fmt: skip


def with_a_training(run: RunDirectory, *, with_validation: bool = False, tested: bool = True) -> TrialRecord:
    """The first candidate, of 51 % and 1 ms in the search, then trained in full to 90 %, 75 % tested, and 7.25 ms."""
    trials = run.records()
    score = replace(trials[0].evaluation.history[0], score=SEARCHED, scores={"accuracy": SEARCHED})
    first = replace(
        trials[0],
        evaluation=replace(trials[0].evaluation, history=(score,)),
        objectives=trials[0].objectives | {"accuracy": SEARCHED},
    )
    (run.path / "trials.jsonl").write_text("".join(f"{json_line(record)}\n" for record in (first, *trials[1:])))
    training = recorded(0, 0.9, 0.75, with_validation=with_validation)
    training = replace(training, evaluation=replace(training.evaluation, latency=AFTER))
    training = training if tested else replace(training, before=None, after=None)
    (run.path / "trained").mkdir(exist_ok=True)
    run.save_trained(training, weights_content(build(first.architecture, 10, seed=1).state_dict()))
    run.append_training(training)
    return first


def exported(run: RunDirectory, digest: str, to: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `nas export` prints."""
    with pytest.raises(SystemExit) as end:
        main(["export", str(run.path), "--pick", digest[:8], "--no-measure", "--to", str(to), *arguments])
    out, err = capsys.readouterr()
    assert not end.value.code, err
    return " ".join(out.split())


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize(
    ("with_validation", "tested", "says"),
    [
        (False, True, "test accuracy 75.00 ± 21.65 % of 4 test images"),
        (True, True, "test accuracy 75.00 ± 21.65 % of 4 test images"),
        (False, False, "validation accuracy 90.00"),
        (True, False, "validation accuracy none: trained on the validation images too, not tested"),
    ],
)
def test_an_export_of_a_full_training_has_the_numbers_of_that_training(
    run: RunDirectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    with_validation: bool,
    tested: bool,
    says: str,
) -> None:
    first = with_a_training(run, with_validation=with_validation, tested=tested)
    out = exported(run, first.digest, tmp_path / "full", capsys)
    source = (tmp_path / "full" / "model.py").read_text()
    docstring = source.split('"""')[1]
    card = (tmp_path / "full" / "README.md").read_text()
    own, search = card[card.index("## Figures") :].split("Of the search's proxy training, 1 epoch: other weights")
    content = json.loads((tmp_path / "full" / "model.json").read_text())
    for told in (out, docstring):
        assert "those of a full training, 1 epoch from the search's weights, seed 0" in told.replace(
            "weights of a", "those of a"
        )
        assert says in told
        assert "7.250 ms (7.000–7.500), measured after that training, 2026-11-30" in told
    for told in (out, docstring, own, json.dumps(content["measured"])):
        assert "51.00" not in told
        assert "0.51" not in told
        assert "1.000" not in told
    assert f"Test accuracy: {'75.00' if tested else 'not tested'}" in own
    assert "51.00" in search.partition("##")[0]
    assert "1.000 ms" in search.partition("##")[0]
    images = run.images()
    assert images is not None
    assert seen_text(str(tmp_path / "full"), {"training": images.training}, "digits") is not None
    of_validation = seen_text(str(tmp_path / "full"), {"validation": images.validation}, "digits")
    told = f"360 of 360 validation images of digits were training images of {tmp_path / 'full'}"
    assert of_validation == (told if with_validation else None)
    measured = content["measured"]
    assert measured["test"] == ({"accuracy": 0.75, "images": 4} if tested else None)
    assert measured["validation"] == (
        None if with_validation else {"accuracy": 0.9, "images": run.provenance.validation_images}
    )
    assert measured["objectives"] == ({} if with_validation else {"accuracy": 0.9}) | {"latency": 7.25}
    assert content["search"]["objectives"] == first.objectives
    assert "other weights" in content["search"]["note"]


@pytest.mark.subprocess
def test_an_export_of_the_searchs_weights_has_the_numbers_of_the_search(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = with_a_training(run)
    out = exported(run, first.digest, tmp_path / "search", capsys, "--weights", "search")
    card = (tmp_path / "search" / "README.md").read_text()
    docstring = (tmp_path / "search" / "model.py").read_text().split('"""')[1]
    for told in (out, docstring):
        assert "the search's proxy training, 1 epoch" in told
        assert "validation accuracy 51.00" in told
        assert "not tested" in told
        assert "1.000 ms (1.000–1.000), measured in the search" in told
    for told in (out, docstring, card):
        assert "90.00" not in told
        assert "75.00" not in told
        assert "7.250" not in told
    content = json.loads((tmp_path / "search" / "model.json").read_text())
    assert content["search"] is None
    assert content["measured"]["objectives"] == first.objectives


def test_report_page_and_tables_lead_with_the_latest_and_keep_the_searchs_numbers_apart(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    first = with_a_training(run)
    page = write_report(run).read_text(encoding="utf-8")
    lead = page[page.index('class="lead"') :]
    assert lead.index("Trained in full: " + first.digest) < lead.index("Pareto front")
    assert "test accuracy 75.00 ± 21.65 % of 4 test images" in lead[: lead.index("</p>")]
    assert "7.250 ms" in lead[: lead.index("</p>")]
    assert "51.00" not in lead[: lead.index("</p>")]
    own, search = page[page.index("<h2>Trained in full</h2>") : page.index("<h2>Pareto front</h2>")].split(
        "other weights</h3>"
    )
    assert "75.00 %" in own
    assert "51.00" not in own
    assert "1.000 ms" not in own
    assert "51.00" in search
    shown = figures(LiveRun(run).look(), first)
    names = list(shown)
    assert names.index("Trained in full") < names.index("Validation accuracy in the search")
    assert "weights of the search's proxy training, 1 epoch" in shown["Validation accuracy in the search"]
    assert "7.250 ms" in shown["Latency after that"]
    assert "1.000 ms (1.000–1.000), measured in the search" in shown["Latency in the search"]
    with pytest.raises(SystemExit):
        main(["front", str(run.path)])
    out = capsys.readouterr().out
    assert out.index("Trained in full") < out.index("75.00") < out.index("51.00")
    assert out.index("7.250") < out.index("of the search's proxy training, 1 epoch: other weights")
    assert max(map(len, out.splitlines())) <= 80


def test_a_replica_has_what_was_trained_and_no_checkpoints(run: RunDirectory, tmp_path: Path) -> None:
    replicated_run = run.with_settings(replace(run.settings, replica=f"file://{tmp_path}/replica"))
    (tmp_path / "replica").mkdir()
    record = recorded(0, 0.8, 1.0)
    with run.training_locked("half"):
        run.save_checkpoint("half", b"state")
        run.keep_start("half", run.records()[0].digest)
        run.save_trained(record, weights_content(build(SPACE.smallest, 10).state_dict()))
        run.append_training(record)
        with replicated_run.locked(), replicated(replicated_run):
            pass
    fetch_run(f"file://{tmp_path}/replica", tmp_path / "fetched")
    fetched = open_run(tmp_path / "fetched")
    assert fetched.training_records() == [record]
    assert fetched.load_trained(record).keys() == build(SPACE.smallest, 10).state_dict().keys()
    assert [path.name for path in (fetched.path / "trained").iterdir()] == [run.trained_weights(record).name]


def test_joined_parts_hold_both_whatever_holds_them(digits: ImageData, tmp_path: Path) -> None:
    images = np.concatenate([digits.train.images, digits.validation.images])
    labels = np.concatenate([digits.train.labels, digits.validation.labels])

    def mapped(content: np.ndarray, name: str) -> np.ndarray:
        np.save(tmp_path / name, content)
        loaded: np.ndarray = np.load(tmp_path / name, mmap_mode="r")
        return loaded

    one, split = mapped(images, "both.npy"), len(digits.train)
    rows = np.arange(len(images))
    parts = {
        "in memory": (digits.train, digits.validation),
        "one map": (Split(one, labels[:split], rows[:split]), Split(one, labels[split:], rows[split:])),
        "two maps": (
            Split(mapped(images[:split], "train.npy"), labels[:split]),
            Split(mapped(images[split:], "val.npy"), labels[split:]),
        ),
    }
    for name, (train, validation) in parts.items():
        joined = replace(digits, train=train, validation=validation).with_validation()
        assert isinstance(joined.train.images, np.memmap) == (name != "in memory")
        assert np.array_equal(joined.train.take(rows), images)
        assert np.array_equal(joined.train.labels, labels)
        assert (joined.mean, joined.std) == (digits.mean, digits.std)
