"""Figures of a run (plotly), as pure functions of its records. They carry no title: a page or an app gives one.

Backgrounds are transparent and text is mid-grey, so that a figure reads on a light and on a dark page. Text that
comes from a run's files is escaped, because plotly reads a few HTML tags in any text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from nas.runs.front import knee, primary_cost
from nas.runs.objectives import is_cost, is_score, objective, target_objective
from nas.runs.picks import fastest, score_loss
from nas.runs.record import BaselineRecord, TrialRecord
from nas.runs.words import cost_text, latency_text, protocol_text, score_title, trial_text
from nas.tasks.base import Score
from nas.views.report.quantities import unit_of
from nas.views.text import cheapest, label

# Okabe and Ito's palette (2008), told apart with any kind of colour vision.
BLUE, VERMILLION, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7"
SKY, YELLOW = "#56B4E9", "#F0E442"
GREY = "#8b8f94"

COLOURS = {"knee": VERMILLION, "most accurate": GREEN}

SVG_POINTS = 2_000
"""Points up to which SVG is used: it is as quick, prints sharply, and needs no WebGL on the reader's machine."""
_LOG_RANGE = 10
"""Ratio of the largest to the smallest cost from which the cost axis is logarithmic."""
_HOVER_WIDTH = 44
_FONT = "system-ui, sans-serif"
MONO = "ui-monospace, Menlo, Consolas, monospace"


def member_names(front: Sequence[TrialRecord], objectives: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What the members of a front are known for (cheapest, knee, most accurate), by digest, cheapest first."""
    if not front:
        return {}
    cost = primary_cost(objectives)
    first = fastest(front, objectives, cost) if objective(cost).unit == "ms" else front[0]
    best = min(front, key=lambda record: (score_loss(record, objectives), record.objectives[cost]))
    found: dict[str, tuple[str, ...]] = {}
    for record, name in ((first, cheapest(cost)), (knee(front, objectives), "knee"), (best, "most accurate")):
        found[record.digest] = (*found.get(record.digest, ()), name)
    return found


def cost_objectives(objectives: Sequence[str]) -> list[str]:
    """The objectives that are costs, in their order."""
    return [name for name in objectives if is_cost(name)]


def hover_text(record: TrialRecord | BaselineRecord, metric: Score, images: int) -> str:
    """What pointing at a candidate or a baseline shows, in plotly's own HTML."""
    latency, scores = record.evaluation.latency, [v for name, v in record.objectives.items() if not is_cost(name)]
    lines = [f"{score_title(metric)} {metric.text(value, images)}" for value in scores]
    lines += [
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


def quantity_axis(name: str, values: Sequence[float], log: bool | None = None) -> dict[str, Any]:
    """An axis of a quantity, shares in percent; `log` None is as the values ask."""
    if is_score(name):
        axis: dict[str, Any] = {"tickformat": ".4~g"}
    elif name == "trial":
        axis = counting_axis([int(value) for value in values])
    else:
        unit = unit_of(name)
        axis = {} if unit in ("ms", "s") else {"tickformat": "~s"}
        axis |= {"ticksuffix": "B"} if unit == "bytes" else {}  # behind the k or M of the format
    if log is None:
        log = name != "trial" and not is_score(name) and is_wide(values)
    if log and min(values, default=0) > 0:
        axis["type"] = "log"
        if is_wide(values):
            decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
            # Plotly's own ticks between two decades read "2" and "5", whatever the decade.
            axis["tickvals"] = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return axis


def is_wide(values: Sequence[float]) -> bool:
    """Whether values range so far that only a logarithmic scale shows them."""
    return min(values, default=0) > 0 and max(values) > _LOG_RANGE * min(values)


def counting_axis(counts: Sequence[int]) -> dict[str, Any]:
    """Whole numbers only: on a short axis plotly would put ticks between them."""
    short = not counts or max(counts) - min(counts) <= 8
    return {"tickformat": ",d", **({"dtick": 1} if short else {})}


def quiet(sentence: str) -> go.Figure:
    """A figure that says why there is nothing to see yet."""
    figure = go.Figure(layout=layout())
    centre = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    figure.add_annotation(text=escape(sentence, quote=False), **centre)
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False)


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
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        xaxis=axis,
        yaxis=axis,
    )
