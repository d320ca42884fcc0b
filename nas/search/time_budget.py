"""A search's time budget: what the time from the start of the command to its end leaves for what.

Times are by the monotonic clock, which nobody sets: a search ends neither early nor never where the time of day jumps.

Start-up comes first, the report and the end of Ray come last; of what is left confirmation has its share. What is
predicted not to end in time is not started, and what overruns is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.common.text import CUT_OFF, duration_text
from nas.runs.in_turn import deciding, seconds_in_turn
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.training.length import Length
from nas.training.recipe import Recipe

CLOSING_S, CLOSING_SHARE, MOST_CLOSING = 2.0, 0.15, 0.2
"""What the end of a search takes (its report, the end of Ray): so many seconds and a share of what its start took, which
says how fast the machine is; at most this share of the budget."""
MOST_MEASURING = 0.1
"""Share of the budget that measuring the front in turn may have kept for it, before there is a front to say how long it takes."""
AFFORDABLE = 0.25
"""Share of the time for candidates that one reference network may take."""
LATEST = 24
"""Candidates that durations are learned from: the latest, since a machine's load changes."""

Point = tuple[float, float]
"""Multiply-adds of a candidate, and the seconds that it took or would take."""


@dataclass(frozen=True)
class TimeBudget:
    """A budget of `seconds` from `began` on (by this process's monotonic clock), of which a share confirms the front.

    Of it `measuring_s` are kept for measuring the front in turn, and the end of the search takes `closing_s`.
    """

    began: float
    seconds: float = math.inf
    confirm: float = 0.0
    closing_s: float = 0.0
    measuring_s: float = 0.0

    @classmethod
    def of(cls, settings: SearchSettings, began: float, startup_s: float) -> TimeBudget:
        """That of a search whose command began then, and takes so long to start; without an end where none was given."""
        seconds = settings.time_budget_s
        if seconds is None:
            return cls(began)
        closing_s = min(CLOSING_S + CLOSING_SHARE * startup_s, MOST_CLOSING * seconds)
        measuring_s = min(
            sum(seconds_in_turn(settings, target) for target in deciding(settings)), MOST_MEASURING * seconds
        )
        return cls(began, seconds, settings.confirm if settings.confirmations else 0.0, closing_s, measuring_s)

    @property
    def spent_s(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self.began

    @property
    def trainings_left_s(self) -> float | None:
        """Seconds in which the last training has to be over; None where there is no budget."""
        return None if math.isinf(self.seconds) else self.trainings_end - time.monotonic()

    @property
    def trainings_end(self) -> float:
        """When the last training has to be over, those that confirm among them."""
        return self.began + self.seconds - self.closing_s

    @property
    def candidates_end(self) -> float:
        """When no more candidates are started."""
        return self.trainings_end - self.measuring_s - (self.confirm * self.seconds if self.confirm else 0.0)

    def over(self, trained: int) -> bool:
        """Whether no more candidates are started; before one is trained, nothing is kept to confirm it."""
        return time.monotonic() >= (self.candidates_end if trained else self.trainings_end)

    def fits(self, seconds: float | None, end: float | None = None) -> bool:
        """Whether what takes so long can be started now and be over by then, by default in time for confirmation."""
        return time.monotonic() + (seconds or 0.0) <= (self.candidates_end if end is None else end)

    def affords(self, seconds: float | None) -> bool:
        """Whether a reference network that takes so long leaves enough time for candidates."""
        return seconds is None or seconds <= AFFORDABLE * (self.candidates_end - self.began)

    def cut(self, so_far: Evaluation, recipe: Recipe, images: int) -> str | None:
        """Why a training on so many images is to be ended after its latest epoch: by its pace so far it would not be over in
        time. None where it would.
        """
        done, epochs = so_far.epochs, Length.of(recipe, images).epochs
        left_s = (epochs - done) * sum(epoch.seconds for epoch in so_far.history) / max(1, done)
        if recipe.seconds is not None or done >= epochs or self.fits(left_s, self.trainings_end):
            return None
        return f"{CUT_OFF} after epoch {done} of {recipe.epochs}: the others would take {duration_text(left_s)} at its pace"


class Durations:
    """How long candidates take by their multiply-adds, from a forecast (`points`) and then from what ran."""

    def __init__(self, points: Sequence[Point] = ()) -> None:
        self._forecast = list(points)
        self._ran: list[Point] = []

    def learn(self, record: TrialRecord) -> None:
        """Take in a candidate that was trained to the end."""
        evaluation = record.evaluation
        if record.outcome is Outcome.DONE and record.imported_from is None and evaluation.cost is not None:
            self._ran.append((float(evaluation.cost.macs), evaluation.seconds))

    def seconds(self, macs: float) -> float | None:
        """What a candidate of so many multiply-adds is to take; None while nothing is known."""
        known, ran = np.array(self._forecast).reshape(-1, 2), np.array(self._ran[-LATEST:]).reshape(-1, 2)
        if not len(known) and not len(ran):
            return None
        if len(known) and len(ran):  # by how much all takes longer than when it was forecast
            base, slope = line_through(known, np.ones(len(known)))
            known[:, 1] *= np.median(ran[:, 1] / np.maximum(base + slope * ran[:, 0], 1e-9))
        weights = [1 / (1 + len(ran))] * len(known) + [1.0] * len(ran)
        base, slope = line_through(np.concatenate([known, ran]), np.array(weights))
        return base + slope * macs


def line_through(points: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """The line of best fit through points (N, 2), by relative errors; neither its value at 0 nor its slope is negative."""
    x, y = points.T
    weights = weights / np.maximum(y, 1e-9) ** 2
    centre, middle = np.average(x, weights=weights), np.average(y, weights=weights)
    spread = np.average((x - centre) ** 2, weights=weights)
    slope = float(np.average((x - centre) * (y - middle), weights=weights) / spread) if spread > 0 else 0.0
    if slope <= 0:
        return float(middle), 0.0
    if middle - slope * centre < 0:  # through the origin
        return 0.0, float(np.average(x * y, weights=weights) / np.average(x * x, weights=weights))
    return float(middle - slope * centre), slope
