"""Bytes of weights and of peak activations, against figures worked out by hand. MACs and parameters: test_model.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from pydantic import TypeAdapter
from torch import Tensor, nn

from nas.common.errors import CandidateError
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.cost import model_bytes, module_cost, peak_activation_bytes
from nas.models.networks import build
from nas.runs.objectives import objective_values, peak_memory
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.words import cost_text
from nas.spaces.base import Cost
from nas.spaces.cheapest import least_cost
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.spaces.mobile.space import SearchSpace

PIXELS = 10 * 10
IMAGE = (3, 10, 10)
CHANNEL = 4 * PIXELS
"""Bytes of one channel of a 10x10 map in float32."""


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class Residual(nn.Module):
    """The input is added to what the body makes of it."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Function(nn.Module):
    """Runs a function between a convolution 3 -> 8 and the output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = conv(3, 8), nn.BatchNorm2d(8)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.norm(self.conv(x)))


# The image (3 channels) is alive throughout; the rest is what the operation reads, makes, and what is needed later.
PEAKS: dict[str, tuple[nn.Module, int]] = {
    "activation of its own": (nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4)), 3 + 8 + 8),
    "activation in place": (nn.Sequential(conv(3, 8), nn.ReLU(inplace=True), conv(8, 4)), 3 + 8 + 4),
    "chain": (nn.Sequential(conv(3, 4), conv(4, 16), conv(16, 4)), 3 + 4 + 16),
    "residual": (nn.Sequential(conv(3, 4), Residual(conv(4, 16), conv(16, 4))), 3 + 4 + 16 + 4),
    "batch norm folded": (nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)), 3 + 8),
    "batch norm alone": (nn.Sequential(nn.BatchNorm2d(3), conv(3, 8)), 3 + 3 + 8),
    "view": (Function(lambda x: x.flatten(1).unsqueeze(0)[:, :, ::2]), 3 + 8),
    "view that outlives its base": (Function(lambda x: (x[:, :1], x.mean())[0] * 2), 3 + 8 + 1),
    "several results": (Function(lambda x: torch.cat(x.chunk(2, 1), 1)), 3 + 8 + 8),
    "image alone": (nn.Identity(), 3),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_is_that_worked_out_by_hand(name: str) -> None:
    module, channels = PEAKS[name]
    assert peak_activation_bytes(module, IMAGE) == channels * CHANNEL
    assert peak_activation_bytes(module, IMAGE, batch_size=5) == 5 * channels * CHANNEL


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_composite_operators_are_watched_from_within() -> None:
    """Uneven `same` padding makes a padded copy inside the convolution: 11x11 for a kernel of size 2."""
    module = nn.Conv2d(3, 1, 2, padding="same")
    assert peak_activation_bytes(module, IMAGE) == 4 * (3 * 100 + 3 * 121 + 1 * 100)


def test_weights_are_not_activations() -> None:
    """A linear layer reads a transposed view of its weights, which counts with them."""
    assert peak_activation_bytes(nn.Sequential(nn.Flatten(), nn.Linear(300, 7)), IMAGE) == 4 * (300 + 7)


def test_precision_is_that_of_the_weights() -> None:
    assert peak_activation_bytes(conv(3, 8).half(), IMAGE) == 11 * CHANNEL // 2


def test_peak_of_mobilenet_v2() -> None:
    """In the second block: the image, its input, its expansion, and the depthwise convolution's result."""
    module = torchvision.models.mobilenet_v2()
    assert peak_activation_bytes(module, (3, 224, 224)) == 4 * (3 * 224**2 + 16 * 112**2 + 96 * 112**2 + 96 * 56**2)
    # 3,504,872 parameters; 52 batch norms of 17,056 channels together: mean, variance, and a count in int64
    assert model_bytes(module) == 4 * 3_504_872 + 4 * 2 * 17_056 + 8 * 52


def test_a_module_that_needs_values_has_no_known_peak() -> None:
    module = Function(lambda x: x if x.sum() > 0 else -x)
    with pytest.raises(CandidateError, match=r"peak activations are not known: RuntimeError"):
        peak_activation_bytes(module, IMAGE)
    cost = module_cost(module, IMAGE)
    assert (cost.params, cost.peak_activation_bytes) == (3 * 8 * 9 + 8 + 16, None)


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    module[0].eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    peak_activation_bytes(module, IMAGE)
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(value.is_meta for value in module.state_dict().values())


def test_bytes_of_weights() -> None:
    module = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10))
    assert model_bytes(module) == 4 * (100 + 10) + 4 * 4 * 10 + 8
    assert model_bytes(module.half()) == 2 * (100 + 10) + 2 * 4 * 10 + 8
    tied = nn.ModuleList([nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False)])
    assert model_bytes(tied) == 2 * 4 * 100
    tied[1].weight = tied[0].weight
    assert model_bytes(tied) == 4 * 100


@pytest.mark.parametrize("which", ["smallest", "backbone", "largest"])
def test_cost_of_a_network_fills_both(which: str) -> None:
    architecture = getattr(load_space("digits"), which)
    network = build(architecture, 10)
    cost = module_cost(network, architecture.input_shape)
    assert cost.size_bytes == architecture_cost(architecture, 10).size_bytes == model_bytes(network)
    assert cost.peak_activation_bytes == peak_activation_bytes(network, architecture.input_shape)


def test_records_without_bytes_are_read() -> None:
    assert TypeAdapter(Cost).validate_python({"macs": 1, "params": 2}) == Cost(1, 2, None, None)


def test_cost_in_words() -> None:
    architecture = load_space("digits").smallest

    def text(cost: Cost | None) -> str:
        return cost_text(TrialRecord(0, "", "", architecture, {}, Evaluation(Outcome.DONE, cost=cost)))

    assert text(None) == "cost not known"
    assert text(Cost(385_200_000, 4_650_000)) == "385.2 M MACs · 4.650 M parameters"
    assert text(Cost(385_200_000, 4_650_000, 18_600_000, 900_400)) == (
        "385.2 M MACs · 4.650 M parameters · 18.6 MB · peak activations 900.4 kB"
    )


@pytest.mark.parametrize(
    ("dtype", "batch_size", "expected"), [("float32", 1, 1500), ("float32", 8, 5000), ("float16", 8, 2500)]
)
def test_peak_memory_is_that_of_the_protocol(dtype: Any, batch_size: int, expected: int) -> None:
    """Weights once, activations for each image of a batch, both in the protocol's precision."""
    protocol = LatencyProtocol(dtype=dtype, batch_size=batch_size)
    latency = Latency(1.0, 1.0, 1.0, 0.0, 30, 1, False, False, 0.0, True, "test", (batch_size, 3, 8, 8), protocol)
    evaluation = Evaluation(Outcome.DONE, cost=Cost(10, 250, 1000, 500), latency=latency)
    assert peak_memory(evaluation) == expected
    assert objective_values(evaluation, ("accuracy", "memory")) == {"memory": float(expected)}
    for unknown in (Cost(10, 250), Cost(10, 250, 1000)):
        assert peak_memory(replace(evaluation, cost=unknown)) is None
    assert peak_memory(replace(evaluation, latency=None)) is None


@pytest.mark.subprocess
def test_reading_costs_does_not_import_torch() -> None:
    script = "import sys, nas.spaces.mobile.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_least_cost_is_that_of_the_cheapest_network_even_where_leaving_a_stage_out_makes_maps_larger() -> None:
    space = SearchSpace.model_validate(
        {
            "name": "strided",
            "input": {"channels": 1, "size": 32},
            "stem": {"out_channels": 16},
            "stages": [
                {"depth": [0, 1], "out_channels": 16, "stride": 2, "kernel_size": 3, "expansion": 1},
                {"depth": 2, "out_channels": [32, 64], "kernel_size": [3, 5], "expansion": 2},
            ],
        }
    )
    costs = [architecture_cost(space.architecture(values), 10) for values in space.all_values()]
    assert least_cost(space, 10, "macs") == min(cost.macs for cost in costs)
    assert least_cost(space, 10, "macs") < architecture_cost(space.smallest, 10).macs
    assert least_cost(space, 10, "params") == min(cost.params for cost in costs)
