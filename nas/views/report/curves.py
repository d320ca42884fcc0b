"""Figures over epochs (plotly): learning curves, proxy against full trainings. As in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from nas.common.text import capital
from nas.runs.front import pareto_front
from nas.runs.record import Outcome, TrialRecord
from nas.runs.words import score_axis, score_title
from nas.tasks.base import Score
from nas.training.history import EpochMetrics
from nas.views.report.figures import BLUE, COLOURS, GREY, ORANGE, counting_axis, layout, member_names, quiet, wrapped
from nas.views.report.quantities import METRIC
from nas.workflows.fidelity.ranking import Audited


def learning_curves_figure(
    records: Sequence[TrialRecord], objectives: Sequence[str], metric: Score = METRIC
) -> go.Figure:
    """Validation score (shares in percent) after each epoch, for the members of the Pareto front and what was stopped early.

    The cheapest, the knee and the most accurate are named; the others are thin lines, the stopped ones grey and one
    trace together. The number of dominated candidates does not matter, so that the figure stays small.
    """
    front = pareto_front(records, objectives)
    stopped = [record.evaluation.history for record in records if record.outcome is Outcome.STOPPED]
    if not front and not stopped:
        return quiet("Learning curves appear here once a candidate is trained.")
    if not any(epoch.epoch for curve in (*stopped, *(each.evaluation.history for each in front)) for epoch in curve):
        return quiet("Scored without fine-tuning, so there are no learning curves.")
    figure = go.Figure(layout=layout())
    if stopped:
        figure.add_trace(
            go.Scatter(
                x=[x for epochs in stopped for x in (*(epoch.epoch for epoch in epochs), None)],
                y=[
                    y for epochs in stopped for y in (*(round(metric.scale * epoch.score, 3) for epoch in epochs), None)
                ],
                mode="lines+markers",  # one that was stopped after its first epoch is a point
                line={"color": GREY, "width": 1},
                marker={"size": 3},
                opacity=0.5,
                name="stopped early",
                hoverinfo="skip",
            )
        )
    named = member_names(front, objectives)
    for record in sorted(front, key=lambda record: record.digest in named):  # the named ones are drawn on top
        names = named.get(record.digest, ())
        figure.add_trace(
            go.Scatter(
                **curve(record.evaluation.history, metric),
                line={"color": COLOURS.get(names[-1], ORANGE) if names else BLUE, "width": 2 if names else 1},
                opacity=1 if names else 0.6,
                name=escape(" · ".join(names) or record.digest, quote=False),
                showlegend=bool(names),
                hovertemplate=f"{escape(record.digest, quote=False)}<br>epoch %{{x}}: {shown_y(metric)}<extra></extra>",
            )
        )
    curves = [*(record.evaluation.history for record in front), *stopped]
    epochs_seen = [epoch.epoch for epochs in curves for epoch in epochs]
    figure.update_xaxes(title="Epoch", **counting_axis(epochs_seen))
    figure.update_yaxes(title=escape(score_axis(metric), quote=False), tickformat=".4~g")
    return figure


def shown_y(metric: Score) -> str:
    """How plotly shows a score that lies on the y axis, with its unit."""
    return "%{y:.2f} %" if metric.unit == "%" else f"%{{y:.4~g}} {escape(metric.unit)}".rstrip()


def curve(history: Sequence[EpochMetrics], metric: Score) -> dict[str, Any]:
    """The scores, shares in percent, over the epochs of a training, as parts of a line."""
    return {
        "x": [epoch.epoch for epoch in history],
        "y": [round(metric.scale * epoch.score, 3) for epoch in history],
        "mode": "lines+markers" if len(history) <= 20 else "lines",
    }


def audit_figure(audited: Sequence[Audited], front: Sequence[TrialRecord], metric: Score = METRIC) -> go.Figure:
    """The mean score (shares in percent) of the full trainings against that of the search, members of the front apart.

    Bars join the full trainings. The dotted line is where a longer training would change nothing.
    """
    members, scale = {record.digest for record in front}, metric.scale
    figure = go.Figure(layout=layout())
    for name, colour, size, on_front in (("behind the front", GREY, 7, False), ("Pareto front", BLUE, 9, True)):
        group = [candidate for candidate in audited if (candidate.trial.digest in members) == on_front]
        means = [sum(candidate.full) / len(candidate.full) for candidate in group]
        brief = [candidate.brief[0] for candidate in group]
        figure.add_trace(
            go.Scatter(
                x=[round(scale * score, 4) for score in brief],
                y=[round(scale * score, 4) for score in means],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [scale * (max(each.full) - mean) for each, mean in zip(group, means, strict=True)],
                    "arrayminus": [scale * (mean - min(each.full)) for each, mean in zip(group, means, strict=True)],
                    "color": colour,
                    "thickness": 1.2,
                    "width": 0,
                },
                mode="markers",
                name=name,
                marker={"color": colour, "size": size},
                hoverinfo="text",
                hovertext=[_audit_hover(candidate, metric) for candidate in group],
            )
        )
    scores = [scale * score for candidate in audited for score in (candidate.brief[0], *candidate.full)]
    ends = [min(scores, default=0.0), max(scores, default=scale)]
    line = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False))
    title = escape(capital(score_title(metric)), quote=False)
    unit = f" ({escape(metric.unit, quote=False)})" if metric.unit else ""
    figure.update_xaxes(title=f"{title}, proxy training{unit}", tickformat=".4~g")
    figure.update_yaxes(title=f"{title}, full training{unit}", tickformat=".4~g")
    return figure


def _audit_hover(candidate: Audited, metric: Score) -> str:
    trial = candidate.trial
    lines = [
        f"<b>{escape(trial.digest, quote=False)}</b>  trial {trial.number}",
        "proxy " + ", ".join(metric.show(score) for score in candidate.brief),
        "full " + ", ".join(metric.show(score) for score in candidate.full),
    ]
    return "<br>".join([*lines, *(escape(line, quote=False) for line in wrapped(trial.text))])
