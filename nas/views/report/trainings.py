"""The report's section on full trainings: what they gave, and how the networks do on the test split, class by class."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import capital, plural, spread_text, time_text
from nas.runs.objectives import objective
from nas.runs.record import TrainingRecord
from nas.runs.trained import alike
from nas.runs.words import STARTS, score_title
from nas.tasks.classification_report import MATRIX_CLASSES, SplitReport, most_confused
from nas.views.report.cells import latency_cell
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag
from nas.views.text import NOTHING

_NUMERIC = ("Precision", "Recall", "F1 before", "F1", "Images")


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
            tables = (_classes(first.before, first.after), _confusion(first.after))
            parts.append(tag("details", tag("summary", summary), *tables))
    return join(parts)


def _table(found: Findings, groups: Sequence[Sequence[TrainingRecord]]) -> Html:
    head = ["Candidate", "Seed", "Test accuracy", capital(score_title(found.metric)), "Latency"]
    rows: list[tuple[object, ...]] = []
    for group in groups:
        rows += [_row(found, record) for record in group]
        if len(group) > 1:
            scores = [record.score for record in group if record.score is not None]
            tests = [record.after.accuracy for record in group if record.after]
            means = [tag("b", spread_text(values)) if values else NOTHING for values in (tests, scores)]
            rows.append((tag("b", f"Mean of {plural(len(group), 'seed')}"), "", *means, ""))
    return table(head, rows, numeric=head[1:], stacks=True)


def _row(found: Findings, record: TrainingRecord) -> tuple[object, ...]:
    how = f"{plural(len(record.losses), 'epoch')} from {STARTS[record.start]}"
    how += ", validation split too" if record.with_validation else ""
    images, latency = found.provenance.validation_images, record.evaluation.latency
    before, after = record.test_accuracy
    tested = f"{plural(record.after.images, 'image')}" if record.after else ""
    tested += f" · {objective('accuracy').show(before)} before" if before is not None else ""
    return (
        join([tag("span", record.digest, class_="code digest"), tag("small", f"trial {record.number} · {how}")]),
        record.seed,
        _share(after, tested),
        _share(record.score, plural(images, "image")),
        join([latency_cell(latency), tag("small", time_text(latency.measured)) if latency else ""]),
    )


def _share(share: float | None, of: str) -> Html:
    """A share in percent, and below it what it is of."""
    return Html(NOTHING) if share is None else join([objective("accuracy").show(share), tag("small", of)])


def _search_table(found: Findings) -> Html:
    """What the search's own weights of these candidates got."""
    trained = {record.number for record in found.trainings}
    head = ["Candidate", f"{capital(score_title(found.metric))}, proxy training", "Latency in the search"]
    rows = [
        (
            join([tag("span", trial.digest, class_="code digest"), tag("small", f"trial {trial.number}")]),
            found.score(trial) if "accuracy" in trial.objectives else NOTHING,
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


def _classes(before: SplitReport | None, after: SplitReport) -> Html:
    """Scores of each class in percent, and their averages."""
    earlier = [None] * len(after.classes) if before is None else [score.f1 for score in before.classes]
    rows: list[tuple[object, ...]] = [
        (score.name, *map(_percent, (score.precision, score.recall, old, score.f1)), f"{score.support:,}")
        for score, old in zip(after.classes, earlier, strict=True)
    ]
    averages = (after.macro_precision, after.balanced_accuracy, before.macro_f1 if before else None, after.macro_f1)
    rows.append((tag("b", "Macro average"), *map(_percent, averages), f"{after.images:,}"))
    accuracies = (None, None, before.accuracy if before else None, after.accuracy)
    rows.append((tag("b", "Accuracy"), *map(_percent, accuracies), f"{after.images:,}"))
    return table(["Class", *_NUMERIC], rows, numeric=_NUMERIC, class_="dense")


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f} %"


def _confusion(report: SplitReport) -> Html:
    """The confusion matrix; of many classes the pairs most confused."""
    if len(report.classes) > MATRIX_CLASSES:
        head = ["True class", "Taken for", "Images", "Of the class"]
        pairs = most_confused(report, MATRIX_CLASSES)
        rows = [(pair.truth, pair.taken, f"{pair.images:,}", _percent(pair.share)) for pair in pairs]
        return table(head, rows, numeric=head[2:], class_="dense")
    names = [score.name for score in report.classes]
    numbered = [f"{number}: {name}" for number, name in enumerate(names)]
    columns = [f"{number}" for number in range(len(names))]
    matrix = [
        (numbered[truth], *(tag("b", count) if taken == truth else count or "·" for taken, count in enumerate(row)))
        for truth, row in enumerate(report.confusion)
    ]
    return table(["True class ↓ taken for →", *columns], matrix, numeric=columns, class_="dense")
