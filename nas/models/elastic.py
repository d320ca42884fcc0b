"""One network that holds the weights of a whole space: a candidate is a slice of it, trained together with all the others.

What candidates share (Cai et al., Once-for-All, ICLR 2020; Yu et al., BigNAS, ECCV 2020), each layer at its place in the
space:

- kernels: the smaller is the centre of the larger; those of all dilations are read from one grid, each tap at its offset, or
  (`Sharing.taps`) each dilation has taps of its own;
- expansion: the leading hidden channels, which `sort_channels` orders by the L1 norm of their projection;
- widths of stem, stages and head: the leading channels;
- depth: the leading layers of a stage;
- a separable layer without an expansion, one with it, and a fused one share nothing: their kernels read other things.

Batch norm has shared scales and shifts, but no statistics: they differ for each candidate, and are those of the batch in
training; a candidate that was extracted is recalibrated (`nas.models.inherit.recalibrate`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from nas.models.blocks import Network
from nas.models.build import assemble
from nas.spaces.mobile.architecture import Architecture, LayerSpec
from nas.spaces.mobile.space import SearchSpace

Kind = Literal["bare", "expanded", "dense"]
"""Layers that share no weights: separable without an expansion, separable with one, fused (called as files of weights do)."""

_REMEMBERED = 4096
"""Parts of networks that are kept, without their weights: to build one takes longer than a step on a GPU."""


@dataclass(frozen=True)
class Sharing:
    """What dilations share: one `grid` on which every kernel finds its taps by their offsets, or `own` taps for each.

    The grid was no worse in experiments, with fewer weights (docs/results/supernet.md).
    """

    taps: Literal["grid", "own"] = "grid"


@dataclass(frozen=True)
class Slot:
    """A layer's place in the space, and the most that any candidate has there."""

    stage: int
    layer: int
    in_channels: int
    out_channels: int

    @property
    def name(self) -> str:
        return f"s{self.stage}l{self.layer}"


def kind_of(layer: LayerSpec, in_channels: int) -> Kind:
    """Which weights a layer shares."""
    if not layer.separable:
        return "dense"
    return "bare" if layer.hidden_channels(in_channels) == in_channels else "expanded"


class Elastic(nn.Module):
    """The shared weights of a space; `forward` runs images (N, C, H, W) through one of its candidates.

    Parameters are as large as the largest candidate needs them, and a candidate's are views of them.
    """

    def __init__(self, space: SearchSpace, num_classes: int, seed: int = 0, sharing: Sharing | None = None) -> None:
        super().__init__()
        self.space, self.num_classes, self.sharing = space, num_classes, sharing or Sharing()
        self._part: Callable[..., nn.Module] = lru_cache(_REMEMBERED)(_part)
        self._located = lru_cache(_REMEMBERED)(space.places)
        self._slots = {(slot.stage, slot.layer): slot for slot in _slots(space)}
        self.shared = nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in self._shapes():
            self.shared[name] = nn.Parameter(_initial(name, shape, generator))

    def forward(self, images: torch.Tensor, architecture: Architecture) -> torch.Tensor:
        """Logits (N, num_classes) of a candidate; in training its batch norms take the statistics of the batch."""
        network = self.skeleton(architecture).train(self.training)
        return functional_call(network, self.weights(architecture), (images,))

    def skeleton(self, architecture: Architecture) -> Network:
        """The candidate's network without weights, on the device of the shared ones.

        Its parts are those of every candidate that has the same ones at the same place, statistics of batch norm too.
        """
        device = str(next(iter(self.shared.values())).device)

        def part(kind: type[nn.Module], place: str | int, arguments: Mapping[str, Any]) -> Any:
            return self._part(device, kind, place, tuple(arguments.items()))

        return assemble(architecture, self.num_classes, part)

    def weights(self, architecture: Architecture) -> dict[str, torch.Tensor]:
        """A candidate's parameters by their names in `nas.models.build`: views, through which gradients reach the shared ones.

        Raises `InputError` where the space does not contain it.
        """
        arch = architecture.canonical
        width, side = arch.stem.out_channels, arch.stem.kernel_size
        found = {"stem.conv.weight": _centre(self.shared["stem"][:width], side)}
        found |= self._norm("stem.norm", "stem", width)
        for index, ((layer, shape), slot) in enumerate(zip(arch.shapes(), self._places(arch), strict=True)):
            found |= self._block(f"blocks.{index}", layer, shape.in_channels, slot)
        features = arch.output_shape.in_channels
        if arch.head_channels:
            found["head.conv.weight"] = self.shared["head"][: arch.head_channels, :features]
            found |= self._norm("head.norm", "head", arch.head_channels)
            features = arch.head_channels
        last = "classifier" if arch.head_channels else "classifier_bare"
        found["classifier.weight"] = self.shared[f"{last}_weight"][:, :features]
        found["classifier.bias"] = self.shared[f"{last}_bias"]
        return found

    def extract_subnet(self, architecture: Architecture) -> dict[str, torch.Tensor]:
        """The state dict of a candidate on its own; its batch norms have no statistics yet."""
        own = self.skeleton(architecture).state_dict()
        taken = {name: tensor.detach().clone() for name, tensor in self.weights(architecture).items()}
        blank = {name: torch.ones_like(t) if name.endswith("var") else torch.zeros_like(t) for name, t in own.items()}
        return blank | taken

    @torch.no_grad()
    def absorb(self, architecture: Architecture, state: Mapping[str, torch.Tensor]) -> None:
        """Write a candidate's weights (a state dict in the names of `nas.models.build`) into what it shares."""
        for name, view in self.weights(architecture).items():
            view.copy_(state[name])

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Order hidden channels by the L1 norm of their projection, so that fewer of them are the heaviest.

        No candidate with all of a layer's hidden channels changes by that (Once-for-All, section 3.3). Those of a bare
        layer are its input's, and stay.
        """
        for slot, kind in product(self._slots.values(), ("expanded", "dense")):
            prefix = f"{slot.name}_{kind}"
            if f"{prefix}_project" not in self.shared:
                continue
            order = self.shared[f"{prefix}_project"].abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
            for name, parameter in self.shared.items():
                if name.startswith(f"{prefix}_project_norm") or not name.startswith(f"{prefix}_"):
                    continue
                dimension = 1 if name == f"{prefix}_project" else 0
                parameter.copy_(parameter.index_select(dimension, order))

    # ---------------------------------------------------------------- where a candidate's weights lie

    def _places(self, arch: Architecture) -> list[Slot]:
        return [self._slots[place] for place in self._located(arch)]

    def _block(self, name: str, layer: LayerSpec, in_channels: int, slot: Slot) -> dict[str, torch.Tensor]:
        kind, hidden = kind_of(layer, in_channels), layer.hidden_channels(in_channels)
        prefix = f"{slot.name}_{kind}"
        found = {}
        if kind == "expanded":
            found[f"{name}.expand.conv.weight"] = self.shared[f"{prefix}_expand"][:hidden, :in_channels]
            found |= self._norm(f"{name}.expand.norm", f"{prefix}_expand", hidden)
        grid = self.shared[f"{prefix}_filter{self._group(layer.dilation)}"]
        kernel = grid[:hidden, : in_channels if kind == "dense" else 1]
        step = layer.dilation if self.sharing.taps == "grid" else 1
        found[f"{name}.filter.conv.weight"] = _centre(kernel, layer.kernel_size, step)
        found |= self._norm(f"{name}.filter.norm", f"{prefix}_filter", hidden)
        found[f"{name}.project.conv.weight"] = self.shared[f"{prefix}_project"][: layer.out_channels, :hidden]
        return found | self._norm(f"{name}.project.norm", f"{prefix}_project", layer.out_channels)

    def _norm(self, name: str, shared: str, channels: int) -> dict[str, torch.Tensor]:
        return {f"{name}.{part}": self.shared[f"{shared}_norm_{part}"][:channels] for part in ("weight", "bias")}

    def _group(self, dilation: int) -> str:
        """Which taps a dilation reads; a 1x1 kernel, in its canonical form, those of dilation 1."""
        return f"_d{dilation}" if self.sharing.taps == "own" else ""

    # ---------------------------------------------------------------- how much there is

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        space, channels = self.space, self.space.input.channels
        width = max(space.stem.out_channels)
        yield "stem", (width, channels, *[max(space.stem.kernel_size)] * 2)
        yield from _norm_shapes("stem", width)
        for slot in self._slots.values():
            yield from self._slot_shapes(slot)
        features, head = _widest(space, len(space.stages)), max(space.head_channels)
        if head:
            yield "head", (head, features, 1, 1)
            yield from _norm_shapes("head", head)
            yield "classifier_weight", (self.num_classes, head)
            yield "classifier_bias", (self.num_classes,)
        if 0 in space.head_channels:
            yield "classifier_bare_weight", (self.num_classes, features)
            yield "classifier_bare_bias", (self.num_classes,)

    def _slot_shapes(self, slot: Slot) -> Iterator[tuple[str, tuple[int, ...]]]:
        stage = self.space.stages[slot.stage]
        kernel, dilations = max(stage.kernel_size), {1, *stage.dilation}  # 1 also where a canonical kernel is 1x1
        if self.sharing.taps == "grid":
            sides = {"": 2 * (kernel // 2) * max(dilations) + 1}
        else:
            sides = {f"_d{dilation}": kernel for dilation in sorted(dilations)}
        kinds: dict[Kind, int] = {}  # with the most hidden channels
        for expansion, separable in product(stage.expansion, stage.separable):
            layer = LayerSpec(kernel, 1, expansion, separable, slot.out_channels, 1)
            kind, hidden = kind_of(layer, slot.in_channels), layer.hidden_channels(slot.in_channels)
            kinds[kind] = max(kinds.get(kind, 0), hidden)
        for kind, hidden in kinds.items():
            prefix = f"{slot.name}_{kind}"
            if kind == "expanded":
                yield f"{prefix}_expand", (hidden, slot.in_channels, 1, 1)
                yield from _norm_shapes(f"{prefix}_expand", hidden)
            for group, side in sides.items():
                yield f"{prefix}_filter{group}", (hidden, slot.in_channels if kind == "dense" else 1, side, side)
            yield from _norm_shapes(f"{prefix}_filter", hidden)
            yield f"{prefix}_project", (slot.out_channels, hidden, 1, 1)
            yield from _norm_shapes(f"{prefix}_project", slot.out_channels)


def _part(device: str, kind: type[nn.Module], place: str | int, arguments: tuple[tuple[str, Any], ...]) -> nn.Module:
    """One of a network's parts, its parameters empty; what differs in `place` is not one object."""
    with torch.random.fork_rng(devices=[]):  # of what torch's layers begin with nothing is kept
        part = kind(**dict(arguments)).to(device)
    for parameter in part.parameters():
        parameter.data = parameter.data.new_empty(0)
    return part


def _slots(space: SearchSpace) -> Iterator[Slot]:
    for i, stage in enumerate(space.stages):
        widest = max(stage.out_channels)
        for j in range(max(stage.depth)):
            yield Slot(i, j, _widest(space, i) if j == 0 else widest, widest)


def _widest(space: SearchSpace, stage: int) -> int:
    """The most channels that can reach a stage, which the stages before it may be left out of."""
    widths = [max(space.stem.out_channels)]
    for earlier in space.stages[:stage]:
        own = max(earlier.out_channels)
        widths = [*widths, own] if min(earlier.depth) == 0 else [own]
    return max(widths)


def _norm_shapes(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}_norm_weight", (channels,)
    yield f"{name}_norm_bias", (channels,)


def _initial(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """As `build` and torch's linear layer begin."""
    if len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3] / (shape[0] if shape[1] == 1 else 1)
        return torch.randn(shape, generator=generator) * (2 / fan_out) ** 0.5
    if name.startswith("classifier"):
        return (2 * torch.rand(shape, generator=generator) - 1) / shape[-1] ** 0.5
    return torch.full(shape, float(name.endswith("weight")))


def _centre(kernels: torch.Tensor, side: int, step: int = 1) -> torch.Tensor:
    """The `side` x `side` taps around the middle of kernels (O, I, K, K), `step` apart: a view."""
    first = kernels.shape[-1] // 2 - side // 2 * step
    taps = slice(first, first + (side - 1) * step + 1, step)
    return kernels[:, :, taps, taps]
