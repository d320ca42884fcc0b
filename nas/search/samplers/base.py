"""What a sampler is to a search: an entry of the door `nas.samplers`, with all that the rest of nas knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas.search.samplers.known import KnownCosts


@dataclass(frozen=True)
class SamplerKind:
    """A way to propose candidates.

    `make(seed, known)` gives an Optuna sampler. It is called again for every trial, with another seed, so that proposals depend
    on the study and the seed alone; `known` tells costs without building a network. `startup` are the trials that it draws
    before it goes by what it knows of them; None: it never does. Unless it `keeps_limits` (`known.allowed`) itself, what it
    proposes is brought within. In the report's chart its phases are called `draws` and `proposes`, by default "by NAME".
    """

    name: str
    description: str
    startup: int | None
    make: Callable[[int, KnownCosts], BaseSampler]
    keeps_limits: bool = False
    draws: str = "at random"
    proposes: str = ""
