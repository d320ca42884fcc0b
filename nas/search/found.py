"""What is found of a network while it is evaluated, and the evaluation that becomes of it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from nas.common.errors import CandidateError
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome
from nas.spaces.base import Cost
from nas.training.history import EpochMetrics


@dataclass
class Found:
    """Cost, latencies, epochs and fresh parts as they become known; the clock runs from its making."""

    cost: Cost | None = None
    latency: Latency | None = None
    latencies: dict[str, Latency] = field(default_factory=dict)
    history: list[EpochMetrics] = field(default_factory=list)
    fresh: tuple[str, ...] = ()
    began: float = field(default_factory=time.perf_counter)

    def evaluation(self, outcome: Outcome, reason: str | None = None, violation: float = 0.0) -> Evaluation:
        """All that is known by now, as an evaluation that ends so."""
        return Evaluation(
            outcome=outcome,
            reason=reason,
            cost=self.cost,
            latency=self.latency,
            latencies=self.latencies,
            history=tuple(self.history),
            fresh=self.fresh,
            violation=violation,
            seconds=time.perf_counter() - self.began,
            worker=socket.gethostname(),
        )

    def failed(self, error: Exception) -> Evaluation:
        """What was known when the network's own error ended it."""
        return self.evaluation(Outcome.FAILED, failure_text(error))


def failure_text(error: Exception) -> str:
    """Why a candidate failed: its own sentence, or what some library raised, by its type."""
    if isinstance(error, CandidateError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
