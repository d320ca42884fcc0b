"""Pictures of a network's layers: what each is, what it sees, and its share of the work. As in `figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from nas.runs.objectives import objective
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.cost import part_costs
from nas.spaces.mobile.geometry import output_size
from nas.views.report.figures import BLUE, GREY, MONO, ORANGE, layout, quiet

KINDS = {
    "stem": (GREY, ""), "separable": (BLUE, ""), "dense": (ORANGE, "/"), "head": (GREY, "."), "classifier": (GREY, "x")
}  # fmt: skip
"""Colour and pattern of each kind of layer: either tells them apart."""

_ROW_PX = 26
_STRIP_PX = 190
_NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network: `kind` is a key of `KINDS`, sizes are sides of maps in pixels.

    `receptive_field` is the side in input pixels that one output depends on, as far as the image reaches beyond it
    too. `share` is that of the network's multiply-adds.
    """

    name: str
    kind: str
    kernel_size: int
    dilation: int
    expansion: float | None
    in_channels: int
    out_channels: int
    stride: int
    size_in: int
    size_out: int
    receptive_field: int
    macs: int
    params: int
    share: float

    @property
    def text(self) -> str:
        """What was chosen for it, in short: k5 d2 e4 /2."""
        if self.kind == "classifier":
            return ""
        parts = [f"k{self.kernel_size}"]
        parts += [f"d{self.dilation}"] if self.dilation > 1 else []
        parts += [f"e{self.expansion:.3g}"] if self.expansion is not None else []
        return " ".join([*parts, *([f"/{self.stride}"] if self.stride > 1 else [])])


def layer_rows(architecture: Architecture, classes: int) -> list[LayerRow]:
    """The layers of the canonical form, stem first; the head is there where it has channels."""
    arch = architecture.canonical
    costs = part_costs(arch, classes)
    whole = sum(macs for macs, _, _ in costs)
    stem, features = arch.stem, arch.output_shape
    side = output_size(arch.input_size, stem.stride)
    # name, kind, kernel, dilation, expansion, channels in and out, stride, side in and out
    parts: list[tuple[str, str, int, int, float | None, int, int, int, int, int]] = [
        ("stem", "stem", stem.kernel_size, 1, None, arch.input_channels, stem.out_channels, stem.stride, arch.input_size, side)
    ]  # fmt: skip
    for number, (layer, shape) in enumerate(arch.shapes(), 1):
        parts.append((
            str(number), "separable" if layer.separable else "dense", layer.kernel_size, layer.dilation,
            layer.expansion, shape.in_channels, layer.out_channels, layer.stride, shape.in_size,
            output_size(shape.in_size, layer.stride),
        ))  # fmt: skip
    last, end = features.in_channels, features.in_size
    if arch.head_channels:
        parts.append(("head", "head", 1, 1, None, last, arch.head_channels, 1, end, end))
        last = arch.head_channels
    # It reads the mean over the map, as a kernel of the map's size would.
    parts.append(("classifier", "classifier", end, 1, None, last, classes, 1, end, 1))
    rows, field, jump = [], 1, 1
    for part, (macs, params, _) in zip(parts, costs, strict=True):
        field += part[3] * (part[2] - 1) * jump
        jump *= part[7]
        rows.append(LayerRow(*part, field, macs, params, macs / whole))
    return rows


def layers_figure(architecture: Architecture, classes: int) -> go.Figure:
    """A bar a layer, from the image down to the classifier, as long as its share of the multiply-adds."""
    rows = layer_rows(architecture, classes)
    figure = go.Figure(layout=layout())
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        figure.add_trace(
            go.Bar(
                x=[round(100 * row.share, 3) for row in own],
                y=[_label(row) for row in own],
                text=[f"{100 * row.share:.1f} % · field {row.receptive_field}" for row in own],
                **_look(kind, own),
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

    Bars are multiply-adds, on one scale for all, so that a dearer network looks dearer.
    """
    if not architectures:
        return quiet("Choose two or more candidates to compare.")
    strips = {name: layer_rows(architecture, classes) for name, architecture in architectures.items()}
    most = max(len(rows) for rows in strips.values())
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
                **_look(kind, own),
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
    columns = ["stem", *(str(number) for number in range(1, most)), "head", "classifier"]
    present = {row.name for rows in strips.values() for row in rows}
    tallest = max(row.macs for rows in strips.values() for row in rows)
    base = layout().to_plotly_json()
    figure.update_xaxes(
        **base["xaxis"], type="category", categoryorder="array", categoryarray=[c for c in columns if c in present]
    )
    # Room above the tallest bar for the four lines of its text.
    figure.update_yaxes(
        {name: value for name, value in base["yaxis"].items() if name != "title"}, range=[0, 1.6 * tallest]
    )
    return figure.update_layout(height=70 + _STRIP_PX * len(strips), barmode="overlay", bargap=0.2)


# ---------------------------------------------------------------- bars


def _look(kind: str, rows: Sequence[LayerRow]) -> dict[str, Any]:
    colour, pattern = KINDS[kind]
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
    name = f"{row.name} {row.kind}" if row.kind in ("separable", "dense") else row.name
    words = (f"{name:<13}", f"{row.text:<11}", f"{row.in_channels:>4}→{row.out_channels:<4}")
    return "".join(words).replace(" ", _NO_BREAK)


def _hover(row: LayerRow) -> str:
    name = f"layer {row.name}, {row.kind}" if row.kind in ("separable", "dense") else row.name
    lines = [f"<b>{name}</b>"]
    if row.kind != "classifier":
        convolution = f"kernel {row.kernel_size}×{row.kernel_size}"
        convolution += f", dilation {row.dilation}" if row.dilation > 1 else ""
        convolution += f", expansion {row.expansion:.3g}" if row.expansion is not None else ""
        lines.append(f"{convolution}, stride {row.stride}")
    lines += [
        f"{row.in_channels:,} → {row.out_channels:,} channels, {row.size_in}×{row.size_in} → {row.size_out}×{row.size_out}",
        f"receptive field {row.receptive_field} pixels",
        f"{objective('macs').show(row.macs)} MACs ({100 * row.share:.1f} %), {objective('params').show(row.params)} parameters",
    ]
    return "<br>".join(lines)
