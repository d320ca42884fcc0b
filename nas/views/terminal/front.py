"""What the command line prints: tables of a front, of a space and of a report, and the front as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.common.text import plural
from nas.latency.result import Latency
from nas.runs.confirmation import Confirmed, confirmed_in
from nas.runs.front import cheapest_first, hypervolume, pareto_front, reference_point
from nas.runs.objectives import measured_latency, objective, peak_memory, target_objective
from nas.runs.picks import known_as
from nas.runs.record import BaselineRecord, Outcome, TrainingRecord, TrialRecord, count_outcomes
from nas.runs.settings import LatencyTarget
from nas.runs.store import RunDirectory
from nas.runs.trained import best_of
from nas.runs.words import score_text
from nas.tasks.classification_report import MATRIX_CLASSES, SplitReport, most_confused
from nas.views.front_latency import front_notes, range_title, same_latency
from nas.views.terminal.latency import latency_text, marked_latency, marks_legend
from nas.views.text import target_text, verdict_text


def accuracy_text(record: TrialRecord | BaselineRecord, run: RunDirectory) -> str:
    """The run's metric, with the binomial standard error where it is the accuracy."""
    metric, images = run.settings.evaluation.metric, run.provenance.validation_images
    return score_text(record.objectives["accuracy"], metric, images).removesuffix(" %")


def score_column(run: RunDirectory) -> str:
    """The run's metric as the title of a column, no wider than its values."""
    return run.settings.evaluation.metric.rpartition(":")[2].replace("_", "\n") + " %"


def front_table(run: RunDirectory, records: Sequence[TrialRecord]) -> Group:
    """The Pareto front, cheapest first: figures, then the architectures, which fit no column."""
    objectives, targets = run.settings.objectives, run.settings.evaluation.targets
    front, again = pareto_front(records, objectives), confirmed_in(run, records)
    table = Table(box=None, pad_edge=False, header_style="bold")
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True, style="cyan")
    networks.add_column(overflow="fold", style="dim")
    table.add_column("digest", no_wrap=True, style="cyan")
    ranges, letters = range_title([record.evaluation.latency for record in front]), same_latency(front)
    table.add_column(score_column(run), justify="right", no_wrap=True)
    table.add_column(f"latency ms ({ranges})", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("", overflow="fold", min_width=len("most-accurate,"), style="green")
    names = known_as(records, objectives)
    unconfirmed = False
    for record in sorted(front, key=lambda record: record.digest not in again):  # confirmed ones and the others apart
        cost, latency = record.evaluation.cost, record.evaluation.latency
        if again and record.digest not in again and not unconfirmed:
            unconfirmed = True
            table.add_row("", Text("unconfirmed:", style="dim"))
        table.add_row(
            record.digest[:8],
            accuracy_text(record, run),
            marked_latency(latency, letters.get(record.digest)),
            objective("macs").show(cost.macs) if cost else "",
            objective("params").show(cost.params) if cost else "",
            ", ".join([*names.get(record.digest, ()), *(["earlier run"] if record.imported_from else [])]),
        )
        networks.add_row(record.digest[:8], record.text)
    parts: list[Table | Group] = [table, _further_table(front, run)] if targets or "memory" in objectives else [table]
    measured = [
        latency for record in front for latency in (record.evaluation.latency, *record.evaluation.latencies.values())
    ]
    parts += [_again_table(front, again, run)] if again else []
    notes = front_notes(front, ["latency", *(target_objective(target.name) for target in targets)])
    notes = [*_whose_scores(run, front), *notes]
    legend = [*marks_legend(measured), *(Text(note, style="dim") for note in notes)]
    return Group(*parts, *legend, "", networks)


def _whose_scores(run: RunDirectory, front: Sequence[TrialRecord]) -> list[str]:
    """Of which weights and images the scores of a front are."""
    epochs, images = run.settings.evaluation.recipe.epochs, run.provenance.validation_images
    how = f"proxy training ({plural(epochs, 'epoch')})" if epochs else "weights, without training"
    text = f"scores: {plural(images, 'validation image')}, by the search's {how}; not tested"
    return [text] if front else []


def _again_table(front: Sequence[TrialRecord], again: Mapping[str, Confirmed], run: RunDirectory) -> Group:
    """What training members of the front again gave."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("confirmed", no_wrap=True, style="cyan")
    table.add_column(score_column(run), justify="right", no_wrap=True)
    table.add_column("trainings", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for record in front:
        one = again.get(record.digest)
        if one is not None:
            trainings = f"{one.trainings} × {plural(one.epochs, 'epoch')}"
            beaten = "" if one.on_front else "beaten by another that was trained again"
            table.add_row(record.digest[:8], one.text.removesuffix(" %"), trainings, beaten)
    legend = "trained again, longer and from other seeds; these scores can be compared with each other only"
    return Group("", table, Text(legend, style="dim"))


def _further_table(front: Sequence[TrialRecord], run: RunDirectory) -> Group:
    """Memory, where it is an objective, and latencies on the further targets, which fit no column beside the others."""
    targets, has_memory = run.settings.evaluation.targets, "memory" in run.settings.objectives
    table = Table(box=None, pad_edge=False, header_style="bold")
    letters: dict[str, dict[str, str]] = {}
    table.add_column("digest", no_wrap=True, style="cyan")
    if has_memory:
        table.add_column("memory", justify="right", no_wrap=True)
    for target in targets:
        ranges = range_title([record.evaluation.latencies.get(target.name) for record in front])
        title = f"{target.name} ms ({ranges})"
        table.add_column(title, justify="right", no_wrap=True)
        letters[target.name] = same_latency(front, target_objective(target.name))
    for record in front:
        memory = [objective("memory").show(record.objectives["memory"])] if has_memory else []
        cells = [
            marked_latency(latency, letters[name].get(record.digest))
            for name, latency in _on_targets(record, targets).items()
        ]
        table.add_row(record.digest[:8], *memory, *cells)
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
    ranges = range_title([baseline.evaluation.latency for baseline in baselines])
    for title in (score_column(run), f"latency ms ({ranges})", "MACs", "params"):
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
    return Group(table, *marks_legend(baseline.evaluation.latency for baseline in baselines), "", verdicts)


def front_json(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front with everything known of it, as JSON."""
    objectives = run.settings.objectives
    recorded = run.records()  # which the hypervolume follows, as the search does
    reference = reference_point(recorded, objectives)
    data = {
        "run": str(run.path),
        "objectives": list(objectives),
        "metric": run.settings.evaluation.metric,
        "hypervolume": hypervolume(recorded, objectives, reference),
        "reference_point": dict(zip(objectives, reference.worst, strict=True)) if reference else None,
        "targets": [asdict(target) for target in run.settings.evaluation.targets],
        "front": _rows(run, records),
    }
    return json.dumps(data, indent=2)


def front_csv(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front as CSV, a row a member."""
    columns = [
        "digest",
        "trial",
        "accuracy",
        "again_accuracy",
        "again_error",
        "again_trainings",
        "full_test_accuracy",
        "full_accuracy",
        "full_latency_ms",
    ]
    for name in ("latency", *(target_objective(target.name) for target in run.settings.evaluation.targets)):
        columns += _latency_fields(name, None)
    columns += ["macs", "params", "memory_bytes", "imported_from"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "architecture"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(run, records))
    return text.getvalue().rstrip("\n")


def _latency_fields(name: str, latency: Latency | None, letter: str | None = None) -> dict[str, float | str | None]:
    low, high = (latency.interval_ms or (None, None)) if latency else (None, None)
    return {
        f"{name}_ms": latency.ms if latency else None,
        f"{name}_p10_ms": latency.p10_ms if latency else None,
        f"{name}_p90_ms": latency.p90_ms if latency else None,
        f"{name}_low_ms": low,
        f"{name}_high_ms": high,
        f"{name}_rounds": len(latency.rounds_ms) if latency else None,
        f"{name}_group": letter,
    }


def _rows(run: RunDirectory, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    front, again = pareto_front(records, run.settings.objectives), confirmed_in(run, records)
    names = ["latency", *(target_objective(target.name) for target in run.settings.evaluation.targets)]
    letters = {name: same_latency(front, name) for name in names}
    trainings = run.training_records()
    full = {each.digest: best_of([one for one in trainings if one.digest == each.digest]) for each in front}
    return [
        _row(record, run, again.get(record.digest), letters) | _full_fields(full[record.digest]) for record in front
    ]


def _full_fields(full: TrainingRecord | None) -> dict[str, float | None]:
    """What the weights of a full training got."""
    latency = full.evaluation.latency if full else None
    return {
        "full_test_accuracy": full.test_accuracy[1] if full else None,
        "full_accuracy": full.score if full else None,
        "full_latency_ms": latency.ms if latency else None,
    }


def _row(
    record: TrialRecord, run: RunDirectory, again: Confirmed | None, letters: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    cost = record.evaluation.cost
    latencies = {name: measured_latency(record.evaluation, name) for name in letters}
    return {
        "digest": record.digest,
        "trial": record.number,
        "accuracy": record.objectives["accuracy"],
        "again_accuracy": again.score if again else None,
        "again_error": again.error if again else None,
        "again_trainings": again.trainings if again else 0,
        **{
            key: value
            for name, latency in latencies.items()
            for key, value in _latency_fields(name, latency, letters[name].get(record.digest)).items()
        },
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        "memory_bytes": peak_memory(record.evaluation),
        "imported_from": record.imported_from,
        "architecture": record.text,
    }


def outcome_counts(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how, in words, and how many were imported from earlier runs."""
    return counts_text(count_outcomes(records))


def counts_text(counts: Mapping[str, int]) -> str:
    """What `count_outcomes` gave, in words."""
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "no trials yet"


def no_front_text(records: Sequence[TrialRecord]) -> str:
    """Why no candidate is on the front, in a sentence."""
    if any(record.outcome is Outcome.DONE or record.over_limit for record in records):
        return "No candidate is within the hard limits."
    begun = any(record.counts for record in records)
    return "No candidate came to the end of its training." if begun else "No candidate was trained."


def report_table(before: SplitReport | None, after: SplitReport) -> Table:
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


def confusion_table(report: SplitReport) -> Table:
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


def _confused_pairs(report: SplitReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("true → predicted", overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("of the class %", justify="right", no_wrap=True)
    for pair in most_confused(report, MATRIX_CLASSES):
        table.add_row(Text(f"{pair.truth} → {pair.taken}"), f"{pair.images:,}", f"{100 * pair.share:.2f}")
    return table
