"""From a base's weights into any network of its space.

The rules of `nas.models.inherit`, for layers of any network: the centre or the taps of a kernel; of a narrower group the
channels whose weights in the layers that read them have the largest L1 norm, the same ones in every layer; a separable
layer from a dense one by the best kernel of rank one for each input channel; a dense one from pointwise and depthwise, the
inner batch norm folded in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nas.common.errors import InputError
from nas.models.graph.build import build_program
from nas.models.inherit import fit_kernel
from nas.models.networks import Inheritance, State
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.base import Base, Fusion, Layer, Segment
from nas.spaces.graph.rewrite import DEPTHWISE, POINTWISE, Changed, changed, rewritten
from nas.spaces.graph.sites import pair, readers

ADDED = -1
"""In place of the index of a channel that the base has not."""
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
    work = _Work(base, weights, changed(base, dict(arch.changes)), state, num_classes != base.classes)
    work.copy_unchanged()
    for layer in base.layers:
        if layer.node not in work.what.gone and layer.kind != "other":
            work.layer(layer)
    work.shift()
    fresh = (base.head,) if work.other_classes else ()
    return Inheritance(
        state, fresh, bool(arch.changes) or arch.size != base.size, len(work.taken) - len(fresh), len(fresh)
    )


@dataclass
class _Work:
    """One inheritance under way, in a `state` that begins random; `taken` are the layers that got weights."""

    base: Base
    weights: State
    what: Changed
    state: dict[str, torch.Tensor]
    other_classes: bool

    def __post_init__(self) -> None:
        self.taken: set[str] = set()
        self._shifts: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        self._kept = {group: self._strongest(group, count) for group, count in self.what.widths.items()}

    def copy_unchanged(self) -> None:
        """All that has the base's shape; what changed is written over afterwards."""
        for name, tensor in self.state.items():
            own = self.weights.get(name)
            if own is not None and own.shape == tensor.shape and not self._is_replaced(name):
                self.state[name] = own.clone()

    def _strongest(self, group: int, count: int) -> torch.Tensor:
        """Indices, in their old order, of the channels that weigh most in the layers that read them; -1 for added ones."""
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
        kept = norms.topk(min(count, size)).indices.sort().values
        return torch.cat([kept, kept.new_full((max(0, count - size),), ADDED)])

    def _indices(self, row: tuple[Segment, ...]) -> torch.Tensor:
        """Of a row of groups the places in the base's row, or `ADDED`."""
        found, start = [], 0
        for segment in row:
            size = self.base.groups[segment.group].size
            kept = self._kept.get(segment.group, torch.arange(size))[:, None]
            places = start + kept * segment.repeat + torch.arange(segment.repeat)
            found.append(torch.where(kept < 0, kept, places).flatten())
            start += size * segment.repeat
        return torch.cat(found)

    def layer(self, layer: Layer) -> None:
        """Weights of a layer that reads and writes channels."""
        self.taken.add(layer.path)
        outs, weight = self._indices(layer.outs), self.weights.get(f"{layer.path}.weight")
        if layer.kind == "norm":
            for key in _NORM:
                if f"{layer.path}.{key}" in self.weights:
                    self._put(f"{layer.path}.{key}", self.weights[f"{layer.path}.{key}"][_old(outs)], outs)
            return
        assert weight is not None
        if layer.path in self.what.separable:
            self._put_bias(layer, f"{layer.path}.{POINTWISE}", outs)
        else:
            self._put_bias(layer, layer.path, outs)
        ins = self._indices(layer.ins)
        if layer.kind == "linear":
            self._put(f"{layer.path}.weight", weight[_old(outs)][:, _old(ins)], outs, ins)
            return
        is_grouped = layer.depthwise or self.base.part(layer.path).arguments.get("groups", 1) > 1
        weight = self._fitted(layer, weight[_old(outs)] if is_grouped else weight[_old(outs)][:, _old(ins)])
        if layer.path in self.what.separable:
            depthwise, pointwise = rank_one(weight)
            self._put(f"{layer.path}.{DEPTHWISE}.weight", depthwise, ins)
            self._put(f"{layer.path}.{POINTWISE}.weight", pointwise, outs, ins)
        elif layer.path in self.what.fused:
            fusion = self.base.fusion[layer.path]
            read = self._indices(self.base.layer[fusion.pointwise].ins)
            dense, shift = self._fused(fusion, weight, _old(outs), _old(read))
            self._put(f"{layer.path}.weight", dense, outs, read)
            self._shifts.append((fusion.norm, shift, outs))
        else:
            self._put(f"{layer.path}.weight", weight, outs, None if is_grouped else ins)

    def _put(self, name: str, tensor: torch.Tensor, outs: torch.Tensor, ins: torch.Tensor | None = None) -> None:
        """Write a tensor of the kept channels; added outputs keep their random weights, added inputs count nothing."""
        if self._is_replaced(name):
            return
        whole = self.state[name]
        rows = (outs >= 0).nonzero()[:, 0]
        if ins is None:
            whole[rows] = tensor
            return
        whole[:, ins < 0] = 0
        whole[rows[:, None], (ins >= 0).nonzero()[:, 0]] = tensor

    def _put_bias(self, layer: Layer, path: str, outs: torch.Tensor) -> None:
        bias = self.weights.get(f"{layer.path}.bias")
        if bias is not None:
            self._put(f"{path}.bias", bias[_old(outs)], outs)

    def _is_replaced(self, name: str) -> bool:
        """Whether it is of a classifier for other classes than the base's, which keeps its random weights."""
        return self.other_classes and name.startswith(f"{self.base.head}.")

    def _fitted(self, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
        kernels, dilations = self.what.kernels, self.what.dilations
        if layer.path not in kernels and layer.path not in dilations:
            return weight
        part = self.base.part(layer.path)
        dilation = pair(part.arguments.get("dilation", 1))[0]
        kernel = kernels.get(layer.path, pair(part["kernel_size"])[0])
        return fit_kernel(weight, dilation, kernel, dilations.get(layer.path, dilation))

    def _fused(
        self, fusion: Fusion, depthwise: torch.Tensor, outs: torch.Tensor, ins: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A dense kernel (hidden, in, k, k) from a pointwise and a depthwise one, and the shift of what it gives."""
        pointwise = self.weights[f"{fusion.pointwise}.weight"][outs][:, ins]
        own_bias = self.weights.get(f"{fusion.pointwise}.bias")
        variance = self.weights[f"{fusion.inner_norm}.running_var"][outs]
        gain = self.weights.get(f"{fusion.inner_norm}.weight")
        eps = self.base.part(fusion.inner_norm).arguments.get("eps", 1e-5)
        scale = (1.0 if gain is None else gain[outs]) / (variance + eps).sqrt()
        offset = self.weights.get(f"{fusion.inner_norm}.bias")
        mean = self.weights[f"{fusion.inner_norm}.running_mean"][outs] - (0 if own_bias is None else own_bias[outs])
        bias = (0 if offset is None else offset[outs]) - mean * scale
        return pointwise * scale[:, None, None, None] * depthwise, bias * depthwise.sum((1, 2, 3))

    def shift(self) -> None:
        """Put what the fused layers lack into the mean of the batch norm behind."""
        for norm, shift, outs in self._shifts:
            self.state[f"{norm}.running_mean"][(outs >= 0).nonzero()[:, 0]] -= shift


def _old(indices: torch.Tensor) -> torch.Tensor:
    return indices[indices >= 0]


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
