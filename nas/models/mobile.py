"""What builds the mobile networks and gives them weights: `NETWORKS`, which their family names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nas.latency.lease import DeviceLease
from nas.models.blocks import Network
from nas.models.build import build
from nas.models.inherit import inherit
from nas.models.networks import Backbone, Inheritance
from nas.models.reconstruct import reconstruct
from nas.spaces.mobile.architecture import Architecture


class MobileNetworks:
    """See `nas.models.networks.Networks`."""

    def build(self, architecture: Architecture, num_classes: int, seed: int = 0) -> Network:
        return build(architecture, num_classes, seed)

    def inherit(self, backbone: Backbone, architecture: Architecture, num_classes: int, seed: int = 0) -> Inheritance:
        return inherit(backbone, architecture, num_classes, seed)

    def refit(
        self,
        network: nn.Module,
        architecture: Architecture,
        backbone: Backbone,
        batches: Sequence[torch.Tensor],
        lease: DeviceLease | None = None,
    ) -> None:
        assert isinstance(network, Network)
        reconstruct(network, architecture, backbone, batches, lease)


NETWORKS = MobileNetworks()
