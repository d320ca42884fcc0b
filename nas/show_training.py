"""Full trainings as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.record import TrainingRecord
from nas.run import RunDirectory
from nas.show import confusion_table, report_table
from nas.show_latency import latency_text, marks_legend
from nas.trained import alike
from nas.wording import NOTHING, plural, spread_text


def trainings_table(run: RunDirectory, records: Sequence[TrainingRecord]) -> Group:
    """What each training gave beside what the search knew, and below several seeds their mean."""
    trials = {trial.number: trial for trial in run.judged()}
    metric = run.settings.evaluation.metric
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", no_wrap=True, style="cyan")
    table.add_column("seed", justify="right", no_wrap=True)
    for title in (
        f"validation\n{metric} %\nsearch → full",
        "test\naccuracy %\nbefore → after",
        "latency ms\nsearch → now (p10-p90)",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    devices = set()
    for group in alike(records):
        for record in group:
            trial, now = trials[record.number], record.evaluation.latency
            then = trial.evaluation.latency
            if now and then and now.device_name != then.device_name:
                devices.add(f"measured now on {now.device_name}, in the search on {then.device_name}")
            table.add_row(
                record.digest[:8],
                f"{record.seed}",
                change_text(trial.objectives.get("accuracy"), record.score),
                change_text(*record.test_accuracy),
                f"{f'{then.ms:.3f}' if then else NOTHING} → {latency_text(now) if now else NOTHING}",
            )
        if len(group) > 1:
            scores = [record.score for record in group if record.score is not None]
            tests = [record.after.accuracy for record in group if record.after]
            spread = [spread_text(values).removesuffix(" %") if values else "" for values in (scores, tests)]
            table.add_row("", "mean", *spread, "", style="bold")
    return Group(
        table, *marks_legend(r.evaluation.latency for r in records), *(Text(d, style="dim") for d in sorted(devices))
    )


def change_text(before: float | None, after: float | None) -> str:
    """Two shares in percent, each where it is known."""
    return " → ".join(NOTHING if share is None else f"{100 * share:.2f}" for share in (before, after))


def reports_on_test_part(records: Sequence[TrainingRecord]) -> Group:
    """The report on the test part and the confusion matrix, for each candidate of its first seed."""
    parts: list[Table | Text] = []
    for group in alike(records):
        first = group[0]
        if first.after is None:
            continue
        title = f"\nTest part, {plural(first.after.images, 'image')}: {first.digest[:8]}, seed {first.seed}"
        parts += [Text(title, style="bold"), report_table(first.before, first.after), confusion_table(first.after)]
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
                "brief_score": trials[record.number].objectives.get("accuracy"),
                "score": record.score,
                "weights": str(run.trained_weights(record)),
            }
            for record in records
        ],
    }
    return json.dumps(data, indent=2)
