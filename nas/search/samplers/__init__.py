"""Which Optuna sampler proposes candidates."""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.common.errors import InputError
from nas.common.seeds import derive_seed
from nas.runs.settings import STARTUP, SamplerName
from nas.search.allowed import COMPUTED, Allowed
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.cost import architecture_cost
from nas.spaces.mobile.sections import Choice
from nas.spaces.mobile.space import SearchSpace, Values

REMEMBERED = 100_000
"""Networks whose costs and digests are remembered: a sampler looks at hundreds before it proposes one."""

SAMPLERS: tuple[str, ...] = get_args(SamplerName)


class KnownCosts:
    """What is known of the networks of a space without building them, for a sampler to use.

    `allowed` are those within the `limits` (by objective) that can be computed.
    """

    def __init__(
        self, space: SearchSpace, num_classes: int, objectives: Sequence[str], limits: Mapping[str, float] | None = None
    ) -> None:
        self._space = space
        self._num_classes = num_classes
        self._names = tuple(space.parameters)
        self._costs = functools.lru_cache(REMEMBERED)(self._count)
        self._digest = functools.lru_cache(REMEMBERED)(lambda choices: self._architecture(choices).digest)
        self._objectives = tuple(objectives)
        self.allowed = Allowed(space, limits or {}, self.features)

    @property
    def costs(self) -> dict[int, Callable[[Values], float]]:
        """Functions from parameters to multiply-adds and parameters, by index, where these are objectives."""

        def of(which: int) -> Callable[[Values], float]:
            return lambda values: self.features(values)[which]

        return {i: of(COMPUTED.index(name)) for i, name in enumerate(self._objectives) if name in COMPUTED}

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


class AllowedSampler(optuna.samplers.BaseSampler):
    """Another sampler, whose proposals are kept within what is allowed.

    What it would draw at random is drawn among what is allowed; what it reasons out is brought within, choice by choice.
    """

    def __init__(self, inner: optuna.samplers.BaseSampler, allowed: Allowed, seed: int) -> None:
        self._inner = inner
        self._allowed = allowed
        self._seed = seed

    def reseed_rng(self) -> None:
        """As the inner sampler does."""
        self._inner.reseed_rng()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters: they are allowed, or not, together."""
        return {name: CategoricalDistribution(choices) for name, choices in self._allowed.space.parameters.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal."""
        rng = random.Random(derive_seed(self._seed, "allowed", trial.number))
        reasoned = self._inner.infer_relative_search_space(study, trial)
        values = dict(self._inner.sample_relative(study, trial, reasoned))
        if not values:
            return self._allowed.sample(rng)
        for name, distribution in search_space.items():
            if name not in values:
                values[name] = self._inner.sample_independent(study, trial, name, distribution)
        return self._allowed.brought_within(values, rng)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never asked for of a space's parameters; as the inner sampler does."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the inner sampler does."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the inner sampler does."""
        self._inner.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int, known: KnownCosts | None = None) -> optuna.samplers.BaseSampler:
    """A sampler by name, told what is known beforehand if it can use that; raises `InputError` for an unknown name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "front":
            from nas.search.samplers.front import FrontSampler  # torch is slow to import

            if known is None:
                return FrontSampler(seed)
            bring_within = known.allowed.brought_within if known.allowed.limits else None
            return FrontSampler(seed, known.costs, known.features, known.canonical, bring_within)
        sampler = _of_optuna(name, seed)
    return AllowedSampler(sampler, known.allowed, seed) if known is not None and known.allowed.limits else sampler


def _of_optuna(name: str, seed: int) -> optuna.samplers.BaseSampler:
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=STARTUP["tpe"], seed=seed, multivariate=True, group=True)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=STARTUP["nsga2"])
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP["gp"])
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
    raise InputError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
