"""Figures of a run (plotly), as pure functions of its records. They carry no title: a page or an app gives one.

Backgrounds are transparent and text is mid-grey, so that a figure reads on a light and on a dark page. Text that
comes from a run's files is escaped, because plotly reads a few HTML tags in any text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from nas.confirmation import Confirmed
from nas.front import knee, pareto_front, primary_cost, trained
from nas.objectives import measured_latency, objective, target_objective
from nas.record import TrialRecord
from nas.run import BaselineRecord
from nas.wording import (
    capital,
    cheapest,
    cost_text,
    cost_title,
    label,
    latency_text,
    protocol_text,
    score_text,
    score_title,
    standard_error,
    trial_text,
)

# Okabe and Ito's palette (2008), told apart with any kind of colour vision.
BLUE, VERMILLION, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7"
GREY = "#8b8f94"

COLOURS = {"knee": VERMILLION, "most accurate": GREEN}

_SVG_POINTS = 2_000
"""Points up to which SVG is used: it is as quick, prints sharply, and needs no WebGL on the reader's machine."""
_LOG_RANGE = 10
"""Ratio of the largest to the smallest cost from which the cost axis is logarithmic."""
_HOVER_WIDTH = 44
_FONT = "system-ui, sans-serif"


def pareto_figure(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    cost: str,
    metric: str = "accuracy",
    images: int = 0,
    limit: float | None = None,
    baselines: Sequence[BaselineRecord] = (),
    again: Mapping[str, Confirmed] | None = None,
) -> go.Figure:
    """Accuracy in percent against one cost objective, for the candidates trained to the full budget.

    The line joins what no candidate beats in these two objectives; the filled points are the front in all of
    them. Bars are p10 to p90 of a latency, and the binomial standard error of an accuracy on `images` images.
    `limit` is the hard budget of the cost, in its unit. `baselines` are trained reference networks, drawn as open
    squares with their names; the widths of one network are joined. `again` are longer trainings, by digest, drawn as
    open circles.
    """
    front = pareto_front(records, objectives)
    members = {record.number for record in front}
    dominated = [record for record in trained(records) if record.number not in members]
    line = pareto_front(records, ("accuracy", cost))

    figure = go.Figure(layout=layout())
    scatter = go.Scatter if len(dominated) <= _SVG_POINTS else go.Scattergl
    figure.add_trace(
        scatter(
            **_points(dominated, cost),
            **_hover(dominated, metric, images),
            mode="markers",
            name="dominated",
            marker={"color": GREY, "size": 6, "opacity": 0.6},
        )
    )
    figure.add_trace(
        go.Scatter(
            **_points(line, cost),
            mode="lines",
            line={"color": BLUE, "width": 2, "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_trace(
        go.Scatter(
            **_points(front, cost),
            **_hover(front, metric, images),
            **_error_bars(front, cost, metric, images),
            mode="markers",
            name="Pareto front",
            marker={"color": BLUE, "size": 9},
        )
    )
    if front:
        figure.add_trace(
            go.Scatter(
                **_points([knee(front, objectives)], cost),
                mode="markers",
                name="knee",
                marker={"color": VERMILLION, "size": 13, "symbol": "diamond"},
                hoverinfo="skip",
            )
        )
    retrained = [record for record in trained(records) if again and record.digest in again]
    if again and retrained:
        found = [again[record.digest] for record in retrained]
        figure.add_trace(
            go.Scatter(
                x=_points(retrained, cost)["x"],
                y=[round(100 * one.score, 4) for one in found],
                error_y={
                    "type": "data",
                    "array": [100 * (one.error or 0.0) for one in found],
                    "color": GREEN,
                    "thickness": 1.2,
                    "width": 0,
                },
                mode="markers",
                name="trained again, longer",
                marker={"color": GREEN, "size": 9, "symbol": "circle-open", "line": {"width": 2}},
                hoverinfo="text",
                hovertext=[
                    f"<b>{escape(record.digest, quote=False)}</b>  trained again<br>{one.text}, {one.trainings} × "
                    f"{one.epochs} epochs"
                    for record, one in zip(retrained, found, strict=True)
                ],
            )
        )
    for number, (family, widths) in enumerate(_families(baselines, cost).items()):
        figure.add_trace(
            go.Scatter(
                **_points(widths, cost),
                **_hover(widths, metric, images),
                mode="lines+markers+text",
                name="baseline",
                legendgroup="baseline",
                showlegend=number == 0,
                line={"color": PURPLE, "width": 1, "dash": "dot"},
                marker={"color": PURPLE, "size": 9, "symbol": "square-open", "line": {"width": 2}},
                text=[escape(family, quote=False)],
                textposition="top center",
                textfont={"size": 12},
                cliponaxis=False,
            )
        )
    drawn: list[TrialRecord | BaselineRecord] = [*front, *dominated, *baselines]
    values = [record.objectives[cost] for record in drawn]
    # A budget far beyond every candidate would squeeze them into a corner, and says nothing there.
    if limit is not None and values and limit < 1.5 * max(values):
        line_style = {"color": ORANGE, "dash": "dot", "width": 1.5}
        figure.add_vline(limit, line=line_style, name="hard budget", showlegend=True)
    figure.update_xaxes(title=cost_title(cost), **_cost_axis(cost, values))
    figure.update_yaxes(title=escape(f"{capital(score_title(metric))} (%)", quote=False), tickformat=".4~g")
    return figure


def landmarks(front: Sequence[TrialRecord], objectives: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What the members of a front are known for (cheapest, knee, most accurate), by digest, cheapest first."""
    if not front:
        return {}
    cost = primary_cost(objectives)
    best = max(front, key=lambda record: (record.objectives["accuracy"], -record.objectives[cost]))
    found: dict[str, tuple[str, ...]] = {}
    for record, name in ((front[0], cheapest(cost)), (knee(front, objectives), "knee"), (best, "most accurate")):
        found[record.digest] = (*found.get(record.digest, ()), name)
    return found


def cost_objectives(objectives: Sequence[str]) -> list[str]:
    """The objectives that are not accuracy, in their order."""
    return [name for name in objectives if name != "accuracy"]


# ---------------------------------------------------------------- parts of a figure


def _points(records: Sequence[TrialRecord | BaselineRecord], cost: str) -> dict[str, list[float]]:
    return {
        "x": [float(f"{record.objectives[cost]:.6g}") for record in records],
        "y": [round(100 * record.objectives["accuracy"], 4) for record in records],
    }


def _families(baselines: Sequence[BaselineRecord], cost: str) -> dict[str, list[BaselineRecord]]:
    """Reference networks cheapest first, the widths of one together (mobilenet_v2_050, _100) where there are several."""
    found: dict[str, list[BaselineRecord]] = {}
    for record in sorted(baselines, key=lambda record: record.objectives[cost]):
        found.setdefault(re.sub(r"_\d{3}$", "", record.name), []).append(record)
    return {family if len(those) > 1 else those[0].name: those for family, those in found.items()}


def _error_bars(records: Sequence[TrialRecord], cost: str, metric: str, images: int) -> dict[str, Any]:
    look = {"type": "data", "color": "rgba(0,114,178,0.7)", "thickness": 1.2, "width": 0}
    bars: dict[str, Any] = {}
    if objective(cost).unit == "ms":
        measured = [measured_latency(record.evaluation, cost) for record in records]
        bars["error_x"] = {
            **look,
            "symmetric": False,
            "array": [latency.p90_ms - latency.median_ms if latency else 0.0 for latency in measured],
            "arrayminus": [latency.median_ms - latency.p10_ms if latency else 0.0 for latency in measured],
        }
    errors = [standard_error(record.objectives["accuracy"], metric, images) for record in records]
    if any(errors):
        bars["error_y"] = {**look, "array": [100 * (error or 0.0) for error in errors]}
    return bars


def _hover(records: Sequence[TrialRecord | BaselineRecord], metric: str, images: int) -> dict[str, Any]:
    # Ready text instead of a template: a template would read the `%{...}` that a file might hold.
    return {"hoverinfo": "text", "hovertext": [hover_text(record, metric, images) for record in records]}


def hover_text(record: TrialRecord | BaselineRecord, metric: str, images: int) -> str:
    """What pointing at a candidate or a baseline shows, in plotly's own HTML."""
    latency = record.evaluation.latency
    lines = [
        f"{score_title(metric)} {score_text(record.objectives['accuracy'], metric, images)}",
        "latency not measured" if latency is None else f"latency {latency_text(latency)}",
        cost_text(record),
    ]
    if latency is not None:
        lines.append(protocol_text(latency))
    lines += [f"{label(target_objective(name))} {latency_text(on)}" for name, on in record.evaluation.latencies.items()]
    if isinstance(record, BaselineRecord):
        name, of, about = record.name, f"from {record.init}", []
    else:
        name, of, about = record.digest, trial_text(record), wrapped(record.text)
    head = f"<b>{escape(name, quote=False)}</b>  {escape(of, quote=False)}"
    return "<br>".join([head, *(escape(line, quote=False) for line in [*about, *lines])])


def wrapped(architecture: str) -> list[str]:
    """The compact string in lines of a readable length, broken where a layer begins."""
    lines = [""]
    for part in re.split(r"(?<=-)", architecture):
        if len(lines[-1]) + len(part) > _HOVER_WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += part
    return lines


def _cost_axis(cost: str, values: Sequence[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {} if objective(cost).unit == "ms" else {"tickformat": "~s"}
    if objective(cost).unit == "bytes":
        axis["ticksuffix"] = "B"  # behind the k or M of the format
    if values and min(values) > 0 and max(values) > _LOG_RANGE * min(values):
        decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
        # Plotly's own ticks between two decades read "2" and "5", whatever the decade.
        axis |= {"type": "log", "tickvals": [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]}
    return axis


def counting_axis(counts: Sequence[int]) -> dict[str, Any]:
    """Whole numbers only: on a short axis plotly would put ticks between them."""
    short = not counts or max(counts) - min(counts) <= 8
    return {"tickformat": ",d", **({"dtick": 1} if short else {})}


def layout() -> go.Layout:
    """What all figures look like."""
    grid = {"gridcolor": "rgba(128,128,128,0.2)", "linecolor": "rgba(128,128,128,0.5)", "zeroline": False}
    axis = {**grid, "showline": True, "automargin": True, "title": {"standoff": 10}}
    return go.Layout(
        template={},
        font={"family": _FONT, "size": 13, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 16, "t": 36, "b": 48},
        hovermode="closest",
        hoverlabel={
            "align": "left",
            "bgcolor": "#22262b",
            "bordercolor": "#22262b",
            "font": {"color": "#f3f4f6", "size": 12, "family": _FONT},
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        xaxis=axis,
        yaxis=axis,
    )
