"""How long a search took, and its time left from the pace of what ran: the same numbers wherever they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import duration_text
from nas.runs.record import Confirmation, TrialRecord
from nas.runs.settings import SearchSettings
from nas.runs.state import DriverState
from nas.training.recipe import LONGER

FEW_S = 5.0
"""Seconds left that are not counted down: what is still done then has no pace."""


def seconds_left(
    settings: SearchSettings,
    records: Sequence[TrialRecord],
    confirmations: Sequence[Confirmation],
    since: float,
    now: float,
    running: Sequence[float] = (),
) -> float | None:
    """Wall seconds until the budget is spent, by what ended since the command started (`since`, UTC seconds).

    What candidates took themselves, divided by how many ran at once; `running` says when those that run now were started.
    A worker's own start is no part of what a candidate takes. Confirmations count as the proxy trainings that they take
    the time of. None before anything ended.
    """
    late = [record for record in records if record.finished >= since and record.imported_from is None]
    again = [confirmation for confirmation in confirmations if confirmation.finished >= since]
    ended: list[TrialRecord | Confirmation] = [*late, *again]
    done = sum(record.counts for record in late) + LONGER * len(again)
    if not done:
        return None
    spent = sum(record.counts for record in records) + LONGER * len(confirmations)
    spans = [(one.started, one.finished) for one in ended] + [(started, now) for started in running]
    spans = [(max(started, since), finished) for started, finished in spans]
    whole_s = now - min(started for started, _ in spans)
    at_once = max(1.0, sum(finished - started for started, finished in spans) / whole_s) if whole_s > 0 else 1.0
    taken_s = sum(one.evaluation.seconds for one in ended)
    left = taken_s / at_once / done * (settings.trials - spent)
    if settings.time_budget_s is not None:
        left = min(left, since + settings.time_budget_s - now)
    return max(left, 0.0)


def left_text(seconds: float | None) -> str:
    """Time left in words; asked for while something still goes on, it is never nothing."""
    if seconds is None:
        return "time left not known yet"
    return "a few seconds left" if seconds < FEW_S else f"about {duration_text(seconds)} left"


def search_seconds(driver: DriverState | None, records: Sequence[TrialRecord]) -> float | None:
    """How long a search took so far, in wall seconds; of runs without a state from the first trial's start to the last one's
    end. None before anything ran.
    """
    if driver is not None:
        return driver.seconds
    own = [record for record in records if record.imported_from is None]
    if not own:
        return None
    return max(record.finished for record in own) - min(record.started for record in own)


def time_spent(
    driver: DriverState | None, records: Sequence[TrialRecord], confirmations: Sequence[Confirmation]
) -> str | None:
    """What the last command on a run spent its time on, in words; None where it started nothing."""
    if driver is None or driver.ended is None:
        return None
    own = [record for record in records if record.finished >= driver.started and record.imported_from is None]
    again = [confirmation for confirmation in confirmations if confirmation.finished >= driver.started]
    if not own:
        return None
    first = min(record.started for record in own)
    last = max(record.finished for record in own)
    parts = [
        f"{duration_text(first - driver.started)} until the first candidate",
        f"{duration_text(last - first)} of candidates",
    ]
    if again:
        parts.append(f"{duration_text(max(c.finished for c in again) - last)} to confirm")
    return ", ".join(parts)
