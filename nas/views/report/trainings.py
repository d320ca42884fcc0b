"""The report's section on full trainings: what they gave, and how the networks do on the test split, class by class."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import capital, plural, spread_text, time_text
from nas.runs.record import TrainingRecord
from nas.runs.trained import alike
from nas.runs.words import STARTS, score_title
from nas.tasks.base import Score
from nas.views.hardest import HARDEST, hardest_images
from nas.views.report.cells import latency_cell
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag
from nas.views.report.split_report import split_tables
from nas.views.text import NOTHING


def trainings(found: Findings) -> Html:
    """The section; nothing where nothing was trained in full."""
    if not found.trainings:
        return Html("")
    groups = alike(found.trainings)
    parts = [tag("h2", "Trained in full"), _table(found, groups), tag("p", _caveats(found), class_="soft")]
    parts += [tag("h3", "The same candidates in the search: other weights"), _search_table(found)]
    for group in groups:
        first = group[0]
        if first.after is not None:
            summary = f"Test split, class by class: {first.digest[:8]}, seed {first.seed}"
            parts.append(tag("details", tag("summary", summary), *split_tables(first.before, first.after)))
        if first.key in found.hardest:
            summary = f"{HARDEST}: {first.digest[:8]}, seed {first.seed}"
            parts.append(hardest_images(first, found.hardest[first.key], summary, tag))
    return join(parts)


def _table(found: Findings, groups: Sequence[Sequence[TrainingRecord]]) -> Html:
    head = ["Candidate", "Seed", f"Test {found.by.title}", capital(score_title(found.metric)), "Latency"]
    rows: list[tuple[object, ...]] = []
    for group in groups:
        rows += [_row(found, record) for record in group]
        if len(group) > 1:
            scores = [record.score for record in group if record.score is not None]
            tests = [record.after.score for record in group if record.after]
            by = ((tests, found.by), (scores, found.metric))
            means = [tag("b", spread_text(values, score.unit)) if values else NOTHING for values, score in by]
            rows.append((tag("b", f"Mean of {plural(len(group), 'seed')}"), "", *means, ""))
    return table(head, rows, numeric=head[1:], stacks=True)


def _row(found: Findings, record: TrainingRecord) -> tuple[object, ...]:
    how = f"{plural(len(record.losses), 'epoch')} from {STARTS[record.start]}"
    how += ", validation split too" if record.with_validation else ""
    images, latency = found.provenance.validation_images, record.evaluation.latency
    before, after = record.tested
    tested = f"{plural(record.after.images, 'image')}" if record.after else ""
    tested += f" · {found.by.show(before)} before" if before is not None else ""
    return (
        join([tag("span", record.digest, class_="code digest"), tag("small", f"trial {record.number} · {how}")]),
        record.seed,
        _shown(found.by, after, tested),
        _shown(found.metric, record.score, plural(images, "image")),
        join([latency_cell(latency), tag("small", time_text(latency.measured)) if latency else ""]),
    )


def _shown(score: Score, value: float | None, of: str) -> Html:
    """A score, and below it what it is of."""
    return Html(NOTHING) if value is None else join([score.show(value), tag("small", of)])


def _search_table(found: Findings) -> Html:
    """What the search's own weights of these candidates got."""
    trained = {record.number for record in found.trainings}
    head = ["Candidate", f"{capital(score_title(found.metric))}, proxy training", "Latency in the search"]
    rows = [
        (
            join([tag("span", trial.digest, class_="code digest"), tag("small", f"trial {trial.number}")]),
            found.score(trial) if found.objective in trial.objectives else NOTHING,
            latency_cell(trial.evaluation.latency),
        )
        for trial in found.records
        if trial.number in trained
    ]
    return table(head, rows, numeric=head[1:], stacks=True)


def _caveats(found: Findings) -> str:
    records = found.trainings
    sentences = [
        "Scores are of the weights of these trainings, latencies were measured after them. The test split was looked at "
        "once for each, at its end; nothing was chosen by it."
    ]
    if any(record.with_validation for record in records):
        sentences.append("What was trained on the validation split too has no validation score.")
    if any(record.before for record in records):
        sentences.append("Before is the network that the training began with.")
    return " ".join(sentences)
