"""Latency of candidates."""

from __future__ import annotations

from torch import nn

from nas.architecture import Architecture
from nas.device_lease import lease_for
from nas.latency import measure
from nas.model import build
from nas.record import Latency
from nas.settings import LatencyProtocol


def candidate_latency(
    architecture: Architecture, num_classes: int, protocol: LatencyProtocol, network: nn.Module | None = None
) -> Latency:
    """Latency of a candidate, in ms a batch; `network` is the candidate built, where it is already.

    Raises `InputError` and `CandidateError` as `nas.latency.measure` does.
    """
    if network is None:
        with lease_for("cpu").shared():
            network = build(architecture, num_classes)
    return measure(network, architecture.input_shape, protocol)
