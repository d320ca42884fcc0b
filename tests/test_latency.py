"""Latency: what is measured, under which protocol, and that the model given is left as it was."""

from __future__ import annotations

import copy
import gc
import logging
import random
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import nas.latency.measuring as latency_module
from nas.common.errors import CandidateError, InputError
from nas.latency.at_work import OTHERS_LIMIT
from nas.latency.folding import fold_batch_norm
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol, Precision
from nas.latency.reference import reference_network
from nas.latency.telemetry import Watch
from nas.models.networks import build
from nas.spaces.files import load_space

QUICK = LatencyProtocol(warmup_s=0.01, max_s=0.02, min_blocks=5, attempts=1)
SPACE = load_space("digits")


def trained_like(module: nn.Module) -> nn.Module:
    """Batch norm statistics that are not the identity, as after training."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                assert tensor is not None
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
            assert part.running_var is not None
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    return module


class Restless(nn.Module):
    """Draws random numbers, has a hook, a frozen part and a part in eval mode: all that measuring could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.classifier = nn.Linear(4, 3)
        self.body[0].requires_grad_(False)
        self.body[1].eval()
        self.body[3].register_forward_hook(double)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x + 0.0 * torch.rand_like(x))
        return self.classifier(x.mean((2, 3)))


def double(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


def everything(module: nn.Module) -> dict[str, object]:
    """All that a measurement must leave as it was, of the module and of torch."""
    return {
        "state": {
            name: (value.tolist(), value.stride(), value.data_ptr()) for name, value in module.state_dict().items()
        },
        "parameters": [(id(p), p.requires_grad, p.dtype, p.device, p.grad) for p in module.parameters()],
        "modes": {name: part.training for name, part in module.named_modules()},
        "parts": {name: id(part) for name, part in module.named_modules()},
        "hooks": [dict(part._forward_hooks) for part in module.modules()],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "threads": torch.get_num_threads(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "benchmark": torch.backends.cudnn.benchmark,
        "random": (torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())),
        "warnings": list(warnings.filters),
        "logging": logging.root.manager.disable,
    }


def outputs(module: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return module(images).detach()


PROTOCOLS = [
    ("eager", "float32", True, 1),
    ("eager", "float32", False, 3),
    ("eager", "float16", True, 3),
    ("eager", "bfloat16", False, 1),
    ("onnxruntime", "float32", False, 3),
    ("compile", "float32", True, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "dtype", "channels_last", "batch_size"), PROTOCOLS)
def test_the_model_and_torch_are_left_as_they_were(
    mode: str, dtype: Precision, channels_last: bool, batch_size: int
) -> None:
    module = trained_like(Restless())
    protocol = replace(
        QUICK, mode=mode, dtype=dtype, channels_last=channels_last, batch_size=batch_size, threads=2, attempts=1
    )
    reference_network(protocol.device, protocol.threads)
    said, before = outputs(module), everything(module)
    latency = measure(module, (1, 8, 8), protocol)
    after = everything(module)
    assert latency.protocol == protocol
    assert after == before
    assert torch.equal(outputs(module), said)
    gc.collect()
    assert sum(type(found) is Restless for found in gc.get_objects()) == 1  # the copy is gone


def test_a_module_in_another_precision_and_layout_is_left_in_it() -> None:
    module = build(SPACE.smallest, 10).half().to(memory_format=torch.channels_last)
    before = everything(module)
    measure(module, (1, 8, 8), replace(QUICK, channels_last=False))
    assert everything(module) == before


def test_folding_batch_norm_keeps_the_function_and_leaves_no_batch_norm() -> None:
    module = trained_like(build(SPACE.backbone, 10)).eval()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(module)
    assert fold_batch_norm(folded)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    torch.testing.assert_close(folded(x), module(x), rtol=1e-3, atol=1e-3)


class SharedConvolution(nn.Module):
    """Its convolution's output is read twice, so that folding would change the second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.norm(y)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum() > 0 else -self.conv(x)


class CalledTwice(nn.Module):
    """One convolution before two batch norms: folding either would change the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.first = nn.BatchNorm2d(1)
        self.second = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class TwoNames(nn.Module):
    """A convolution called by its second name; putting another in place of the first would change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = self.first
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(x))


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    module[1].register_forward_hook(double)
    return module


def weight_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.BatchNorm2d(4))


def without_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False))


@pytest.mark.parametrize("make", [SharedConvolution, CalledTwice, TwoNames, hooked, weight_normed, without_statistics])
def test_what_folding_would_change_is_not_folded(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = make().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            trained_like(part)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(module)
    assert not fold_batch_norm(folded)
    torch.testing.assert_close(folded(x), module(x))


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(input=self.conv(input=x))


def test_a_batch_norm_called_by_keyword_is_folded() -> None:
    module = trained_like(ByKeyword()).eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(module)
    assert fold_batch_norm(folded)
    torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-4)


def test_a_module_that_cannot_be_traced_is_measured_unfolded_and_says_so() -> None:
    latency = measure(Untraceable(), (1, 8, 8), QUICK)
    assert not latency.bn_folded
    assert latency.median_ms > 0


def test_the_protocol_and_the_spread_come_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OTHERS_LIMIT, "cpu", 1.0)  # whoever else computes on this machine
    protocol = replace(QUICK, batch_size=3, min_blocks=7, max_spread=0.0)
    latency = measure(build(SPACE.smallest, 10), (1, 8, 8), protocol)
    assert latency.protocol == protocol
    assert latency.input_shape == (3, 1, 8, 8)
    assert latency.blocks >= 7
    assert latency.noisy  # no spread is below 0
    assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert latency.device_name
    assert not latency.contended


class Sleeper(nn.Module):
    """Takes a known time, beside its tensors: a graph of it would take none."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.milliseconds = milliseconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import time

        time.sleep(self.milliseconds / 1000)
        return x


def test_the_unit_is_ms_for_one_batch() -> None:
    # A sleep never ends early, and 25 ms is far above what a busy machine adds to 5 ms.
    assert 5 <= measure(Sleeper(5), (1, 8, 8), QUICK).p10_ms < 25


def test_a_module_that_does_not_fit_the_input_is_a_candidates_error() -> None:
    with pytest.raises(CandidateError, match="could not be measured"):
        measure(nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 8, 8), QUICK)


class Uncopied(nn.Flatten):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("holds an open file")


def test_a_module_that_cannot_be_copied_is_measured_as_it_is_and_says_so() -> None:
    latency = measure(Uncopied(), (1, 8, 8), QUICK)
    assert latency.left_out["copy"] == "TypeError: holds an open file"
    assert not latency.bn_folded


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.Conv2d, (1, 8, 8), "make an instance of it"),
        ("resnet18", (1, 8, 8), "only an nn.Module can be measured, not 'resnet18'"),
        (nn.Identity(), (8, 8), r"input shape \(8, 8\): needs channels, height and width"),
        (nn.Identity(), (1, 1, 8, 8), "channels, height and width"),
        (nn.Identity(), (1, 0, 8), "at least 1"),
        (nn.Identity(), (1, 8.0, 8), "at least 1"),
        (nn.Identity(), 8, "input shape 8"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    module: nn.Module, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measure(module, shape, QUICK)


@pytest.mark.parametrize("device", ["auto", "tpu", "cuda:77"])
def test_a_device_that_is_not_here_is_an_input_error(device: str) -> None:
    with pytest.raises(InputError, match=device):
        measure(nn.Identity(), (1, 8, 8), replace(QUICK, device=device))


CALM = replace(QUICK, max_spread=1e9, attempts=3)
"""Never noisy by its spread: what remains is what the test makes up."""


def test_drift_of_the_reference_network_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "others", lambda self: 0.0)
    times = iter([1.0, 1.2, 1.0, 1.01])
    monkeypatch.setattr(latency_module, "reference_ms", lambda *_: next(times))
    latency = measure(nn.Identity(), (1, 8, 8), CALM)
    assert latency.attempts == 2
    assert latency.reference_ms == (1.0, 1.01)
    assert not latency.noisy


def test_drift_that_stays_is_noisy_and_the_least_of_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "others", lambda self: 0.0)
    times = iter([1.0, 1.2, 1.0, 1.1, 1.0, 0.5])
    monkeypatch.setattr(latency_module, "reference_ms", lambda *_: next(times))
    latency = measure(nn.Identity(), (1, 8, 8), CALM)
    assert latency.attempts == 3
    assert latency.drift == pytest.approx(0.1)
    assert latency.noisy
    assert not latency.contended


@pytest.mark.parametrize(
    ("shares", "attempts", "others", "contended"),
    [
        ([0.9, 0.0], 2, 0.0, False),
        ([0.9, 0.6, 0.8], 3, 0.6, True),
        ([0.1], 1, 0.1, False),  # what a system needs for itself
        ([None], 1, None, False),
    ],
)
def test_other_processes_measure_again_and_are_told(
    monkeypatch: pytest.MonkeyPatch, shares: list[float | None], attempts: int, others: float | None, contended: bool
) -> None:
    seen = iter(shares)
    monkeypatch.setattr(Watch, "others", lambda self: next(seen))
    drifts = iter([1.0, 1.0, 1.0, 1.02, 1.0, 1.0])
    monkeypatch.setattr(latency_module, "reference_ms", lambda *_: next(drifts))
    latency = measure(nn.Identity(), (1, 8, 8), CALM)
    assert latency.attempts == attempts
    assert latency.contended is contended
    assert latency.others is None if others is None else latency.others is not None


@pytest.mark.slow
def test_cold_runs_are_blocks_of_one_in_every_mode() -> None:
    cold = replace(QUICK, cold=True, min_blocks=2, max_s=0.0, warmup_s=0.0, attempts=1)
    for mode in ("eager", "onnxruntime"):
        latency = measure(build(SPACE.smallest, 10), (1, 8, 8), replace(cold, mode=mode))
        assert latency.runs_per_block == 1
        assert latency.blocks >= 2


def test_a_block_of_quick_runs_has_many() -> None:
    assert measure(nn.Identity(), (1, 8, 8), QUICK).runs_per_block > 100


def test_a_very_slow_network_does_not_hold_the_device_for_all_its_blocks() -> None:
    protocol = replace(QUICK, min_blocks=1000, max_s=0.01, attempts=1)
    latency = measure(Sleeper(20), (1, 8, 8), protocol)
    assert 5 <= latency.blocks < 1000
    assert latency.noisy
