"""What keeps the memory of a training step on a CPU from being fetched again, or copied, at every step."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


@contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Keep what is freed on a CPU for what is allocated next; afterwards it goes back to the system.

    glibc maps and unmaps large tensors one by one, and the kernel clears each page of theirs again, at every step
    (mallopt(3)). Does nothing for a GPU or another C library.
    """
    libc = ctypes.CDLL(None)
    if device.type != "cpu" or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)
        # Setting any of them ends glibc's own adjustment, so these are the bounds at which that would have ended.
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)


class _ReLU6(torch.autograd.Function):
    """min(max(x, 0), 6) in place, whose gradient comes from the result."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(x)
        x.clamp_(0, 6)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], result, 0, 6)  # type: ignore[no-any-return]


class _LeanReLU6(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _ReLU6.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def lean_activations(model: nn.Module) -> Callable[[], None]:
    """Put in the place of each in-place ReLU6 one that saves no copy of its input; gives what undoes it.

    torch's keeps the input for its gradient, and so copies it first; the result, which the next layer keeps anyway,
    tells as much.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.ReLU6 and child.inplace
    ]
    for parent, name, _ in found:
        setattr(parent, name, _LeanReLU6())

    def undo() -> None:
        for parent, name, child in found:
            setattr(parent, name, child.train(parent.training))

    return undo
