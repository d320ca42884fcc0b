"""The elastic network: which weights a candidate uses, that no other ones get gradients, and that cut out it is the same."""

from __future__ import annotations

import random
from typing import Literal

import pytest
import torch
from mobile import mobile_space

from nas.common.errors import InputError
from nas.models.build import build
from nas.models.elastic import Elastic, Sharing
from nas.models.inherit import inherit, recalibrate
from nas.models.networks import Backbone
from nas.spaces.mobile.architecture import Architecture

SPACE = mobile_space("digits")
LARGE = "r8-c8k3-k5e4s16-k5e4s16-k5e4s32/2-k5e4s32-k5e4s32-h32"
CLASSES = 10

# A change of the large network, the layer that it is seen in, and there each shared tensor with the slice that is used.
LAYER = "s0l1"
CHANGES: dict[str, tuple[str, dict[str, tuple[int | slice, ...]]]] = {
    "nothing": ("k5e4s16", {"expanded_expand": (64, 16, 1, 1), "expanded_filter_d1": (64, 1, 5, 5)}),
    "kernel": ("k3e4s16", {"expanded_filter_d1": (64, 1, slice(1, 4), slice(1, 4))}),
    "dilation": ("k3d2e4s16", {"expanded_filter_d2": (64, 1, slice(1, 4), slice(1, 4))}),
    "expansion": (
        "k5e2s16",
        {"expanded_expand": (32, 16, 1, 1), "expanded_filter_d1": (32, 1, 5, 5), "expanded_project": (16, 32, 1, 1)},
    ),
    "no expansion": ("k5e1s16", {"bare_filter_d1": (16, 1, 5, 5), "bare_project": (16, 16, 1, 1)}),
    "dense": ("k5e4f16", {"dense_filter_d1": (64, 16, 5, 5), "dense_project": (16, 64, 1, 1)}),
    "dense and small": ("k3e1f16", {"dense_filter_d1": (16, 16, slice(1, 4), slice(1, 4))}),
}


def candidates(count: int) -> list[Architecture]:
    rng = random.Random(0)
    return [SPACE.smallest, SPACE.largest, *(SPACE.architecture(SPACE.sample(rng)) for _ in range(count))]


def images(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def elastic(taps: Literal["grid", "own"] = "own") -> Elastic:
    """One whose scales and shifts say something too."""
    network = Elastic(SPACE, CLASSES, sharing=Sharing(taps))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("taps", [pytest.param("own", marks=pytest.mark.slow), "grid"])
def test_a_candidate_cut_out_is_the_elastic_network_set_to_it(taps: Literal["grid", "own"]) -> None:
    network, x = elastic(taps), images()
    for architecture in candidates(25):
        alone = build(architecture, CLASSES)
        alone.load_state_dict(network.extract_subnet(architecture))
        for training in (True, False):
            if not training:  # with the statistics of some images, in both
                recalibrate(alone, [x])
                for name, statistics in network.skeleton(architecture).named_buffers():
                    statistics.copy_(alone.state_dict()[name])
            torch.testing.assert_close(
                network.train(training)(x, architecture), alone.train(training)(x), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_uses_its_slice_and_only_that_is_trained(change: str) -> None:
    layer, used = CHANGES[change]
    architecture = SPACE.parse(LARGE.replace("k5e4s16-k5e4s16", f"k5e4s16-{layer}"))
    network = elastic()
    network(images(), architecture).square().sum().backward()
    for name, parameter in network.shared.items():
        if not name.startswith(LAYER):
            continue
        touched = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        part = name.removeprefix(f"{LAYER}_")
        if part in used:
            active = tuple(each if isinstance(each, slice) else slice(each) for each in used[part])
            assert touched[active].ne(0).any(tuple(range(1, touched.ndim))).all()
            touched[active] = 0
        elif part.startswith(next(iter(used)).split("_")[0]) and not part.partition("filter_d")[1]:
            continue  # of the same kind, told by another row
        assert not touched.any(), name


def test_what_a_shallow_or_narrow_network_leaves_out_is_not_trained() -> None:
    network = elastic()
    network(images(), SPACE.parse("r8-c4k3-k3e1s16/2-h0")).square().sum().backward()
    trained = {name for name, parameter in network.shared.items() if parameter.grad is not None}
    assert {name.partition("_")[0] for name in trained} == {"stem", "s1l0", "classifier"}
    stem = network.shared["stem"].grad
    assert stem is not None
    assert stem[:4].any()
    assert not stem[4:].any()


def test_dilations_may_read_one_grid() -> None:
    network = elastic("grid")
    grid = network.shared["s0l1_expanded_filter"]
    assert grid.shape[-1] == 9  # a kernel of 5 with dilation 2
    for layer, taps in (("k5e4s16", slice(2, 7)), ("k3d2e4s16", slice(2, 7, 2)), ("k3e4s16", slice(3, 6))):
        kernel = network.weights(SPACE.parse(LARGE.replace("k5e4s16-k5e4s16", f"k5e4s16-{layer}")))
        assert torch.equal(kernel["blocks.1.filter.conv.weight"], grid[:, :, taps, taps])


def test_sorted_channels_change_no_full_layer_and_leave_the_heaviest_to_a_narrow_one() -> None:
    network, large, x = elastic(), SPACE.parse(LARGE), images()
    before = network(x, large)
    network.sort_channels()
    torch.testing.assert_close(network(x, large), before, rtol=1e-4, atol=1e-4)
    weight = network.shared["s0l1_expanded_project"].abs().sum((0, 2, 3))
    assert weight[:32].min() >= weight[32:].max()


def test_a_backbone_is_absorbed() -> None:
    source = SPACE.backbone
    state = build(source, CLASSES, seed=5).state_dict()
    large = SPACE.parse(LARGE)
    inherited = inherit(Backbone("test", source, state, CLASSES, (0.5,), (0.5,)), large, CLASSES).state
    network = Elastic(SPACE, CLASSES)
    network.absorb(large, inherited)
    alone = build(large, CLASSES)
    alone.load_state_dict(inherited)
    torch.testing.assert_close(network(images(), large), alone.train()(images()), rtol=0, atol=1e-5)


def test_a_network_of_another_space_has_no_weights_here() -> None:
    with pytest.raises(InputError, match="is not in the space digits"):
        Elastic(SPACE, CLASSES).weights(mobile_space("cifar").smallest)
