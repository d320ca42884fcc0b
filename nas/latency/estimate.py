"""The value of a latency, and how sure it is, from blocks that were timed one after another.

The interval is a bootstrap's, over stretches of blocks in the order they were timed (moving blocks: Künsch, "The
Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17, 1989): what disturbs one block
disturbs its neighbours too, and single blocks drawn at random would make the value look surer than it is. Of networks
that are measured in turn a stretch is a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.latency.protocol import Estimator, LatencyProtocol

RESAMPLES = 400
CONFIDENCE = 95.0
"""Percent of intervals that should hold the value."""
_PERCENT: dict[Estimator, float] = {
    "median wall time": 50.0,
    "lower quartile of wall time": 25.0,
    "lower quartile of process time": 25.0,
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """Blocks in the order timed, in ms a run: by the wall clock, and of the CPU alone, None where that is no latency.

    Arrays are (blocks,), or (rounds, blocks) of a network that was measured in turn with others.
    """

    wall_ms: Floats
    process_ms: Floats | None = None

    @staticmethod
    def joined(parts: Sequence[Times]) -> Times:
        """Rounds of equally many blocks as one."""
        process = [part.process_ms for part in parts if part.process_ms is not None]
        whole = len(process) == len(parts)
        return Times(np.stack([part.wall_ms for part in parts]), np.stack(process) if whole else None)


@dataclass(frozen=True)
class Estimate:
    """A value in ms, what it is, and its 95 % interval; `rounds_ms` is the same of each round, where there were rounds."""

    ms: float
    estimator: Estimator
    interval_ms: tuple[float, float]
    rounds_ms: tuple[float, ...] = ()

    @property
    def width(self) -> float:
        """Width of the interval as a share of the value."""
        return (self.interval_ms[1] - self.interval_ms[0]) / self.ms


def estimate(times: Times, protocol: LatencyProtocol) -> Estimate:
    """The value that the protocol asks for; of wall time where the CPU's own time is no latency."""
    estimator = protocol.estimator
    blocks = times.wall_ms
    if estimator == "lower quartile of process time":
        if times.process_ms is None:
            estimator = "lower quartile of wall time"
        else:
            blocks = times.process_ms
    percent = _PERCENT[estimator]
    rounds = tuple(np.percentile(blocks, percent, axis=1).tolist()) if blocks.ndim == 2 else ()
    ms = float(np.percentile(blocks, percent))
    low, high = _interval(blocks, percent)
    return Estimate(ms, estimator, (min(low, ms), max(high, ms)), rounds)


def _interval(blocks: Floats, percent: float) -> tuple[float, float]:
    """Bootstrap interval of a percentile: of rounds by rounds, of one series by stretches of the root of its length."""
    if blocks.ndim == 1:
        length = max(1, round(len(blocks) ** 0.5))
        drawn = len(blocks) // length
        stretches = np.lib.stride_tricks.sliding_window_view(blocks, length)
    else:
        drawn, stretches = len(blocks), blocks
    chosen = np.random.default_rng(0).integers(len(stretches), size=(RESAMPLES, drawn))
    values = np.percentile(stretches[chosen].reshape(RESAMPLES, -1), percent, axis=1)
    low, high = np.percentile(values, [50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2])
    return float(low), float(high)
