"""Which latencies differ: by rounds where networks were measured in turn, else by their intervals.

What slows the device down for a while slows both networks of a round down, so that the ratio of the two stays; it is the
ratios of the rounds that are drawn again (Efron, "Bootstrap Methods", Annals of Statistics 7, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.latency.estimate import CONFIDENCE, RESAMPLES
from nas.latency.result import Latency


def differ(a: Latency, b: Latency) -> bool | None:
    """Whether two latencies surely differ; None where that is not known: one of them has no interval."""
    if a.session and a.session == b.session and len(a.rounds_ms) == len(b.rounds_ms):
        ratios = np.log(np.array(a.rounds_ms) / np.array(b.rounds_ms))
        chosen = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[chosen], axis=1), [50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2])
        return bool(low > 0 or high < 0)
    if a.interval_ms is None or b.interval_ms is None or not _comparable(a, b):
        return None
    return bool(a.interval_ms[1] < b.interval_ms[0] or b.interval_ms[1] < a.interval_ms[0])


def groups(latencies: Sequence[Latency]) -> list[list[int]]:
    """Indices of latencies that do not differ, fastest first: each group is a fastest one and what does not differ from it."""
    left = sorted(range(len(latencies)), key=lambda index: latencies[index].ms)
    found = []
    while left:
        first = latencies[left[0]]
        group = [left[0], *(index for index in left[1:] if differ(first, latencies[index]) is False)]
        found.append(group)
        left = [index for index in left if index not in group]
    return found


def contention(latencies: Sequence[Latency]) -> float | None:
    """The share of latencies that were measured beside others; None where there are none."""
    return sum(latency.contended for latency in latencies) / len(latencies) if latencies else None


def _comparable(a: Latency, b: Latency) -> bool:
    """Whether two values are of one kind: the same estimator, device and protocol."""
    return (a.estimator, a.device_name, a.protocol) == (b.estimator, b.device_name, b.protocol)
