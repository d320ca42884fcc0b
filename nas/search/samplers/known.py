"""What is known of a space's networks without building them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from nas.search.allowed import COMPUTED, Allowed
from nas.spaces.base import Architecture, Choice, Space, Values
from nas.spaces.families import architecture_cost

REMEMBERED = 100_000
"""Networks whose costs and digests are remembered: a sampler looks at hundreds before it proposes one."""


class KnownCosts:
    """What is known of the networks of a space without building them, for a sampler to use.

    `allowed` are those within the `limits` (by objective) that can be computed.
    """

    def __init__(
        self, space: Space, num_classes: int, objectives: Sequence[str], limits: Mapping[str, float] | None = None
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
