"""What builds the networks around a base and gives them weights: `NETWORKS`, which their family names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nas.latency.lease import DeviceLease
from nas.models.graph.build import build_program
from nas.models.graph.inherit import inherit
from nas.models.inherit import recalibrate
from nas.models.networks import Backbone, Inheritance
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.rewrite import rewritten


class GraphNetworks:
    """See `nas.models.networks.Networks`."""

    def build(self, architecture: GraphArchitecture, num_classes: int, seed: int = 0) -> nn.Module:
        arch = architecture.canonical
        with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator; leave it as it was
            torch.default_generator.manual_seed(seed)
            return build_program(rewritten(arch.base, dict(arch.changes), num_classes))

    def inherit(
        self, backbone: Backbone, architecture: GraphArchitecture, num_classes: int, seed: int = 0
    ) -> Inheritance:
        return inherit(backbone.architecture.base, backbone.state, architecture, num_classes, seed)

    def refit(
        self,
        network: nn.Module,
        architecture: GraphArchitecture,
        backbone: Backbone,
        batches: Sequence[torch.Tensor],
        lease: DeviceLease | None = None,
    ) -> None:
        """Batch norm alone: projections are not yet refitted to the base's features."""
        recalibrate(network, batches, lease)


NETWORKS = GraphNetworks()
