"""The building blocks of every candidate. They import torch alone: the export copies this source as it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ConvNormAct(nn.Module):
    """Padded convolution, batch norm, and optionally the activation: (N, C, H, W) to (N, C', H/stride, W/stride).

    `pad` is the zeros (before, after) each spatial axis. Without `batch_norm`, which may be folded into it, the convolution
    has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        pad: tuple[int, int] = (0, 0),
        batch_norm: bool = True,
        eps: float = 1e-5,
        activation: type[nn.Module] | None = nn.ReLU6,
    ) -> None:
        super().__init__()
        before, after = pad
        self.uneven_pad = (before, after, before, after) if before != after else None
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=0 if self.uneven_pad else before,
            dilation=dilation,
            groups=groups,
            bias=not batch_norm,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=eps) if batch_norm else nn.Identity()
        self.act = activation(inplace=True) if activation else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.uneven_pad:
            x = F.pad(x, self.uneven_pad)
        return self.act(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """Expand, filter, project; the input is added where the shapes agree. (N, C, H, W) to (N, C', H/stride, W/stride).

    Separable: pointwise expansion (none when `hidden` equals `in_channels`), depthwise kernel, projection.
    Fused: one dense kernel expands and filters, then the projection.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        separable: bool = True,
        pad: tuple[int, int] = (0, 0),
        batch_norm: bool = True,
        eps: float = 1e-5,
        activation: type[nn.Module] = nn.ReLU6,
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        self.expand: nn.Module = nn.Identity()
        if separable and hidden != in_channels:
            self.expand = ConvNormAct(in_channels, hidden, batch_norm=batch_norm, eps=eps, activation=activation)
        self.filter = ConvNormAct(
            hidden if separable else in_channels,
            hidden,
            kernel_size,
            stride=stride,
            dilation=dilation,
            groups=hidden if separable else 1,
            pad=pad,
            batch_norm=batch_norm,
            eps=eps,
            activation=activation,
        )
        self.project = ConvNormAct(hidden, out_channels, batch_norm=batch_norm, eps=eps, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.residual else y


class Network(nn.Module):
    """Stem, inverted residuals, optional 1x1 head, mean over the map, classifier: (N, C, H, W) to (N, classes)."""

    def __init__(self, stem: nn.Module, blocks: list[InvertedResidual], head: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))
