"""What workers evaluate, and who asks for it: the seam between a search and whatever runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nas.latency.result import Latency
from nas.runs.record import Evaluation, TrialRecord
from nas.runs.settings import EvaluationSettings
from nas.runs.store import RunDirectory
from nas.search.dominance import DominanceEstimate
from nas.spaces.base import Choice
from nas.spaces.families import AnyArchitecture


@dataclass(frozen=True)
class InTurn:
    """Networks whose latencies are to be measured in turn, by digest: on a further target, or by the run's own protocol."""

    networks: dict[str, AnyArchitecture]
    target: str | None = None

    @property
    def patience_s(self) -> float:
        """Seconds that measuring them may take, a minute each, waiting for the device included."""
        return 60.0 * len(self.networks)


@dataclass(frozen=True)
class Candidate:
    """A question to be answered: a network, under which settings it is evaluated, and the trial of the study it is of.

    `keep_weights` says whether the run keeps what was trained; a `latency` that is known is not measured again. With a
    `dominance` it is not trained where that says, once its costs are known, that it is dominated. An
    evaluation that takes longer than `timeout_s` has failed, and one that is not over `left_s` after its start is stopped
    there: seconds, since the clocks of two hosts need not agree. Who asked knows when, by its monotonic clock (`asked`) and
    for people (`started`). With `in_turn` nothing is trained: those networks are measured, and the evaluation has their latencies
    by digest.
    """

    number: int
    parameters: dict[str, Choice]
    architecture: AnyArchitecture
    started: float
    settings: EvaluationSettings
    keep_weights: bool = True
    latency: Latency | None = None
    dominance: DominanceEstimate | None = None
    timeout_s: float | None = None
    in_turn: InTurn | None = None
    left_s: float | None = None
    asked: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[int, float]:
        """What no other candidate of a session has: several may be of one trial."""
        return self.number, self.started

    @property
    def still_left_s(self) -> float | None:
        """What is left now of `left_s`, below 0 once it is over; for the process that asked."""
        return None if self.left_s is None else self.asked + self.left_s - time.monotonic()

    @property
    def out_of_time(self) -> bool:
        """Whether it had to be over by now; for the process that asked."""
        return self.still_left_s is not None and self.still_left_s < 0

    @property
    def digest(self) -> str:
        """Digest of the canonical architecture."""
        return self.architecture.digest


def trained_again(
    trial: TrialRecord, settings: EvaluationSettings, timeout_s: float | None = None, left_s: float | None = None
) -> Candidate:
    """The candidate of a trial under other settings: its latency is known, and nothing but its record is kept."""
    return Candidate(
        number=trial.number,
        parameters=trial.parameters,
        architecture=trial.architecture,
        started=time.time(),
        settings=settings,
        keep_weights=False,
        latency=trial.evaluation.latency,
        timeout_s=timeout_s,
        left_s=left_s,
    )


class Losses:
    """How many times in a row something was lost; what ran together, and shared the fate of a node, counts once."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self._last = -math.inf

    def lost(self, candidate: Candidate) -> None:
        """A candidate's worker died."""
        if candidate.asked >= self._last:
            self.in_a_row += 1
            self._last = time.monotonic()

    def finished(self) -> None:
        """A candidate was evaluated."""
        self.in_a_row = 0


class TrialSource(Protocol):
    """Asks for candidates and takes in what evaluating them gave. Each candidate is finished or lost, once."""

    run: RunDirectory

    @property
    def running(self) -> Mapping[str, Candidate]:
        """What is being evaluated."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to start and nothing runs."""

    def ask(self) -> Candidate | None:
        """The next candidate, or None when nothing can be started now."""

    def should_stop(self, candidate: Candidate, so_far: Evaluation) -> str | None:
        """Why a candidate in training is to be stopped, or None to let it go on; asked after each epoch."""

    def finish(self, candidate: Candidate, evaluation: Evaluation) -> object:
        """Take in an evaluation."""

    def report_lost(self, candidate: Candidate, reason: str) -> object:
        """Its worker died."""

    def stop(self, reason: str) -> None:
        """Start nothing more."""
