"""What workers would send back, made up: imported by Ray's workers in tests, so without torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome
from nas.runs.store import RunDirectory
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.spaces.families import architecture_cost
from nas.training.history import EpochMetrics


def answer(candidate: Candidate, outcome: Outcome = Outcome.DONE, violation: float = 0.0) -> Evaluation:
    """A full evaluation: larger networks are more accurate and slower."""
    cost = architecture_cost(candidate.architecture.canonical, 10)
    ms = cost.macs / 1e6
    latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
    score = 1 - 1 / (1 + cost.params)
    history = (EpochMetrics(1, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0),) if outcome is Outcome.DONE else ()
    reason = None if outcome is Outcome.DONE else "told so"
    return Evaluation(outcome, reason, cost, latency, history, violation, 1.0)


def search(
    run: RunDirectory, count: int, storage: Any = None, evaluated: Callable[[Candidate], Evaluation] = answer
) -> list[str]:
    """The networks that a run's broker asked for, at most so many, each of them evaluated."""
    broker = Broker(run, storage)
    asked: list[str] = []
    while len(asked) < count and not broker.finished:
        candidate = broker.ask()
        if candidate is not None:
            asked.append(candidate.digest)
            broker.finish(candidate, evaluated(candidate))
    return asked


def snapshot(candidate: Candidate) -> Evaluation:
    """What is known after an epoch."""
    return replace(
        answer(candidate),
        outcome=Outcome.STOPPED,
        history=(EpochMetrics(1, 1.0, 1.0, 0.5, {"accuracy": 0.5}, 1.0, 1.0),),
    )
