"""Layers that torch lacks, and that no trace can look into. Torch alone: copied into exports."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropPath(nn.Module):
    """In training a share `p` of the images (`row`), or all of the batch at once (`batch`), becomes zero.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. With `scale` the others grow, so that the mean stays.
    """

    def __init__(self, p: float, mode: str = "row", scale: bool = True) -> None:
        super().__init__()
        self.p, self.mode, self.scale = p, mode, scale

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        shape = [x.shape[0] if self.mode == "row" else 1, *[1] * (x.ndim - 1)]
        kept = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        if self.scale and self.p < 1:
            kept.div_(1 - self.p)
        return x * kept


class SamePad2d(nn.Module):
    """What TensorFlow's SAME puts around a map (N, C, H, W) before a layer of this kernel: the odd pixel behind."""

    def __init__(
        self,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        value: float = 0.0,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation, self.value = kernel_size, stride, dilation, value

    def forward(self, x: Tensor) -> Tensor:
        amounts: list[int] = []
        for axis in (1, 0):  # the last axis first
            size, stride = x.shape[2 + axis], self.stride[axis]
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            amounts += [total // 2, total - total // 2]
        return functional.pad(x, amounts, value=self.value)
