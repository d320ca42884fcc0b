"""From an `Architecture` to the network that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.models.blocks import ConvNormAct, InvertedResidual, Network
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.geometry import pad_amounts

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


@dataclass(frozen=True)
class Plan:
    """Keyword arguments of each part of a network: what `build` instantiates and the export writes as source."""

    stem: dict[str, Any]
    blocks: tuple[dict[str, Any], ...]
    head: dict[str, Any] | None
    classifier: dict[str, Any]


def plan(architecture: Architecture, num_classes: int) -> Plan:
    """The arguments of an architecture's parts, from its canonical form."""
    arch = architecture.canonical
    common = {"eps": arch.norm_eps, "activation": ACTIVATIONS[arch.activation]}
    stem = {
        "in_channels": arch.input_channels,
        "out_channels": arch.stem.out_channels,
        "kernel_size": arch.stem.kernel_size,
        "stride": arch.stem.stride,
        "pad": pad_amounts(arch.input_size, arch.stem.kernel_size, 1, arch.stem.stride, arch.padding),
        **common,
    }
    blocks = tuple(
        {
            "in_channels": shape.in_channels,
            "hidden": layer.hidden_channels(shape.in_channels),
            "out_channels": layer.out_channels,
            "kernel_size": layer.kernel_size,
            "stride": layer.stride,
            "dilation": layer.dilation,
            "separable": layer.separable,
            "pad": pad_amounts(shape.in_size, layer.kernel_size, layer.dilation, layer.stride, arch.padding),
            **common,
        }
        for layer, shape in arch.shapes()
    )
    features = arch.output_shape.in_channels
    head = None
    if arch.head_channels:
        head = {"in_channels": features, "out_channels": arch.head_channels, **common}
        features = arch.head_channels
    return Plan(stem, blocks, head, {"in_features": features, "out_features": num_classes})


def assemble(
    architecture: Architecture,
    num_classes: int,
    part: Callable[[type[nn.Module], str | int, Mapping[str, Any]], Any],
) -> Network:
    """The network of an architecture's canonical form, of what `part` makes of a class, its place and its arguments."""
    parts = plan(architecture, num_classes)
    return Network(
        stem=part(ConvNormAct, "stem", parts.stem),
        blocks=[part(InvertedResidual, place, arguments) for place, arguments in enumerate(parts.blocks)],
        head=part(ConvNormAct, "head", parts.head) if parts.head else nn.Identity(),
        classifier=part(nn.Linear, "classifier", parts.classifier),
    )


def build(architecture: Architecture, num_classes: int, seed: int = 0) -> Network:
    """The network of an architecture's canonical form, with fresh weights that `seed` decides.

    Takes images (N, C, H, W) of the architecture's input size and gives logits (N, num_classes).
    """
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator; leave it as it was
        torch.default_generator.manual_seed(seed)
        network = assemble(architecture, num_classes, lambda kind, place, arguments: kind(**arguments))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
