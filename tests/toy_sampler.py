"""A sampler that is none of nas's own, whole in this file: it counts through the choices of a space."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from nas.search.samplers.base import SamplerKind
from nas.search.samplers.known import KnownCosts


class Counting(BaseSampler):
    """Choices by the number of the trial, each parameter at a pace of its own."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        assert isinstance(param_distribution, CategoricalDistribution)
        choices = param_distribution.choices
        return choices[(trial.number * (1 + len(param_name))) % len(choices)]


def _make(seed: int, known: KnownCosts) -> BaseSampler:
    return Counting()


TOY = SamplerKind("toy", "counts through the choices", 4, _make, draws="at first", proposes="by counting")
