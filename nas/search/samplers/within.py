"""Any sampler's proposals, kept within the limits that can be computed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.common.seeds import derive_seed
from nas.search.allowed import Allowed


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
