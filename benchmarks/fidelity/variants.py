"""Ways in which a supernet's networks may share weights, beside that of `nas.models.elastic`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from torch import nn

from nas.models.elastic import Elastic, Sharing, Slot, kind_of
from nas.spaces.mobile.architecture import Architecture, LayerSpec
from nas.spaces.mobile.space import SearchSpace


class Unsorted(Elastic):
    """Hidden channels stay in the order that the backbone has them in."""

    def sort_channels(self) -> None:
        """Leave them."""


class Transformed(Elastic):
    """A smaller kernel is the centre of the larger times a learned matrix, one a layer (Once-for-All, section 3.3)."""

    def __init__(self, space: SearchSpace, num_classes: int, seed: int = 0, sharing: Sharing | None = None) -> None:
        super().__init__(space, num_classes, seed, sharing)
        sides = {side for stage in space.stages for side in stage.kernel_size}
        filters = [name for name in self.shared if "_filter_d" in name]
        for name, side in product(filters, sides - {max(sides)}):
            self.shared[f"matrix_{name}_{side}"] = nn.Parameter(torch.eye(side * side))
        self._plain = False

    def _block(self, name: str, layer: LayerSpec, in_channels: int, slot: Slot) -> dict[str, torch.Tensor]:
        found = super()._block(name, layer, in_channels, slot)
        shared = f"{slot.name}_{kind_of(layer, in_channels)}_filter_d{layer.dilation}"
        matrix = f"matrix_{shared}_{layer.kernel_size}"
        if matrix in self.shared and not self._plain:
            kernel = found[f"{name}.filter.conv.weight"]
            found[f"{name}.filter.conv.weight"] = (kernel.flatten(2) @ self.shared[matrix]).view_as(kernel)
        return found

    def absorb(self, architecture: Architecture, state: Mapping[str, torch.Tensor]) -> None:
        """Write past the matrices, which are still the identity."""
        self._plain = True
        super().absorb(architecture, state)
        self._plain = False


class Factored(Elastic):
    """A dense kernel is what the depthwise one of its place makes together with its expansion, plus a part of its own."""

    def _block(self, name: str, layer: LayerSpec, in_channels: int, slot: Slot) -> dict[str, torch.Tensor]:
        found = super()._block(name, layer, in_channels, slot)
        if kind_of(layer, in_channels) == "dense":
            kernel = found[f"{name}.filter.conv.weight"]
            found[f"{name}.filter.conv.weight"] = kernel + self._product(layer, in_channels, slot)
        return found

    def _product(self, layer: LayerSpec, in_channels: int, slot: Slot) -> torch.Tensor:
        separable = LayerSpec(
            layer.kernel_size, layer.dilation, layer.expansion, True, layer.out_channels, layer.stride
        )
        parts = super()._block("b", separable, in_channels, slot)
        return parts["b.expand.conv.weight"] * parts["b.filter.conv.weight"]

    @torch.no_grad()
    def absorb(self, architecture: Architecture, state: Mapping[str, torch.Tensor]) -> None:
        """What is left of a dense kernel without the product becomes its own part."""
        arch = architecture.canonical
        for index, ((layer, shape), slot) in enumerate(zip(arch.shapes(), self._places(arch), strict=True)):
            name = f"blocks.{index}.filter.conv.weight"
            own = super()._block("b", layer, shape.in_channels, slot)["b.filter.conv.weight"]
            rest = (
                self._product(layer, shape.in_channels, slot) if kind_of(layer, shape.in_channels) == "dense" else 0.0
            )
            own.copy_(state[name] - rest)
        for name, view in self.weights(architecture).items():
            if not name.endswith("filter.conv.weight"):
                view.copy_(state[name])

    def sort_channels(self) -> None:
        """Leave them, so that the factors stay those of one another."""


VARIANTS: dict[str, tuple[type[Elastic], Sharing]] = {
    "own taps": (Elastic, Sharing("own")),
    "grid of taps": (Elastic, Sharing("grid")),
    "kernel matrices": (Transformed, Sharing("own")),
    "dense factored": (Factored, Sharing("own")),
    "unsorted": (Unsorted, Sharing("own")),
}
"""By name."""
