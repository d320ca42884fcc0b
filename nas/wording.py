"""Values in the words and units that figures and tables share. Plain text: nothing here is escaped."""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence

from nas.front import beaten_by
from nas.objectives import bytes_text, objective, target_of
from nas.record import BaselineRecord, Latency, Outcome, TrialRecord
from nas.settings import EvaluationSettings, LatencyTarget

STARTS = {"search": "the search's weights", "init": "the inherited weights", "scratch": "random weights"}
"""What a full training begins with."""
CUT_OFF = "cut off by the time budget"
"""Begins the reason of a training that was."""
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
    return percent_text(accuracy, standard_error(accuracy, metric, images))


def percent_text(share: float, error: float | None) -> str:
    """A share in percent, with its standard error where there is one."""
    return f"{100 * share:.2f} %" if error is None else f"{100 * share:.2f} ± {100 * error:.2f} %"


def spread_text(shares: Sequence[float]) -> str:
    """The mean of shares in percent, with their standard deviation where there are several."""
    mean = f"{100 * statistics.mean(shares):.2f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.2f} %" if len(shares) > 1 else f"{mean} %"


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
        if name == "accuracy":
            parts.append(f"{100 * (better[name] - worse[name]):+.2f} points")
        else:
            faster = label(name).replace("latency", "faster")
            less = "less" if name == "memory" else "fewer"
            comparative = faster if objective(name).unit == "ms" else f"{less} {label(name)}"
            times = worse[name] / better[name]
            parts.append(f"{times:,.0f}× {comparative}" if times >= 100 else f"{times:.3g}× {comparative}")
    return ", ".join(parts)


def trial_text(record: TrialRecord) -> str:
    """The trial's number, and which earlier run it was taken over from, if it was."""
    origin = f", taken over from {record.imported_from}" if record.imported_from else ""
    return f"trial {record.number}{origin}"


def protocol_text(latency: Latency) -> str:
    """How a latency was measured, in one line."""
    protocol = latency.protocol
    words = [latency.device_name, f"batch {protocol.batch_size}", protocol.mode, protocol.dtype]
    words += [text for text, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
    return " · ".join(words)


def target_text(target: LatencyTarget, device: str | None = None) -> str:
    """What a further target asks for, in one line, and where it was measured once that is known."""
    protocol = target.protocol
    words = [device or protocol.device, f"batch {protocol.batch_size}", protocol.mode, protocol.dtype]
    words += [f"{target.max_ms:g} ms at most"] if target.max_ms is not None else []
    return " · ".join(words)


def closest_text(records: Sequence[TrialRecord]) -> str | None:
    """Which of the candidates over a hard budget came closest to it, and how far over it is; None without one."""
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    if not rejected:
        return None
    closest = min(rejected, key=lambda record: record.evaluation.violation)
    return f"of those over a hard budget {closest.text} came closest, with {closest.evaluation.reason}"


def over_limits(rejected: Sequence[TrialRecord], settings: EvaluationSettings) -> str:
    """The flags of the hard limits that candidates are over, as far as it is known."""
    budgets, names = settings.budgets, dict[str, None]()
    for record in rejected:
        cost, latency = record.evaluation.cost, record.evaluation.latency
        if cost is not None and budgets.max_macs is not None and cost.macs > budgets.max_macs:
            names["--max-macs"] = None
        elif cost is not None and budgets.max_params is not None and cost.params > budgets.max_params:
            names["--max-params"] = None
        elif budgets.max_latency_ms is not None and (latency is None or latency.p10_ms > budgets.max_latency_ms):
            names["--max-latency"] = None
        else:
            names["the max of a --target"] = None
    return " or ".join(names)


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


def count_text(count: int) -> str:
    """A number of things: with thousands separators below a million, beyond that to two digits, as 9.5e+07."""
    return f"{count:,}" if count < 1_000_000 else f"{count:.1e}"


def command_text(*arguments: object) -> str:
    """A command of nas as a line that can be pasted into a shell."""
    return shlex.join(["nas", *map(str, arguments)])


def resume_line(path: object, address: str | None = None) -> str:
    """The command that goes on with the search of a run directory, on the Ray cluster of an address if one is given."""
    return command_text("search", "--resume", path, *(["--address", address] if address else []))


def ms_text(ms: float) -> str:
    """Milliseconds without their unit: three decimals, fewer from 10 ms on, where they would say nothing."""
    return f"{ms:.{3 if ms < 10 else 2 if ms < 100 else 1 if ms < 1000 else 0}f}"


def done_word(epochs: int) -> str:
    """What a candidate is called that came to the end of a brief fine-tune of so many epochs, or was scored without one."""
    return "trained" if epochs else "scored"


def capital(text: str) -> str:
    """The text with a large first letter."""
    return text[:1].upper() + text[1:]


def listed(texts: Sequence[str], most: int) -> str:
    """The first few of some texts, with commas between, and a sign where there are more."""
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


def printable(text: str) -> str:
    """The name of a file, folder or class in one line, without anything that a terminal obeys."""
    return text if text.isprintable() else ascii(text)


def classes_text(classes: Sequence[str], most: int = 4) -> str:
    """How many classes, and the names of the first few."""
    return f"{plural(len(classes), 'class', 'classes')} ({listed([*map(printable, classes)], most)})"


def term_words(term: str, value: float | int | str | None) -> tuple[str, str]:
    """The name and the value of one of a run's terms (`nas.settings.terms`) as people read them."""
    name, shown = term, "none" if value is None else str(value)
    if isinstance(value, int | float):
        shown = f"{value:,}"
    for ending, text in (("_ms", "{:g} ms"), ("_s", None)):
        if term.endswith(ending):
            name = term.removesuffix(ending)
            if value is not None:
                shown = text.format(value) if text else duration_text(float(value))
    return capital(name.replace("_", " ").replace("macs", "MACs")), shown
