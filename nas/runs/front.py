"""The Pareto front of a run, its knee and its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from nas.common import pareto
from nas.common.kinds import checks_kinds
from nas.runs.objectives import is_cost, objective
from nas.runs.record import BaselineRecord, Outcome, TrialRecord

REFERENCE_TRIALS = 8
"""Trained candidates after which the hypervolume's reference point is fixed."""


@dataclass(frozen=True)
class ReferencePoint:
    """The corner that hypervolumes of a run are measured from, one value an objective.

    Fixed by the first `REFERENCE_TRIALS` trained candidates: the worst of each objective among them, and a
    tenth of their range further. `ideal` is the best of each among them; volumes are given as a share of the box
    between the two, and pass 1 as the search finds better.
    """

    worst: tuple[float, ...]
    ideal: tuple[float, ...]


def trained(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Records of candidates trained to the full budget."""
    return [record for record in records if record.outcome is Outcome.DONE]


def losses(records: Sequence[TrialRecord], objectives: Sequence[str]) -> NDArray[np.float64]:
    """Objective values (records, objectives), signs turned so that less is better."""
    rows = [[objective(name).loss(record.objectives[name]) for name in objectives] for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))


@checks_kinds
def pareto_front(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The non-dominated trained candidates, cheapest first."""
    candidates = [record for record in trained(records) if all(name in record.objectives for name in objectives)]
    if not candidates:
        return []
    on_front = pareto.on_front(losses(candidates, objectives))
    front = [record for record, member in zip(candidates, on_front, strict=True) if member]
    cost = primary_cost(objectives)
    return sorted(front, key=lambda record: (record.objectives[cost], record.number))


def beaten_by(
    front: Sequence[TrialRecord], objectives: Sequence[str], values: Mapping[str, float]
) -> list[TrialRecord]:
    """The members of a front that dominate the values of some other network, in the order of the front.

    Dominate: no worse in any objective, and better in one.
    """
    loss = np.array([objective(name).loss(values[name]) for name in objectives])
    pairs = (np.stack([of_member, loss]) for of_member in losses(front, objectives))
    both = [pareto.on_front(pair) for pair in pairs]
    return [record for record, on_front in zip(front, both, strict=True) if not on_front[1]]


@checks_kinds
def reference_point(records: Sequence[TrialRecord], objectives: Sequence[str]) -> ReferencePoint | None:
    """The run's reference point, or None while too few candidates are trained to fix it.

    The records are only ever appended to, so that it never moves once fixed, also where a resumed search was given limits that
    some of them are over. Those imported from earlier runs come
    first: then it is theirs.
    """
    # One after another: the first few decide, of thousands.
    done = (
        r
        for r in records
        if (r.outcome is Outcome.DONE or r.over_limit) and all(name in r.objectives for name in objectives)
    )
    first = list(islice(done, REFERENCE_TRIALS))
    if len(first) < REFERENCE_TRIALS:
        return None
    values = losses(first, objectives)
    best, worst = values.min(axis=0), values.max(axis=0)
    worst = worst + np.maximum(0.1 * (worst - best), 1e-9)
    signs = np.array([objective(name).loss(1.0) for name in objectives])
    return ReferencePoint(tuple((worst * signs).tolist()), tuple((best * signs).tolist()))


@checks_kinds
def hypervolume(
    records: Sequence[TrialRecord], objectives: Sequence[str], reference: ReferencePoint | None
) -> float | None:
    """Hypervolume of the front as a share of the reference box; None without a reference point."""
    if reference is None:
        return None
    front = losses(pareto_front(records, objectives), objectives)
    signs = np.array([objective(name).loss(1.0) for name in objectives])
    corner, best = signs * reference.worst, signs * reference.ideal
    inside = front[(front < corner).all(axis=1)]
    if not len(inside):
        return 0.0
    scaled = (inside - best) / (corner - best)
    return pareto.hypervolume(scaled, np.ones(len(objectives)))


def contributions(points: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each of some points (N, objectives) that do not dominate each other adds to their hypervolume.

    Each objective is scaled to its range in `among`; the reference point lies a tenth of the range beyond the worst.
    """
    best, worst = among.min(0), among.max(0)
    scaled = (points - best) / np.where(worst > best, worst - best, 1.0)
    corner = np.full(points.shape[1], 1.1)
    whole = pareto.hypervolume(scaled, corner)
    return np.array([whole - pareto.hypervolume(np.delete(scaled, i, 0), corner) for i in range(len(points))])


def hypervolume_history(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[tuple[int, float]]:
    """(trained candidates so far, hypervolume) after each one that changed it, once the reference point is fixed.

    What was imported from earlier runs is there at the start, and not counted.
    """
    reference = reference_point(records, objectives)
    history: dict[int, float] = {}
    front: list[TrialRecord] = []
    values = losses(front, objectives)
    count = 0
    ended = [
        record for record in records if record.outcome is Outcome.DONE or (record.over_limit and record.objectives)
    ]
    for known, record in enumerate(ended, 1):
        count += record.counts
        if record.over_limit:
            continue
        loss = losses([record], objectives)
        grows = not (values <= loss).all(1).any()
        if grows:
            front = pareto_front([*front, record], objectives)
            values = losses(front, objectives)
        if known == REFERENCE_TRIALS or (known > REFERENCE_TRIALS and grows):
            history[count] = hypervolume(front, objectives, reference) or 0.0
    return list(history.items())


def primary_cost(objectives: Sequence[str]) -> str:
    """The objective that a front is sorted by: latency, or where that is none the first cost."""
    return "latency" if "latency" in objectives else next(name for name in objectives if is_cost(name))


def cheapest_first(baselines: Sequence[BaselineRecord], objectives: Sequence[str]) -> list[BaselineRecord]:
    """Reference networks in the order of a front; those without a value come last."""
    cost = primary_cost(objectives)
    return sorted(baselines, key=lambda record: record.objectives.get(cost, math.inf))


def knee(front: Sequence[TrialRecord], objectives: Sequence[str]) -> TrialRecord:
    """The member nearest to the ideal point, each objective scaled to its range on the front."""
    values = losses(front, objectives)
    span = values.max(axis=0) - values.min(axis=0)
    scaled = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    return front[int(np.linalg.norm(scaled, axis=1).argmin())]
