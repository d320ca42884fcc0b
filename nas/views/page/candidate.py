"""What is told of a candidate: its figures in words, its whole record, what became of its commands."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dash import html

from nas.common.jsonl import fields_of
from nas.common.text import capital, duration_text, plural, spread_text, time_text
from nas.runs.objectives import objective, peak_memory, target_objective
from nas.runs.record import TrainingRecord, TrialRecord
from nas.runs.results import measured_text, of_search
from nas.runs.trained import alike, best_of, ended
from nas.runs.words import cost_text, score_title, trial_text
from nas.spaces.families import layer_rows
from nas.tasks.base import task_of
from nas.views.front_latency import same_latency
from nas.views.hardest import HARDEST, hardest_images
from nas.views.page.actions import Job
from nas.views.page.runs import Seen
from nas.views.report.figures import member_names
from nas.views.report.layers import looks
from nas.views.text import NOTHING, label

_MOST_RECORD = 200_000
"""Characters of a record that are shown."""


def figures(seen: Seen, record: TrialRecord) -> dict[str, str]:
    """Its figures in words, by what they are; the same names for every candidate of a run."""
    evaluation, memory = record.evaluation, peak_memory(record.evaluation)
    again, predicted = seen.again.get(record.digest), evaluation.predicted
    trainings = seen.trainings.get(record.digest, ())
    full, search = best_of(trainings), of_search(record, seen.settings.evaluation, seen.images)
    return {
        "Outcome": ": ".join(filter(None, (record.outcome.value, evaluation.reason))),
        "Trained in full": "; ".join(_in_full(seen, group) for group in alike(trainings)) or NOTHING,
        "Latency after that": measured_text(full.evaluation.latency, "after that training") if full else NOTHING,
        f"{capital(score_title(seen.metric))} in the search": (
            NOTHING if search.score is None else f"{search.validation_text}, weights of {search.weights}"
        ),
        "Trained again, longer": (
            f"{again.text} ({again.trainings} × {plural(again.epochs, 'epoch')}, weights not kept)"
            if again
            else NOTHING
        ),
        "Latency in the search": measured_text(search.latency, search.when) if search.latency else NOTHING,
        "Does not differ in latency from": ", ".join(_as_fast(seen, record)) or NOTHING,
        **{
            capital(label(target_objective(name))): measured_text(on, search.when)
            for name, on in search.latencies.items()
        },
        "Predicted": f"{predicted.mean_ms:.3f} ± {predicted.std_ms:.3f} ms" if predicted else NOTHING,
        "Cost": cost_text(record),
        "Peak inference memory": objective("memory").show(memory) if memory is not None else NOTHING,
        "Trial": trial_text(record),
        "Evaluation": f"{duration_text(evaluation.seconds)}, ended {time_text(record.finished)}",
        "Worker": evaluation.worker or NOTHING,
        "Inherited no weights": ", ".join(evaluation.fresh) or NOTHING,
        "Weights": "kept"
        if seen.has_weights(record.digest)
        else "not kept, so it cannot be exported before it is trained",
    }


def _as_fast(seen: Seen, record: TrialRecord) -> list[str]:
    """Other members of the front, by the first digits of their digests, whose latencies do not differ from this one's."""
    letters = same_latency(seen.front)
    own = letters.get(record.digest)
    return [digest[:8] for digest, letter in letters.items() if letter == own and digest != record.digest]


def described(seen: Seen, record: TrialRecord) -> list[object]:
    """The architecture in its compact form, badges, and its figures; what is not known is left out."""
    names = member_names(seen.front, seen.objectives).get(record.digest, ())
    on_front = any(member.digest == record.digest for member in seen.front)
    badges = [html.Span(name, className="badge") for name in (*(["Pareto front"] if on_front else []), *names)]
    rows = [(name, text) for name, text in figures(seen, record).items() if text != NOTHING]
    return [
        html.P(record.text, className="architecture"),
        html.Div(badges, className="badges"),
        html.Dl([html.Div([html.Dt(name), html.Dd(text)]) for name, text in rows], className="facts"),
        *_hardest(seen, best_of(seen.trainings.get(record.digest, ()))),
    ]


def _hardest(seen: Seen, training: TrainingRecord | None) -> list[object]:
    """The validation images that its full training found hardest."""
    sheet = seen.run.hardest_pictures(training) if training and training.hardest else None
    return [] if training is None or sheet is None else [hardest_images(training, sheet, HARDEST, _element)]


def _element(name: str, *children: object, class_: str | None = None, **attributes: str) -> object:
    inner = {"children": list(children)} if children else {}  # an image with any, even none in a list, breaks the page
    return getattr(html, name.capitalize())(**inner, className=class_, **attributes)


def _in_full(seen: Seen, group: Sequence[TrainingRecord]) -> str:
    """What full trainings that differ in their seed gave, on the validation split and on the test split."""
    done = ended(group)
    scores = [record.score for record in done if record.score is not None]
    tests = [record.after.score for record in done if record.after]
    by = task_of(seen.settings.evaluation.task).score
    told = ((tests, by.unit, f"test {by.title}"), (scores, seen.metric.unit, "validation"))
    parts = [f"{spread_text(values, unit)} {part}" for values, unit, part in told if values]
    epochs = max((len(record.losses) for record in done), default=0)
    how = [f"{plural(len(done), 'seed')} × {plural(epochs, 'epoch')} from {group[0].start}"] if done else []
    how += ["validation split too"] if group[0].with_validation else []
    how += [f"{len(group) - len(done)} failed"] if len(done) < len(group) else []
    return f"{', '.join(parts)} ({', '.join(how)})".strip()


def layer_key(record: TrialRecord, classes: int) -> html.P:
    """What the colours of its layers mean, but for those that are named like their kind."""
    rows = layer_rows(record.architecture, classes)
    known = looks(row.kind for row in rows)
    told = dict.fromkeys(row.kind for row in rows if row.name != row.kind)
    parts = [html.Span(f"{'▨' if known[kind][1] else '▮'} {kind}", style={"color": known[kind][0]}) for kind in told]
    return html.P(parts, className="key")


def comparison(found: Sequence[tuple[str, Seen, TrialRecord]]) -> object:
    """Figures of several candidates side by side, a column each, under what they are called."""
    if len(found) < 2:
        return html.P(
            "Choose two or more candidates: shift-click or lasso points of the front, tick rows of the trials, or use "
            "the button of an opened candidate.",
            className="note",
        )
    columns = [{"Architecture": record.text, **figures(seen, record)} for _, seen, record in found]
    rows = list(dict.fromkeys(name for column in columns for name in column))
    known = [name for name in rows if any(column.get(name, NOTHING) != NOTHING for column in columns)]
    head = html.Tr([html.Th("", scope="col"), *(html.Th(name, scope="col") for name, _, _ in found)])
    body = [
        html.Tr([html.Th(name, scope="row"), *(html.Td(column.get(name, NOTHING)) for column in columns)])
        for name in known
    ]
    return html.Div(html.Table([html.Thead(head), html.Tbody(body)]), className="scroll")


def record_text(record: TrialRecord) -> str:
    """The whole record, as its line in trials.jsonl holds it."""
    text = json.dumps(record, default=fields_of, indent=1, ensure_ascii=False)
    return text if len(text) <= _MOST_RECORD else f"{text[:_MOST_RECORD]}\n… cut off"


def jobs(found: Sequence[Job], refused: str) -> list[object]:
    """What became of the commands that were started here, and why the last one was not, if it was `refused`."""
    told: list[object] = [html.P(refused, className="failed")] if refused else []
    return told + [
        html.Div(
            [
                html.P(_told(job), className="done" if job.code == 0 else "failed" if job.code else "running"),
                _output(job),
            ],
            className="job",
        )
        for job in found
    ]


def _told(job: Job) -> str:
    took = duration_text(job.seconds)
    if job.code is None:
        return f"{capital(job.kind)}: running for {took}"
    return (
        f"{capital(job.kind)}: done in {took}"
        if job.code == 0
        else f"{capital(job.kind)}: failed (exit code {job.code})"
    )


def _output(job: Job) -> html.Pre | None:
    return html.Pre(job.output) if job.output else None
