"""A supernet in training, killed and gone on with, on two processes, and what candidates inherit from it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mobile import mobile_space

from nas.cli.app import main
from nas.common.errors import InputError
from nas.data.sets import load_data
from nas.latency.device import torch_threads
from nas.models.backbones import load_backbone
from nas.models.build import build
from nas.models.elastic import Elastic
from nas.models.inherit import inherit
from nas.models.seen import seen_by, together, write_seen
from nas.models.sources import SUPERNET
from nas.models.supernet import load_supernet
from nas.models.weights import load_weights
from nas.runs.settings import EvaluationSettings
from nas.search.evaluate import starting_network
from nas.training.device_data import DeviceData
from nas.training.images import load_images
from nas.training.loop import predict
from nas.training.recipe import Recipe
from nas.training.supernet import begin_with
from nas.training.supernet_file import read_file
from nas.workflows.supernet import plan_supernet, train_supernet

TINY = {
    "name": "tiny",
    "summary": "one stage with every kind of choice",
    "data": "digits",
    "input": {"channels": 1, "size": 8},
    "stem": {"kernel_size": 3, "stride": 2, "out_channels": 8},
    "stages": [
        {
            "depth": [1, 2],
            "out_channels": [8, 12],
            "kernel_size": [3, 5],
            "dilation": [1, 2],
            "expansion": [1, 2],
            "separable": [True, False],
            "backbone": {
                "depth": 2, "out_channels": 12, "kernel_size": 3, "dilation": 1, "expansion": 2, "separable": True,
            },
        }
    ],
    "head_channels": 32,
}  # fmt: skip
RECIPE = Recipe(epochs=4, batch_size=32, precision="float32", learning_rate=0.02)
BRIEF = replace(RECIPE, epochs=1, steps=2)
FLAGS = ["--epochs", "4", "--batch-size", "32", "--learning-rate", "0.02", "--set", "precision=float32"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def trained(space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supernets") / "tiny"
    assert train_supernet(plan_supernet(folder, mobile_space(str(space_file)), "digits", RECIPE)) is None
    return folder


@pytest.fixture(scope="module")
def begun(space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet that was trained for a moment, where it does not matter what it has learned."""
    folder = tmp_path_factory.mktemp("supernets") / "begun"
    assert train_supernet(plan_supernet(folder, mobile_space(str(space_file)), "digits", BRIEF)) is None
    return folder


@pytest.mark.slow
def test_its_networks_work_without_any_training_of_their_own(trained: Path, space_file: Path) -> None:
    data = DeviceData(load_data("digits", channels=1, size=8), "cpu")
    space = mobile_space(str(space_file))
    settings = EvaluationSettings(init=f"{SUPERNET}{trained}")

    def accuracy(seed: int) -> float:
        architecture = space.architecture(space.sample(random.Random(seed)))
        network, fresh = starting_network(architecture, data, settings)
        assert fresh == ()
        said = predict(network, data, data.validation, architecture.input_size).predictions
        return float((said == data.data.validation.labels).mean())

    assert np.mean([accuracy(seed) for seed in range(6)]) > 0.25  # of ten classes, after 144 steps
    first, *_, last = read_file(trained).history
    assert last.train_loss < 0.8 * first.train_loss
    assert set(last.scores) == {"smallest", "backbone", "largest"}


@pytest.mark.subprocess
@pytest.mark.slow
def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    trained: Path, space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "nas.cli", "supernet", "train", str(space_file), "--out", str(out), *FLAGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((out / "checkpoint.pt").is_file() and read_file(out).history):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert "Training a supernet of tiny" in said
    begun = len(read_file(out).history)
    assert 1 <= begun < RECIPE.epochs
    told: list[int] = []
    plan = plan_supernet(out, mobile_space(str(space_file)), "digits", RECIPE)
    assert train_supernet(plan, lambda epoch: told.append(epoch.epoch)) is None
    assert told == [1, 2, 3, 4]
    assert load_supernet(out).fingerprint() == load_supernet(trained).fingerprint()
    assert not list(out.glob("checkpoint*"))
    with pytest.raises(SystemExit) as end:
        main(command[3:])
    assert not end.value.code
    assert f"--init {SUPERNET}{out}" in capsys.readouterr().out  # nothing is left to do but to use it


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_two_processes_share_the_batches_of_one_training(space_file: Path, tmp_path: Path) -> None:
    space = mobile_space(str(space_file))
    plan = plan_supernet(tmp_path / "two", space, "digits", replace(RECIPE, epochs=2), devices=2)
    told: list[int] = []
    assert train_supernet(plan, lambda epoch: told.append(epoch.epoch)) is None
    assert told == [1, 2]
    file = read_file(plan.folder)
    assert (file.devices, file.device) == (2, "cpu")
    assert file.history[1].train_loss < file.history[0].train_loss
    weights = load_supernet(plan.folder).inherit(space.largest, 10).state
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_validation_images_that_the_supernet_was_trained_on_are_refused(begun: Path, space_file: Path) -> None:
    space, init = mobile_space(str(space_file)), f"{SUPERNET}{begun}"
    load_images(space, "digits", 0, init)
    with pytest.raises(InputError, match=r"split_seed 1: the supernet .* was trained with split_seed 0"):
        load_images(space, "digits", 1, init)
    allowed = load_images(space, "digits", 1, init, allow_seen=True)
    assert "were training images of the supernet" in allowed.remarks[0]


def test_no_other_spelling_of_the_data_hides_what_the_supernet_has_seen(
    begun: Path, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "renamed.py").write_text(
        "from nas import load_data\ndef digits():\n    return load_data('digits', channels=1, size=8, split_seed=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    space, init = mobile_space(str(space_file)), f"{SUPERNET}{begun}"
    seen = f"validation images and .* of 360 test images of digits were training images of the supernet {begun}"
    with pytest.raises(InputError, match=rf"of 360 {seen}.*allow_seen_images"):
        load_images(space, "renamed:digits", 0, init)
    with pytest.raises(InputError, match="allow_seen_images"):
        plan_supernet(tmp_path / "next", space, "renamed:digits", RECIPE, init=init)
    older = shutil.copytree(begun, tmp_path / "older")
    (older / "seen_images.npy").unlink()
    (remark,) = load_images(space, "renamed:digits", 0, f"{SUPERNET}{older}").remarks
    assert remark == f"what images the supernet {older} was trained on is not known, since an older version made it"
    write_seen(
        older, together(np.array([5], np.uint64), seen_by(f"{SUPERNET}{older}"))
    )  # as a supernet that begins with it
    (remark,) = load_images(space, "renamed:digits", 0, f"{SUPERNET}{older}").remarks
    made = "since an older version made what it began with"
    assert remark == f"not all images that the supernet {older} was trained on are known, {made}"


def test_another_training_is_not_mistaken_for_the_one_in_a_folder(begun: Path, space_file: Path) -> None:
    with pytest.raises(InputError, match=r"holds a supernet of another seed; give another out"):
        plan_supernet(begun, mobile_space(str(space_file)), "digits", BRIEF, seed=1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--devices", "3"], "--devices 3: a batch of 32 images is not shared out evenly"),
        (["--set", "dropout=0.5"], "dropout 0.5: a supernet is trained with dropout 0.0"),
        (["--init", "resnet"], "unknown weights 'resnet'"),
        (["--taps", "none"], "'none' is not one of 'grid', 'own'"),
    ],
)
def test_wrong_flags(flags: list[str], sentence: str, space_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nas.cli.app import app
    from nas.cli.options import flag_of

    out = tmp_path / "new"
    found = CliRunner().invoke(app, ["supernet", "train", str(space_file), "--out", str(out), *FLAGS, *flags])
    message = found.exception.named(flag_of) if isinstance(found.exception, InputError) else found.output
    assert found.exit_code != 0
    assert sentence in " ".join(message.split())
    assert not out.exists()


@pytest.mark.slow
def test_a_backbone_is_what_the_largest_network_begins_with() -> None:
    space, source = mobile_space("lite0_small"), load_backbone("efficientnet_lite0")
    network = Elastic(space, 1000)
    begin_with(network, "efficientnet_lite0")
    x = torch.randn(4, *space.largest.input_shape, generator=torch.Generator().manual_seed(0))
    alone = build(space.largest, 1000)
    alone.load_state_dict(inherit(source, space.largest, 1000).state)
    torch.testing.assert_close(network(x, space.largest), alone.train()(x), rtol=1e-3, atol=1e-3)


def test_a_space_that_the_supernet_does_not_hold_is_refused(begun: Path, space_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not in the space tiny"):
        load_weights(f"{SUPERNET}{begun}").check_fits(mobile_space("cifar"))
    stage = TINY["stages"][0]  # type: ignore[index]
    wider = tmp_path / "wider.yaml"
    wider.write_text(yaml.safe_dump(TINY | {"stages": [stage | {"expansion": [1, 2, 3]}]}, sort_keys=False))
    with pytest.raises(InputError, match="is not in the space tiny"):
        load_weights(f"{SUPERNET}{begun}").check_fits(mobile_space(str(wider)))
    narrower = tmp_path / "narrower.yaml"
    narrower.write_text(yaml.safe_dump(TINY | {"stages": [stage | {"expansion": [2]}]}, sort_keys=False))
    load_weights(f"{SUPERNET}{begun}").check_fits(mobile_space(str(narrower)))
