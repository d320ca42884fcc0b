"""Eager PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import Runtime, Session

if TYPE_CHECKING:
    import torch
    from torch import nn


class Eager(Runtime):
    """Each layer is launched as Python comes to it."""

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        def run() -> object:
            return network(images)

        return Session(run, run)


EAGER = Eager()
