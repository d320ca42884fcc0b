"""Latency of candidates: looked up where it was measured before, else measured, and kept for the next time."""

from __future__ import annotations

from torch import nn

from nas.common.errors import CandidateError
from nas.latency.cache import looked_up
from nas.latency.lease import lease_for
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.spaces.base import Architecture


def candidate_latency(
    architecture: Architecture, num_classes: int, protocol: LatencyProtocol, network: nn.Module | None = None
) -> Latency:
    """Latency of a candidate, in ms a batch; `network` is the candidate built, where it is already.

    Raises `InputError` and `CandidateError` as `nas.latency.measuring.measure` does.
    """
    return looked_up(
        architecture.digest, num_classes, protocol, lambda: _measured(architecture, num_classes, protocol, network)
    )


def _measured(
    architecture: Architecture, num_classes: int, protocol: LatencyProtocol, network: nn.Module | None
) -> Latency:
    if network is None:
        with lease_for("cpu").shared():
            network = build(architecture, num_classes)
    latency = measure(network, architecture.input_shape, protocol)
    if "dtype" in latency.left_out:  # measured, but in a precision that nobody asked for
        raise CandidateError(f"cannot run in {protocol.dtype}: {latency.left_out['dtype']}")
    return latency
