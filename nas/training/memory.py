"""What keeps a training step from copying what it need not keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


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
