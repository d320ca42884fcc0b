"""How far multiply-adds mislead about latency, and how good the predictions made before measuring were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.runs.record import Outcome, TrialRecord
from nas.workflows.fidelity.agreement import spearman

MIN_NETWORKS = 8
"""Measured networks below which a rank correlation says nothing."""


@dataclass(frozen=True)
class Misled:
    """MACs against measured latency over `networks` candidates.

    `spearman` is their rank correlation; `wrong_pairs` the share of pairs of candidates whose order by MACs is the wrong
    one by latency; `cheaper` and `faster` the pair that misleads most: the first has fewer MACs and is slower.
    """

    networks: int
    spearman: float
    wrong_pairs: float
    cheaper: TrialRecord | None
    faster: TrialRecord | None


def macs_mislead(records: Sequence[TrialRecord]) -> Misled | None:
    """How far MACs mislead among the measured candidates of a run; None where too few are measured."""
    known = [
        record
        for record in records
        if record.outcome is not Outcome.REPEAT
        and record.evaluation.cost is not None
        and record.evaluation.latency is not None
        and not record.evaluation.latency.contended
    ]
    if len(known) < MIN_NETWORKS:
        return None
    macs = np.log([record.evaluation.cost.macs for record in known if record.evaluation.cost])
    ms = np.log([record.evaluation.latency.ms for record in known if record.evaluation.latency])
    fewer, slower = macs[:, None] - macs[None, :], ms[:, None] - ms[None, :]
    # A pair misleads by the smaller of its two ratios: much fewer MACs and much slower.
    misleading = np.minimum(-fewer, slower)
    first, second = np.unravel_index(int(misleading.argmax()), misleading.shape)
    some = misleading[first, second] > 0
    return Misled(
        networks=len(known),
        spearman=spearman(macs, ms),
        wrong_pairs=float((misleading > 0).sum() / (len(known) * (len(known) - 1) / 2)),
        cheaper=known[first] if some else None,
        faster=known[second] if some else None,
    )


@dataclass(frozen=True)
class Foresight:
    """Predictions against what was measured then: how many, median error as a share, shares within 1 and 2 deviations."""

    networks: int
    median_error: float
    within_one: float
    within_two: float


def foresight(records: Sequence[TrialRecord]) -> Foresight | None:
    """How good a run's predictions of latency were; None where none was put to the test."""
    pairs = [
        (evaluation.predicted, evaluation.latency.ms)
        for evaluation in (record.evaluation for record in records if record.outcome is not Outcome.REPEAT)
        if evaluation.predicted is not None and evaluation.latency is not None and not evaluation.latency.contended
    ]
    if not pairs:
        return None
    errors = np.array([abs(predicted.mean_ms - ms) for predicted, ms in pairs])
    deviations = errors / np.array([predicted.std_ms for predicted, _ in pairs])
    shares = errors / np.array([ms for _, ms in pairs])
    return Foresight(
        len(pairs), float(np.median(shares)), float((deviations <= 1).mean()), float((deviations <= 2).mean())
    )
