"""Who proposes candidates: the door of samplers, each a `SamplerKind` in a file of its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from optuna.exceptions import ExperimentalWarning

from nas.common.doors import Door
from nas.common.errors import InputError
from nas.search.samplers.base import SamplerKind
from nas.search.samplers.within import AllowedSampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas.search.samplers.known import KnownCosts

SAMPLERS: Door[SamplerKind] = Door(
    "sampler",
    "nas.samplers",
    {
        "front": "nas.search.samplers.front:FRONT",
        "tpe": "nas.search.samplers.optuna_own:TPE",
        "nsga2": "nas.search.samplers.optuna_own:NSGA2",
        "gp": "nas.search.samplers.optuna_own:GP",
        "random": "nas.search.samplers.optuna_own:RANDOM",
    },
    SamplerKind,
)


def sampler_kind(name: str) -> SamplerKind:
    """What a name means; raises `InputError` where that is no sampler."""
    return SAMPLERS.get(name)


def make_sampler(name: str, seed: int, known: KnownCosts) -> BaseSampler:
    """A sampler by name, for one proposal; raises `InputError` for an unknown name."""
    kind = sampler_kind(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = kind.make(seed, known)
    if kind.keeps_limits or not known.allowed.limits:
        return sampler
    return AllowedSampler(sampler, known.allowed, seed)


def described(name: str) -> str:
    """A name and what its sampler does, or why it cannot be had."""
    try:
        return f"{name} ({sampler_kind(name).description})"
    except InputError as error:
        return str(error)
