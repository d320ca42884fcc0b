"""What the command line prints: tables of a front, of a space and of a report, and the front as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.front import cheapest_first, hypervolume, knee, pareto_front, pick, reference_point
from nas.objectives import objective, peak_memory, target_objective
from nas.record import DeviceState, Latency, Outcome, TrialRecord
from nas.run import BaselineRecord, RunDirectory
from nas.settings import Budgets, LatencyTarget
from nas.space import SearchSpace
from nas.test_report import PartReport
from nas.wording import plural, score_text, target_text, verdict_text

MATRIX_CLASSES = 20
"""Classes up to which a confusion matrix is shown whole, and pairs shown of a larger one."""


def accuracy_text(record: TrialRecord | BaselineRecord, run: RunDirectory) -> str:
    """The run's metric, with the binomial standard error where it is the accuracy."""
    metric, images = run.settings.evaluation.metric, run.provenance.validation_images
    return score_text(record.objectives["accuracy"], metric, images).removesuffix(" %")


def front_table(run: RunDirectory, records: Sequence[TrialRecord]) -> Group:
    """The Pareto front, cheapest first: figures, then the architectures, which fit no column."""
    objectives, targets = run.settings.objectives, run.settings.evaluation.targets
    front = pareto_front(records, objectives)
    table = Table(box=None, pad_edge=False, header_style="bold")
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True, style="cyan")
    networks.add_column(overflow="fold", style="dim")
    table.add_column("digest", no_wrap=True, style="cyan")
    table.add_column(f"{run.settings.evaluation.metric} %", justify="right", no_wrap=True)
    table.add_column("latency ms (p10-p90)", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    if "memory" in objectives:
        table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="green")
    names = {pick(records, objectives, which).digest: which for which in ("most-accurate", "fastest")} if front else {}
    if front:
        names.setdefault(knee(front, objectives).digest, "knee")
    for record in front:
        cost, latency = record.evaluation.cost, record.evaluation.latency
        table.add_row(
            record.digest[:8],
            accuracy_text(record, run),
            latency_text(latency) if latency else "",
            objective("macs").show(cost.macs) if cost else "",
            objective("params").show(cost.params) if cost else "",
            *([objective("memory").show(record.objectives["memory"])] if "memory" in objectives else []),
            names.get(record.digest, ""),
        )
        networks.add_row(record.digest[:8], record.text)
    parts = [table, _targets_table(front, targets)] if targets else [table]
    return Group(*parts, "", networks)


def _targets_table(front: Sequence[TrialRecord], targets: Sequence[LatencyTarget]) -> Group:
    """Latencies of the front on the further targets, which fit no column beside the others, and how they came about."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("digest", no_wrap=True, style="cyan")
    for target in targets:
        table.add_column(f"{target.name} ms (p10-p90)", justify="right", no_wrap=True)
    for record in front:
        measured = _on_targets(record, targets).values()
        table.add_row(record.digest[:8], *(latency_text(latency) if latency else "" for latency in measured))
    legend = [Text(f"{target.name}: {target_text(target, _device(front, target))}", style="dim") for target in targets]
    return Group("", table, *legend)


def _on_targets(record: TrialRecord, targets: Sequence[LatencyTarget]) -> dict[str, Latency | None]:
    return {target.name: record.evaluation.latencies.get(target.name) for target in targets}


def _device(records: Sequence[TrialRecord], target: LatencyTarget) -> str | None:
    found = (record.evaluation.latencies.get(target.name) for record in records)
    return ", ".join(dict.fromkeys(latency.device_name for latency in found if latency)) or None


def baselines_table(run: RunDirectory, records: Sequence[TrialRecord], baselines: Sequence[BaselineRecord]) -> Group:
    """Reference networks: figures, then whether the front beats them, which fits no column."""
    objectives = run.settings.objectives
    front = pareto_front(records, objectives)
    table = Table(box=None, pad_edge=False, header_style="bold")
    verdicts = Table(box=None, pad_edge=False, show_header=False)
    verdicts.add_column(no_wrap=True, style="cyan")
    verdicts.add_column(overflow="fold")
    table.add_column("network", no_wrap=True, style="cyan")
    for title in (f"{run.settings.evaluation.metric} %", "latency ms (p10-p90)", "MACs", "params"):
        table.add_column(title, justify="right", no_wrap=True)
    for baseline in cheapest_first(baselines, objectives):
        cost, latency = baseline.evaluation.cost, baseline.evaluation.latency
        table.add_row(
            baseline.name,
            accuracy_text(baseline, run) if "accuracy" in baseline.objectives else "",
            latency_text(latency) if latency else "",
            objective("macs").show(cost.macs) if cost else "",
            objective("params").show(cost.params) if cost else "",
        )
        verdict = verdict_text(baseline, front, objectives)
        verdicts.add_row(baseline.name, Text("; ".join(part for part in (verdict, baseline.note) if part)))
    return Group(table, "", verdicts)


def latency_text(latency: Latency) -> str:
    """Median and range, with a mark where the number deserves less trust."""
    mark = "!" if latency.contended else "~" if latency.noisy else ""
    return f"{latency.median_ms:.3f} ({latency.p10_ms:.3f}-{latency.p90_ms:.3f}){mark}"


def measured_table(measured: Sequence[Latency]) -> Table:
    """One row a batch size: the time of a batch, and what that is for an image."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("batch", "ms", "p10-p90", "spread", "images/s", "ms/image"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="yellow")
    for latency in measured:
        size = latency.protocol.batch_size
        marks = [text for text, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
        table.add_row(
            f"{size}",
            f"{latency.median_ms:.3f}",
            f"{latency.p10_ms:.3f}-{latency.p90_ms:.3f}",
            f"{100 * latency.spread:.1f} %",
            f"{1e3 * size / latency.median_ms:,.1f}",
            f"{latency.median_ms / size:.3f}",
            ", ".join(marks),
        )
    return table


def protocol_lines(measured: Sequence[Latency]) -> list[str]:
    """How latencies of one network were measured: what they share, what each batch size met, what its marks mean."""
    first, protocol = measured[0], measured[0].protocol
    versions = ", ".join(f"{name} {version}" for name, version in (first.software or {}).items())
    threads = f", {plural(protocol.threads, 'thread')}" if protocol.device == "cpu" else ""
    layout = "channels last" if protocol.channels_last else "channels first"
    layout = "memory format its own" if protocol.mode == "onnxruntime" else layout
    folded = "folded" if first.bn_folded else "not folded throughout"
    caches = "emptied before each run" if protocol.cold else "hot"
    block = "blocks of one run" if protocol.cold else f"blocks of at least {protocol.block_ms:g} ms"
    lines = [
        f"device    {first.device_name} ({protocol.device}){threads}; {versions}",
        f"network   {protocol.mode}, {protocol.dtype}, {layout}, batch norm {folded}, caches {caches}",
        f"timing    {protocol.warmup_s:g} s of warm-up, then {block}, {protocol.min_blocks} or more, "
        f"until the spread is below {100 * protocol.max_spread:g} % or {protocol.max_s:g} s are over",
    ]
    for latency in measured:
        lines += _circumstances(latency)
    for latency in measured:
        lines += _marks(latency)
    return lines


def _circumstances(latency: Latency) -> list[str]:
    reference = "reference network not timed"
    if latency.reference_ms:
        before, after = latency.reference_ms
        reference = f"reference network {before:.3f} → {after:.3f} ms (drift {100 * latency.drift:.1f} %)"
    use = "unknown" if latency.others is None else f"{100 * latency.others:.0f} % of the device"
    return [
        f"batch {latency.protocol.batch_size:<3} {plural(latency.blocks, 'block')} x "
        f"{plural(latency.runs_per_block, 'run')}, {plural(latency.attempts, 'attempt')}, "
        f"waited {latency.waited_s:.1f} s for the device; {reference}",
        f"          {_states(latency.before, latency.after)}; other processes: {use}",
    ]


def _states(before: DeviceState | None, after: DeviceState | None) -> str:
    """Clocks, power and temperature before and after."""
    before, after = before or DeviceState(), after or DeviceState()
    parts, unknown = [], []
    for name, unit, first, last in (
        ("clock", "MHz", before.clock_mhz, after.clock_mhz),
        ("memory clock", "MHz", before.memory_clock_mhz, after.memory_clock_mhz),
        ("power", "W", before.power_w, after.power_w),
        ("temperature", "°C", before.temperature_c, after.temperature_c),
    ):
        if first is None or last is None:
            unknown.append(name)
        else:
            parts.append(f"{name} {first:.0f} → {last:.0f} {unit}")
    if throttled := sorted({*(before.throttled or ()), *(after.throttled or ())}):
        parts.append(f"clocks held back by {', '.join(throttled)}")
    if unknown:
        parts.append(f"{', '.join(unknown)} not known here")
    return ", ".join(parts)


def _marks(latency: Latency) -> list[str]:
    """What each mark of a latency means, with the figure behind it."""
    protocol, why = latency.protocol, []
    if latency.spread >= protocol.max_spread:
        why.append(f"noisy: the spread stayed at {100 * latency.spread:.1f} %")
    if latency.drift > protocol.max_drift:
        why.append(
            f"noisy: the device changed its speed meanwhile, the reference network by {100 * latency.drift:.1f} %"
        )
    if latency.contended:
        share = f", with {100 * latency.others:.0f} % of its time" if latency.others else ""
        why.append(f"contended: others were on the device{share}")
    return [f"batch {protocol.batch_size} is {reason}" for reason in why]


def front_json(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front with everything known of it, as JSON."""
    objectives = run.settings.objectives
    reference = reference_point(records, objectives)
    data = {
        "run": str(run.path),
        "objectives": list(objectives),
        "metric": run.settings.evaluation.metric,
        "hypervolume": hypervolume(records, objectives, reference),
        "reference_point": dict(zip(objectives, reference.worst, strict=True)) if reference else None,
        "targets": [asdict(target) for target in run.settings.evaluation.targets],
        "front": [_row(record, run) for record in pareto_front(records, objectives)],
    }
    return json.dumps(data, indent=2)


def front_csv(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front as CSV, a row a member."""
    rows = [_row(record, run) for record in pareto_front(records, run.settings.objectives)]
    columns = ["digest", "trial", "accuracy", "latency_ms", "latency_p10_ms", "latency_p90_ms"]
    for target in run.settings.evaluation.targets:
        columns += _latency_fields(target_objective(target.name), None)
    columns += ["macs", "params", "memory_bytes"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "architecture"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _latency_fields(name: str, latency: Latency | None) -> dict[str, float | None]:
    values = (latency.median_ms, latency.p10_ms, latency.p90_ms) if latency else (None, None, None)
    return dict(zip((f"{name}_ms", f"{name}_p10_ms", f"{name}_p90_ms"), values, strict=True))


def _row(record: TrialRecord, run: RunDirectory) -> dict[str, Any]:
    latency, cost = record.evaluation.latency, record.evaluation.cost
    on_targets = _on_targets(record, run.settings.evaluation.targets)
    return {
        "digest": record.digest,
        "trial": record.number,
        "accuracy": record.objectives["accuracy"],
        **_latency_fields("latency", latency),
        **{
            key: value
            for name, found in on_targets.items()
            for key, value in _latency_fields(target_objective(name), found).items()
        },
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        "memory_bytes": peak_memory(record.evaluation),
        "architecture": record.text,
    }


def outcome_counts(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how, in words."""
    counts = {outcome: sum(record.outcome is outcome for record in records) for outcome in Outcome}
    return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count) or "no trials yet"


def choices_table(space: SearchSpace) -> Table:
    """Every choice of a space, a row a stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "depth", "channels", "stride", "kernel size", "dilation", "expansion", "separable"):
        table.add_column(column, no_wrap=True)

    def text(choices: Sequence[object]) -> str:
        return " ".join({True: "yes", False: "no"}.get(c, str(c)) if isinstance(c, bool) else f"{c}" for c in choices)

    stem = space.stem
    table.add_row("input", "", text([space.input.channels]), "", "", "", "", "", style="dim")
    table.add_row("stem", "1", text(stem.out_channels), text(stem.stride), text(stem.kernel_size), "1", "", "no")
    for index, stage in enumerate(space.stages):
        table.add_row(
            f"stage {index}",
            *(text(getattr(stage, key)) for key in ("depth", "out_channels", "stride")),
            *(text(getattr(stage, key)) for key in ("kernel_size", "dilation", "expansion", "separable")),
        )
    table.add_row("head", "", text(space.head_channels), "", "", "", "", "")
    return table


def landmarks(space: SearchSpace) -> dict[str, Architecture]:
    """The networks that a space is shown by."""
    return {name: getattr(space, name) for name in ("smallest", "middle", "backbone", "largest")}


def median_macs(space: SearchSpace, num_classes: int, samples: int = 1_000) -> float:
    """Median multiply-adds of uniformly sampled candidates."""
    rng = random.Random(0)
    drawn = (space.architecture(space.sample(rng)) for _ in range(samples))
    return statistics.median(architecture_cost(architecture, num_classes).macs for architecture in drawn)


def landmarks_table(space: SearchSpace, num_classes: int, latencies: dict[str, Latency]) -> Group:
    """Cost of the landmarks, latency where it was measured; then their architectures, which fit no column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network", no_wrap=True)
    for column in ("input", "MACs", "params", "latency ms (p10-p90)", "receptive field"):
        table.add_column(column, justify="right", no_wrap=True)
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True)
    networks.add_column(overflow="fold", style="dim")
    for name, architecture in landmarks(space).items():
        cost = architecture_cost(architecture, num_classes)
        table.add_row(
            name,
            f"{architecture.input_size}",
            objective("macs").show(cost.macs),
            objective("params").show(cost.params),
            latency_text(latencies[name]) if name in latencies else "-",
            f"{architecture.canonical.receptive_field}",
        )
        networks.add_row(name, str(architecture.canonical))
    return Group(table, "", networks)


def budget_sentences(
    space: SearchSpace, num_classes: int, budgets: Budgets, latencies: dict[str, Latency]
) -> list[str]:
    """For each budget given, whether the space can meet it; of latency as far as the landmarks show, where measured."""
    cost = architecture_cost(space.smallest, num_classes)
    sentences = []
    for what, value, limit in (("MACs", cost.macs, budgets.max_macs), ("parameters", cost.params, budgets.max_params)):
        if limit is not None:
            can = "can" if value <= limit else "cannot"
            sentences.append(f"A budget of {limit:,} {what} {can} be met: the smallest network has {value:,} {what}.")
    if budgets.max_latency_ms is not None:
        budget = f"A budget of {budgets.max_latency_ms:,g} ms"
        if not latencies:
            return [*sentences, f"{budget} was not checked: latency was not measured."]
        name, fastest = min(latencies.items(), key=lambda item: item[1].median_ms)
        can = "can be met" if fastest.median_ms <= budgets.max_latency_ms else "can hardly be met"
        sentences.append(
            f"{budget} {can}: the fastest of these networks, the {name}, takes {fastest.median_ms:.3f} ms."
        )
    return sentences


def report_table(before: PartReport | None, after: PartReport) -> Table:
    """Scores in percent, a row a class, then their averages and the accuracy; F1 also as it was `before`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    for column in ("precision %", "recall %", "F1 %" if before is None else "F1 % before → after", "images"):
        table.add_column(column, justify="right", no_wrap=True)

    def change(old: float | None, new: float) -> str:
        return f"{100 * new:.2f}" if old is None else f"{100 * old:.2f} → {100 * new:.2f}"

    earlier = [None] * len(after.classes) if before is None else [score.f1 for score in before.classes]
    for score, old in zip(after.classes, earlier, strict=True):
        figures = (f"{100 * score.precision:.2f}", f"{100 * score.recall:.2f}", change(old, score.f1))
        table.add_row(Text(score.name), *figures, f"{score.support:,}")
    table.add_row(
        "macro average",
        f"{100 * after.macro_precision:.2f}",
        f"{100 * after.balanced_accuracy:.2f}",
        change(before.macro_f1 if before else None, after.macro_f1),
        f"{after.images:,}",
        style="bold",
    )
    accuracy = change(before.accuracy if before else None, after.accuracy)
    table.add_row("accuracy", "", "", accuracy, f"{after.images:,}", style="bold")
    return table


def confusion_table(report: PartReport) -> Table:
    """The confusion matrix, a row a true class; of more than `MATRIX_CLASSES` classes the pairs most confused."""
    if len(report.classes) > MATRIX_CLASSES:
        return _confused_pairs(report)
    table = Table(
        box=None, pad_edge=False, header_style="bold", title="true class ↓   predicted as →", title_style="dim"
    )
    table.add_column("", justify="right", style="bold")
    table.add_column("", overflow="fold")
    for index in range(len(report.classes)):
        table.add_column(f"{index}", justify="right", no_wrap=True)
    for index, (score, row) in enumerate(zip(report.classes, report.confusion, strict=True)):
        cells = [
            Text(f"{count}" if count else "·", style="green" if column == index else "" if count else "dim")
            for column, count in enumerate(row)
        ]
        table.add_row(f"{index}", Text(score.name), *cells)
    return table


def _confused_pairs(report: PartReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("true → predicted", overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("of the class %", justify="right", no_wrap=True)
    pairs = [
        (count, count / truth.support, f"{truth.name} → {taken.name}")
        for truth, row in zip(report.classes, report.confusion, strict=True)
        for taken, count in zip(report.classes, row, strict=True)
        if count and taken is not truth
    ]
    for count, share, names in sorted(pairs, key=lambda pair: pair[:2], reverse=True)[:MATRIX_CLASSES]:
        table.add_row(Text(names), f"{count:,}", f"{100 * share:.2f}")
    return table
