"""Static cost: multiply-adds, parameters and bytes, from the architecture in closed form or counted on a module.

Counted: convolutions and products of matrices, those of attention among them, a multiply-add as one, as published
figures do. Not counted: batch norm (folded away in deployment), activations, pooling. Parameters and bytes of weights
include those of batch norm.
"""

from __future__ import annotations

from functools import lru_cache

from nas.spaces.base import Cost
from nas.spaces.mobile.architecture import REMEMBERED, Architecture, LayerSpec
from nas.spaces.mobile.geometry import output_size


def architecture_cost(architecture: Architecture, num_classes: int) -> Cost:
    """Cost in closed form, without building the network (microseconds, for samplers and space statistics).

    Peak activations, which have no such form, are left out.
    """
    macs, params, statistics = map(sum, zip(*part_costs(architecture, num_classes), strict=True))
    return Cost(macs, params, 4 * params + statistics)


def part_costs(architecture: Architecture, num_classes: int) -> list[tuple[int, int, int]]:
    """Of the stem, each layer, the head where there is one, and the classifier: multiply-adds, parameters, and bytes of
    batch norm's statistics. They add up to the cost of the architecture.
    """
    architecture = architecture.canonical
    stem = architecture.stem
    side, channels = output_size(architecture.input_size, stem.stride), stem.out_channels
    parts = [_convolution(architecture.input_channels, channels, stem.kernel_size, side)]
    for layer in architecture.layers:
        parts.append(_layer(layer, channels, side))
        side, channels = output_size(side, layer.stride), layer.out_channels
    if architecture.head_channels:
        parts.append(_convolution(channels, architecture.head_channels, 1, side))
        channels = architecture.head_channels
    parts.append((channels * num_classes, channels * num_classes + num_classes, 0))
    return parts


def _convolution(in_channels: int, out_channels: int, kernel_size: int, side: int) -> tuple[int, int, int]:
    """Multiply-adds, parameters, and bytes of statistics of a convolution to a map of `side`, with its batch norm."""
    weights = in_channels * out_channels * kernel_size**2
    # Mean and variance in float32, the number of batches in int64.
    return weights * side**2, weights + 2 * out_channels, 4 * 2 * out_channels + 8


@lru_cache(REMEMBERED)
def _layer(layer: LayerSpec, in_channels: int, in_size: int) -> tuple[int, int, int]:
    """The same of a layer on a map of `in_channels` and side `in_size`."""
    hidden = layer.hidden_channels(in_channels)
    side = output_size(in_size, layer.stride)
    parts = [_convolution(hidden, layer.out_channels, 1, side)]
    if not layer.separable:
        parts.append(_convolution(in_channels, hidden, layer.kernel_size, side))
    else:
        parts.append(_convolution(1, hidden, layer.kernel_size, side))
        if layer.expansion != 1:
            parts.append(_convolution(in_channels, hidden, 1, in_size))
    macs, params, statistics = map(sum, zip(*parts, strict=True))
    return macs, params, statistics
