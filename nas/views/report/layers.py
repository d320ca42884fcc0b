"""Pictures of a network's layers: what each is, what it sees, and its share of the work. As in `figures`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.runs.objectives import objective
from nas.spaces.base import Architecture, LayerRow
from nas.spaces.families import layer_rows
from nas.views.report.figures import BLUE, GREEN, GREY, MONO, ORANGE, PURPLE, VERMILLION, layout, quiet

_NAMED = {
    "stem": (GREY, ""), "separable": (BLUE, ""), "fused": (ORANGE, "/"), "head": (GREY, "."), "classifier": (GREY, "x")
}  # fmt: skip
_OTHERS = ((BLUE, ""), (ORANGE, "/"), (GREEN, "\\"), (PURPLE, "-"), (VERMILLION, "+"))

_ROW_PX = 26
_STRIP_PX = 190
_NO_BREAK = "\u00a0"


def looks(kinds: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and pattern of each kind of layer: either tells them apart."""
    others = itertools.cycle(_OTHERS)
    return {kind: _NAMED.get(kind) or next(others) for kind in dict.fromkeys(kinds)}


def layers_figure(architecture: Architecture, classes: int) -> go.Figure:
    """A bar a layer, from the image down to the classifier, as long as its share of the multiply-adds."""
    rows = layer_rows(architecture, classes)
    figure = go.Figure(layout=layout())
    for kind, look in looks(row.kind for row in rows).items():
        own = [row for row in rows if row.kind == kind]
        figure.add_trace(
            go.Bar(
                x=[round(100 * row.share, 3) for row in own],
                y=[_label(row) for row in own],
                text=[f"{100 * row.share:.1f} %{_field(row, ' · field {}')}" for row in own],
                **_drawn(kind, look, own),
                orientation="h",
                textposition="outside",
                cliponaxis=False,
            )
        )
    longest = 100 * max(row.share for row in rows)
    labels = [_label(row) for row in rows]
    # Room for the texts behind the bars, which makes the axis longer than a share can be.
    figure.update_xaxes(
        title="Share of MACs (%)",
        range=[0, 2 * longest],
        tickvals=list(range(0, 101, 50 if longest > 50 else 25 if longest > 25 else 10)),
        tickangle=0,
    )
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=labels[::-1], tickfont={"family": MONO, "size": 12},
        tickvals=labels, ticklabelstandoff=8, showgrid=False,
    )  # fmt: skip
    return figure.update_layout(
        height=70 + _ROW_PX * len(rows), bargap=0.25, barmode="overlay", showlegend=False, margin={"t": 8}
    )


def compare_figure(architectures: Mapping[str, Architecture], classes: int) -> go.Figure:
    """The layers of several networks by name, a strip each above the next, aligned from the stem on.

    Bars are multiply-adds, on one scale for all, so that a more expensive network looks more expensive.
    """
    if not architectures:
        return quiet("Choose two or more candidates to compare.")
    strips = {name: layer_rows(architecture, classes) for name, architecture in architectures.items()}
    known = looks(row.kind for rows in strips.values() for row in rows)
    figure = make_subplots(
        rows=len(strips),
        shared_xaxes=True,
        vertical_spacing=min(0.1, 0.5 / len(strips)),
        figure=go.Figure(layout=layout()),
    )
    seen: set[str] = set()
    for number, (name, rows) in enumerate(strips.items(), 1):
        for kind in dict.fromkeys(row.kind for row in rows):
            own = [row for row in rows if row.kind == kind]
            bars = go.Bar(
                x=[row.name for row in own],
                y=[row.macs for row in own],
                text=[f"{row.text.replace(' ', '<br>')}<br>{row.out_channels}".removeprefix("<br>") for row in own],
                **_drawn(kind, known[kind], own),
                textposition="outside",
                textangle=0,
                cliponaxis=False,
                legendgroup=kind,
                showlegend=kind not in seen,
            )
            seen.add(kind)
            figure.add_trace(bars, row=number, col=1)
        title = {"text": escape(name, quote=False), "standoff": 4, "font": {"size": 12}}
        figure.update_yaxes(title=title, tickformat="~s", row=number, col=1)
    tallest = max(row.macs for rows in strips.values() for row in rows)
    base = layout().to_plotly_json()
    figure.update_xaxes(
        **base["xaxis"], type="category", categoryorder="array", categoryarray=_columns(strips.values())
    )
    # Room above the tallest bar for the four lines of its text.
    figure.update_yaxes(
        {name: value for name, value in base["yaxis"].items() if name != "title"}, range=[0, 1.6 * tallest]
    )
    return figure.update_layout(height=70 + _STRIP_PX * len(strips), barmode="overlay", bargap=0.2)


# ---------------------------------------------------------------- bars


def _columns(strips: Iterable[Sequence[LayerRow]]) -> list[str]:
    """The names of all layers: what comes before those that are numbered, these, and what comes after them."""
    before: dict[str, None] = {}
    numbers: set[int] = set()
    after: dict[str, None] = {}  # the last one first: a network may lack what stands before its end
    for rows in strips:
        names = [row.name for row in rows]
        of_layers = [place for place, name in enumerate(names) if name.isdecimal()] or [len(names)]
        before |= dict.fromkeys(names[: of_layers[0]])
        numbers |= {int(name) for name in names if name.isdecimal()}
        after |= dict.fromkeys(reversed(names[of_layers[-1] + 1 :]))
    return [*before, *map(str, sorted(numbers)), *reversed(after)]


def _drawn(kind: str, look: tuple[str, str], rows: Sequence[LayerRow]) -> dict[str, Any]:
    colour, pattern = look
    hatch = {"shape": pattern, "bgcolor": colour, "fgcolor": "rgba(255,255,255,0.6)", "size": 6, "solidity": 0.25}
    return {
        "name": kind,
        "marker": {"color": colour, "pattern": hatch, "line": {"width": 0}},
        "textfont": {"size": 11},
        "hoverinfo": "text",
        "hovertext": [_hover(row) for row in rows],
        "hoverlabel": {"font": {"color": "#f3f4f6"}},
    }


def _label(row: LayerRow) -> str:
    """Name and kind, choices and channels, in columns of a fixed width."""
    name = row.name if row.name == row.kind else f"{row.name} {row.kind}"
    words = (f"{name:<13}", f"{row.text:<11}", f"{row.in_channels:>4}→{row.out_channels:<4}")
    return "".join(words).replace(" ", _NO_BREAK)


def _field(row: LayerRow, text: str) -> str:
    return "" if row.receptive_field is None else text.format(row.receptive_field)


def _hover(row: LayerRow) -> str:
    name = row.name if row.name == row.kind else f"layer {row.name}, {row.kind}"
    lines = [
        f"<b>{name}</b>",
        row.details,
        f"{row.in_channels:,} → {row.out_channels:,} channels, {row.size_in}×{row.size_in} → {row.size_out}×{row.size_out}",
        _field(row, "receptive field {} pixels"),
        f"{objective('macs').show(row.macs)} MACs ({100 * row.share:.1f} %), {objective('params').show(row.params)} parameters",
    ]
    return "<br>".join(line for line in lines if line)
