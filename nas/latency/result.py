"""A measured latency, with what is needed to judge it. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from nas.latency.protocol import Estimator, LatencyProtocol


@dataclass(frozen=True)
class DeviceState:
    """A device at one moment: clocks in MHz, power in W, temperature in °C; None where it is not told.

    `throttled` names why the clocks are held back; it is empty where nothing does.
    """

    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Latency:
    """A measured latency in ms for one batch, with what is needed to judge it; fields older records lack are None.

    `ms` is the value that every decision goes by: what `estimator` names. `interval_ms` holds it with 95 %, as far as one
    measurement can tell. `process_ms` and `process_p25_ms` are CPU time, median and lower quartile, where that is a latency.
    Where networks were measured in turn with others, `rounds_ms` has the value of each round, and `session` names the
    measurement: rounds of the same number were timed within seconds of each other.
    `reference_ms` is what the reference network took before and after. `others` is the share of the device's time
    that other processes used meanwhile, None where that cannot be known. `software` holds the versions that the
    number depends on. `measured` is UTC seconds since the epoch; `cached` says that it was looked up. `worker` names
    the process that was asked for it, where that is not the one that evaluates the candidate. `left_out` are the steps of
    preparing the network (copy, eval, fold, layout, dtype, inference: nas/latency/prepare.py) that were left out, each with the
    reason; `notes` what else to know of it. `conditions` are those that nothing else here tells (nas/latency/conditions.py). `artefact` is the SHA-256 of the file that the mode made of the network, where it makes one.
    `doubted` says why what had been measured of it before did not count, where something had.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    spread: float
    blocks: int
    runs_per_block: int
    noisy: bool
    contended: bool
    waited_s: float
    bn_folded: bool
    device_name: str
    input_shape: tuple[int, int, int, int]
    protocol: LatencyProtocol
    attempts: int = 1
    reference_ms: tuple[float, float] | None = None
    others: float | None = None
    before: DeviceState | None = None
    after: DeviceState | None = None
    software: dict[str, str] | None = None
    measured: float = 0.0
    cached: bool = False
    worker: str = ""
    p25_ms: float | None = None
    process_ms: float | None = None
    process_p25_ms: float | None = None
    estimator: Estimator = "median wall time"
    interval_ms: tuple[float, float] | None = None
    rounds_ms: tuple[float, ...] = ()
    session: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    artefact: str | None = None
    conditions: dict[str, str] | None = None
    doubted: str = ""

    def __post_init__(self) -> None:
        if self._values[self.estimator] is None:
            raise ValueError(f"a latency without its {self.estimator}")

    @property
    def _values(self) -> dict[Estimator, float | None]:
        return {
            "median wall time": self.median_ms,
            "lower quartile of wall time": self.p25_ms,
            "lower quartile of process time": self.process_p25_ms,
        }

    @property
    def ms(self) -> float:
        """The value that decides, in ms a batch."""
        value = self._values[self.estimator]
        assert value is not None
        return value

    @property
    def range_ms(self) -> tuple[float, float]:
        """Where `ms` lies with 95 %; of an older record p10 to p90 of its blocks."""
        return self.interval_ms or (self.p10_ms, self.p90_ms)

    @property
    def width(self) -> float:
        """Width of the interval as a share of the value; infinite where it is not known."""
        return (self.interval_ms[1] - self.interval_ms[0]) / self.ms if self.interval_ms else math.inf

    @property
    def drift(self) -> float | None:
        """By how much the reference network's time changed meanwhile, as a share of it; None where it was not timed."""
        return abs(self.reference_ms[1] / self.reference_ms[0] - 1) if self.reference_ms else None


def latency_json(latency: Latency) -> dict[str, Any]:
    """A latency as JSON for other programs: its `ms` first, then all that is recorded."""
    return {"ms": latency.ms, **asdict(latency)}


@dataclass(frozen=True)
class Predicted:
    """A latency predicted in ms, with its standard deviation, from so many measured networks of the run."""

    mean_ms: float
    std_ms: float
    networks: int
