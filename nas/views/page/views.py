"""The figures of a page's views, from what a run holds and what its reader chose."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import ParamSpec, TypeVar

import plotly.graph_objects as go

from nas.common.errors import InputError
from nas.common.text import capital
from nas.runs.picks import pick_all
from nas.runs.record import TrialRecord
from nas.runs.words import score_axis
from nas.tasks.base import Score
from nas.views.page.runs import Seen
from nas.views.report.curves import curve, learning_curves_figure, shown_y
from nas.views.report.figures import GREEN, ORANGE, PURPLE, SKY, VERMILLION, counting_axis, layout, member_names, quiet
from nas.views.report.layers import layers_figure
from nas.views.report.quantities import shown_scale, value_of
from nas.views.report.scatter import scatter_figure

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_OTHERS = [(VERMILLION, "triangle-up"), (GREEN, "square"), (PURPLE, "x"), (ORANGE, "star")]
"""Colour and symbol of each further run's front: either tells them apart."""
_LOG = {"auto": None, "log": True, "linear": False}


@dataclass(frozen=True)
class Axes:
    """What a reader of the front chose: quantities, scales, a colour, picks to mark, and whether what is behind is shown."""

    x: str
    y: str
    scale_x: str = "auto"
    scale_y: str = "auto"
    colour: str | None = None
    picks: str = ""
    dominated: bool = True


def drawn(figure: Callable[_P, go.Figure], *args: _P.args, **kwargs: _P.kwargs) -> go.Figure:
    """A figure; one that hand-made records keep from being drawn says so, and leaves the page alive."""
    try:
        return figure(*args, **kwargs)
    except Exception as error:
        logger.warning("%s cannot be drawn", figure.__name__, exc_info=True)
        return quiet(f"This figure cannot be drawn from these records ({type(error).__name__}).")


def front_figure(
    seen: Seen,
    axes: Axes,
    others: Mapping[str, Seen],
    chosen: TrialRecord | None,
    compared: Sequence[TrialRecord] = (),
) -> go.Figure:
    """The scatter of a run, over it the fronts of `others` by their keys, and last the rings of `compared` and `chosen`."""
    marks = {digest: " · ".join(names) for digest, names in member_names(seen.front, seen.objectives).items()}
    for text, record in picked(seen, axes.picks)[0].items():
        marks[record.digest] = " · ".join(filter(None, (marks.get(record.digest), text)))
    figure = scatter_figure(
        seen.comparable if axes.dominated else seen.front,
        seen.objectives,
        axes.x,
        axes.y,
        metric=seen.metric,
        images=seen.images,
        log_x=_LOG[axes.scale_x],
        log_y=_LOG[axes.scale_y],
        colour=axes.colour,
        space=seen.settings.space,
        marks=marks,
        limits=seen.settings.evaluation.limits,
        baselines=seen.baselines,
        again=seen.again,
        texts=seen.texts,
    )
    for (key, other), (colour, symbol) in zip(others.items(), _cycled(_OTHERS, len(others)), strict=True):
        figure.add_trace(_front_of(key, other, axes, colour, symbol))
    for axis in ("x", "y"):
        _widen(
            figure, axis, [value for trace in figure.data[-len(others) :] for value in trace[axis]] if others else []
        )
    figure.add_traces([rings(compared, axes), ring(chosen, axes)])
    # Ticks that nobody sees keep the lowest label of one axis off the first one of the other.
    figure.update_xaxes(ticks="outside", ticklen=5, tickcolor="rgba(0,0,0,0)")
    figure.update_layout(uirevision=f"{axes.x} {axes.y} {axes.scale_x} {axes.scale_y}")
    # Chosen points are told by their rings; plotly's own way dims all the others.
    figure.update_traces(
        selected={"marker": {}}, unselected={"marker": {"opacity": 0.6}}, selector={"name": "dominated"}
    )
    figure.update_traces(unselected={"marker": {"opacity": 1}}, selector={"name": "Pareto front"})
    return figure


def ring(chosen: TrialRecord | None, axes: Axes) -> go.Scatter:
    """A ring around the candidate that is open."""
    return _rings([chosen] if chosen else [], axes, "opened", VERMILLION)


def rings(compared: Sequence[TrialRecord], axes: Axes) -> go.Scatter:
    """Rings around the candidates that are compared."""
    return _rings(compared, axes, "compared", SKY)


def _rings(records: Sequence[TrialRecord], axes: Axes, name: str, colour: str) -> go.Scatter:
    """A point of no place where there is none, or where they lack a value."""
    places: Sequence[tuple[float | None, float | None]]
    places = [place for record in records if (place := _place(record, axes))] or [(None, None)]
    return go.Scatter(
        x=[place[0] for place in places],
        y=[place[1] for place in places],
        mode="markers",
        marker={"size": 20, "symbol": "circle-open", "color": colour, "line": {"width": 2.5}},
        hoverinfo="skip",
        showlegend=False,
        name=name,
    )


def picked(seen: Seen, texts: str) -> tuple[dict[str, TrialRecord], str]:
    """The candidates of some picks (`nas.runs.picks`) by their texts, and a sentence where one of them fits none."""
    found: dict[str, TrialRecord] = {}
    for text in (part.strip() for part in texts.split(",")):
        try:
            found |= {text: pick_all(seen.comparable, seen.objectives, [text])[0]} if text else {}
        except InputError as error:
            return found, capital(str(error).removeprefix("pick "))
    return found, ""


def strip_figure(record: TrialRecord, classes: int) -> go.Figure:
    """A candidate's layers, laid out for the narrow column that it opens in, without a legend."""
    figure = layers_figure(record.architecture, classes)
    longest = max(value for bars in figure.data for value in bars.x)
    figure.update_xaxes(title="Multiply-adds (%)", range=[0, 1.05 * longest], nticks=4)
    right = 100  # for the text behind the longest bar
    return figure.update_layout(showlegend=False, margin={"l": 0, "r": right, "t": 4}, height=figure.layout.height - 32)


def curves_figure(records: Mapping[str, TrialRecord], metric: Score) -> go.Figure:
    """Validation score (shares in percent) after each epoch of some candidates, by what they are called."""
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    figure = go.Figure(layout=layout())
    if not any(record.evaluation.epochs for record in records.values()):
        return quiet("Not trained, so there is no learning curve.")
    for (name, record), dash in zip(records.items(), _cycled(dashes, len(records)), strict=True):
        figure.add_trace(
            go.Scatter(
                **curve(record.evaluation.history, metric),
                line={"width": 2, "dash": dash},
                name=escape(name, quote=False),
                showlegend=len(records) > 1,
                hovertemplate=f"epoch %{{x}}: {shown_y(metric)}<extra></extra>",
            )
        )
    figure.update_layout(colorway=["#0072B2", VERMILLION, GREEN, ORANGE, PURPLE, "#56B4E9"])
    figure.update_xaxes(
        title="Epoch", **counting_axis([e.epoch for r in records.values() for e in r.evaluation.history])
    )
    figure.update_yaxes(title=escape(score_axis(metric), quote=False), tickformat=".4~g")
    return figure


def front_curves(seen: Seen) -> go.Figure:
    """Learning curves of the front."""
    if not seen.front:
        return quiet("Learning curves appear here once candidates are trained.")
    return learning_curves_figure(seen.comparable, seen.objectives, seen.metric)


def _front_of(key: str, other: Seen, axes: Axes, colour: str, symbol: str) -> go.Scatter:
    """Another run's front; its points carry its key behind their digest."""
    placed = [(record, place) for record in other.front if (place := _place(record, axes))]
    placed.sort(key=lambda each: each[1])
    name = escape(other.run.path.name, quote=False)
    return go.Scatter(
        x=[place[0] for _, place in placed],
        y=[place[1] for _, place in placed],
        mode="lines+markers",
        line={"color": colour, "width": 1, "dash": "dot", "shape": "hv"},
        marker={"color": colour, "size": 9, "symbol": symbol},
        customdata=[[record.digest, key] for record, _ in placed],
        hoverinfo="text",
        hovertext=[f"<b>{escape(record.digest, quote=False)}</b><br>front of {name}" for record, _ in placed],
        name=f"front of {name}",
    )


def _widen(figure: go.Figure, axis: str, values: Sequence[float]) -> None:
    """Make room for further values where the range of an axis is fixed, as it is beside a shaded region."""
    look = figure.layout[f"{axis}axis"]
    log = look.type == "log"
    scaled = [math.log10(value) if log else value for value in values if value > 0 or not log]
    if look.range is None or not scaled:
        return
    low, high = look.range
    margin = 0.03 * (high - low)
    low, high = min(low, min(scaled) - margin), max(high, max(scaled) + margin)
    look.range = [low, high]
    end = 10**high if log else high
    figure.update_shapes({f"{axis}1": end}, selector={"type": "rect", f"{axis}ref": axis})


def _place(record: TrialRecord, axes: Axes) -> tuple[float, float] | None:
    values = value_of(record, axes.x), value_of(record, axes.y)
    if values[0] is None or values[1] is None:
        return None
    return shown_scale(axes.x) * values[0], shown_scale(axes.y) * values[1]


def _cycled(values: Sequence[_T], count: int) -> list[_T]:
    return [values[i % len(values)] for i in range(count)]
