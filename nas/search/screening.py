"""Latency predicted: candidates that are surely too slow are rejected before anybody builds and measures them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.latency.predictor import LatencyPredictor
from nas.latency.result import Latency, Predicted
from nas.spaces.base import Architecture, Space
from nas.spaces.families import architecture_cost

MIN_NETWORKS = 8
"""Measured networks from which on latencies are predicted."""
_GROWTH = 1.6
"""The predictor is fitted again when it could learn from so many times the networks, on the first ones measured: then
what it says depends on the records alone, not on when it was asked or when the search was started again."""
MAX_NETWORKS = 400
"""Measured networks that it is fitted to at most: the cost of a fit grows with their cube."""
_REMEMBERED = 10_000
"""Networks whose encodings are kept: where in a space a network lies takes a millisecond to find."""
_FITS = 16
"""Fits that are remembered."""
MAX_UNDECIDED = 100
"""The same where there is no budget: nothing is rejected, and the report alone says how good the predictions were."""


class LatencyScreen:
    """Predicts latency in a space from what has been measured there, under one protocol on one device."""

    def __init__(self, space: Space, num_classes: int, max_networks: int = MAX_NETWORKS) -> None:
        self._encoded = lru_cache(_REMEMBERED)(space.encode_canonical)
        self._max_networks = max_networks
        self._num_classes = num_classes
        self._measured: dict[str, tuple[Architecture, float]] = {}
        self._predictor: LatencyPredictor | None = None
        self._fitted = 0

    def learn(self, architecture: Architecture, latency: Latency) -> None:
        """Take in a measured latency; a contended one says nothing about the network."""
        if not latency.contended:
            self._measured[architecture.digest] = (architecture, latency.ms)

    def predict(self, architectures: Sequence[Architecture]) -> list[Predicted] | None:
        """What each of the networks will probably take, or None while too few are measured."""
        if len(self._measured) < MIN_NETWORKS:
            return None
        size = MIN_NETWORKS
        while (larger := math.ceil(_GROWTH * size)) <= min(len(self._measured), self._max_networks):
            size = larger
        if self._predictor is None or size > self._fitted:
            known, latency_ms = zip(*itertools.islice(self._measured.values(), size), strict=True)
            encodings, costs = self._describe(known)
            self._predictor = _fitted(_rows(encodings), latency_ms, _rows(costs))
            self._fitted = size
        encodings, costs = self._describe(architectures)
        mean_ms, std_ms = self._predictor.predict(encodings, costs=costs)
        return [Predicted(float(m), float(s), self._fitted) for m, s in zip(mean_ms, std_ms, strict=True)]

    def _describe(self, architectures: Sequence[Architecture]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        costs = [architecture_cost(architecture, self._num_classes) for architecture in architectures]
        encodings = [self._encoded(architecture) for architecture in architectures]
        return np.array(encodings), np.array([[cost.macs, cost.params] for cost in costs], dtype=np.float64)


@lru_cache(_FITS)
def _fitted(
    encodings: tuple[tuple[int, ...], ...], latency_ms: tuple[float, ...], costs: tuple[tuple[float, ...], ...]
) -> LatencyPredictor:
    """A predictor fitted to them, remembered: a search that goes on in this process begins with the fit that it had."""
    return LatencyPredictor().fit(encodings, latency_ms, costs=costs)


def _rows(array: NDArray[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, array.tolist()))


def chance_within(predicted: Predicted, limit_ms: float) -> float:
    """Probability that the latency is within a limit, by the normal distribution."""
    return 0.5 * math.erfc((predicted.mean_ms - limit_ms) / (max(predicted.std_ms, 1e-12) * math.sqrt(2)))
