"""From a base's weights into any network of its space.

The rules of `nas.models.inherit`, for layers of any network: the centre or the taps of a kernel; of a narrower group the
channels whose weights in the layers that read them have the largest L1 norm, the same ones in every layer; a separable
layer from a dense one by the best kernel of rank one for each input channel; a dense one from pointwise and depthwise, the
inner batch norm folded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.common.errors import InputError
from nas.models.graph.build import build_program
from nas.models.inherit import fit_kernel
from nas.models.networks import Inheritance, State
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.base import Base, Layer, Segment
from nas.spaces.graph.rewrite import DEPTHWISE, POINTWISE, Changed, changed, rewritten
from nas.spaces.graph.sites import pair, readers

_NORM = ("weight", "bias", "running_mean", "running_var")


def inherit(
    base: Base, weights: State, architecture: GraphArchitecture, num_classes: int, seed: int = 0
) -> Inheritance:
    """Initial weights of a network of the base's; a classifier for other classes than the base's keeps its random ones."""
    if architecture.base != base:
        raise InputError(f"the weights are of {base.title}, and the network is of {architecture.base.title}")
    arch = architecture.canonical
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        state = build_program(rewritten(base, dict(arch.changes), num_classes)).state_dict()
    work = _Work(base, weights, changed(base, dict(arch.changes)), state)
    work.copy_unchanged()
    for layer in base.layers:
        if layer.node not in work.what.gone and layer.kind != "other":
            work.layer(layer)
    work.shift()
    fresh: tuple[str, ...] = ()
    if num_classes != base.classes:
        fresh = (base.head,)
        _reinitialise(base, work, seed, num_classes)
    return Inheritance(state, fresh, bool(arch.changes) or arch.size != base.size, len(work.taken), len(fresh))


def _reinitialise(base: Base, work: _Work, seed: int, num_classes: int) -> None:
    for name, tensor in work.before.items():
        if name.startswith(f"{base.head}."):
            work.state[name] = tensor


@dataclass
class _Work:
    """One inheritance under way: `before` are the random weights, `taken` the layers that got theirs."""

    base: Base
    weights: State
    what: Changed
    state: dict[str, torch.Tensor]

    def __post_init__(self) -> None:
        self.before = {
            name: tensor.clone() for name, tensor in self.state.items() if name.startswith(f"{self.base.head}.")
        }
        self.taken: set[str] = set()
        self._shifts: list[tuple[str, torch.Tensor]] = []
        self._kept = {group: self._strongest(group, count) for group, count in self.what.widths.items()}

    def copy_unchanged(self) -> None:
        """All that has the base's shape; what changed is written over afterwards."""
        for name, tensor in self.state.items():
            own = self.weights.get(name)
            if own is not None and own.shape == tensor.shape:
                self.state[name] = own.clone()

    def _strongest(self, group: int, count: int) -> torch.Tensor:
        """Indices, in their old order, of the channels that weigh most in the layers that read them."""
        size = self.base.groups[group].size
        norms = torch.zeros(size)
        for layer in readers(self.base, group):
            weight = self.weights[f"{layer.path}.weight"].abs().float()
            by_input = weight.sum([axis for axis in range(weight.ndim) if axis != 1])
            start = 0
            for segment in layer.ins:
                length = self.base.groups[segment.group].size * segment.repeat
                if segment.group == group:
                    norms += by_input[start : start + length].view(size, segment.repeat).sum(1)
                start += length
        return norms.topk(count).indices.sort().values

    def _indices(self, row: tuple[Segment, ...]) -> torch.Tensor:
        """Of a row of groups the places that are kept."""
        found, start = [], 0
        for segment in row:
            size = self.base.groups[segment.group].size
            kept = self._kept.get(segment.group, torch.arange(size))
            places = kept[:, None] * segment.repeat + torch.arange(segment.repeat)
            found.append(start + places.flatten())
            start += size * segment.repeat
        return torch.cat(found)

    def layer(self, layer: Layer) -> None:
        """Weights of a layer that reads and writes channels."""
        self.taken.add(layer.path)
        if layer.kind == "norm":
            kept = self._indices(layer.ins)
            for key in _NORM:
                if f"{layer.path}.{key}" in self.weights:
                    self.state[f"{layer.path}.{key}"] = self.weights[f"{layer.path}.{key}"][kept].clone()
            return
        outs = self._outs(layer)
        bias = self.weights.get(f"{layer.path}.bias")
        weight = self.weights[f"{layer.path}.weight"]
        if layer.kind == "linear":
            self._write(layer.path, weight[outs][:, self._indices(layer.ins)], bias, outs)
            return
        grouped = layer.depthwise or self.base.part(layer.path).arguments.get("groups", 1) > 1
        weight = weight[outs] if grouped else weight[outs][:, self._indices(layer.ins)]
        weight = self._fitted(layer, weight)
        if layer.path in self.what.separable:
            depthwise, pointwise = rank_one(weight)
            self.state[f"{layer.path}.{DEPTHWISE}.weight"] = depthwise
            self._write(f"{layer.path}.{POINTWISE}", pointwise, bias, outs)
        elif layer.path in self.what.fused:
            dense, shift = self._fused(layer, weight, outs)
            self._write(layer.path, dense, bias, outs)
            self._shifts.append((self.base.fusion[layer.path].norm, shift))
        else:
            self._write(layer.path, weight, bias, outs)

    def _outs(self, layer: Layer) -> torch.Tensor:
        return self._indices(layer.outs)

    def _write(self, path: str, weight: torch.Tensor, bias: torch.Tensor | None, outs: torch.Tensor) -> None:
        self.state[f"{path}.weight"] = weight.contiguous().clone()
        if bias is not None:
            self.state[f"{path}.bias"] = bias[outs].clone()

    def _fitted(self, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
        kernels, dilations = self.what.kernels, self.what.dilations
        if layer.path not in kernels and layer.path not in dilations:
            return weight
        part = self.base.part(layer.path)
        dilation = pair(part.arguments.get("dilation", 1))[0]
        kernel = kernels.get(layer.path, pair(part["kernel_size"])[0])
        return fit_kernel(weight, dilation, kernel, dilations.get(layer.path, dilation))

    def _fused(self, layer: Layer, depthwise: torch.Tensor, outs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A dense kernel (hidden, in, k, k) from a pointwise and a depthwise one, and the shift of what it gives."""
        fusion = self.base.fusion[layer.path]
        pointwise = self.weights[f"{fusion.pointwise}.weight"][outs][
            :, self._indices(self.base.layer[fusion.pointwise].ins)
        ]
        own_bias = self.weights.get(f"{fusion.pointwise}.bias")
        variance = self.weights[f"{fusion.inner_norm}.running_var"][outs]
        ones = torch.ones(len(outs))
        gain = self.weights.get(f"{fusion.inner_norm}.weight")
        eps = self.base.part(fusion.inner_norm).arguments.get("eps", 1e-5)
        scale = (ones if gain is None else gain[outs]) / (variance + eps).sqrt()
        offset = self.weights.get(f"{fusion.inner_norm}.bias")
        mean = self.weights[f"{fusion.inner_norm}.running_mean"][outs] - (0 if own_bias is None else own_bias[outs])
        bias = (0 if offset is None else offset[outs]) - mean * scale
        return pointwise * scale[:, None, None, None] * depthwise, bias * depthwise.sum((1, 2, 3))

    def shift(self) -> None:
        """Put what the fused layers lack into the mean of the batch norm behind."""
        for norm, shift in self._shifts:
            self.state[f"{norm}.running_mean"] -= shift


def rank_one(dense: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The depthwise (in, 1, k, k) and pointwise kernel (out, in, 1, 1) that come closest to a dense one (out, in, k, k).

    For each input channel that is its best approximation of rank one (Eckart & Young, 1936).
    """
    out, channels, height, width = dense.shape
    rows = dense.permute(1, 0, 2, 3).reshape(channels, out, height * width)
    left, values, right = torch.linalg.svd(rows.float(), full_matrices=False)
    size = values[:, 0].clamp_min(1e-12).sqrt()
    depthwise = (right[:, 0] * size[:, None]).view(channels, 1, height, width)
    pointwise = (left[:, :, 0] * size[:, None]).T.reshape(out, channels, 1, 1)
    return depthwise.to(dense.dtype), pointwise.to(dense.dtype)


def weights_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights on the CPU, as inheriting wants them."""
    return {name: tensor.detach().cpu() for name, tensor in state.items()}
