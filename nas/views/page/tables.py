"""The tables of a page: all trials, what failed, what could not be read, and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import html

from nas.common.text import capital, plural, spreadsheet_cell, time_text
from nas.runs.objectives import Objective, measured_latency, score_of, target_objective
from nas.runs.record import Outcome, TrialRecord
from nas.runs.status import NO_REASON
from nas.runs.words import score_axis
from nas.views.page.runs import Seen
from nas.views.report.tables import trial_note
from nas.views.text import label

_MOST_TEXT = 500
_MOST_TOLD = 200
_NUMBER = {"filter": "agNumberColumnFilter", "type": "rightAligned", "width": 130}
_COUNT = {"valueFormatter": {"function": "params.value == null ? '' : d3.format(',')(params.value)"}}
_SCORE = {"valueFormatter": {"function": "params.value == null ? '' : d3.format('.2f')(params.value)"}}
_NUMBERS = {"valueFormatter": {"function": "params.value == null ? '' : d3.format('.4~g')(params.value)"}}


def trial_columns(seen: Seen) -> list[dict[str, Any]]:
    """The columns of all trials; numbers stay numbers, to be sorted and filtered."""
    latencies = ["latency", *(target_objective(target.name) for target in seen.settings.evaluation.targets)]
    return [
        {"field": "trial", "headerName": "Trial", **_NUMBER, "width": 100, "pinned": "left"},
        {"field": "outcome", "headerName": "Outcome", "width": 120},
        {"field": "digest", "headerName": "Candidate", "width": 180, "cellClass": "code"},
        {
            "field": "score",
            "headerName": score_axis(seen.metric),
            **_NUMBER,
            **(_SCORE if seen.metric.unit == "%" else _NUMBERS),
            "width": 190,
        },
        *(
            {"field": f"ms{i}", "headerName": f"{capital(label(name))} (ms)", **_NUMBER}
            for i, name in enumerate(latencies)
        ),
        {"field": "macs", "headerName": "MACs", **_NUMBER, **_COUNT},
        {"field": "params", "headerName": "Parameters", **_NUMBER, **_COUNT},
        {"field": "seconds", "headerName": "Evaluation (s)", **_NUMBER, "width": 140},
        {"field": "finished", "headerName": "Ended", "width": 180},
        {"field": "architecture", "headerName": "Architecture", "width": 420, "cellClass": "code"},
        {"field": "note", "headerName": "Note", "width": 420},
    ]


def trial_rows(seen: Seen, key: str) -> list[dict[str, Any]]:
    """A row a trial, in the order they ended, the latest first; `id` holds its place among the records."""
    front = {record.number for record in seen.front}
    latencies = ["latency", *(target_objective(target.name) for target in seen.settings.evaluation.targets)]
    rows = [
        {
            "id": f"{key}.{place}",
            "candidate": f"{key}:{record.digest}",
            "trial": record.number,
            "outcome": "front" if record.number in front else record.outcome.value,
            "digest": _cell(record.digest),
            "score": _score(record, score_of(seen.objectives)),
            **{f"ms{i}": _milliseconds(record, name) for i, name in enumerate(latencies)},
            "macs": record.evaluation.cost.macs if record.evaluation.cost else None,
            "params": record.evaluation.cost.params if record.evaluation.cost else None,
            "seconds": round(record.evaluation.seconds, 1),
            "finished": time_text(record.finished),
            "architecture": _cell(record.text),
            "note": _cell(trial_note(record)),
        }
        for place, record in enumerate(seen.records)
    ]
    return rows[::-1]


def failures(seen: Seen) -> list[object]:
    """Reasons of failures by how often they came, then each trial that failed, was lost or was rejected."""
    bad = [r for r in seen.records if r.outcome in (Outcome.FAILED, Outcome.LOST, Outcome.REJECTED)]
    if not bad:
        return [html.P("No trial failed, was lost, or was over a hard budget.", className="note")]
    parts: list[object] = []
    if seen.status.failures:
        reasons = [html.Li(f"{len(each.trials)} × {each.reason[:_MOST_TEXT]}") for each in seen.status.failures]
        parts += [html.H3("Reasons"), html.Ul(reasons)]
    parts.append(html.H3("Trials"))
    if len(bad) > _MOST_TOLD:
        parts.append(
            html.P(
                f"The latest {_MOST_TOLD} of {plural(len(bad), 'trial')}; the table of trials has all.",
                className="soft",
            )
        )
    head = html.Tr([html.Th(name, scope="col") for name in ("Trial", "Outcome", "Candidate", "Reason")])
    rows = [
        html.Tr(
            [
                html.Td(record.number),
                html.Td(record.outcome.value),
                html.Td(record.digest, className="code"),
                html.Td((record.evaluation.reason or NO_REASON)[:_MOST_TEXT]),
            ]
        )
        for record in bad[: -_MOST_TOLD - 1 : -1]
    ]
    return [*parts, html.Div(html.Table([html.Thead(head), html.Tbody(rows)]), className="scroll")]


def facts(groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> list[object]:
    """Names and values under headings."""
    parts: list[object] = []
    for title, rows in groups:
        values = [html.Div([html.Dt(name), html.Dd(text)]) for name, text in rows]
        parts += [html.H3(title), html.Dl(values, className="facts wide")]
    return parts


def _cell(text: str) -> str:
    """Text for a table that is saved as CSV."""
    return spreadsheet_cell(text[:_MOST_TEXT])


def _score(record: TrialRecord, score: Objective) -> float | None:
    if not record.outcome.counts or score not in record.objectives:
        return None
    value = record.objectives[score]
    return round(100 * value, 2) if score.unit == "%" else float(f"{value:.4g}")


def _milliseconds(record: TrialRecord, name: str) -> float | None:
    latency = measured_latency(record.evaluation, name)
    return None if latency is None else float(f"{latency.ms:.4g}")
