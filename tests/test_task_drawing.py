"""Tasks whose targets lie within the image (toy_point_task.py): they move with augmentation, and are drawn for people."""

from __future__ import annotations

import base64
import io
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_point_task import TASK, PointTask, spots

from nas.common.files import weights_content
from nas.data.image_data import ImageData
from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.latency.protocol import LatencyProtocol
from nas.models.networks import build
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.tasks.base import task_of
from nas.tasks.classification import CLASSIFICATION
from nas.tasks.examples import TILE, hardest, pictures
from nas.training.device_data import DeviceData, DevicePart
from nas.training.loop import finetune, predict
from nas.training.recipe import Recipe
from nas.views.page.candidate import described
from nas.views.page.runs import LiveRun
from nas.views.reported import run_training
from nas.workflows.train import plan_training

NAME = "toy_point_task:TASK"
SPACE = load_space("digits")


class Still(PointTask):
    """The same task, but its targets stay where they were while the image moves."""

    targets_move = False


STILL = Still()


def read(task: str) -> ImageData:
    return replace(task_of(task).read("spots", channels=1, size=8, split_seed=0), task=task)


@pytest.mark.slow
def test_targets_move_with_their_images_in_training() -> None:
    """Every other image is flipped: where its target stays behind, left cannot be told from right."""
    recipe = Recipe(epochs=6, batch_size=64, crop_share=0.2, hflip=True, resized_crop=0.8, learning_rate=0.02)
    last = {}
    for task in (NAME, f"{__name__}:STILL"):
        data = DeviceData(read(task).without_test(), "cpu")
        network = build(SPACE.backbone, 2, seed=0)
        *_, last[task] = (epoch.score for epoch in finetune(network, data, 8, recipe, TASK.score, seed=0))
    moved, still = last.values()
    assert moved < 0.3
    assert still > 1.5 * moved


def test_the_hardest_images_are_drawn_with_target_and_prediction() -> None:
    part = spots(30, seed=5)
    predictions = part.labels.copy()
    predictions[7] = (0.5, -0.5)
    predictions[21] += 0.01
    losses = np.square(predictions - part.labels).sum(1)
    examples, sheet = hardest(TASK, part, losses, predictions, ())
    assert [example.image for example in examples[:3]] == [7, 21, 0]
    assert len(examples) == len(pictures(sheet)) == 12
    assert examples[0].loss == pytest.approx(losses[7])
    assert examples[0].target == " ".join(f"{value:.4g}" for value in part.labels[7])
    with Image.open(io.BytesIO(pictures(sheet)[0])) as picture:
        assert picture.size == (TILE, 2 * TILE)
        for place, tile in ((part.labels[7], 0), (predictions[7], 1)):
            x, y = ((place + 1) / 2 * TILE).clip(0, TILE - 1)
            assert picture.getpixel((int(x), int(y) + tile * TILE)) == (255, 0, 0)


def test_a_task_that_draws_nothing_shows_the_image_and_names() -> None:
    digits = load_data("digits", channels=1, size=8)
    predictions = digits.validation.labels.copy()
    predictions[3] = (predictions[3] + 1) % 10
    losses = (predictions != digits.validation.labels).astype(float)
    examples, sheet = hardest(CLASSIFICATION, digits.validation, losses, predictions, digits.classes)
    label = digits.validation.labels[3]
    assert (examples[0].image, examples[0].target) == (3, digits.classes[label])
    assert examples[0].found == digits.classes[(label + 1) % 10]
    with Image.open(io.BytesIO(pictures(sheet)[0])) as picture:
        assert picture.size == (TILE, TILE)
        shown = np.asarray(picture.resize((8, 8), Image.Resampling.BOX))[..., 0]
    np.testing.assert_allclose(shown, digits.validation.take(np.array([3]))[0, 0], atol=1)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", b"GIF89a" + bytes(30)],
)
def test_pictures_that_are_none_are_refused(content: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        pictures(content)


def test_a_sheet_of_any_other_size_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.new("L", (TILE * 13, 20_000)).save(file, "PNG")
    with pytest.raises(ValueError, match="1456×20000 px, at most"):
        pictures(file.getvalue())


@pytest.fixture
def trained(tmp_path: Path) -> RunDirectory:
    """A run of one candidate, which is then trained in full."""
    data = read(NAME)
    evaluation = EvaluationSettings(
        Recipe(epochs=2, batch_size=64, precision="float32"),
        LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1),
        task=NAME,
    )
    settings = SearchSettings(SPACE, "spots", evaluation=evaluation)
    provenance = Provenance(
        time.time(), "nas search", {}, "here", device_name("cpu"), 2, None, data.fingerprint(), (), len(data.train),
        len(data.validation), data.mean, data.std,
    )  # fmt: skip
    run = RunDirectory.create(tmp_path / "run", settings, provenance)
    network = SPACE.smallest.canonical
    done = Evaluation(Outcome.DONE, None, Cost(1000, 100))
    run.append(TrialRecord(0, network.digest, str(network), network, {}, done, {"distance": 0.5, "latency": 1.0}))
    run.save_weights(network.digest, weights_content(build(network, 2, seed=7).state_dict()))
    assert run_training(plan_training(run, run.records(), evaluation.recipe, device="cpu")) is None
    return run


def test_report_and_page_show_what_a_training_found_hardest(trained: RunDirectory) -> None:
    (record,) = trained.training_records()
    assert len(record.hardest) == 12
    losses = [example.loss for example in record.hardest]
    assert losses == sorted(losses, reverse=True)
    report = trained.report_path.read_text(encoding="utf-8")
    assert "Validation images that it found hardest" in report
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="validation image (\d+)">', report)
    assert [int(number) for _, number in shown] == [example.image for example in record.hardest]
    with Image.open(io.BytesIO(base64.b64decode(shown[0][0]))) as picture:
        assert picture.size == (TILE, 2 * TILE)
    seen = LiveRun(trained).look()
    page = str(described(seen, trained.records()[0]))
    assert page.count("Img(") == 12
    assert "Img(children=" not in page  # which would break the page in a browser
    assert record.hardest[0].found in page


def test_the_hardest_images_are_those_of_the_kept_weights_and_cost_no_look_at_the_split_of_their_own(
    trained: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = trained.training_records()
    data = DeviceData(read(NAME), "cpu")
    network = build(SPACE.smallest.canonical, 2)
    network.load_state_dict(trained.load_trained(record))
    losses = predict(network, data, data.validation, 8).losses.numpy()
    greatest = np.sort(losses)[::-1][: len(record.hardest)]
    assert [example.loss for example in record.hardest] == pytest.approx(greatest.tolist(), rel=1e-5)
    looked: list[int] = []
    in_order = DevicePart.in_order
    monkeypatch.setattr(
        DevicePart, "in_order", lambda part, size: looked.append(len(part)) or in_order(part, size)  # type: ignore[func-returns-value]
    )  # fmt: skip
    assert run_training(plan_training(trained, trained.records(), record.recipe, seeds=2, device="cpu")) is None
    assert len(trained.training_records()) == 2
    of_the_test_split = 2  # before and after; it has as many images
    assert looked == [len(data.validation)] * (record.recipe.epochs + of_the_test_split)


def test_pictures_that_somebody_spoilt_are_said_and_all_else_is_shown(trained: RunDirectory) -> None:
    (sheet,) = trained.path.glob("trained/*.hardest.png")
    sheet.write_bytes(b"spoilt")
    page = str(described(LiveRun(trained).look(), trained.records()[0]))
    assert "the pictures cannot be read" in page
    assert "Img(" not in page


def test_trained_on_the_validation_split_too_nothing_is_shown(trained: RunDirectory) -> None:
    plan = plan_training(
        trained, trained.records(), trained.settings.evaluation.recipe, with_validation=True, device="cpu"
    )
    assert run_training(plan) is None
    assert trained.training_records()[-1].hardest == ()
