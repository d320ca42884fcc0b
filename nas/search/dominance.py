"""What a candidate may hope for: whether, once its exact costs are known, it is still worth training. No Optuna."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.common.text import brief_text
from nas.runs.objectives import measured_latency, objective, objective_values, target_of
from nas.runs.record import Evaluation

LEAST_CHANCE = 0.01
"""Chance not to be dominated below which a candidate is not trained: a hundred trainings saved for one that mattered.

Where the deviations are what they say; docs/results/search.md has how often it did matter.
"""


@dataclass(frozen=True)
class Rival:
    """A trained network that nothing dominates: the losses of its exact costs, and what its score is believed to be."""

    costs: tuple[float, ...]
    mean: float
    std: float
    score: float


@dataclass(frozen=True)
class DominanceEstimate:
    """A score predicted, and the front that it would have to reach, at the time the candidate was asked for.

    Means and standard deviations are those of losses on a scale that candidate and rivals share; the noise of a training
    is in them. `score` is the mean on its own scale, that of the objective `name`, in its unit. `costs` names the other objectives, in the order of
    the rivals' losses.
    """

    costs: tuple[str, ...]
    mean: float
    std: float
    score: float
    name: str
    unit: str
    rivals: tuple[Rival, ...]

    def chance(self, losses: tuple[float, ...]) -> float:
        """Probability at most that no rival dominates a candidate of such exact costs, as losses."""
        chances = [
            0.5 * math.erfc((self.mean - rival.mean) / math.sqrt(2 * (self.std**2 + rival.std**2)))
            for rival in self._ahead(losses)
        ]
        return min(chances, default=1.0)

    def dominated(self, known: Evaluation) -> str | None:
        """Why a candidate of which all but the score is known is not worth training; None where it may be.

        Never where a cost is not known, or a latency was measured beside others.
        """
        latencies = [measured_latency(known, name) for name in self.costs if name == "latency" or target_of(name)]
        values = objective_values(known, self.costs)
        if len(values) < len(self.costs) or any(latency is None or latency.contended for latency in latencies):
            return None
        losses = tuple(objective(name).loss(values[name]) for name in self.costs)
        chance = self.chance(losses)
        if chance >= LEAST_CHANCE:
            return None
        best = min(self._ahead(losses), key=lambda rival: rival.mean)
        own, other = brief_text(self.score, self.unit), brief_text(best.score, self.unit)
        return (
            f"nearly certainly dominated, so not trained: {self.name} of about {own} is predicted, and a network that "
            f"costs no more has about {other}; a chance of {chance:.1g} to be on the front"
        )

    def _ahead(self, losses: tuple[float, ...]) -> list[Rival]:
        return [r for r in self.rivals if all(own <= loss for own, loss in zip(r.costs, losses, strict=True))]
