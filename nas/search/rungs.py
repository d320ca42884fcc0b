"""Early stopping for several objectives: asynchronous successive halving by rank of domination. It knows no Ray.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA, 2020), stops by one value; here a rung's order
is that of non-dominated sorting (Deb et al., NSGA-II, 2002) over the score so far and the exact costs, as others
have combined the two (Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021). Nothing is ever
paused: a candidate goes on, or ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nas.common.pareto import ranks
from nas.common.text import plural
from nas.runs.front import contributions
from nas.runs.objectives import objective, objective_values
from nas.runs.record import Evaluation

Floats = NDArray[np.float64]

SHARES = (0.4, 0.7)
"""Shares of the epochs after which there is a rung. In a one-cycle training what comes before ranks badly, and those that
learn slowly at first, the deep ones, are lost (docs/results/early_stopping.md)."""
REDUCTION = 2
"""One in so many goes on from a rung; and whatever is on the front there, however many that are."""
FEWEST = 8
"""Candidates that must have come to a rung before it stops any."""


def levels(epochs: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
    """The epochs after which there is a rung, in a training of so many; never the last."""
    return tuple(sorted({level for share in shares if 1 <= (level := round(share * epochs)) < epochs}))


class Rungs:
    """Who came to which rung with what, and who of them is to be stopped there."""

    def __init__(
        self,
        objectives: Sequence[str],
        epochs: int,
        shares: Sequence[float] = SHARES,
        reduction: float = REDUCTION,
        fewest: int = FEWEST,
    ) -> None:
        self._objectives = tuple(objectives)
        self._epochs = epochs
        self._reduction = reduction
        self._fewest = fewest
        self._rungs: dict[int, dict[str, Floats]] = {level: {} for level in levels(epochs, shares)}

    def remember(self, digest: str, evaluation: Evaluation) -> None:
        """Enter a candidate that was trained, or stopped, on every rung that it came to."""
        for level in self._rungs:
            if len(evaluation.history) >= level:
                self._enter(level, digest, replace(evaluation, history=evaluation.history[:level]))

    def should_stop(self, digest: str, so_far: Evaluation) -> str | None:
        """Why a candidate is to be stopped after its latest epoch, or None to let it go on."""
        level = len(so_far.history)
        if level not in self._rungs or not self._enter(level, digest, so_far):
            return None
        rung = self._rungs[level]
        ahead = ahead_of(list(rung).index(digest), np.array(list(rung.values())))
        if len(rung) < self._fewest or ahead < math.ceil(len(rung) / self._reduction):
            return None
        return (
            f"of {plural(len(rung), 'candidate')} that came to epoch {level} of {self._epochs} so far, {ahead} are ahead of it "
            f"on {_listed(self._objectives)} together"
        )

    def _enter(self, level: int, digest: str, evaluation: Evaluation) -> bool:
        values = objective_values(evaluation, self._objectives)
        known = len(values) == len(self._objectives)
        if known:
            losses = [objective(name).loss(values[name]) for name in self._objectives]
            self._rungs[level][digest] = np.array(losses, dtype=np.float64)
        return known


def ahead_of(index: int, losses: Floats) -> int:
    """How many of the points (N, objectives) come before one of them; none where it is on the front.

    By rank of domination; within a rank by what each adds to the hypervolume of the rank.
    """
    rank = ranks(losses)
    if rank[index] == 0:
        return 0
    peers = np.flatnonzero(rank == rank[index])
    own = contributions(losses[peers], losses)
    return int((rank < rank[index]).sum() + (own > own[peers.tolist().index(index)]).sum())


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"
