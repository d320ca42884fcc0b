"""Which Optuna sampler proposes candidates."""

from __future__ import annotations

import warnings
from typing import get_args

import optuna

from nas.errors import InputError
from nas.settings import SamplerName

SAMPLERS: tuple[str, ...] = get_args(SamplerName)


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler by name; raises `InputError` for an unknown one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
    raise InputError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
