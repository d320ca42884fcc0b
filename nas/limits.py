"""Hard limits of a search: by how much a candidate exceeds the worst of them. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from nas.record import Cost, Latency
from nas.settings import Budgets, LatencyTarget


def budget_violation(
    budgets: Budgets,
    cost: Cost,
    latency: Latency | None = None,
    on_targets: Sequence[tuple[LatencyTarget, Latency]] = (),
) -> tuple[float, str | None]:
    """By how much the worst hard budget is exceeded, as a share of it, and the sentence that says so; 0 if none is.

    The limits of further targets are hard budgets too. A latency that is not measured yet exceeds nothing. Of a noisy or
    contended one the lower end of its interval counts: a fast network must not be turned away for what others added.
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
