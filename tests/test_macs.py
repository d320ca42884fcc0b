"""Multiply-adds and parameters of networks of every kind, against published figures and figures worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torchvision import models

from nas.common.errors import CandidateError
from nas.models.cost import model_bytes, module_cost
from nas.models.flops import count

SHAPE = (3, 8, 8)
CONV = 8 * 27 * 36
"""Of a 3x3 convolution 3 -> 8 on an image of `SHAPE`."""


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3)


class Then(nn.Module):
    """A convolution, and then a function of what it gives (N, 8, 6, 6)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = conv(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def small() -> nn.Sequential:
    return nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()


def exported() -> nn.Module:
    return torch.export.export(small(), (torch.randn(1, *SHAPE),)).module()


SMALL = CONV + 2880
SAME: dict[str, Callable[[], nn.Module]] = {
    "module": small,
    "scripted": lambda: torch.jit.script(small()),
    "traced": lambda: torch.jit.trace(small(), torch.randn(1, *SHAPE)),
    "exported": exported,
    "graph": lambda: torch.fx.symbolic_trace(small()),
    "half": lambda: small().half(),
    "data parallel": lambda: nn.DataParallel(small()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAME)
def test_a_network_counts_the_same_in_every_form(name: str) -> None:
    counted = count(SAME[name](), SHAPE)
    assert (counted.macs, counted.params, counted.why) == (SMALL, 8 * 27 + 8 + 16 + 2890, "")


PARAMETRISED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "spectral": (lambda: parametrizations.spectral_norm(conv()), 8 * 27 + 8),
    "orthogonal": (lambda: parametrizations.orthogonal(conv()), 8 * 27 + 8),
    "weight norm": (lambda: parametrizations.weight_norm(conv()), 8 + 8 * 27 + 8),
    "old spectral": (lambda: nn.utils.spectral_norm(conv()), 8 * 27 + 8),
    "old weight norm": (lambda: nn.utils.weight_norm(conv()), 8 + 8 * 27 + 8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARAMETRISED)
def test_computing_weights_is_not_counted_and_their_parameters_are_those_stored(name: str) -> None:
    make, params = PARAMETRISED[name]
    network = nn.Sequential(make()).eval()
    image = torch.randn(1, *SHAPE)
    before = network(image)
    counted = count(network, SHAPE)
    assert (counted.macs, counted.params) == (CONV, params)
    assert torch.equal(network(image), before)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "matrix product": (lambda x: x @ x, 8 * 6**3),
    "einsum": (lambda x: torch.einsum("nchw,nkhw->nck", x, x), 8 * 8 * 36),
    "vector": (lambda x: torch.ones(5, 288) @ x.flatten(), 5 * 288),
    "attention": (lambda x: functional.scaled_dot_product_attention(x, x, x), 2 * 8 * 6**3),
    "attention of the kind that is fused": (
        lambda x: functional.scaled_dot_product_attention(
            heads := x.flatten(2).transpose(1, 2).reshape(1, 36, 2, 4).transpose(1, 2), heads, heads
        ),
        2 * 2 * 36 * 36 * 4,
    ),
    "normalised, resized, moved": (
        lambda x: functional.interpolate(functional.layer_norm(torch.cat([x, x.roll(1)]), [6, 6]), scale_factor=2), 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_count_as_layers_do(name: str) -> None:
    function, macs = FUNCTIONS[name]
    counted = count(Then(function), SHAPE)
    assert (counted.macs, counted.why) == (CONV + macs, "")


def test_attention_layers_count_whole_and_the_fast_path_is_as_it_was() -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x[0])

    # of 8 tokens of 8 values, as many sequences as channels: queries, keys and values; two products; projection; two layers
    macs = 3 * (8 * 8 * 24 + 2 * 8 * 8 * 8 + 8 * 8 * 8 + 2 * 8 * 8 * 16)
    assert count(Encoder(), SHAPE).macs == macs
    assert torch.backends.mha.get_fastpath_enabled() is fast


@torch.library.custom_op("nas_tests::product", mutates_args=())
def product(x: Tensor) -> Tensor:
    return x.transpose(-1, -2) @ x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x[:, 0])[0]


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.conv = nn.Conv2d(3, 18, 3), torchvision.ops.DeformConv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offsets(x))


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(8, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


class Beside(nn.Module):
    """Computes in numpy, before a layer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.from_numpy(x.numpy() @ x.numpy()))


UNKNOWN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Fourier transform": (lambda: Then(lambda x: torch.fft.rfft2(x).abs()), "aten::_fft_r2c"),
    "inverse": (lambda: Then(lambda x: torch.linalg.inv(x)), "linalg_inv"),
    "custom operator": (lambda: Then(product), "nas_tests::product"),
    "deformable": (Deformable, "torchvision::deform_conv2d"),
    "bilinear": (Bilinear, "aten::_trilinear"),
    "distances": (lambda: Then(lambda x: torch.cdist(x, x)), "dist"),
    "no layer that counts": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.PReLU()), "nothing that it does is counted"),
    "numpy": (Beside, "computed outside of torch"),
    "wrong input": (lambda: nn.Conv2d(5, 1, 1), "expected input"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_count_is_not_known_and_named(name: str) -> None:
    make, why = UNKNOWN[name]
    counted = count(make(), SHAPE)
    assert counted.macs is None
    assert why in counted.why
    assert counted.params == sum(parameter.numel() for parameter in make().parameters())


@pytest.mark.filterwarnings("ignore")
def test_a_recurrent_layer_is_counted_or_not_known() -> None:
    products = 8 * (8 * 16 + 4 * 16)
    assert count(Recurrent(), SHAPE).macs in (None, products)


@pytest.mark.filterwarnings("ignore")
def test_quantised_networks_have_parameters_and_no_zero() -> None:
    torch.backends.quantized.engine = "x86"
    network = models.quantization.mobilenet_v2(weights=None, quantize=True)
    cost = count(network, (3, 32, 32))
    assert cost.macs is None
    assert cost.why.startswith("quantized::conv2d_relu, quantized::conv2d, ")
    # batch norm went into the convolutions, which have a bias in its place
    assert cost.params == 3_504_872 - 2 * 17_056 + 17_056
    assert 3_400_000 < model_bytes(network) < 4_000_000
    with pytest.raises(CandidateError, match="multiply-adds are not known: quantized::conv2d_relu"):
        module_cost(network, (3, 32, 32))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.ReLU(), nn.Linear(10, 10))
    dynamic = torch.ao.quantization.quantize_dynamic(linear, {nn.Linear})
    counted = count(dynamic, SHAPE)
    assert (counted.macs, counted.params) == (None, 1930 + 110)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_cannot_be_seen_are_not_no_weights() -> None:
    assert count(torch.jit.freeze(torch.jit.script(small())), SHAPE).params is None

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.ones(192, 10)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight

    counted = count(Hidden(), SHAPE)
    assert (counted.macs, counted.params) == (1920, None)
    free = count(nn.Sequential(nn.ReLU(), nn.Flatten()), SHAPE)
    assert (free.macs, free.params) == (0, 0)


@pytest.mark.filterwarnings("ignore")
def test_layers_that_torchscript_gives_to_another_library_are_not_counted_as_nothing() -> None:
    counted = count(torch.jit.optimize_for_inference(torch.jit.script(small())), SHAPE)
    assert (counted.macs, counted.why) == (None, "layers of MKLDNN's not counted")


def test_a_lazy_network_is_counted_and_stays_lazy() -> None:
    module = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10))
    counted = count(module, SHAPE)
    assert (counted.macs, counted.params) == (SMALL, 8 * 27 + 8 + 2890)
    assert all(map(torch.nn.parameter.is_lazy, module.parameters()))


def test_counting_changes_nothing() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.Dropout())
    module[0].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    drawn = torch.random.get_rng_state()
    count(module, SHAPE)
    assert [part.training for part in module] == [False, True, True]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)


PUBLISHED = {
    "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1, "mobilenet_v3_small": models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1, "densenet121": models.DenseNet121_Weights.IMAGENET1K_V1,
    "efficientnet_b0": models.EfficientNet_B0_Weights.IMAGENET1K_V1, "convnext_tiny": models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
    "swin_t": models.Swin_T_Weights.IMAGENET1K_V1, "swin_v2_t": models.Swin_V2_T_Weights.IMAGENET1K_V1,
    "vit_b_16": models.ViT_B_16_Weights.IMAGENET1K_V1, "maxvit_t": models.MaxVit_T_Weights.IMAGENET1K_V1,
    "shufflenet_v2_x1_0": models.ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1, "squeezenet1_1": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
    "regnet_y_400mf": models.RegNet_Y_400MF_Weights.IMAGENET1K_V1, "googlenet": models.GoogLeNet_Weights.IMAGENET1K_V1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_are_those_that_torchvision_publishes(name: str) -> None:
    meta = PUBLISHED[name].meta
    network = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    side = 224 if name != "swin_v2_t" else 256
    counted = count(network, (3, side, side))
    assert counted.macs is not None
    assert round(counted.macs / 1e9, 3) == pytest.approx(meta["_ops"], abs=0.0011)
    if name != "googlenet":  # whose published figure is without its auxiliary heads
        assert counted.params == meta["num_params"]


def test_thop_counts_the_same_of_convolutions() -> None:
    import thop

    network = torchvision.models.resnet18(weights=None).eval()
    ignored = dict.fromkeys([nn.BatchNorm2d, nn.AdaptiveAvgPool2d], lambda *_: None)
    macs, params = thop.profile(network, inputs=(torch.zeros(1, 3, 64, 64),), custom_ops=ignored, verbose=False)
    counted = count(network, (3, 64, 64))
    assert (counted.macs, counted.params) == (macs, params)
