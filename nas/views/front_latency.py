"""Latencies of a front in words, for terminal, report and page: which do not differ, how they were had, what to doubt."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from nas.common.text import plural
from nas.latency.compare import contention, groups
from nas.latency.result import Latency
from nas.runs.objectives import measured_latency
from nas.runs.record import LatencyRecord, Outcome, TrialRecord

CROWDED = 0.9
"""Share of a run's latencies that others must have disturbed for a notice of it."""


def same_latency(front: Sequence[TrialRecord], name: str = "latency") -> dict[str, str]:
    """A letter by digest, the same for members whose latencies do not differ; those that differ from all have none.

    As in a compact letter display. `name` is the objective of a latency, which need not be one of the run.
    """
    measured = [(record.digest, measured_latency(record.evaluation, name)) for record in front]
    known = [(digest, latency) for digest, latency in measured if latency is not None]
    several = [group for group in groups([latency for _, latency in known]) if len(group) > 1]
    return {known[i][0]: letter for group, letter in zip(several, ascii_lowercase, strict=False) for i in group}


def range_title(latencies: Sequence[Latency | None]) -> str:
    """What the ranges behind these latencies are."""
    with_interval = {latency.interval_ms is not None for latency in latencies if latency is not None}
    return {frozenset({True}): "95 %", frozenset({True, False}): "range"}.get(frozenset(with_interval), "p10-p90")


def front_notes(front: Sequence[TrialRecord], names: Sequence[str] = ("latency",)) -> list[str]:
    """What to know of the latencies of a front: which do not differ, which are single ones, which were looked up."""
    by_name = {name: [measured_latency(record.evaluation, name) for record in front] for name in names}
    latencies = [latency for found in by_name.values() for latency in found if latency is not None]
    rounds = max((len(latency.rounds_ms) for latency in latencies), default=0)
    letters = sorted({letter for name in names for letter in same_latency(front, name).values()})
    notes = []
    if letters:
        how = f"95 % intervals, measured in turn {plural(rounds, 'time')}" if rounds else "their 95 % intervals overlap"
        notes.append(f"latencies with the same letter ({', '.join(letters)}) do not differ ({how})")
    elif rounds:
        notes.append(f"latencies measured in turn {plural(rounds, 'time')}, with 95 % intervals")
    single = [
        record.digest[:8] for record, latency in zip(front, by_name[names[0]], strict=True) if _is_single(latency)
    ]
    if rounds and single:
        notes.append(f"of a single measurement, not in turn with the others: {', '.join(single)}")
    if any(latency.cached for latency in latencies):
        notes.append("* looked up, measured before this run")
    return notes


def _is_single(latency: Latency | None) -> bool:
    return latency is not None and not latency.rounds_ms


def crowded_text(recorded: Sequence[TrialRecord], again: Sequence[LatencyRecord]) -> str | None:
    """What to know where nearly all of a run's latencies were measured while others used the device; None elsewhere."""
    own = [record.evaluation.latency for record in recorded if record.outcome is not Outcome.REPEAT]
    measured = [latency for latency in own if latency is not None and not latency.cached]
    share = contention(measured)
    if share is None or share < CROWDED:
        return None
    many = "All" if share == 1 else f"{100 * share:.0f} % of the"
    who = "The only latency was" if len(measured) == 1 else f"{many} {len(measured):,} latencies were"
    done = (
        f"members of the front were measured again, in turn {plural(len(again[-1].latency.rounds_ms), 'time')}"
        if again
        else "none was measured again"
    )
    return (
        f"{who} measured while others used the device, so that small differences may be theirs. "
        f"What decides is the {measured[-1].estimator}; {done}."
    )
