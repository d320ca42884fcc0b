"""Optuna's own samplers."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.search.samplers.base import SamplerKind
from nas.search.samplers.known import KnownCosts

MODELLED_FROM = 10
"""Trials that TPE and the Gaussian process draw at random first."""
POPULATION = 20


def _tpe(seed: int, known: KnownCosts) -> BaseSampler:
    return TPESampler(n_startup_trials=MODELLED_FROM, seed=seed, multivariate=True, group=True)


def _nsga2(seed: int, known: KnownCosts) -> BaseSampler:
    return NSGAIISampler(seed=seed, population_size=POPULATION)


def _gp(seed: int, known: KnownCosts) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=MODELLED_FROM)


def _random(seed: int, known: KnownCosts) -> BaseSampler:
    return RandomSampler(seed=seed)


TPE = SamplerKind("tpe", "Optuna's tree-structured Parzen estimator", MODELLED_FROM, _tpe, proposes="by TPE")
NSGA2 = SamplerKind("nsga2", "Optuna's evolution of a population", POPULATION, _nsga2, proposes="by evolution")
GP = SamplerKind("gp", "Optuna's Gaussian process", MODELLED_FROM, _gp, proposes="by the Gaussian process")
RANDOM = SamplerKind("random", "at random, all alike", None, _random)
