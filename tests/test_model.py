"""The network that is built from an architecture: shapes, cost, structure, weights, and the function of spellings."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mobile import mobile_space
from torch import Tensor, nn

from nas.models.blocks import ConvNormAct, InvertedResidual, Network
from nas.models.build import build
from nas.models.cost import module_cost
from nas.spaces.base import Cost
from nas.spaces.families import architecture_cost
from nas.spaces.files import list_spaces
from nas.spaces.mobile.architecture import Architecture, LayerSpec, StemSpec
from nas.spaces.mobile.geometry import Padding

torch.set_num_threads(1)

PADDINGS: tuple[Padding, ...] = ("symmetric", "tf_same")
MAPS: tuple[tuple[int, Padding], ...] = ((5, "symmetric"), (7, "tf_same"), (8, "tf_same"), (13, "symmetric"))
SPACES = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("lite0") else name for name in list_spaces()]
"""The built-in spaces; the large ones take most of a second each."""
CHANNELS = 4
CLASSES = 3

LAYER = LayerSpec(kernel_size=3, dilation=1, expansion=2, separable=True, out_channels=CHANNELS, stride=1)
PLAIN = Architecture(
    input_channels=2, input_size=8, stem=StemSpec(3, 1, CHANNELS), layers=(LAYER, LAYER), head_channels=8
)


def with_layers(*layers: LayerSpec, size: int = 8, padding: Padding = "symmetric") -> Architecture:
    return replace(PLAIN, input_size=size, layers=layers, padding=padding)


def every_layer() -> Iterator[LayerSpec]:
    for kernel_size, dilation, expansion, separable, stride in itertools.product(
        (1, 3, 5, 7), (1, 2, 3), (1, 2, 4, 0.5), (True, False), (1, 2)
    ):
        yield LayerSpec(kernel_size, dilation, expansion, separable, CHANNELS, stride)


def image(architecture: Architecture, batch: int = 1) -> Tensor:
    side = architecture.input_size
    return torch.rand(batch, architecture.input_channels, side, side, generator=torch.Generator().manual_seed(0))


def first_block(network: Network) -> InvertedResidual:
    block = network.blocks[0]
    assert isinstance(block, InvertedResidual)
    return block


def counts(cost: Cost) -> tuple[int, int]:
    """Multiply-adds and parameters; bytes have tests of their own."""
    return cost.macs, cost.params


def in_closed_form(cost: Cost) -> Cost:
    """What `architecture_cost` knows of a module's cost."""
    return replace(cost, peak_activation_bytes=None)


def cost_by_hand(size: int, kernel_size: int, expansion: float, separable: bool, stride: int) -> tuple[int, int]:
    """Of `with_layers` of one layer: 2 -> 4 (stem, k3), the layer 4 -> 4, 4 -> 8 (head), 8 -> 3 classes.

    A convolution's batch norm has two parameters a channel and, folded away, no multiply-adds.
    """
    hidden, taps = int(4 * expansion), kernel_size**2
    before, after = size**2, math.ceil(size / stride) ** 2
    macs, params = 2 * 4 * 9 * before, 2 * 4 * 9 + 2 * 4
    if separable:
        if expansion != 1:
            macs, params = macs + 4 * hidden * before, params + 4 * hidden + 2 * hidden
        macs, params = macs + hidden * taps * after, params + hidden * taps + 2 * hidden
    else:
        macs, params = macs + 4 * hidden * taps * after, params + 4 * hidden * taps + 2 * hidden
    macs, params = macs + hidden * 4 * after, params + hidden * 4 + 2 * 4
    macs, params = macs + 4 * 8 * after, params + 4 * 8 + 2 * 8
    return macs + 8 * 3, params + 8 * 3 + 3


@pytest.mark.slow
@pytest.mark.parametrize(("size", "padding"), MAPS)
def test_every_layer_choice_gives_its_shape_structure_and_cost(size: int, padding: Padding) -> None:
    for index, layer in enumerate(every_layer()):
        case = f"{layer} on {size}x{size}, {padding}"
        architecture = with_layers(layer, size=size, padding=padding)
        network = build(architecture, CLASSES).eval()
        block = first_block(network)
        with torch.no_grad():
            features = network.stem(image(architecture))
            assert features.shape == (1, CHANNELS, size, size), case
            side = math.ceil(size / layer.stride)
            assert block(features).shape == (1, CHANNELS, side, side), case

        hidden = int(CHANNELS * layer.expansion)
        assert isinstance(block.filter, nn.Module)
        assert block.residual == (layer.stride == 1), case
        assert block.filter.conv.groups == (hidden if layer.separable else 1), case
        assert block.filter.conv.in_channels == (hidden if layer.separable else CHANNELS), case
        assert block.filter.conv.out_channels == hidden, case

        # The built kernel: taps that no output position reads inside the map are neither built nor counted.
        built = architecture.canonical.layers[0]
        assert block.filter.conv.kernel_size == (built.kernel_size, built.kernel_size), case
        expected = cost_by_hand(size, built.kernel_size, layer.expansion, layer.separable, layer.stride)
        assert counts(architecture_cost(architecture.canonical, CLASSES)) == expected, case
        assert sum(p.numel() for p in network.parameters()) == expected[1], case
        if index % 7 == 0:  # counting takes longer than all the rest together; 7 is prime to every choice's period
            assert counts(module_cost(network, (2, size, size))) == expected, case


@pytest.mark.parametrize("space_name", SPACES)
def test_cost_in_closed_form_is_that_of_the_built_network(space_name: str) -> None:
    space, rng = mobile_space(space_name), random.Random(0)
    for _ in range(3):
        architecture = space.architecture(space.sample(rng)).canonical
        shape = (architecture.input_channels, architecture.input_size, architecture.input_size)
        assert architecture_cost(architecture, 10) == in_closed_form(module_cost(build(architecture, 10), shape))


@pytest.mark.parametrize(
    "architecture",
    [
        with_layers(replace(LAYER, dilation=2), size=2),
        with_layers(replace(LAYER, kernel_size=7), size=3),
        with_layers(replace(LAYER, expansion=1.1)),
    ],
    ids=["k3d2 on a 2x2 map", "k7 on a 3x3 map", "expansion to the same channels"],
)
def test_cost_does_not_depend_on_the_spelling(architecture: Architecture) -> None:
    """`build` builds the canonical form, so the cost of any spelling is that of the canonical form."""
    shape = (architecture.input_channels, architecture.input_size, architecture.input_size)
    assert architecture_cost(architecture, CLASSES) == in_closed_form(module_cost(build(architecture, CLASSES), shape))


# -------------------------------------------------------------------- padding, residual, expansion, head


@pytest.mark.parametrize(
    ("padding", "size", "kernel_size", "dilation", "stride", "pad"),
    [
        ("symmetric", 8, 3, 1, 2, (1, 1)),
        ("tf_same", 8, 3, 1, 2, (0, 1)),
        ("tf_same", 8, 5, 1, 2, (1, 2)),
        ("tf_same", 7, 3, 1, 2, (1, 1)),
        ("tf_same", 8, 3, 2, 2, (1, 2)),
        ("tf_same", 8, 5, 1, 1, (2, 2)),
    ],
)
def test_stem_and_layers_pad_where_the_architecture_says(
    padding: Padding, size: int, kernel_size: int, dilation: int, stride: int, pad: tuple[int, int]
) -> None:
    """TensorFlow puts the odd zero behind; before, every map would be shifted by a pixel against its weights."""
    layer = replace(LAYER, kernel_size=kernel_size, dilation=dilation, stride=stride)
    parts: list[nn.Module] = [first_block(build(with_layers(layer, size=size, padding=padding), CLASSES)).filter]
    if dilation == 1:
        stem = StemSpec(kernel_size, stride, CHANNELS)
        parts.append(build(replace(with_layers(LAYER, size=size, padding=padding), stem=stem), CLASSES).stem)
    for part in parts:
        assert isinstance(part, ConvNormAct)
        part.eval().norm.eps = 0.0  # fresh batch norm is then the identity
        conv, (before, after) = part.conv, pad
        x = torch.rand(1, conv.in_channels, size, size)
        padded = F.pad(x, (before, after, before, after))
        expected = F.conv2d(padded, conv.weight, None, conv.stride, 0, conv.dilation, conv.groups).clamp(0, 6)
        torch.testing.assert_close(part(x), expected)


@pytest.mark.parametrize(
    ("stride", "out_channels", "residual"), [(1, CHANNELS, True), (2, CHANNELS, False), (1, 6, False), (2, 6, False)]
)
@pytest.mark.parametrize("separable", [True, False])
def test_the_input_is_added_exactly_when_stride_and_channels_allow(
    stride: int, out_channels: int, residual: bool, separable: bool
) -> None:
    """With the projection silenced, what comes out is what was added."""
    layer = replace(LAYER, stride=stride, out_channels=out_channels, separable=separable)
    block = first_block(build(with_layers(layer), CLASSES).eval())
    assert isinstance(block.project.norm, nn.BatchNorm2d)
    nn.init.zeros_(block.project.norm.weight)
    x = torch.rand(2, CHANNELS, 8, 8)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y, x) if residual else not y.any()


@pytest.mark.parametrize(("expansion", "separable", "expands"), [(1, True, False), (2, True, True), (2, False, False)])
def test_only_separable_layers_that_expand_have_a_pointwise_expansion(
    expansion: float, separable: bool, expands: bool
) -> None:
    block = first_block(build(with_layers(replace(LAYER, expansion=expansion, separable=separable)), CLASSES))
    assert isinstance(block.expand, nn.Identity) != expands


@pytest.mark.parametrize("head_channels", [0, 8])
@pytest.mark.parametrize("size", [1, 5, 8])
def test_logits_have_the_shape_of_the_classes(head_channels: int, size: int) -> None:
    architecture = replace(PLAIN, input_size=size, head_channels=head_channels)
    network = build(architecture, 7).eval()
    assert network(image(architecture, batch=2)).shape == (2, 7)
    assert isinstance(network.head, nn.Identity) == (head_channels == 0)


@pytest.mark.parametrize(("activation", "kind"), [("relu", nn.ReLU), ("relu6", nn.ReLU6)])
def test_activation_and_norm_eps_are_the_architectures(activation: str, kind: type[nn.Module]) -> None:
    architecture = replace(PLAIN, activation="relu" if activation == "relu" else "relu6", norm_eps=0.01)
    modules = list(build(architecture, CLASSES).modules())
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert {type(module) for module in modules if isinstance(module, nn.ReLU | nn.ReLU6)} == {kind}
    assert {norm.eps for norm in norms} == {0.01}


# -------------------------------------------------------------------- receptive field


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "layers"),
    [
        (41, ["k3"]),
        (41, ["k3d2"]),
        (41, ["k5d3"]),
        (41, ["k1d3", "k7d2"]),
        (61, ["k3d2/2", "k5d2"]),
        (61, ["k7/2", "k3d3", "k3/2"]),
        (7, ["k3", "k3", "k5"]),  # wider than the input, which then limits it
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_receptive_field_is_what_the_gradient_reaches(size: int, layers: list[str], padding: Padding) -> None:
    """Weights and input are positive and small: nothing cancels, and no ReLU6 saturates."""
    specs = []
    for index, text in enumerate(layers):
        kernel_and_dilation, _, stride = text.partition("/")
        kernel_size, _, dilation = kernel_and_dilation[1:].partition("d")
        specs.append(LayerSpec(int(kernel_size), int(dilation or 1), 2, index % 2 == 0, CHANNELS, int(stride or 1)))
    architecture = with_layers(*specs, size=size, padding=padding)
    network = build(architecture, CLASSES).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    x = torch.full((1, 2, size, size), 1e-6, dtype=torch.float64, requires_grad=True)
    y = network.blocks(network.stem(x))
    centre = y.shape[-1] // 2
    (gradient,) = torch.autograd.grad(y[0, :, centre, centre].sum(), x)
    rows = gradient[0].sum((0, 2)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == min(architecture.receptive_field, size)


# -------------------------------------------------------------------- weights and seeds


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    before = torch.get_rng_state()
    one = build(PLAIN, CLASSES, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    same, other = build(PLAIN, CLASSES, seed=5).state_dict(), build(PLAIN, CLASSES, seed=6).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_build_seeds_no_generator_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` reaches every GPU's generator too, where a training in the same process draws from it."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    build(PLAIN, CLASSES, seed=5)
    assert not seeded


def test_module_cost_leaves_the_module_as_it_was() -> None:
    network = build(PLAIN, CLASSES)
    network.blocks.eval()  # a mixed mode, as in a fine-tune with frozen batch norm

    def observed() -> dict[str, object]:
        return {
            name: (
                module.training,
                sorted(vars(module)),
                sorted(name for name, _ in module.named_buffers(recurse=False)),
                len(module._forward_hooks) + len(module._forward_pre_hooks),
            )
            for name, module in network.named_modules()
        }

    state, before = {key: value.clone() for key, value in network.state_dict().items()}, observed()
    module_cost(network, (2, 8, 8))
    assert observed() == before
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_module_cost_counts_any_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    # 6x6 positions of 3·4·9 multiply-adds, then 144·5; biases are parameters but no multiply-adds
    assert counts(module_cost(module, (3, 8, 8))) == (36 * 108 + 720, 108 + 4 + 720 + 5)


# -------------------------------------------------------------------- two spellings of one network


def as_spelled(architecture: Architecture) -> Architecture:
    """A copy that claims to be canonical, so that `build` builds every tap that is written."""
    copy = replace(architecture)
    vars(copy)["canonical"] = copy
    return copy


def assert_same_function(architecture: Architecture) -> None:
    """The network as it is spelled, and the canonical one with the weights cropped from it, give the same logits."""
    spelled = build(as_spelled(architecture), CLASSES).eval()
    canonical = build(architecture, CLASSES).eval()
    weights, targets = spelled.state_dict(), canonical.state_dict()
    assert list(weights) == list(targets)
    for key, target in targets.items():
        if target.dim() == 4:
            cut = (weights[key].shape[-1] - target.shape[-1]) // 2
            weights[key] = weights[key][..., cut : cut + target.shape[-1], cut : cut + target.shape[-1]]
    canonical.load_state_dict(weights)
    with torch.no_grad():
        x = image(architecture)
        torch.testing.assert_close(canonical(x), spelled(x), msg=lambda text: f"{architecture}: {text}")


@functools.cache
def respelled_samples(space_name: str) -> list[Architecture]:
    """Those of 500 random networks that have taps which the canonical form has not."""
    space, rng = mobile_space(space_name), random.Random(0)
    drawn = [space.architecture(space.sample(rng)) for _ in range(500)]
    return [architecture for architecture in drawn if architecture != architecture.canonical]


@pytest.mark.parametrize("space_name", SPACES)
def test_every_layer_that_the_canonical_form_changes_keeps_its_function(space_name: str) -> None:
    """Of 500 samples, each distinct layer on its own map, as the only layer of a network."""
    layers = {
        replace(
            architecture, stem=StemSpec(1, 1, shape.in_channels), layers=(layer,), input_size=shape.in_size
        ): canonical
        for architecture in respelled_samples(space_name)
        for (layer, shape), canonical in zip(architecture.shapes(), architecture.canonical.layers, strict=True)
        if layer != canonical
    }
    assert layers
    for network, canonical in layers.items():
        assert network.canonical.layers == (canonical,)
        assert_same_function(network)


@pytest.mark.parametrize(
    ("space_name", "count"), [("digits", 80), ("cifar", 12), pytest.param("lite0", 5, marks=pytest.mark.slow)]
)
def test_whole_networks_that_the_canonical_form_changes_keep_their_function(space_name: str, count: int) -> None:
    for architecture in respelled_samples(space_name)[:count]:
        assert_same_function(architecture)


@pytest.mark.parametrize(("space_name", "count"), [("digits", 20), ("cifar", 3), ("lite0", 2)])
def test_the_raw_and_the_canonical_spelling_build_equal_networks(space_name: str, count: int) -> None:
    for architecture in respelled_samples(space_name)[:count]:
        one, other = build(architecture, CLASSES, seed=1).eval(), build(architecture.canonical, CLASSES, seed=1).eval()
        shapes = {key: value.shape for key, value in one.state_dict().items()}
        assert shapes == {key: value.shape for key, value in other.state_dict().items()}
        x = image(architecture)
        with torch.no_grad():
            assert torch.equal(one(x), other(x))
