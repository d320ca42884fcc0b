"""Values of a run in words, which records, exports and all views share. Plain text: nothing here is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import capital, duration_text
from nas.latency.result import Latency
from nas.runs.objectives import bytes_text, objective
from nas.runs.record import BaselineRecord, Outcome, TrialRecord
from nas.tasks.base import Score

STARTS = {"search": "the search's weights", "init": "the inherited weights", "scratch": "random weights"}
"""What a full training begins with."""


def score_title(metric: Score) -> str:
    """What the score is called where the run goes by `metric`."""
    return f"validation {metric.title}"


def score_axis(metric: Score) -> str:
    """The same as the title of an axis or a column, with its unit."""
    return capital(score_title(metric)) + (f" ({metric.unit})" if metric.unit else "")


def latency_text(latency: Latency) -> str:
    """The value in ms, then where it lies with 95 %."""
    return f"{latency.ms:.3f} ms ({latency.range_ms[0]:.3f}–{latency.range_ms[1]:.3f})"


def estimator_text(latency: Latency) -> str:
    """What the value and the range of `latency_text` are."""
    return f"{latency.estimator} ({'95 % interval' if latency.interval_ms else 'p10–p90'})"


def cost_text(record: TrialRecord | BaselineRecord) -> str:
    """MACs and parameters, then bytes of weights and of peak activations where they are known."""
    cost = record.evaluation.cost
    if cost is None:
        return "cost not known"
    parts = [f"{objective('macs').show(cost.macs)} MACs", f"{objective('params').show(cost.params)} parameters"]
    if cost.size_bytes is not None:
        parts.append(bytes_text(cost.size_bytes))
    if cost.peak_activation_bytes is not None:
        parts.append(f"peak activations {bytes_text(cost.peak_activation_bytes)}")
    return " · ".join(parts)


def trial_text(record: TrialRecord) -> str:
    """The trial's number, and which earlier run it was imported from, if it was."""
    origin = f", imported from {record.imported_from}" if record.imported_from else ""
    return f"trial {record.number}{origin}"


def protocol_text(latency: Latency) -> str:
    """How a latency was measured, in one line."""
    protocol = latency.protocol
    words = [latency.device_name, f"batch {protocol.batch_size}", protocol.mode, protocol.dtype]
    words += [text for text, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
    return " · ".join(words)


def closest_text(records: Sequence[TrialRecord]) -> str | None:
    """Which of the candidates over a hard budget came closest to it, and how far over it is; None without one."""
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    if not rejected:
        return None
    closest = min(rejected, key=lambda record: record.evaluation.violation)
    return f"of those over a hard budget {closest.text} came closest, with {closest.evaluation.reason}"


def term_words(term: str, value: float | int | str | None) -> tuple[str, str]:
    """The name and the value of one of a run's terms (`nas.runs.settings.terms`) as people read them."""
    name, shown = term, "none" if value is None else str(value)
    if isinstance(value, int | float):
        shown = f"{value:,}"
    for ending, text in (("_ms", "{:g} ms"), ("_s", None)):
        if term.endswith(ending):
            name = term.removesuffix(ending)
            if value is not None:
                shown = text.format(value) if text else duration_text(float(value))
    return capital(name.replace("_", " ").replace("macs", "MACs")), shown
