"""Time left of a search, from its pace so far."""

from __future__ import annotations

from nas.recipe import LONGER
from nas.settings import SearchSettings


def spent_on(trained: int, again: int) -> float:
    """What candidates `trained`, and members of the front trained `again`, took of the budget of brief trainings."""
    return trained + LONGER * again


def seconds_left(settings: SearchSettings, spent: float, before: float, elapsed: float) -> float | None:
    """Wall seconds until the budget is spent, where `elapsed` seconds brought it from `before` to what is `spent` now.

    None before anything was. What is spent is counted in brief trainings (`spent_on`).
    """
    if spent <= before:
        return None
    left = elapsed / (spent - before) * (settings.trials - spent)
    if settings.time_budget_s is not None:
        left = min(left, settings.time_budget_s - elapsed)
    return max(left, 0.0)
