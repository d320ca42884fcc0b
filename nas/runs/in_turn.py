"""Latencies measured again, in turn: which candidates of a run are, and what its records say by them.

A single measurement meets the device as it is at that minute, so that two of them differ by more than the networks do.
Those near the front are measured again before the front is shown, a round of all after another (nas/latency/in_turn.py), and
the records are judged by that. What the trials measured stays in trials.jsonl, and is what samplers are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

from nas.latency.result import Latency
from nas.runs.limits import rejected_for, violation_of
from nas.runs.objectives import measured_latency, target_objective
from nas.runs.record import LatencyRecord, Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, SearchSettings

USUAL, SLOWER = 12, 1.5
"""Networks that are measured in turn where it is not known yet how many, and how many times their own time they take at
most, waiting for the device and being built included."""
LEAST_COMMON = 3
"""Candidates measured before and in a turn from which it is told by how much the turn's level differs."""


def latency_objective(target: str | None) -> str:
    """Name of the objective that is the latency of a further target, or the run's own."""
    return "latency" if target is None else target_objective(target)


def deciding(settings: SearchSettings) -> list[str | None]:
    """The latencies that decide something in a run: its own (None), and those of further targets by name."""
    own = "latency" in settings.objectives or settings.evaluation.budgets.max_latency_ms is not None
    return [*([None] if own else []), *(target.name for target in settings.evaluation.targets)]


def seconds_in_turn(settings: SearchSettings, target: str | None, networks: int = USUAL) -> float:
    """About what measuring so many networks in turn takes, on a further target or by the run's own protocol."""
    evaluation = settings.evaluation
    protocols = {None: evaluation.protocol} | {each.name: each.protocol for each in evaluation.targets}
    protocol = protocols[target]
    return SLOWER * networks * (protocol.warmup_s / 5 + protocol.max_s)


def with_remeasured(
    records: Sequence[TrialRecord], again: Sequence[LatencyRecord], settings: SearchSettings
) -> list[TrialRecord]:
    """The records by the newest latencies that were measured in turn; what decides the front, picks and limits.

    A turn may find the whole device slower or faster than the trials did. So that candidates which were not in it can be
    held against those that were, their values of the objective are multiplied by the median of what the others' became;
    their latencies stay what was measured. A candidate that is found to be over a hard limit is rejected.
    """
    judged = list(records)
    for target in dict.fromkeys(each.target for each in again):
        judged = _by_target(judged, [each for each in again if each.target == target], target)
    timed = {each.digest for each in again}
    return [_limited(record, settings.evaluation) if record.digest in timed else record for record in judged]


def _by_target(records: Sequence[TrialRecord], again: Sequence[LatencyRecord], target: str | None) -> list[TrialRecord]:
    name = latency_objective(target)
    done = [record for record in records if record.outcome is Outcome.DONE]
    measured = {record.digest: measured_latency(record.evaluation, name) for record in done}
    single = {digest: latency.ms for digest, latency in measured.items() if latency is not None}
    values, latest = _levelled(single, again)
    return [
        _timed(record, target, values[record.digest], latest.get(record.digest)) if record.digest in values else record
        for record in records
    ]


def _levelled(
    single: Mapping[str, float], again: Sequence[LatencyRecord]
) -> tuple[dict[str, float], dict[str, Latency]]:
    """By digest, values in ms at the level of the newest turn, and the newest latency of those that were in any."""
    values, latest = dict(single), dict[str, Latency]()
    for _, turn in groupby(again, key=lambda each: each.latency.session):
        new = {each.digest: each.latency for each in turn if each.digest in values}
        ratios = [latency.ms / values[digest] for digest, latency in new.items() if values[digest] > 0]
        level = median(ratios) if len(ratios) >= LEAST_COMMON else 1.0
        values = {digest: level * ms for digest, ms in values.items()}
        values |= {digest: latency.ms for digest, latency in new.items()}
        latest |= new
    return values, latest


def _timed(record: TrialRecord, target: str | None, ms: float, latency: Latency | None) -> TrialRecord:
    name, evaluation = latency_objective(target), record.evaluation
    if latency is not None:
        on_target = {"latency": latency} if target is None else {"latencies": evaluation.latencies | {target: latency}}
        evaluation = replace(evaluation, **on_target)
    objectives = record.objectives | {name: ms} if name in record.objectives else record.objectives
    return replace(record, evaluation=evaluation, objectives=objectives)


def _limited(record: TrialRecord, settings: EvaluationSettings) -> TrialRecord:
    evaluation = record.evaluation
    if record.outcome is not Outcome.DONE or evaluation.cost is None:
        return record
    violation, reason = violation_of(evaluation, evaluation.cost, settings)
    return rejected_for(record, violation, f"measured in turn: {reason}") if violation > 0 else record
