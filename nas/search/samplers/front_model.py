"""What the front of a study is expected to gain by a network not tried yet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.common.pareto import on_front, ranks
from nas.search.samplers.history import ChoiceSpace, CostTable, History
from nas.search.samplers.improvement import expected_improvement, normal_cdf
from nas.search.samplers.surrogate import Embedding, Fit, Process, Scale, fit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODELLED = 300
"""Observations that a process is given at most: those nearest to the front, and some of the rest."""
FITTED = 120
"""Observations that hyperparameters are fitted to at most."""
FEWEST = 8
"""Observations from which on hyperparameters are kept for a while."""
REFIT = 1.1
"""Hyperparameters are fitted again when there are so many times the observations."""
REMEMBERED = 64
"""Fits that are remembered, by their content."""


@dataclass(frozen=True)
class Belief:
    """Means and standard deviations (N,) of losses on a process's scale, the standard deviation there of the noise of one
    observation, and the means as losses (N,).
    """

    means: Floats
    stds: Floats
    noise: float
    natural: Floats


class FrontModel:
    """Processes of the objectives that are not told and of the constraints, and the front by their means.

    A running trial counts as one that came out as expected ("kriging believer"; Ginsbourger, Le Riche & Carraro,
    2010). A stopped one counts as what it would have come to, as far as that can be told (nas/search/samplers/partial.py), and
    defines no front. The front is that of the processes' means, so that the luck of one noisy training does not stand in
    the way.
    `parents` (N, parameters) are the choice indices on that front.
    """

    def __init__(self, space: ChoiceSpace, history: History, table: CostTable) -> None:
        self._table = table
        # Of the rows that hyperparameters are fitted to, so that a fit can be remembered while trials come in.
        known = table.features(history.complete[_learnt_from(len(history.complete))])
        self._mean, spread = known.mean(0), known.std(0)
        self._spread = np.where(spread > 1e-9, spread, np.inf)
        self._embedding = Embedding(list(space.choices.values()), known.shape[1])
        # As long as nothing meets a constraint, whatever violates it less than all others is welcome.
        self._constraints = [
            (self._process(rows, values, np.arange(len(rows))[-MODELLED:]), max(0.0, float(values.min())))
            for rows, values in history.constraints.values()
            if values.max(initial=0.0) > 0
        ]
        self._objectives: list[Process | None] = []
        self._front = np.empty((0, history.losses.shape[1]))
        self.parents = history.complete
        if len(history.feasible) < 2:  # nothing to learn from yet but what to avoid
            return
        kept = _near_front(history.losses)
        for objective in range(history.losses.shape[1]):
            process = None
            if objective not in table.objectives:
                stopped = history.stopped, history.predicted[:, objective], history.doubt[:, objective]
                process = self._process(history.feasible, history.losses[:, objective], kept, stopped, history.running)
            self._objectives.append(process)
        seen = np.vstack([history.feasible[kept], history.running])
        means, _ = self._predict(seen)
        front = on_front(means)
        self._front, self.parents = means[front], seen[front]

    def score(self, rows: Ints) -> Floats:
        """Expected growth of the front's hypervolume times the chance to be feasible, (N,)."""
        score = np.ones(len(rows))
        if len(self._front):
            score = expected_improvement(self._front, *self._predict(rows))
        features = self._featurise(rows)
        for process, limit in self._constraints:
            mean, std = process.predict(features)
            score = score * normal_cdf((process.scale.forward(np.array([limit])) - mean) / std)
        return score

    def belief(self, rows: Ints, objective: int) -> Belief:
        """What is believed of an objective that is not told, at each row."""
        process = self._objectives[objective]
        assert process is not None
        means, stds = process.predict(self._featurise(rows))
        return Belief(means, stds, process.noise, process.scale.backward(means))

    def _process(
        self,
        rows: Ints,
        targets: Floats,
        kept: Ints,
        stopped: tuple[Ints, Floats, Floats] | None = None,
        running: Ints | None = None,
    ) -> Process:
        """The posterior given the observations kept, those predicted of stopped trials with their standard deviations,
        and running trials believed to come out as expected.
        """
        some = _learnt_from(len(rows))
        found = _remembered_fit(self._embedding, self._featurise(rows[some]), targets[some])
        scale = Scale.of(targets, found.offset)
        features, scaled = self._featurise(rows[kept]), scale.forward(targets[kept])
        doubt = np.zeros(len(kept))
        if stopped is not None and len(stopped[0]):
            values = np.maximum(stopped[1], (targets.min() + scale.low) / 2)  # a logarithm's argument stays positive
            features = np.vstack([features, self._featurise(stopped[0])])
            scaled = np.concatenate([scaled, scale.forward(values)])
            doubt = np.concatenate([doubt, stopped[2] * scale.slope(values)])
        process = Process(self._embedding, found.hyperparameters, scale, features, scaled, doubt)
        if running is None or not len(running):
            return process
        believed = self._featurise(running)
        features, scaled = np.vstack([features, believed]), np.concatenate([scaled, process.predict(believed)[0]])
        doubt = np.concatenate([doubt, np.zeros(len(running))])
        return Process(self._embedding, found.hyperparameters, scale, features, scaled, doubt)

    def _predict(self, rows: Ints) -> tuple[Floats, Floats]:
        """Means and standard deviations (N, objectives) of losses."""
        means = np.empty((len(rows), len(self._objectives)))
        stds = np.zeros_like(means)
        features = self._featurise(rows)
        for objective, process in enumerate(self._objectives):
            if process is None:
                means[:, objective] = self._table.losses(rows, objective)
                continue
            mean, std = process.predict(features)
            means[:, objective] = process.scale.backward(mean)
            low, high = (process.scale.backward(mean + step * std) for step in (-1, 1))
            stds[:, objective] = (high - low) / 2
        return means, stds

    def _featurise(self, rows: Ints) -> Floats:
        return self._embedding(rows, (self._table.features(rows) - self._mean) / self._spread)


def _learnt_from(count: int) -> Ints:
    """Which of `count` observations hyperparameters are fitted to: evenly taken ones of all but the latest few.

    They change only every so often, so that a fit can be remembered, and depend on nothing but the count.
    """
    steps = min(FEWEST, count)
    while (after := max(steps + 1, int(steps * REFIT))) <= count:
        steps = after
    return np.linspace(0, steps - 1, min(steps, FITTED)).astype(np.int64)


def _near_front(losses: Floats) -> Ints:
    """Indices, in order, of `MODELLED` observations at most: two thirds by rank of domination, the rest spread evenly."""
    if len(losses) <= MODELLED:
        return np.arange(len(losses))
    best = 2 * MODELLED // 3
    order = np.argsort(ranks(losses, best), kind="stable")
    rest = order[best:]
    spread = rest[np.linspace(0, len(rest) - 1, MODELLED - best).astype(int)]
    return np.sort(np.concatenate([order[:best], spread]))


_fits: dict[bytes, Fit] = {}


def _remembered_fit(embedding: Embedding, features: Floats, targets: Floats) -> Fit:
    """`fit`, remembered by the content of its arguments: a cache, of which no proposal depends."""
    content = (features, targets, embedding.design, embedding.base)
    key = hashlib.sha256(b"".join(array.tobytes() for array in content)).digest()
    if key not in _fits:
        while len(_fits) >= REMEMBERED:
            _fits.pop(next(iter(_fits)), None)
        _fits[key] = fit(embedding, features, targets)
    return _fits[key]
