"""How latency is measured, as a value. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16"]


Estimator = Literal["median wall time", "lower quartile of wall time", "lower quartile of process time"]
"""What a latency is of the times of its blocks (nas/latency/estimate.py)."""


@dataclass(frozen=True)
class LatencyProtocol:
    """How latency is measured (nas/latency/measuring.py says why each step is there).

    `warmup_s` seconds of runs come first (clocks and caches settle); then blocks of at least `block_ms`, so
    that the timer's own cost vanishes; at least `min_blocks` of them, and on until the 95 % interval of the value is
    narrower than `max_spread` of it or `max_s` seconds are spent. The value is what `estimator` names; of wall time
    where CPU time is no latency (nas/latency/timing.py). All of it again, `attempts` times at most, while a reference network
    timed before and after drifts by more than `max_drift` or other processes use the device. Three times `max_spread`
    or `max_drift` mark a result noisy. `cold` empties the caches before each run, which is then a block of its own.
    `mode` names a runtime (nas/latency/runtimes). `threads` applies to the CPU; onnxruntime has a memory format of its own.
    """

    device: str = "cpu"
    batch_size: int = 1
    mode: str = "eager"
    dtype: Precision = "float32"
    channels_last: bool = True
    threads: int = 1
    warmup_s: float = 0.5
    block_ms: float = 1.0
    min_blocks: int = 30
    max_s: float = 1.0
    max_spread: float = 0.03
    max_drift: float = 0.03
    attempts: int = 2
    cold: bool = False
    estimator: Estimator = "median wall time"

    @property
    def noisy_width(self) -> float:
        """The share of its value from which on an interval marks a latency noisy: three times what is asked for."""
        return 3 * self.max_spread

    @property
    def noisy_drift(self) -> float:
        """The same of the drift of the reference network."""
        return 3 * self.max_drift


def default_protocol(device: str) -> LatencyProtocol:
    """Batch 1 in float32; eager on the CPU, a captured graph on CUDA (an eager loop would time the launches).

    On a CPU the value is what repeats best beside others (docs/latency.md).
    """
    if device == "cpu":
        return LatencyProtocol(device=device, mode="eager", estimator="lower quartile of process time")
    return LatencyProtocol(device=device, mode="cudagraph")
