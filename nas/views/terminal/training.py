"""Full trainings as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.common.text import plural, spread_text, time_text
from nas.runs.objectives import score_of
from nas.runs.record import TrainingRecord
from nas.runs.store import RunDirectory
from nas.runs.trained import alike
from nas.runs.words import STARTS
from nas.tasks.base import Score, task_of
from nas.views.front_latency import range_title
from nas.views.terminal.latency import latency_text, marks_legend
from nas.views.terminal.split_report import split_tables
from nas.views.text import NOTHING


def trainings_table(run: RunDirectory, records: Sequence[TrainingRecord]) -> Group:
    """What the weights of each training got, below several seeds their mean, and apart what the search's own got."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", no_wrap=True, style="cyan")
    table.add_column("seed", justify="right", no_wrap=True)
    by, metric = _scores(run)
    ranges = range_title([record.evaluation.latency for record in records])
    for title in (_column("test", by), _column("validation", metric), f"latency ms\n({ranges})"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in alike(records):
        for record in group:
            latency = record.evaluation.latency
            scores = [bare(by, record.tested[1]), bare(metric, record.score)]
            figures = [*scores, latency_text(latency) if latency else NOTHING]
            table.add_row(record.digest[:8], f"{record.seed}", *figures)
        if len(group) > 1:
            validated = [record.score for record in group if record.score is not None]
            tests = [record.after.score for record in group if record.after]
            told = ((by, tests), (metric, validated))
            spread = [_bare(spread_text(values, each.unit), each) if values else "" for each, values in told]
            table.add_row("", "mean", *spread, "", style="bold")
    return Group(table, *_legend(run, records), "", _search_table(run, records))


def _legend(run: RunDirectory, records: Sequence[TrainingRecord]) -> list[Text]:
    """Of which weights and images the scores are, and when the latencies were measured."""
    tested = next((record.after.images for record in records if record.after), None)
    parts = [f"{plural(tested, 'test image')}, looked at once at the end" if tested else "not tested"]
    if any(record.score is not None for record in records):
        parts.append(plural(run.provenance.validation_images, "validation image"))
    lines = [f"of the weights of these full trainings: {'; '.join(parts)}"]
    latencies = [record.evaluation.latency for record in records if record.evaluation.latency]
    if latencies:
        first, last = (time_text(f(each.measured for each in latencies)) for f in (min, max))
        devices = ", ".join(dict.fromkeys(each.device_name for each in latencies))
        dates = first if first == last else f"{first} to {last}"
        lines.append(f"latency measured after the training, {dates}, on {devices}")
    return [*marks_legend(latencies), *(Text(line, style="dim") for line in lines)]


def _search_table(run: RunDirectory, records: Sequence[TrainingRecord]) -> Group:
    """What the candidates got in the search, with other weights."""
    trials = {trial.number: trial for trial in run.judged()}
    _, metric = _scores(run)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("in the search", no_wrap=True, style="cyan")
    found = [trials[number] for number in dict.fromkeys(record.number for record in records)]
    ranges = range_title([trial.evaluation.latency for trial in found])
    for title in (_column("validation", metric), f"latency ms\n({ranges})"):
        table.add_column(title, justify="right", no_wrap=True)
    for trial in found:
        latency = trial.evaluation.latency
        score = bare(metric, trial.objectives.get(score_of(run.settings.objectives)))
        table.add_row(trial.digest[:8], score, latency_text(latency) if latency else NOTHING)
    epochs = run.settings.evaluation.recipe.epochs
    training = f"proxy training, {plural(epochs, 'epoch')}" if epochs else "scoring without training"
    return Group(table, Text(f"of the search's {training}: other weights, not comparable with the above", style="dim"))


def _scores(run: RunDirectory) -> tuple[Score, Score]:
    """What the test split and the validation split are scored by."""
    evaluation = run.settings.evaluation
    return task_of(evaluation.task).score, evaluation.score


def _column(part: str, score: Score) -> str:
    return f"{part}\n{score.name} {score.unit}".rstrip()


def bare(score: Score, value: float | None) -> str:
    """A score without its unit, where it is known."""
    return NOTHING if value is None else _bare(score.show(value), score)


def _bare(text: str, score: Score) -> str:
    return text.removesuffix(f" {score.unit}")


def reports_on_test_split(records: Sequence[TrainingRecord]) -> Group:
    """The report on the test split and the confusion matrix, for each candidate of its first seed."""
    parts: list[Table | Text] = []
    for group in alike(records):
        first = group[0]
        if first.after is None:
            continue
        title = f"\nTest part, {plural(first.after.images, 'image')}: {first.digest[:8]}, seed {first.seed}"
        before = f"before: as its training began, from {STARTS[first.start]}" if first.before else ""
        parts += [Text(title, style="bold"), *([Text(before, style="dim")] if before else [])]
        parts += split_tables(first.before, first.after)
    return Group(*parts)


def trainings_json(run: RunDirectory, records: Sequence[TrainingRecord]) -> str:
    """Everything that is known of the trainings, as JSON."""
    trials = {trial.number: trial for trial in run.judged()}
    data = {
        "run": str(run.path),
        "metric": run.settings.evaluation.metric,
        "trainings": [
            {
                **asdict(record),
                "brief_score": trials[record.number].objectives.get(
                    score_of(run.settings.objectives)
                ),  # of the search's weights
                "score": record.score,
                "weights": str(run.trained_weights(record)),
            }
            for record in records
        ],
    }
    return json.dumps(data, indent=2)
