"""From an `Architecture` to the network that computes it."""

from __future__ import annotations

import torch
from torch import nn

from nas.architecture import Architecture
from nas.geometry import pad_amounts
from nas.model.blocks import ConvNormAct, InvertedResidual, Network

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


def build(architecture: Architecture, num_classes: int, seed: int = 0) -> Network:
    """The network of an architecture's canonical form, with fresh weights that `seed` decides.

    Takes images (N, C, H, W) of the architecture's input size and gives logits (N, num_classes).
    """
    arch = architecture.canonical
    activation = ACTIVATIONS[arch.activation]
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator; leave it as it was
        torch.manual_seed(seed)
        stem = ConvNormAct(
            arch.input_channels,
            arch.stem.out_channels,
            arch.stem.kernel_size,
            stride=arch.stem.stride,
            pad=pad_amounts(arch.input_size, arch.stem.kernel_size, 1, arch.stem.stride, arch.padding),
            eps=arch.norm_eps,
            activation=activation,
        )
        blocks = [
            InvertedResidual(
                shape.in_channels,
                layer.hidden_channels(shape.in_channels),
                layer.out_channels,
                layer.kernel_size,
                stride=layer.stride,
                dilation=layer.dilation,
                separable=layer.separable,
                pad=pad_amounts(shape.in_size, layer.kernel_size, layer.dilation, layer.stride, arch.padding),
                eps=arch.norm_eps,
                activation=activation,
            )
            for layer, shape in arch.shapes()
        ]
        features = arch.output_shape.in_channels
        head: nn.Module = nn.Identity()
        if arch.head_channels:
            head = ConvNormAct(features, arch.head_channels, eps=arch.norm_eps, activation=activation)
            features = arch.head_channels
        network = Network(stem, blocks, head, nn.Linear(features, num_classes))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
