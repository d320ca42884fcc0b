"""What a search tries before its sampler is asked: what the user knows to be good, the space's ends and its backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.runs.settings import SearchSettings
from nas.search.allowed import Allowed
from nas.spaces.base import Architecture, Choice


@dataclass(frozen=True)
class FirstNetworks:
    """Settings to queue at once, by digest, and references that have to wait."""

    now: dict[str, dict[str, Choice]]
    later: tuple[Architecture, ...]


def first_networks(
    settings: SearchSettings, allowed: Allowed, affords: Callable[[Architecture], bool]
) -> FirstNetworks:
    """Start with what the user knows to be good, then with the space's ends and its backbone.

    Those are the front's corners, and what people would otherwise pick. What is over a limit that can be computed is left
    out, and the cheapest network there in place of the smallest. Where time or a candidate's costs are limited the
    largest has to wait, and so has a backbone that takes too much of the time (`affords`); the smallest never.
    """
    space = settings.space
    known = [space.parse(text) for text in settings.enqueue]
    references = [space.smallest, space.backbone, space.largest]
    later: list[Architecture] = []
    if settings.time_budget_s is not None or settings.evaluation.has_budgets:
        largest = references[-1]
        dear = [one for one in references[1:] if one is largest or not affords(one)]
        later = [one for one in dear if one != references[0]]
    known += [one for one in references if one not in later]
    located = {architecture.digest: space.locate(architecture) for architecture in known}
    within = {digest: dict(values) for digest, values in located.items() if values in allowed}
    if not within and allowed.possible:
        within[space.architecture(allowed.cheapest).digest] = allowed.cheapest
    return FirstNetworks(within, tuple(later))
