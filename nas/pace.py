"""Time left of a search, from its pace so far."""

from __future__ import annotations

from collections.abc import Sequence

from nas.recipe import LONGER
from nas.record import Confirmation, TrialRecord
from nas.settings import SearchSettings


def seconds_left(
    settings: SearchSettings,
    records: Sequence[TrialRecord],
    confirmations: Sequence[Confirmation],
    since: float,
    now: float,
) -> float | None:
    """Wall seconds until the budget is spent, at the pace of what was trained from `since` to `now` (UTC seconds).

    None before anything was. A training that confirms takes as long as `LONGER` brief ones.
    """
    trained = [record.finished for record in records if record.counts]
    again = [confirmation.finished for confirmation in confirmations]
    done = sum(finished >= since for finished in trained) + LONGER * sum(finished >= since for finished in again)
    if not done:
        return None
    elapsed = now - since
    left = elapsed / done * (settings.trials - len(trained) - LONGER * len(again))
    if settings.time_budget_s is not None:
        left = min(left, settings.time_budget_s - elapsed)
    return max(left, 0.0)
