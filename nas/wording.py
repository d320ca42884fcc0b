"""Values in the words and units that figures and tables share. Plain text: nothing here is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from nas.objectives import OBJECTIVES, bytes_text
from nas.record import Latency, Outcome, TrialRecord

NOTHING = "–"
COST_TITLES = {"latency": "Latency (ms)", "macs": "MACs", "params": "Parameters", "memory": "Peak inference memory"}
CHEAPEST = {
    "latency": "fastest", "macs": "fewest MACs", "params": "fewest parameters", "memory": "least memory"
}  # fmt: skip
LABELS = {"latency": "latency", "macs": "MACs", "params": "parameters", "memory": "memory"}


def score_title(metric: str) -> str:
    """What the accuracy objective is called where the run scores by `metric`."""
    return f"validation {metric.replace('_', ' ')}"


def standard_error(accuracy: float, metric: str, images: int) -> float | None:
    """The binomial standard error of an accuracy over that many images; None for every other metric."""
    if metric != "accuracy" or images < 1 or not 0 <= accuracy <= 1:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / images)


def score_text(accuracy: float, metric: str, images: int) -> str:
    """In percent, with its standard error where there is one."""
    error = standard_error(accuracy, metric, images)
    return f"{100 * accuracy:.2f} %" if error is None else f"{100 * accuracy:.2f} ± {100 * error:.2f} %"


def latency_text(latency: Latency) -> str:
    """The median in ms, then p10 and p90."""
    return f"{latency.median_ms:.3f} ms ({latency.p10_ms:.3f}–{latency.p90_ms:.3f})"


def cost_text(record: TrialRecord) -> str:
    """MACs and parameters, then bytes of weights and of peak activations where they are known."""
    cost = record.evaluation.cost
    if cost is None:
        return "cost not known"
    parts = [f"{OBJECTIVES['macs'].show(cost.macs)} MACs", f"{OBJECTIVES['params'].show(cost.params)} parameters"]
    if cost.size_bytes is not None:
        parts.append(bytes_text(cost.size_bytes))
    if cost.peak_activation_bytes is not None:
        parts.append(f"peak activations {bytes_text(cost.peak_activation_bytes)}")
    return " · ".join(parts)


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


def duration_text(seconds: float) -> str:
    """Seconds as the two largest of days, hours, minutes and seconds."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    rest, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        parts.append((count, unit))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def time_text(utc: float) -> str:
    """A moment, given in UTC seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(utc))


def plural(count: int, singular: str, several: str | None = None) -> str:
    """The count with its noun."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def capital(text: str) -> str:
    """The text with a large first letter."""
    return text[:1].upper() + text[1:]
