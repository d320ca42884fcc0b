"""What an Optuna study knows, as arrays that a sampler computes with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.search.samplers.partial import predict_final, steps_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Parameters = Mapping[str, Any]
Row = tuple[int, ...]
"""The index of each parameter's choice."""

MAX_STEPS = 64
"""Values of a stepped number that are choices; one with more is none."""
STOPPED = 100
"""Pruned trials whose partial results are made use of: the latest."""


def options_of(distribution: BaseDistribution) -> tuple[Any, ...] | None:
    """The values of a distribution in order, or None when there are too many."""
    match distribution:
        case CategoricalDistribution():
            return tuple(distribution.choices)
        case IntDistribution() if (distribution.high - distribution.low) // distribution.step < MAX_STEPS:
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        case FloatDistribution() if distribution.low == distribution.high:
            return (distribution.low,)
        case FloatDistribution() if distribution.step is not None:
            steps = round((distribution.high - distribution.low) / distribution.step)
            if steps < MAX_STEPS:
                return tuple(distribution.low + step * distribution.step for step in range(steps + 1))
    return None


@dataclass
class ChoiceSpace:
    """The parameters that are sampled together; those of a single choice are `fixed`."""

    choices: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, distributions: Mapping[str, BaseDistribution]) -> ChoiceSpace:
        space = cls()
        for name, distribution in distributions.items():
            options = options_of(distribution) or ()
            if len(options) == 1:
                space.fixed[name] = options[0]
            elif options:
                space.choices[name] = options
        return space

    @functools.cached_property
    def sizes(self) -> Ints:
        """Number of choices of each parameter, (parameters,)."""
        return np.array([len(options) for options in self.choices.values()], dtype=np.int64)

    @functools.cached_property
    def _indices(self) -> dict[str, dict[Any, int]]:
        return {name: {option: i for i, option in enumerate(options)} for name, options in self.choices.items()}

    def row(self, parameters: Parameters) -> Row | None:
        """Choice indices of a trial's parameters; None where it lacks one, or has another value."""
        try:
            return tuple([index[parameters[name]] for name, index in self._indices.items()])
        except KeyError:
            return None

    def parameters(self, row: Row) -> dict[str, Any]:
        """The inverse of `row`, with what is fixed."""
        chosen = zip(self.choices.items(), row, strict=True)
        return self.fixed | {name: options[index] for (name, options), index in chosen}


@dataclass(frozen=True)
class History:
    """Choice indices (trials, parameters) of the complete trials, the feasible ones, the running and the stopped ones.

    `losses` (feasible, objectives) have signs turned so that less is better. `constraints` are the rows and values of
    each by name. `stopped` are pruned trials of which partial results are known, `predicted` and `doubt` (stopped,
    objectives) the losses that they would have come to, and their standard deviations. `tried` is every row that some
    trial has, failed ones too.
    """

    complete: Ints
    feasible: Ints
    losses: Floats
    constraints: dict[str, tuple[Ints, Floats]]
    running: Ints
    stopped: Ints
    predicted: Floats
    doubt: Floats
    tried: frozenset[Row]

    @classmethod
    def of(cls, space: ChoiceSpace, study: optuna.Study, trials: Sequence[FrozenTrial]) -> History:
        complete, feasible, losses, running, tried = [], [], [], [], []
        signs = signs_of(study)
        stopped: list[tuple[Row, Floats]] = []
        curves: list[tuple[Floats, Floats]] = []
        constraints: dict[str, tuple[list[Row], list[float]]] = {}
        for trial in trials:
            row = space.row(trial.params)
            if row is None:
                continue
            tried.append(row)
            if trial.state is TrialState.RUNNING:
                running.append(row)
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
                continue
            limits = trial.constraints
            for name, value in limits.items():
                if not np.isfinite(value):
                    continue
                rows, values = constraints.setdefault(name, ([], []))
                rows.append(row)
                values.append(value)
            met = all(value <= 0 for value in limits.values())
            steps = steps_of(trial, len(signs))
            if trial.state is TrialState.PRUNED:
                if met and steps is not None:
                    stopped.append((row, steps * signs))
                continue
            complete.append(row)
            if met and np.isfinite(trial.values).all():
                feasible.append(row)
                losses.append(trial.values)
                if steps is not None:
                    curves.append((steps * signs, np.array(trial.values) * signs))
        stopped = stopped[-STOPPED:]
        predicted = [predict_final(steps[-1], len(steps), curves) for _, steps in stopped]
        width = len(space.choices)
        return cls(
            _array(complete, width),
            _array(feasible, width),
            np.array(losses, dtype=np.float64).reshape(len(losses), len(signs)) * signs,
            {name: (_array(rows, width), np.array(values)) for name, (rows, values) in constraints.items()},
            _array(running, width),
            _array([row for row, _ in stopped], width),
            np.array([values for values, _ in predicted]).reshape(len(stopped), len(signs)),
            np.array([stds for _, stds in predicted]).reshape(len(stopped), len(signs)),
            frozenset(tried),
        )


class CostTable:
    """What can be told of a network without asking for it: costs that are objectives, and other features."""

    def __init__(
        self,
        space: ChoiceSpace,
        costs: Mapping[int, Callable[[Parameters], float]],
        features: Callable[[Parameters], Sequence[float]] | None,
        signs: Floats,
    ) -> None:
        self._space = space
        self._costs = dict(costs)
        self._features = features
        self._signs = signs
        self._described: dict[Row, list[float]] = {}

    @property
    def objectives(self) -> frozenset[int]:
        """Indices of the objectives that are told."""
        return frozenset(self._costs)

    def features(self, rows: Ints) -> Floats:
        """Logarithms (N, quantities) of everything that is told, positive and finite; 0 for the rest."""
        array = np.array([self._describe(row) for row in map(tuple, rows.tolist())], dtype=np.float64)
        return np.where((array > 0) & np.isfinite(array), np.log(np.maximum(array, 1e-300)), 0.0)

    def losses(self, rows: Ints, objective: int) -> Floats:
        """Exact values (N,) of an objective that is told; less is better."""
        column = list(self._costs).index(objective) - len(self._costs)
        values = [self._describe(row)[column] for row in map(tuple, rows.tolist())]
        return self._signs[objective] * np.array(values, dtype=np.float64)

    def _describe(self, row: Row) -> list[float]:
        if self._features is None and not self._costs:
            return []
        if row not in self._described:
            parameters = self._space.parameters(row)
            features = list(self._features(parameters)) if self._features else []
            self._described[row] = features + [cost(parameters) for cost in self._costs.values()]
        return self._described[row]


def signs_of(study: optuna.Study) -> Floats:
    """Of each objective, what turns its values into losses."""
    return np.array([-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in study.directions])


def _array(rows: list[Row], width: int) -> Ints:
    return np.array(rows, dtype=np.int64).reshape(len(rows), width)
