"""The cheapest networks of a space, as far as changing one choice after another finds them."""

from __future__ import annotations

from collections.abc import Callable

from nas.spaces.base import Choice, Space, Values
from nas.spaces.families import architecture_cost


def least_cost(space: Space, num_classes: int, what: str) -> int:
    """The least `macs` or `params` of a network of the space, as far as `cheapest_values` finds it."""

    def cost(values: Values) -> int:
        return int(getattr(architecture_cost(space.architecture(values), num_classes), what))

    return cost(cheapest_values(space, cost))


def cheapest_values(space: Space, cost: Callable[[Values], float], start: Values | None = None) -> dict[str, Choice]:
    """The setting of least cost, as far as changing one choice after another of `start` finds it.

    The space's smallest network, where it starts by default, has the cheapest value of each choice by itself. Together they
    may cost more: a stage that is left out takes its stride with it, and all that follows works on larger maps.
    """
    values: dict[str, Choice] = dict(space.locate(space.smallest) if start is None else start)
    least, improved = cost(values), True
    while improved:
        improved = False
        for name, choices in space.parameters.items():
            for choice in choices:
                changed = values | {name: choice}
                if (found := cost(changed)) < least:
                    values, least, improved = changed, found, True
    return values
