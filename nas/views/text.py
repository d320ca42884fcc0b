"""Values in the words and units that figures and tables share. Plain text: nothing here is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas.common.errors import arg
from nas.common.text import gain_text
from nas.runs.front import beaten_by
from nas.runs.objectives import is_cost, objective, target_of
from nas.runs.record import BaselineRecord, Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, LatencyTarget

NOTHING = "–"


COST_TITLES = {"latency": "Latency (ms)", "macs": "MACs", "params": "Parameters", "memory": "Peak inference memory"}


CHEAPEST = {
    "latency": "fastest", "macs": "fewest MACs", "params": "fewest parameters", "memory": "least memory"
}  # fmt: skip


LABELS = {"latency": "latency", "macs": "MACs", "params": "parameters", "memory": "memory"}


def cost_title(name: str) -> str:
    """A cost objective as the title of an axis."""
    target = target_of(name)
    return f"Latency on {target} (ms)" if target else COST_TITLES[name]


def cheapest(name: str) -> str:
    """What the candidate is called that is best in a cost objective."""
    target = target_of(name)
    return f"fastest on {target}" if target else CHEAPEST[name]


def label(name: str) -> str:
    """An objective within a sentence."""
    target = target_of(name)
    return f"latency on {target}" if target else LABELS.get(name, name)


def verdict_text(baseline: BaselineRecord, front: Sequence[TrialRecord], objectives: Sequence[str]) -> str:
    """Whether a run's front beats a reference network, by its cheapest member that does."""
    if baseline.evaluation.outcome is not Outcome.DONE:
        return f"{baseline.evaluation.outcome.value}: {baseline.evaluation.reason or 'no reason recorded'}"
    unknown = [label(name) for name in objectives if name not in baseline.objectives]
    if unknown:
        return f"trained, its {' and '.join(unknown)} not known here" if baseline.trained else "measured, not trained"
    if not front:
        return "no front to compare with yet"
    better = beaten_by(front, objectives, baseline.objectives)
    if not better:
        return "on or beyond the front"
    lead = lead_text(better[0].objectives, baseline.objectives, objectives)
    return f"beaten by {better[0].digest[:8]} ({lead})"


def lead_text(better: Mapping[str, float], worse: Mapping[str, float], objectives: Sequence[str]) -> str:
    """By how much a network that dominates another one is ahead, where it is."""
    parts = []
    for name in objectives:
        if better[name] == worse[name]:
            continue
        if not is_cost(name):
            parts.append(gain_text(better[name] - worse[name], objective(name).unit))
        else:
            faster = label(name).replace("latency", "faster")
            less = "less" if name == "memory" else "fewer"
            comparative = faster if objective(name).unit == "ms" else f"{less} {label(name)}"
            times = worse[name] / better[name]
            parts.append(f"{times:,.0f}× {comparative}" if times >= 100 else f"{times:.3g}× {comparative}")
    return ", ".join(parts)


def target_text(target: LatencyTarget, device: str | None = None) -> str:
    """What a further target asks for, in one line, and where it was measured once that is known."""
    protocol = target.protocol
    words = [device or protocol.device, f"batch {protocol.batch_size}", protocol.mode, protocol.dtype]
    words += [f"{target.max_ms:g} ms at most"] if target.max_ms is not None else []
    return " · ".join(words)


def over_limits(rejected: Sequence[TrialRecord], settings: EvaluationSettings) -> str:
    """The hard limits that candidates are over, as far as it is known, by `arg`."""
    budgets, names = settings.budgets, dict[str, None]()
    for record in rejected:
        cost, latency = record.evaluation.cost, record.evaluation.latency
        if cost is not None and budgets.max_macs is not None and cost.macs > budgets.max_macs:
            names[arg("max_macs")] = None
        elif cost is not None and budgets.max_params is not None and cost.params > budgets.max_params:
            names[arg("max_params")] = None
        elif budgets.max_latency_ms is not None and (latency is None or latency.p10_ms > budgets.max_latency_ms):
            names[arg("max_latency_ms")] = None
        else:
            names[f"the max of a {arg('target')}"] = None
    return " or ".join(names)
