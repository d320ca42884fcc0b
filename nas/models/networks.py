"""What builds the networks of a family and gives them weights: the side of a family that needs torch."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from nas.common.errors import InputError
from nas.common.kinds import checks_kinds
from nas.common.plugins import load_object
from nas.latency.lease import DeviceLease
from nas.spaces.base import Architecture, Space
from nas.spaces.families import family_of

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Backbone:
    """A trained network to inherit from; `mean` and `std` are the normalisation that it was trained with, where it is known."""

    name: str
    architecture: Any  # nas.spaces.base.Architecture, of whatever family
    state: State
    num_classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the weights and what they mean, wherever they lie."""
        return state_fingerprint(repr((str(self.architecture), self.num_classes, self.mean, self.std)), self.state)

    def check_fits(self, space: Space) -> None:
        """Raise `InputError` unless some layer of the space can inherit from it."""
        family = self.architecture.family
        if space.family != family:
            raise InputError(
                f"the weights {self.name} are of the family {family}, and the space {space.name} is of {space.family}"
            )
        if not self.inherit(space.backbone, 2).inherited:
            raise InputError(f"the weights {self.name} fit no layer of the space {space.name}")

    def inherit(self, architecture: Architecture, num_classes: int, seed: int = 0) -> Inheritance:
        """Initial weights of a candidate; what nothing fits keeps its seeded random values."""
        return networks_of(architecture.family).inherit(self, architecture, num_classes, seed)

    def refit(
        self,
        network: nn.Module,
        architecture: Architecture,
        batches: Sequence[torch.Tensor],
        lease: DeviceLease | None = None,
    ) -> None:
        """Fit a network that has inherited its weights to batches (N, C, H, W), in place."""
        networks_of(architecture.family).refit(network, architecture, self, batches, lease)


@dataclass(frozen=True)
class Inheritance:
    """A candidate's initial weights; `fresh` names the parts that start from their random values.

    `changed` says whether any inherited layer differs from what it was inherited from, so that batch norm statistics no longer
    fit and must be recalibrated. Of the layers that vary in the space so many are `inherited`, the others are `reinitialized`.
    """

    state: dict[str, torch.Tensor]
    fresh: tuple[str, ...]
    changed: bool
    inherited: int = 0
    reinitialized: int = 0


class Networks(Protocol):
    """What a family names in `Family.networks`."""

    def build(self, architecture: Any, num_classes: int, seed: int = 0) -> nn.Module:
        """The network of an architecture's canonical form, with fresh weights that `seed` decides.

        Takes images (N, C, H, W) of the architecture's input shape and gives logits (N, num_classes). What torch's own
        generator draws afterwards may not depend on it.
        """

    def inherit(self, backbone: Backbone, architecture: Any, num_classes: int, seed: int = 0) -> Inheritance:
        """Initial weights of a candidate from a trained network of the family; what nothing fits is as `build` leaves it."""

    def refit(
        self,
        network: nn.Module,
        architecture: Any,
        backbone: Backbone,
        batches: Sequence[torch.Tensor],
        lease: DeviceLease | None = None,
    ) -> None:
        """Fit what inherited weights leave open to calibration images (N, C, H, W), in place: batch norm at least."""


@functools.cache
def networks_of(family: str) -> Networks:
    """What builds the networks of a family; raises `InputError` where it cannot be loaded."""
    found: Networks = load_object(f"what builds networks of the family {family},", family_of(family).networks)
    return found


@checks_kinds
def build(architecture: Architecture, num_classes: int, seed: int = 0) -> nn.Module:
    """The network of an architecture of any family, with fresh weights that `seed` decides.

    Takes images (N, C, H, W) of the architecture's input shape and gives logits (N, num_classes).
    """
    return networks_of(architecture.family).build(architecture, num_classes, seed)


def state_fingerprint(meaning: str, state: State) -> str:
    """Sixteen hexadecimal digits of weights, and of what they mean."""
    digest = hashlib.sha256(meaning.encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
