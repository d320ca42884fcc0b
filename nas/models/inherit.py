"""Weight inheritance: from a trained backbone into any candidate, and the recalibration of batch norm after it.

A backbone is an `Architecture` with a state dict in the names of `nas.models.build`. Each layer of a candidate takes what
it can from the layer at its place in the backbone's stage:

- kernel: centre crop, or zeros around it; a dilated kernel takes the taps that it lands on (k3 d2: 0, 2, 4 of a k5);
- fewer hidden channels: those whose projection weights have the largest L1 norm (Cai et al., Once-for-All, ICLR
  2020, section 3.3); more: the others start with a projection of zero, so that the function stays (Chen et al.,
  Net2Net, ICLR 2016);
- a dense kernel from a separable layer: W[o, i] = pw[o, i] * dw[o], the first batch norm folded into pw and its
  shift into the mean of the second (exact but for the activation between them and the borders);
- depth: the leading layers of the stage; a layer beyond the backbone's depth copies the stage's last one and starts
  as the identity (the scale of its last batch norm is zero).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from nas.common.errors import InputError
from nas.latency.lease import Bursts, DeviceLease
from nas.models.build import build
from nas.models.networks import Backbone, Inheritance, State
from nas.spaces.mobile.architecture import Architecture, LayerSpec

_NORM = ("weight", "bias", "running_mean", "running_var")


def remap_state_dict(tensors: State, architecture: Architecture, num_classes: int) -> dict[str, torch.Tensor]:
    """A foreign state dict under the names of `nas.models.build`: the same tensors in the same order of layers.

    That is how EfficientNet-Lite and MobileNetV2 list theirs. Raises `InputError` when a shape differs.
    """
    ours = build(architecture, num_classes).state_dict()
    if len(ours) != len(tensors):
        raise InputError(f"the weights hold {len(tensors)} tensors, the architecture {len(ours)}")
    remapped = {}
    for (name, own), (foreign, tensor) in zip(ours.items(), tensors.items(), strict=True):
        if own.shape != tensor.shape:
            raise InputError(f"{foreign} is of shape {tuple(tensor.shape)}; {name} needs {tuple(own.shape)}")
        remapped[name] = tensor
    return remapped


def inherit(backbone: Backbone, architecture: Architecture, num_classes: int, seed: int = 0) -> Inheritance:
    """Initial weights of a candidate from a backbone; what nothing fits keeps its seeded random values."""
    arch = architecture.canonical
    state = build(arch, num_classes, seed).state_dict()
    fresh: list[str] = []
    source = backbone.architecture.canonical
    _stem(backbone, arch, state, fresh)
    reinitialized = 0
    for index, origin in enumerate(origins_of(arch, source)):
        if origin is None or not _block(backbone, arch, index, origin, state):
            fresh.append(f"blocks.{index}")
            reinitialized += 1
    same_head = arch.head_channels == source.head_channels and (
        arch.output_shape.in_channels == source.output_shape.in_channels
    )
    for part, fits in (("head", same_head), ("classifier", same_head and num_classes == backbone.num_classes)):
        names = [name for name in state if name.startswith(f"{part}.")]
        if fits:
            state |= {name: backbone.state[name].clone() for name in names}
        elif names:
            fresh.append(part)
    changed = bool(set(fresh) - {"classifier"}) or arch != source
    return Inheritance(state, tuple(fresh), changed, len(arch.layers) - reinitialized, reinitialized)


@contextmanager
def calibrating(network: nn.Module) -> Iterator[None]:
    """Batches that pass through meanwhile replace all batch norm statistics, by their cumulative average."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for the cumulative average
    network.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[torch.Tensor], lease: DeviceLease | None = None) -> None:
    """Replace the statistics of every batch norm by their cumulative average over batches (N, C, H, W), in place.

    The shared lease, where there is one, is taken as for steps of training.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))  # a head may be empty
    bursts = Bursts(lease, device)
    with calibrating(network):
        for batch in batches:
            with bursts:
                network(batch)
    bursts.close()


@dataclass(frozen=True)
class Origin:
    """The backbone's layer that a candidate's layer takes from; `extra` when it lies beyond the stage's depth."""

    index: int
    extra: bool


def stages_of(arch: Architecture) -> list[list[int]]:
    """Indices of layers by stage: a new one begins where the stride is not 1 or the width changes."""
    stages: list[list[int]] = []
    for index, (layer, shape) in enumerate(arch.shapes()):
        if not stages or layer.stride > 1 or layer.out_channels != shape.in_channels:
            stages.append([])
        stages[-1].append(index)
    return stages


def origins_of(arch: Architecture, source: Architecture) -> list[Origin | None]:
    """For each layer of `arch` where it comes from: stages are matched in order, by their width."""
    origins: list[Origin | None] = []
    offered = stages_of(source)
    for stage in stages_of(arch):
        width = arch.layers[stage[0]].out_channels
        match = next((i for i, layers in enumerate(offered) if source.layers[layers[0]].out_channels == width), None)
        if match is None:
            origins += [None] * len(stage)
            continue
        layers, offered = offered[match], offered[match + 1 :]
        for position in range(len(stage)):
            beyond = position >= len(layers)
            first_alone = beyond and len(layers) == 1  # its input has another width than a later layer's
            origins.append(None if first_alone else Origin(layers[min(position, len(layers) - 1)], beyond))
    return origins


def _stem(backbone: Backbone, arch: Architecture, state: dict[str, torch.Tensor], fresh: list[str]) -> None:
    weight = backbone.state["stem.conv.weight"]
    if arch.stem.out_channels != len(weight) or arch.input_channels not in (1, weight.shape[1]):
        fresh.append("stem")
        return
    if arch.input_channels != weight.shape[1]:
        weight = weight.sum(1, keepdim=True)  # a grey image is the same in every channel
    state["stem.conv.weight"] = fit_kernel(weight, 1, arch.stem.kernel_size, 1)
    _copy_norm(backbone.state, "stem.norm", state, "stem.norm")


def _block(backbone: Backbone, arch: Architecture, index: int, origin: Origin, state: dict[str, torch.Tensor]) -> bool:
    """Whether the layer could take its weights from there."""
    layer, shape = list(arch.shapes())[index]
    old, old_shape = list(backbone.architecture.canonical.shapes())[origin.index]
    here, there = f"blocks.{index}", f"blocks.{origin.index}"
    if shape.in_channels != old_shape.in_channels or (layer.separable and not old.separable):
        return False
    if not _same_opening(layer, old):
        return False
    hidden = layer.hidden_channels(shape.in_channels)
    projection = backbone.state[f"{there}.project.conv.weight"]
    kept = kept_channels(projection, hidden)
    count = len(kept)

    kernel = backbone.state[f"{there}.filter.conv.weight"][kept]
    kernel = fit_kernel(kernel, old.dilation, layer.kernel_size, layer.dilation)
    shift = torch.zeros(count)
    expand = backbone.state.get(f"{there}.expand.conv.weight")
    if layer.separable == old.separable:
        if expand is not None:
            state[f"{here}.expand.conv.weight"][:count] = expand[kept]
            _copy_norm(backbone.state, f"{there}.expand.norm", state, f"{here}.expand.norm", kept)
    else:
        kernel, shift = _compose(backbone, there, kept, kernel, shape.in_channels)
    state[f"{here}.filter.conv.weight"][:count] = kernel
    _copy_norm(backbone.state, f"{there}.filter.norm", state, f"{here}.filter.norm", kept)
    state[f"{here}.filter.norm.running_mean"][:count] -= shift
    state[f"{here}.project.conv.weight"].zero_()
    state[f"{here}.project.conv.weight"][:, :count] = projection[:, kept]
    _copy_norm(backbone.state, f"{there}.project.norm", state, f"{here}.project.norm")
    if origin.extra:
        state[f"{here}.project.norm.weight"].zero_()
        state[f"{here}.project.norm.bias"].zero_()
    return True


def _same_opening(layer: LayerSpec, old: LayerSpec) -> bool:
    """Whether the layers agree in having a pointwise expansion, which nothing can stand in for.

    A dense kernel composes with one or without.
    """
    return not layer.separable or (layer.expansion == 1) == (old.expansion == 1)


def _compose(
    backbone: Backbone, block: str, kept: torch.Tensor, depthwise: torch.Tensor, in_channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense kernel (hidden, in, k, k) from a pointwise and a depthwise one, and the shift of its output."""
    weight = backbone.state.get(f"{block}.expand.conv.weight")
    if weight is None:
        return torch.eye(in_channels)[kept][:, :, None, None] * depthwise, torch.zeros(len(kept))
    norm = {key: backbone.state[f"{block}.expand.norm.{key}"][kept] for key in _NORM}
    scale = norm["weight"] / (norm["running_var"] + backbone.architecture.norm_eps).sqrt()
    bias = norm["bias"] - norm["running_mean"] * scale
    pointwise = weight[kept] * scale[:, None, None, None]
    return pointwise * depthwise, bias * depthwise.sum((1, 2, 3))


def kept_channels(projection: torch.Tensor, count: int) -> torch.Tensor:
    """Indices, in their old order, of the `count` hidden channels whose projection (out, hidden, 1, 1) weighs most."""
    importance = projection.abs().sum((0, 2, 3))
    return importance.topk(min(count, len(importance))).indices.sort().values


def fit_kernel(kernel: torch.Tensor, old_dilation: int, kernel_size: int, dilation: int) -> torch.Tensor:
    """A kernel (O, I, k, k) at another size and dilation: each tap is the old one at its offset, or zero."""
    fitted = kernel.new_zeros(*kernel.shape[:2], kernel_size, kernel_size)
    old_radius, radius = kernel.shape[-1] // 2, kernel_size // 2
    places = []
    for tap in range(-radius, radius + 1):
        offset = tap * dilation
        if offset % old_dilation == 0 and abs(offset // old_dilation) <= old_radius:
            places.append((tap + radius, offset // old_dilation + old_radius))
    new, old = (torch.tensor(indices) for indices in zip(*places, strict=True))
    fitted[:, :, new[:, None], new] = kernel[:, :, old[:, None], old]
    return fitted


def _copy_norm(
    source: State, there: str, state: dict[str, torch.Tensor], here: str, kept: torch.Tensor | None = None
) -> None:
    for key in _NORM:
        values = source[f"{there}.{key}"]
        values = values if kept is None else values[kept]
        state[f"{here}.{key}"][: len(values)] = values
