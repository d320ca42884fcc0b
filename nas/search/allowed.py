"""What a search may propose: networks within the limits on what can be computed, MACs and parameters. No Optuna."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from functools import cached_property

from nas.spaces.base import Choice, Space, Values
from nas.spaces.cheapest import cheapest_values

COMPUTED = ("macs", "params")
"""Objectives that may have a limit and are known before a network is built."""
COMPUTED_WORDS = {"macs": "MACs", "params": "parameters"}
DRAWS = 64
"""Settings drawn at random before one is brought within the limits instead of waiting for one that is."""
FEW_DRAWS = 8
"""The same where thousands are looked at."""


class Allowed:
    """The settings of a space that are within `limits` by objective; with none, all of them. `costs` gives MACs and parameters.

    Few of a space may be: those are found by walking from any setting towards the cheapest one.
    """

    def __init__(
        self, space: Space, limits: Mapping[str, float], costs: Callable[[Values], tuple[float, float]]
    ) -> None:
        self.space = space
        self.limits = {name: limits[name] for name in COMPUTED if name in limits}
        self._costs = costs

    def excess(self, values: Values) -> float:
        """By how much a setting is over the worst limit, as a share of it; at most 0 where it is allowed."""
        costs = dict(zip(COMPUTED, self._costs(values), strict=True))
        return max((costs[name] / limit - 1 for name, limit in self.limits.items()), default=-1.0)

    @property
    def text(self) -> str:
        """The limits in words."""
        return " and ".join(f"{limit:,} {COMPUTED_WORDS[name]}" for name, limit in self.limits.items())

    def __contains__(self, values: Values) -> bool:
        return not self.limits or self.excess(values) <= 0

    @cached_property
    def cheapest(self) -> dict[str, Choice]:
        """The setting that is furthest within the limits, as far as changing one choice after another finds it."""
        starts = [self.space.locate(self.space.smallest)]
        if len(self.limits) > 1:
            starts += [cheapest_values(self.space, lambda values: self._costs(values)[0])]
            starts += [cheapest_values(self.space, lambda values: self._costs(values)[1])]
        return min((cheapest_values(self.space, self.excess, start) for start in starts), key=self.excess)

    @property
    def possible(self) -> bool:
        """Whether there is such a network, as far as it can be found."""
        return self.cheapest in self

    def brought_within(self, values: Values, rng: random.Random) -> dict[str, Choice]:
        """The setting as it is where it is allowed, else one on the way from it to the cheapest, as near as may be.

        The way changes one choice after another, in random order.
        """
        if values in self:
            return dict(values)
        names = [name for name in self.space.parameters if values[name] != self.cheapest[name]]
        rng.shuffle(names)

        def after(changes: int) -> dict[str, Choice]:
            return {**values, **{name: self.cheapest[name] for name in names[:changes]}}

        over, within = 0, len(names)
        while within - over > 1:
            middle = (over + within) // 2
            over, within = (over, middle) if after(middle) in self else (middle, within)
        return after(within)

    def sample(self, rng: random.Random, draws: int = DRAWS) -> dict[str, Choice]:
        """A random setting: uniformly drawn where enough of the space is allowed."""
        for _ in range(draws):
            values = self.space.sample(rng)
            if values in self:
                return values
        if rng.random() < 0.5:  # else what lies far within the limits would hardly ever be met
            values = self.space.mutate(self.cheapest, rng, rng.randint(1, max(1, len(self.space.parameters) // 4)))
        return self.brought_within(values, rng)

    def unseen(self, known: Container[str], rng: random.Random) -> dict[str, Choice] | None:
        """A random allowed setting whose digest is not in `known`, or None when none was found (`Space.unseen`)."""
        if not self.limits:
            return self.space.unseen(known, rng)
        return self.space.unseen(known, rng, lambda rng: self.sample(rng, FEW_DRAWS), self.__contains__)
