"""Latency: what is measured, under which protocol, and that the model given is left as it was."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import nas.latency as latency_module
from nas.errors import CandidateError
from nas.latency import fold_batch_norm, measure
from nas.model import build
from nas.settings import LatencyProtocol
from nas.space_file import load_space

QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)
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


def test_the_model_is_not_changed() -> None:
    module = trained_like(build(SPACE.backbone, 10)).train()
    before = copy.deepcopy(module.state_dict())
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    hooks = list(module._forward_hooks)
    threads = torch.get_num_threads()
    measure(module, (1, 8, 8), replace(QUICK, dtype="bfloat16", threads=2))
    assert module.training
    assert all(part.training for part in module.modules())
    assert list(module._forward_hooks) == hooks
    assert torch.get_num_threads() == threads
    after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.dtype == before[name].dtype for name, tensor in after.items())


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


@pytest.mark.parametrize("kind", [SharedConvolution, CalledTwice])
def test_a_convolution_with_another_reader_is_not_folded(kind: type[nn.Module]) -> None:
    module = trained_like(kind()).eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    folded = copy.deepcopy(module)
    fold_batch_norm(folded)
    torch.testing.assert_close(folded(x), module(x))


def test_a_module_that_cannot_be_traced_is_measured_unfolded_and_says_so() -> None:
    latency = measure(Untraceable(), (1, 8, 8), QUICK)
    assert not latency.bn_folded
    assert latency.median_ms > 0


def test_the_protocol_and_the_spread_come_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(latency_module.OTHERS_LIMIT, "cpu", 1.0)  # whoever else computes on this machine
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
