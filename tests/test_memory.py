"""What the training loop does to memory: no copies, no new pages, and nothing that is left behind."""

from __future__ import annotations

import ctypes
import platform
import resource

import pytest
import torch
from torch import nn

from nas.models.networks import build
from nas.spaces.files import load_space
from nas.training import allocator
from nas.training.allocator import own_process, reused_memory
from nas.training.memory import lean_activations

CPU = torch.device("cpu")


def gradients(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    model(images).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_a_lean_network_has_the_same_outputs_and_gradients_to_the_bit() -> None:
    images = 3 * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = build(load_space("digits").backbone, 10).train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(4.0)  # so that both bounds are met
    outputs, expected = model(images), gradients(model, images)
    undo = lean_activations(model)
    assert torch.equal(model(images), outputs)
    lean = gradients(model, images)
    assert len(lean) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(lean, expected, strict=True))
    undo()
    assert torch.equal(model(images), outputs)


def test_a_lean_activation_has_no_gradient_at_and_beyond_its_bounds() -> None:
    values = torch.tensor([-1.0, 0.0, 1e-6, 3.0, 5.999, 6.0, 7.0, torch.nan], requires_grad=True)
    model = nn.Sequential(nn.ReLU6(inplace=True))
    lean_activations(model)
    result = model(values * 1)
    torch.testing.assert_close(result, nn.functional.relu6(values), equal_nan=True)
    (gradient,) = torch.autograd.grad(result.sum(), values)
    (expected,) = torch.autograd.grad(nn.functional.relu6(values).sum(), values)
    assert torch.equal(gradient, expected)


def test_a_lean_activation_saves_its_result_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
    images = torch.randn(2, 4, 3, 3)

    def saved() -> int:
        """Tensors of the images' shape that the backward pass keeps."""
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):  # type: ignore[func-returns-value]
            result = model(images)
        return len({x.data_ptr() for x in [*kept, result] if x.shape == images.shape})

    assert saved() == 3  # the input of each, and the result
    lean_activations(model)
    assert saved() == 2


def test_only_in_place_relu6_is_replaced_and_all_of_it_comes_back() -> None:
    others = [nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(0, 6, inplace=True)]
    model = nn.Sequential(nn.Sequential(nn.ReLU6(inplace=True)), *others)
    before = list(model.modules())
    undo = lean_activations(model)
    after = list(model.modules())
    assert [one is other for one, other in zip(before, after, strict=True)] == [True, True, False, True, True, True]
    model.eval()
    undo()
    assert list(model.modules()) == before
    assert not any(module.training for module in before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
def test_freed_memory_is_used_again_and_goes_back_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def resident_mb() -> float:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def pages_of(count: int) -> int:
        """Pages the kernel had to give for as many blocks of 100 MB, one after another."""
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            address = libc.malloc(100_000_000)
            ctypes.memset(address, 1, 100_000_000)
            libc.free(address)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

    fresh = pages_of(5)
    monkeypatch.setattr(allocator._Process, "ours", False)
    with reused_memory(CPU):
        pages_of(1)
        assert pages_of(5) > fresh / 2  # a program of the user's is left alone
    own_process()
    with reused_memory(CPU):
        pages_of(1)
        assert pages_of(5) < fresh / 10
        kept = resident_mb()
    assert resident_mb() < kept - 90
    assert pages_of(5) > fresh / 2
