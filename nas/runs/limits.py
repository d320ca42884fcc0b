"""Hard limits of a search: by how much a candidate exceeds the worst of them, and what records say under others than before.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nas.latency.result import Latency, Predicted
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget
from nas.spaces.base import Cost

SURE = 3.0
"""Standard deviations that a predicted latency must be over a budget for a candidate to be rejected: in one of
700 such cases, where the deviation is what it says, the candidate would have met it."""


def budget_violation(
    budgets: Budgets,
    cost: Cost,
    latency: Latency | None = None,
    on_targets: Sequence[tuple[LatencyTarget, Latency]] = (),
) -> tuple[float, str | None]:
    """By how much the worst hard budget is exceeded, as a share of it, and the sentence that says so; 0 if none is.

    The limits of further targets are hard budgets too. A latency that is not measured yet exceeds nothing. Of a noisy or
    contended one the lower end of its interval counts: a fast network must not be rejected for what others added.
    """

    def surely_ms(measured: Latency) -> float:
        if measured.interval_ms is not None and (measured.noisy or measured.contended):
            return measured.interval_ms[0]
        return measured.p10_ms if measured.contended else measured.ms

    worst, reason = 0.0, None
    measured_ms = None if latency is None else surely_ms(latency)
    for value, limit, text in (
        (cost.macs, budgets.max_macs, "{:,} MACs, {} the budget of {:,}"),
        (cost.params, budgets.max_params, "{:,} parameters, {} the budget of {:,}"),
        (measured_ms, budgets.max_latency_ms, "{:.3f} ms, {} the budget of {:,g} ms"),
        *(
            (
                surely_ms(found),
                target.max_ms,
                f"{{:.3f}} ms on target {target.name}, {{}} its limit of {{:,g}} ms",
            )
            for target, found in on_targets
        ),
    ):
        if value is not None and limit is not None and value / limit - 1 > worst:
            worst = value / limit - 1
            over = f"{100 * worst:.0f}" if worst >= 0.1 else f"{100 * worst:.2g}"
            reason = text.format(value, f"{worst + 1:,.0f} times" if worst >= 10 else f"{over} % over", limit)
    return worst, reason


def violation_of(evaluation: Evaluation, cost: Cost, settings: EvaluationSettings) -> tuple[float, str | None]:
    """The same of an evaluation, by all the latencies that it has."""
    measured = [(t, evaluation.latencies[t.name]) for t in settings.targets if t.name in evaluation.latencies]
    return budget_violation(settings.budgets, cost, evaluation.latency, measured)


def rejected_for(record: TrialRecord, violation: float, reason: str | None) -> TrialRecord:
    """The record as that of a candidate over a hard budget; what is known of it stays."""
    evaluation = replace(record.evaluation, outcome=Outcome.REJECTED, reason=reason, violation=violation)
    return replace(record, evaluation=evaluation)


def predicted_violation(predicted: Predicted, limit_ms: float | None) -> tuple[float, str | None]:
    """The same of a latency that is not measured but predicted: 0 unless it is surely over the budget."""
    if limit_ms is None or predicted.mean_ms - SURE * predicted.std_ms <= limit_ms:
        return 0.0, None
    reason = (
        f"a predicted {predicted.mean_ms:.3f} ± {predicted.std_ms:.3f} ms, over the budget of {limit_ms:.3f} ms; "
        "not measured"
    )
    return predicted.mean_ms / limit_ms - 1, reason


def apply_limits(records: Iterable[TrialRecord], settings: EvaluationSettings) -> list[TrialRecord]:
    """Records of a run as its limits of now would have them, in their order; those of its earlier limits are on the disk.

    What was rejected and is within them now was never trained: it is left out, a candidate again. What was trained and is
    over them now is rejected, with its learning curve.
    """
    judged: dict[int, TrialRecord | None] = {}
    for record in records:
        if record.repeat_of is None:
            judged[record.number] = _limited(record, settings)
            continue
        original = judged.get(record.repeat_of)
        judged[record.number] = None
        if original is not None:
            evaluation = replace(record.evaluation, violation=original.evaluation.violation)
            judged[record.number] = replace(record, evaluation=evaluation)
    return [record for record in judged.values() if record is not None]


def _limited(record: TrialRecord, settings: EvaluationSettings) -> TrialRecord | None:
    evaluation = record.evaluation
    if record.outcome in (Outcome.FAILED, Outcome.LOST):
        return record
    rejected = record.outcome is Outcome.REJECTED
    if rejected and evaluation.cost is None:
        predicted = evaluation.predicted
        violation, reason = (
            predicted_violation(predicted, settings.budgets.max_latency_ms) if predicted else (0.0, None)
        )
    elif evaluation.cost is None:
        return record
    else:
        violation, reason = violation_of(evaluation, evaluation.cost, settings)
    if violation > 0:
        return rejected_for(record, violation, reason)
    unmeasured = settings.budgets.max_latency_ms is not None and evaluation.latency is None
    return None if rejected or unmeasured else record
