"""What the driver of a search tells of itself while it runs, for `nas status` and for a second driver elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.common.files import SCHEMA_VERSION
from nas.runs.settings import Resources

BEAT_S = 2.0
"""Seconds between two states of a driver; also how soon it hears of `nas stop`."""
SILENT_S = 60.0
"""Seconds without a state after which a driver on another host is taken for dead."""


@dataclass(frozen=True)
class RunningTrial:
    """A candidate in evaluation: of `epochs` epochs it has finished `epoch`, the last with `score`; 0 is none yet.

    `again` says that it is one of the front, trained again. `worker` is the host, and the Ray node where it is known.
    """

    number: int
    text: str
    started: float
    epochs: int
    epoch: int = 0
    score: float | None = None
    again: bool = False
    worker: str = ""


@dataclass(frozen=True)
class DriverState:
    """The state of a search as its driver wrote it last; times are UTC seconds since the epoch, by the driver's clock.

    It `started` with its command, and `spent_s` seconds ago by a clock that nobody sets (None in older versions); the
    searches on the directory before it took `before_s` together.
    `address` is the Ray cluster's, None for Ray on the driver's own machine. `stopping` is why nothing more is started
    while something still runs. Once it has `ended`, `ending` is why, `resumable` whether going on could bring more, and
    `running` what was cut off.
    """

    written: float
    started: float
    host: str
    pid: int
    address: str | None
    resources: Resources
    running: tuple[RunningTrial, ...] = ()
    stopping: str | None = None
    ended: float | None = None
    ending: str | None = None
    resumable: bool = True
    before_s: float = 0.0
    spent_s: float | None = None
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        times = (self.written, self.started, self.ended or 0.0, self.before_s, self.spent_s or 0.0)
        if not all(map(math.isfinite, times)):
            raise ValueError(f"times of a driver are numbers of seconds, not {times}")

    def is_of(self, other: DriverState) -> bool:
        """Whether one process told both."""
        return (self.host, self.pid, self.started) == (other.host, other.pid, other.started)

    @property
    def seconds(self) -> float:
        """How long the search took so far, in seconds: all of its commands, from start to end."""
        spent_s = (self.ended or self.written) - self.started if self.spent_s is None else self.spent_s
        return self.before_s + spent_s
