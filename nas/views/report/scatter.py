"""The scatter of a run's candidates: any quantity against any other, the front as a step line. As in `figures`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from nas.runs.confirmation import Confirmed
from nas.runs.front import pareto_front, trained
from nas.runs.objectives import is_cost, is_score, measured_latency, objective
from nas.runs.record import BaselineRecord, TrialRecord
from nas.spaces.base import Space
from nas.tasks.base import Score
from nas.views.report.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SVG_POINTS,
    hover_text,
    layout,
    quantity_axis,
    quiet,
)
from nas.views.report.point_colours import colour_text, key, paint_of
from nas.views.report.quantities import (
    METRIC,
    quantity_title,
    shown_scale,
    unit_of,
    value_of,
)

_SHADE = "rgba(213,94,0,0.12)"


def scatter_figure(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    x: str,
    y: str,
    *,
    metric: Score = METRIC,
    images: int = 0,
    log_x: bool | None = None,
    log_y: bool | None = None,
    colour: str | None = None,
    space: Space | None = None,
    marks: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    baselines: Sequence[BaselineRecord] = (),
    again: Mapping[str, Confirmed] | None = None,
    texts: dict[int, str] | None = None,
) -> go.Figure:
    """One quantity against another (`nas.views.report.quantities`), for the candidates trained to the full budget.

    Filled points are the front in all objectives. Where one axis is the score and the other a cost, a line joins what no
    candidate beats in these two. Bars are where a latency lies with 95 % (p10 to p90 of older records), and the standard error of a score on `images`
    images, where that is known. An axis is logarithmic as `log_x` and `log_y` say; None is as the values ask. `colour` is a
    quantity or a parameter of the `space`. `marks` are texts by digest. Beyond `limits`, hard budgets by objective in its
    unit, the plane is shaded, where that is near the candidates. `baselines` are trained reference networks, drawn as
    open squares with their names; the widths of one network are joined. `again` are longer trainings, by digest, drawn
    as open circles. Points carry their digest as the first of their `customdata`. `texts` keeps what pointing at a
    trial shows, by its number, for the next figure of the same run.
    """
    known = {} if texts is None else texts
    placed = [(record, place) for record in trained(records) if (place := _place(record, x, y)) is not None]
    drawn, at = [record for record, _ in placed], {record.number: place for record, place in placed}
    compared = [
        record for record in baselines if record.trained and None not in (value_of(record, x), value_of(record, y))
    ]
    if not drawn and not compared:
        return quiet("Candidates appear here once they are trained.")
    front = [record for record in pareto_front(records, objectives) if record.number in at]
    members = {record.number for record in front}
    dominated = [record for record in drawn if record.number not in members]
    figure = go.Figure(layout=layout())

    def point(group: Sequence[TrialRecord]) -> dict[str, Any]:
        known.update({each.number: hover_text(each, metric, images) for each in group if each.number not in known})
        return _points(group, at) | _hover(group, known, colour, space)

    paint, legend = paint_of(drawn, colour, space)
    scatter = go.Scatter if len(dominated) <= SVG_POINTS else go.Scattergl
    outline = {"line": {"color": GREY, "width": 1}} if colour else {}
    plain = colour is None
    if not plain:
        figure.add_traces([key("dominated", GREY, 6), key("Pareto front", GREY, 11)])
    look = {"color": paint(dominated, GREY), "size": 6, "opacity": 0.6, **outline}
    figure.add_trace(scatter(**point(dominated), name="dominated", marker=look, showlegend=plain))
    figure.add_trace(_step_line(drawn, at, x, y))
    look = {"color": paint(front, BLUE), "size": 11 if colour else 9, **outline}
    bars = {"error_x": _bars(front, x, metric, images), "error_y": _bars(front, y, metric, images)}
    figure.add_trace(go.Scatter(**point(front), **bars, name="Pareto front", marker=look, showlegend=plain))
    figure.add_traces(legend)
    figure.add_traces(_again(drawn, at, x, y, again or {}))
    figure.add_traces(_baselines(compared, x, y, metric, images))
    figure.add_traces(_marks(drawn, at, marks or {}))
    for index, axis, name, log in ((0, "x", x, log_x), (1, "y", y, log_y)):
        values = [place[index] for place in at.values()] + _beyond(drawn, compared, name)
        if is_score(name):
            values += [shown_scale(name) * score for score in _scores_again(drawn, again or {})]
        look = quantity_axis(name, values, log) | {"title": {"text": escape(quantity_title(name, metric), quote=False)}}
        if limits and name in limits:
            look |= _shade(figure, axis, name, shown_scale(name) * limits[name], values, look)
        figure.update_layout({f"{axis}axis": look})
    return figure


def _scores_again(records: Sequence[TrialRecord], again: Mapping[str, Confirmed]) -> list[float]:
    """What longer trainings of the records gave."""
    return [again[record.digest].score for record in records if record.digest in again]


# ---------------------------------------------------------------- points


Place = tuple[float, float]
"""Where a candidate is drawn: x and y, as the axes show them."""


def _place(record: TrialRecord | BaselineRecord, x: str, y: str) -> Place | None:
    """Where a record is drawn, shares in percent; None where it lacks one of the two."""
    found = tuple(_scaled(value, name) for name in (x, y) if (value := value_of(record, name)) is not None)
    return (found[0], found[1]) if len(found) == 2 else None


def _scaled(value: float, name: str) -> float:
    scale = shown_scale(name)
    return round(scale * value, 4) if scale != 1 else _short(value)


def _short(value: float) -> float:
    """To six digits: a page holds thousands of values."""
    return float(f"{value:.6g}")


def _points(records: Sequence[TrialRecord], at: Mapping[int, Place]) -> dict[str, Any]:
    """Coordinates of trials, and their digests; `at` is where each is drawn, by its number."""
    return _coordinates([at[record.number] for record in records]) | {
        "customdata": _column([[record.digest] for record in records])
    }


def _hover(
    records: Sequence[TrialRecord], texts: Mapping[int, str], colour: str | None, space: Space | None
) -> dict[str, Any]:
    """What pointing at trials shows, with the value that their colour means."""
    shown = [texts[record.number] for record in records]
    if colour is not None:
        shown = [f"{text}<br>{colour_text(each, colour, space)}" for text, each in zip(shown, records, strict=True)]
    # Ready text instead of a template: a template would read the `%{...}` that a file might hold.
    return {"mode": "markers", "hoverinfo": "text", "hovertext": _column(shown)}


def _coordinates(places: Sequence[Place]) -> dict[str, Any]:
    return {"x": [place[0] for place in places], "y": [place[1] for place in places]}


def _column(values: Sequence[object]) -> NDArray[np.object_]:
    """As an array: plotly looks at each member of a list."""
    return np.array(values, dtype=object)


def _step_line(records: Sequence[TrialRecord], at: Mapping[int, Place], x: str, y: str) -> go.Scatter:
    """What no candidate beats in the two axes; no points where they are not the score and a cost."""
    cost = y if is_score(x) else x
    line: list[TrialRecord] = []
    if (is_score(x) or is_score(y)) and is_cost(cost):
        valued = [replace(record, objectives=dict(zip((x, y), at[record.number], strict=True))) for record in records]
        line = pareto_front(valued, (x, y))
        line.sort(key=lambda record: record.objectives[cost])
    return go.Scatter(
        **_coordinates([at[record.number] for record in line]),
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv" if cost == x else "vh"},
        hoverinfo="skip",
        showlegend=False,
    )


def _bars(records: Sequence[TrialRecord], name: str, metric: Score, images: int) -> dict[str, Any] | None:
    """The error bars of one axis: of a latency or the score, of nothing else."""
    look = {"type": "data", "color": "rgba(0,114,178,0.7)", "thickness": 1.2, "width": 0}
    if is_score(name):
        errors = [metric.error(value_of(record, name) or 0.0, images) for record in records]
        return look | {"array": [_short(metric.scale * (error or 0.0)) for error in errors]} if any(errors) else None
    if unit_of(name) != "ms":
        return None
    measured = [measured_latency(record.evaluation, name) for record in records]
    return look | {
        "symmetric": False,
        "array": [_short(latency.range_ms[1] - latency.ms) if latency else 0.0 for latency in measured],
        "arrayminus": [_short(latency.ms - latency.range_ms[0]) if latency else 0.0 for latency in measured],
    }


def _again(
    records: Sequence[TrialRecord], at: Mapping[int, Place], x: str, y: str, again: Mapping[str, Confirmed]
) -> list[go.Scatter]:
    """The scores of longer trainings, where an axis is the score."""
    retrained = [record for record in records if record.digest in again]
    if not retrained or not (is_score(x) or is_score(y)):
        return []
    found = [again[record.digest] for record in retrained]
    axis, scale = ("x", shown_scale(x)) if is_score(x) else ("y", shown_scale(y))
    error = {"type": "data", "color": GREEN, "thickness": 1.2, "width": 0}
    places = _points(retrained, at) | {
        axis: [round(scale * one.score, 4) for one in found],
        f"error_{axis}": error | {"array": [scale * (one.error or 0.0) for one in found]},
    }
    texts = [
        f"<b>{escape(record.digest, quote=False)}</b>  trained again<br>{one.text}, {one.trainings} × {one.epochs} epochs"
        for record, one in zip(retrained, found, strict=True)
    ]
    return [
        go.Scatter(
            **places,
            mode="markers",
            name="trained again, longer",
            marker={"color": GREEN, "size": 9, "symbol": "circle-open", "line": {"width": 2}},
            hoverinfo="text",
            hovertext=texts,
        )
    ]


def _baselines(baselines: Sequence[BaselineRecord], x: str, y: str, metric: Score, images: int) -> list[go.Scatter]:
    return [
        go.Scatter(
            **_coordinates([place for record in widths if (place := _place(record, x, y)) is not None]),
            hoverinfo="text",
            hovertext=[hover_text(record, metric, images) for record in widths],
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
        for number, (family, widths) in enumerate(_families(baselines, x).items())
    ]


def _families(baselines: Sequence[BaselineRecord], x: str) -> dict[str, list[BaselineRecord]]:
    """Reference networks by their x, the widths of one together (mobilenet_v2_050, _100) where there are several."""
    found: dict[str, list[BaselineRecord]] = {}
    for record in sorted(baselines, key=lambda record: value_of(record, x) or 0.0):
        found.setdefault(re.sub(r"_\d{3}$", "", record.name), []).append(record)
    return {family if len(those) > 1 else those[0].name: those for family, those in found.items()}


def _marks(records: Sequence[TrialRecord], at: Mapping[int, Place], marks: Mapping[str, str]) -> list[go.Scatter]:
    """A diamond with its text at each marked candidate; what is pointed at is the point below it."""
    marked = [record for record in records if record.digest in marks]
    across = [place[0] for place in at.values()]
    middle = sum((min(across), max(across))) / 2 if across else 0.0
    return [
        go.Scatter(
            **_points([record], at),
            mode="markers+text",
            name=escape(marks[record.digest], quote=False),
            text=[escape(marks[record.digest], quote=False)],
            # A front rises to the right: beside it there is room above on the left and below on the right.
            textposition="bottom right" if at[record.number][0] < middle else "top left",
            textfont={"size": 12},
            cliponaxis=False,
            marker={"color": _mark_colour(marks[record.digest]), "size": 13, "symbol": "diamond"},
            hoverinfo="skip",
            showlegend=False,
        )
        for record in marked
    ]


def _mark_colour(text: str) -> str:
    return next((colour for name, colour in COLOURS.items() if name in text.replace("-", " ")), ORANGE)


# ---------------------------------------------------------------- axes


def _beyond(records: Sequence[TrialRecord], baselines: Sequence[BaselineRecord], name: str) -> list[float]:
    """What an axis has to show beside the points of the candidates: baselines, and the ends of a latency's bars."""
    values = [_scaled(value, name) for record in baselines if (value := value_of(record, name)) is not None]
    if unit_of(name) == "ms":
        measured = [measured_latency(record.evaluation, name) for record in records]
        values += [bound for latency in measured if latency for bound in latency.range_ms]
    return values


def _shade(
    figure: go.Figure, axis: str, name: str, limit: float, values: Sequence[float], look: Mapping[str, Any]
) -> dict[str, Any]:
    """Shade what is beyond a hard budget, up to the end of the axis, which is returned as its range.

    A budget far beyond every candidate would squeeze them into a corner, and says nothing there.
    """
    upper = objective(name).direction == "minimize"
    if (upper and limit > 1.5 * max(values)) or (not upper and limit < min(values) - 0.5 * abs(min(values))):
        return {}
    log = look.get("type") == "log"
    if log and limit <= 0:
        return {}
    scale: Callable[[float], float] = math.log10 if log else float
    low, high = min(map(scale, (*values, limit))), max(map(scale, (*values, limit)))
    low, high = low - 0.06 * ((high - low) or 1.0), high + 0.06 * ((high - low) or 1.0)
    end = high if upper else low
    across = "y" if axis == "x" else "x"
    ends = {f"{across}ref": f"{across} domain", f"{across}0": 0, f"{across}1": 1, f"{axis}ref": axis}
    far = 10.0**end if log else end
    figure.add_shape(
        type="rect", **ends, **{f"{axis}0": limit, f"{axis}1": far}, fillcolor=_SHADE, line_width=0, layer="below",
        name="beyond a hard budget", showlegend=not figure.layout.shapes,
    )  # fmt: skip
    line = {"color": ORANGE, "dash": "dot", "width": 1.5}
    figure.add_shape(type="line", **ends, **{f"{axis}0": limit, f"{axis}1": limit}, line=line)
    return {"range": [low, high]}
