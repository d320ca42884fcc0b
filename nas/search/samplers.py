"""Which Optuna sampler proposes candidates."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import get_args

import optuna

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.errors import InputError
from nas.settings import STARTUP, SamplerName
from nas.space import SearchSpace, Values
from nas.space_sections import Choice

REMEMBERED = 100_000
"""Networks whose costs and digests are remembered: a sampler looks at hundreds before it proposes one."""

SAMPLERS: tuple[str, ...] = get_args(SamplerName)


class Foreknowledge:
    """What is known of the networks of a space without building them, for a sampler to use."""

    def __init__(self, space: SearchSpace, num_classes: int, objectives: Sequence[str]) -> None:
        self._space = space
        self._num_classes = num_classes
        self._names = tuple(space.parameters)
        self._costs = functools.lru_cache(REMEMBERED)(self._count)
        self._digest = functools.lru_cache(REMEMBERED)(lambda choices: self._architecture(choices).digest)
        self._static = {"macs": 0, "params": 1}
        self._objectives = tuple(objectives)

    @property
    def costs(self) -> dict[int, Callable[[Values], float]]:
        """Functions from parameters to multiply-adds and parameters, by index, where these are objectives."""

        def of(which: int) -> Callable[[Values], float]:
            return lambda values: self.features(values)[which]

        return {i: of(self._static[name]) for i, name in enumerate(self._objectives) if name in self._static}

    def features(self, values: Values) -> tuple[float, float]:
        """Multiply-adds and parameters."""
        return self._costs(tuple(values[name] for name in self._names))

    def canonical(self, values: Values) -> str:
        """The digest, the same for all spellings of a network."""
        return self._digest(tuple(values[name] for name in self._names))

    def _architecture(self, choices: tuple[Choice, ...]) -> Architecture:
        return self._space.architecture(dict(zip(self._names, choices, strict=True)))

    def _count(self, choices: tuple[Choice, ...]) -> tuple[float, float]:
        cost = architecture_cost(self._architecture(choices), self._num_classes)
        return float(cost.macs), float(cost.params)


def make_sampler(name: str, seed: int, known: Foreknowledge | None = None) -> optuna.samplers.BaseSampler:
    """A sampler by name, told what is known beforehand if it can use that; raises `InputError` for an unknown name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "front":
                from nas.search.front_sampler import FrontSampler  # torch is slow to import

                if known is None:
                    return FrontSampler(seed)
                return FrontSampler(seed, known.costs, known.features, known.canonical)
            case "tpe":
                return optuna.samplers.TPESampler(
                    n_startup_trials=STARTUP["tpe"], seed=seed, multivariate=True, group=True
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=STARTUP["nsga2"])
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP["gp"])
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
    raise InputError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
