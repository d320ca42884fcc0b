"""Static cost: multiply-adds and parameters, counted from the architecture or, with thop, from a module.

Counted: convolutions and linear layers, a multiply-add as one, as published figures do. Not counted: batch
norm (folded away in deployment), activations, pooling. Parameters include those of batch norm.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from nas.architecture import Architecture
from nas.geometry import output_size
from nas.record import Cost

if TYPE_CHECKING:
    from torch import nn


def architecture_cost(architecture: Architecture, num_classes: int) -> Cost:
    """Cost in closed form, without building the network (microseconds, for samplers and space statistics)."""
    macs = params = 0
    architecture = architecture.canonical

    def convolution(in_channels: int, out_channels: int, kernel_size: int, side: int) -> None:
        nonlocal macs, params
        weights = in_channels * out_channels * kernel_size**2
        macs += weights * side**2
        params += weights + 2 * out_channels

    stem = architecture.stem
    side = output_size(architecture.input_size, stem.stride)
    convolution(architecture.input_channels, stem.out_channels, stem.kernel_size, side)
    for layer, shape in architecture.shapes():
        hidden = layer.hidden_channels(shape.in_channels)
        side = output_size(shape.in_size, layer.stride)
        if layer.separable:
            if layer.expansion != 1:
                convolution(shape.in_channels, hidden, 1, shape.in_size)
            convolution(1, hidden, layer.kernel_size, side)
        else:
            convolution(shape.in_channels, hidden, layer.kernel_size, side)
        convolution(hidden, layer.out_channels, 1, side)
    features = architecture.output_shape.in_channels
    if architecture.head_channels:
        convolution(features, architecture.head_channels, 1, side)
        features = architecture.head_channels
    return Cost(macs + features * num_classes, params + features * num_classes + num_classes)


def module_cost(module: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Cost of any module on one image of `input_shape` (C, H, W), by thop on a copy of the module."""
    import thop
    import torch
    from torch import nn

    copied = copy.deepcopy(module).eval()
    parameter = next(copied.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    image = torch.zeros(1, *input_shape, device=device)

    def nothing(*_: object) -> None:
        return None

    uncounted: list[type[nn.Module]] = [nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.AvgPool2d]
    macs, _ = thop.profile(copied, inputs=(image,), custom_ops=dict.fromkeys(uncounted, nothing), verbose=False)
    return Cost(int(macs), sum(p.numel() for p in module.parameters()))
