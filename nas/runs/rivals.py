"""Which candidates of a run are measured again, in turn: members of its front, and what may belong there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.latency.result import Latency
from nas.runs.front import losses, pareto_front, trained
from nas.runs.objectives import measured_latency, target_of
from nas.runs.record import TrialRecord

MEMBERS = 32
"""Members of the front that are measured in turn at most, spread evenly along it."""
RIVALS = 4
"""Candidates near the front that are measured with them at most."""
KEPT = 32
"""Candidates near the front whose weights are kept: a member may have been measured in a good minute, and a turn put others in its place."""


def to_measure(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The candidates to measure in turn: members of the front, then their rivals."""
    front = pareto_front(records, objectives)
    along = np.unique(np.linspace(0, len(front) - 1, min(len(front), MEMBERS)).round().astype(int))
    return [*(front[index] for index in along), *rivals(records, objectives)]


def rivals(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """Trained candidates that nothing but the spread of latencies may keep behind the front, nearest first, a few at most.

    One is a rival where, of each member that dominates it, it might be faster: its lower end below the member's upper end.
    """
    return _nearest(records, objectives, within_spread=True)[:RIVALS]


def near_front(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """Trained candidates that other latencies might bring onto the front, nearest first: those whose weights are kept."""
    return _nearest(records, objectives, within_spread=False)[:KEPT]


def _nearest(records: Sequence[TrialRecord], objectives: Sequence[str], within_spread: bool) -> list[TrialRecord]:
    """Trained candidates behind the front, the nearest first: by the share of its latency at which one would reach the front."""
    timed = [index for index, name in enumerate(objectives) if name == "latency" or target_of(name)]
    front = pareto_front(records, objectives)
    members = {record.digest for record in front}
    behind = {
        record.digest: record
        for record in trained(records)
        if record.digest not in members and all(name in record.objectives for name in objectives)
    }
    if not timed or not behind:
        return []
    of_front, of_behind = losses(front, objectives), losses(list(behind.values()), objectives)
    names = [objectives[index] for index in timed]
    upper = of_front[:, timed] * _ends(front, names)[:, :, 1]
    lower = of_behind[:, timed] * _ends(list(behind.values()), names)[:, :, 0]
    beaten = (of_front[None] <= of_behind[:, None]).all(2)  # (behind, front)
    may_win = (lower[:, None] < upper[None]).any(2)
    reach = (of_front[None, :, timed] / of_behind[:, None, timed]).max(2)
    near = np.where(beaten, reach, 1.0).min(1)
    if within_spread:
        near[np.any(beaten & ~may_win, axis=1)] = 0.0
    found = [(share, record) for share, record in zip(near.tolist(), behind.values(), strict=True) if share > 0]
    return [record for _, record in sorted(found, key=lambda each: (-each[0], each[1].number))]


def _ends(records: Sequence[TrialRecord], names: Sequence[str]) -> NDArray[np.float64]:
    """Where latencies may lie, lower and upper end as shares of them: (records, names, 2)."""
    shares = [[_range(measured_latency(record.evaluation, name)) for name in names] for record in records]
    return np.array(shares, dtype=np.float64).reshape(len(records), len(names), 2)


def _range(latency: Latency | None) -> tuple[float, float]:
    """The interval of one measured in turn; of a single one p10 to p90: its interval knows nothing of other minutes."""
    if latency is None:
        return 1.0, 1.0
    if latency.rounds_ms and latency.interval_ms:
        return latency.interval_ms[0] / latency.ms, latency.interval_ms[1] / latency.ms
    return latency.p10_ms / latency.median_ms, latency.p90_ms / latency.median_ms
