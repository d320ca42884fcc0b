"""What the command line prints of a front: tables, JSON and CSV."""

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

from nas.common.text import plural, spreadsheet_cell
from nas.latency.result import Latency
from nas.runs.confirmation import Confirmed, confirmed_in
from nas.runs.front import cheapest_first, hypervolume, pareto_front, reference_point
from nas.runs.objectives import measured_latency, objective, peak_memory, score_of, target_objective
from nas.runs.picks import known_as
from nas.runs.record import BaselineRecord, Outcome, TrainingRecord, TrialRecord, count_outcomes
from nas.runs.settings import LatencyTarget
from nas.runs.store import RunDirectory
from nas.runs.trained import best_of
from nas.views.front_latency import front_notes, range_title, same_latency
from nas.views.terminal.latency import latency_text, marked_latency, marks_legend
from nas.views.text import target_text, verdict_text


def score_cell(record: TrialRecord | BaselineRecord, run: RunDirectory) -> str:
    """The run's metric without its unit, with its standard error where that is known."""
    metric, score = run.settings.evaluation.score, score_of(run.settings.objectives)
    return metric.text(record.objectives[score], run.provenance.validation_images).removesuffix(f" {metric.unit}")


def score_column(run: RunDirectory) -> str:
    """The run's metric as the title of a column, no wider than its values."""
    metric = run.settings.evaluation.score
    return f"{metric.name.rpartition(':')[2].replace('_', chr(10))} {metric.unit}".rstrip()


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
            score_cell(record, run),
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
            table.add_row(record.digest[:8], one.text.removesuffix(f" {one.unit}"), trainings, beaten)
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
            score_cell(baseline, run) if score_of(objectives) in baseline.objectives else "",
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
    score = score_of(run.settings.objectives)
    columns = [
        "digest",
        "trial",
        score,
        f"again_{score}",
        "again_error",
        "again_trainings",
        f"full_test_{score}",
        f"full_{score}",
        "full_latency_ms",
    ]
    for name in ("latency", *(target_objective(target.name) for target in run.settings.evaluation.targets)):
        columns += _latency_fields(name, None)
    columns += ["macs", "params", "memory_bytes", "imported_from"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "architecture"], lineterminator="\n")
    writer.writeheader()
    for row in _rows(run, records):
        writer.writerow(
            {key: spreadsheet_cell(value) if isinstance(value, str) else value for key, value in row.items()}
        )
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
    score = score_of(run.settings.objectives)
    letters = {name: same_latency(front, name) for name in names}
    trainings = run.training_records()
    full = {each.digest: best_of([one for one in trainings if one.digest == each.digest]) for each in front}
    return [
        _row(record, run, again.get(record.digest), letters) | _full_fields(full[record.digest], score)
        for record in front
    ]


def _full_fields(full: TrainingRecord | None, score: str) -> dict[str, float | None]:
    """What the weights of a full training got."""
    latency = full.evaluation.latency if full else None
    return {
        f"full_test_{score}": full.tested[1] if full else None,
        f"full_{score}": full.score if full else None,
        "full_latency_ms": latency.ms if latency else None,
    }


def _row(
    record: TrialRecord, run: RunDirectory, again: Confirmed | None, letters: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    cost, score = record.evaluation.cost, score_of(run.settings.objectives)
    latencies = {name: measured_latency(record.evaluation, name) for name in letters}
    return {
        "digest": record.digest,
        "trial": record.number,
        str(score): record.objectives[score],
        f"again_{score}": again.score if again else None,
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
