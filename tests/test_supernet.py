"""A supernet in training, killed and gone on with, and what candidates inherit from it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.backbones import check_fits, load_backbone
from nas.data import load_data
from nas.device_data import DeviceData
from nas.errors import InputError
from nas.evaluate import starting_network
from nas.finetune import predict
from nas.model import build
from nas.model.elastic import Elastic
from nas.recipe import Recipe
from nas.settings import SUPERNET, EvaluationSettings
from nas.space_file import load_space
from nas.supernet import SupernetEpoch, load_supernet, read_file
from nas.supernet_training import begin_with, plan_supernet, train_supernet
from nas.weights import Backbone, inherit

SPACE = load_space("digits")
RECIPE = Recipe(epochs=6, precision="float32", learning_rate=0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("supernets") / "digits"
    plan = plan_supernet(folder, SPACE, "digits", RECIPE)
    assert train_supernet(plan) is None
    return folder


def test_its_networks_work_without_any_training_of_their_own(trained: Path) -> None:
    data = DeviceData(load_data("digits", channels=1, size=8), "cpu")
    settings = EvaluationSettings(init=f"{SUPERNET}{trained}")
    scores = []
    for seed in range(4):
        architecture = SPACE.architecture(SPACE.sample(random.Random(seed)))
        network, fresh = starting_network(architecture, data, settings)
        assert fresh == ()
        predicted = predict(network, data, data.validation, architecture.input_size)
        scores.append((predicted.classes == data.data.validation.labels).mean())
    assert np.mean(scores) > 0.3  # of ten classes


def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(trained: Path, tmp_path: Path) -> None:
    plan = plan_supernet(tmp_path / "killed", SPACE, "digits", RECIPE)

    def die(epoch: SupernetEpoch) -> None:
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_supernet(plan, die)  # epoch 3 is not kept yet
    assert len(read_file(plan.folder).history) == 2
    told: list[int] = []
    assert train_supernet(plan, lambda epoch: told.append(epoch.epoch)) is None
    assert told == [1, 2, 3, 4, 5, 6]
    whole, again = load_supernet(trained), load_supernet(plan.folder)
    assert again.fingerprint() == whole.fingerprint()
    assert not list(plan.folder.glob("checkpoint*"))


def test_another_training_is_not_mistaken_for_the_one_in_a_folder(trained: Path) -> None:
    with pytest.raises(InputError, match=r"holds a supernet of another seed; give another --out"):
        plan_supernet(trained, SPACE, "digits", RECIPE, seed=1)


def test_a_backbone_is_what_the_largest_network_begins_with() -> None:
    network = Elastic(SPACE, 10)
    source = load_backbone("efficientnet_lite0")
    cifar = load_space("lite0_small")
    network = Elastic(cifar, 1000)
    begin_with(network, "efficientnet_lite0")
    x = torch.randn(4, *cifar.largest.input_shape, generator=torch.Generator().manual_seed(0))
    assert isinstance(source, Backbone)
    alone = build(cifar.largest, 1000)
    alone.load_state_dict(inherit(source, cifar.largest, 1000).state)
    torch.testing.assert_close(network(x, cifar.largest), alone.train()(x), rtol=1e-3, atol=1e-3)


def test_a_space_that_the_supernet_does_not_hold_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="is not in the space digits"):
        check_fits(f"{SUPERNET}{trained}", load_space("cifar"))
