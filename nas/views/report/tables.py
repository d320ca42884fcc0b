"""The report's tables: the front, all trials, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nas.common.text import capital, duration_text, plural
from nas.runs.objectives import measured_latency, objective, target_objective
from nas.runs.record import Outcome, TrialRecord
from nas.runs.words import score_title
from nas.views.front_latency import front_notes, same_latency
from nas.views.report.cells import again_cell, architecture_cell, candidate_cell, cost_cell, latency_cell
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag
from nas.views.report.quantities import value_of
from nas.views.text import NOTHING, label

_FAILURES_SHOWN = 10
_TEXTS = ("Candidate", "Architecture")


def front_table(found: Findings) -> Html:
    """The members of the front, cheapest first; those that were trained again and the others apart."""
    if not found.front:
        return Html("")
    parts = [] if found.again else [_members_table(found, found.front)]
    for title, again in (("Confirmed", True), ("Not confirmed", False)) if found.again else ():
        members = [record for record in found.front if (record.digest in found.again) is again]
        parts += [tag("h3", title), _members_table(found, members)] if members else []
    return join(
        [*parts, *(tag("p", capital(note), class_="soft") for note in front_notes(found.front, _latencies(found)))]
    )


def _latencies(found: Findings) -> list[str]:
    return ["latency", *(target_objective(target.name) for target in found.settings.evaluation.targets)]


def _members_table(found: Findings, members: Sequence[TrialRecord]) -> Html:
    title = capital(score_title(found.metric))
    columns: dict[str, Callable[[TrialRecord], object]] = {
        "Candidate": lambda record: candidate_cell(record, found.names.get(record.digest, ())),
        "Architecture": lambda record: architecture_cell(record.text),
        title: found.score,
        "Trained again": lambda record: again_cell(found.again[record.digest]),
        **{capital(label(name)): _latency_of(found, name) for name in _latencies(found)},
        "MACs": lambda record: cost_cell(record, "macs"),
        "Parameters": lambda record: cost_cell(record, "params"),
        "Memory": lambda record: objective("memory").show(record.objectives["memory"]),
    }
    if "memory" not in found.settings.objectives:
        del columns["Memory"]
    if all(record.evaluation.latency is None for record in found.front):
        del columns["Latency"]
    if any(record.digest not in found.again for record in members):
        del columns["Trained again"]
    rows = [[cell(record) for cell in columns.values()] for record in members]
    return table(list(columns), rows, numeric=[name for name in columns if name not in _TEXTS], stacks=True)


def trials_table(found: Findings) -> Html:
    """Every trial, by number; table.js sorts and filters it, and saves it as CSV."""
    if not found.records:
        return tag("p", "No trial has ended yet.", class_="note")
    targets = [target_objective(target.name) for target in found.settings.evaluation.targets]
    costs = ["latency", *targets, "macs", "params"]
    titles = ["Score", *(capital(label(name)) for name in costs)]
    on_front = {record.number for record in found.front}
    rows = [
        (
            record.number,
            tag("b", "front") if record.number in on_front else record.outcome.value,
            tag("span", record.digest, class_="code"),
            architecture_cell(record.text),
            *(_sortable(record, name) for name in (found.objective, *costs)),
            tag("data", duration_text(record.evaluation.seconds), value=f"{record.evaluation.seconds:.1f}"),
            tag("span", trial_note(record), class_="reason"),
        )
        for record in sorted(found.records, key=lambda record: record.number)
    ]
    head = ["Trial", "Outcome", "Candidate", "Architecture", *titles, "Time", "Note"]
    numeric = ("Trial", *titles, "Time")
    search = tag("input", type="search", id="filter", placeholder="part of an architecture, outcome or reason")
    tools = tag(
        "p",
        *(tag("label", "Filter ", search), " ", tag("output", id="shown"), " "),
        tag("button", "Save as CSV", type="button", id="csv"),
        class_="tools",
    )
    listed = table(head, rows, numeric=numeric, class_="dense sortable")
    return tag("details", tag("summary", f"Show {plural(len(rows), 'trial')}"), tools, listed, id="trials")


def _sortable(record: TrialRecord, name: str) -> Html | str:
    value = value_of(record, name)
    return NOTHING if value is None else tag("data", objective(name).show(value), value=f"{value:.6g}")


def failures(found: Findings) -> Html:
    """Failed and lost trials with their reasons."""
    bad = [record for record in found.records if record.outcome in (Outcome.FAILED, Outcome.LOST)]
    if not bad:
        return tag("p", "No trial failed or was lost.", class_="soft")
    rows = [
        (
            record.number,
            record.outcome.value,
            join([tag("span", record.digest, class_="code"), tag("small", architecture_cell(record.text))]),
            tag("span", record.evaluation.reason or "no reason recorded", class_="reason"),
        )
        for record in sorted(bad, key=lambda record: record.number)
    ]
    listed = table(["Trial", "Outcome", "Candidate", "Reason"], rows, stacks=True)
    if len(rows) <= _FAILURES_SHOWN:
        return listed
    return tag("details", tag("summary", f"Show {plural(len(rows), 'trial')}"), listed)


def _latency_of(found: Findings, name: str) -> Callable[[TrialRecord], object]:
    letters = same_latency(found.front, name)
    return lambda record: latency_cell(measured_latency(record.evaluation, name), letters.get(record.digest))


def trial_note(record: TrialRecord) -> str:
    """Where it comes from, when it was stopped, and why it ended as it did, as far as there is something to say."""
    parts = [f"imported from {record.imported_from}"] if record.imported_from else []
    if record.outcome is Outcome.STOPPED:
        parts.append(f"after {plural(len(record.evaluation.history), 'epoch')}")
    return ": ".join([*parts, *([record.evaluation.reason] if record.evaluation.reason else [])])
