"""What the front is made of: which choice at which layer, and candidates along parallel axes. As in `figures`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from nas.common.text import capital, plural
from nas.runs.front import pareto_front, trained
from nas.runs.objectives import is_score, objective
from nas.runs.record import TrialRecord
from nas.spaces.base import Choice, Space
from nas.views.report.figures import BLUE, GREY, MONO, is_wide, layout, quiet
from nas.views.report.quantities import choice_of, choice_text, shown_scale, unit_of, value_of
from nas.views.text import NOTHING, label

_PARAMETERS = 6
"""Parameters that get an axis of their own, those that vary most on the front."""
_LINES = 200
"""Candidates behind the front that are drawn as lines at most, spread evenly: more hide each other."""
_NOT_THERE = "not there"
LEAST_MEMBERS = 5
"""Members of a front from which shares of them are shown."""
_LEAST_LAYERS = 3
"""Networks that must have a layer before the shares of its choices are shown."""


def few_members(front: Sequence[TrialRecord]) -> str | None:
    """Why shares of the front would say nothing, in a sentence; None where they can be shown."""
    if len(front) >= LEAST_MEMBERS:
        return None
    return (
        f"The front has {plural(len(front), 'member')}: shares of so few would be 0, 50 or 100 % by chance. They are shown from "
        f"{LEAST_MEMBERS} members on."
    )


def choices_figure(records: Sequence[TrialRecord], objectives: Sequence[str], space: Space) -> go.Figure:
    """A heat map: the share of the front's members that take each choice, of those that have the layer.

    The last column is the share of members that lack the layer. Of a layer that hardly any of them have no share is shown.
    What all trained candidates take is in the text.
    """
    front, everything = pareto_front(records, objectives), trained(records)
    columns = _columns(space)
    if not front:
        return quiet("What the front prefers can be told once a candidate is trained.")
    few = few_members(front)
    if few is not None:
        return quiet(few)
    if not columns:
        return quiet("The layers of this space have no choices.")
    layers = _layers(space)
    shares: list[list[float | None]] = []
    hovers = []
    for place, layer in layers.items():
        of_front, of_all = (_Taken.of(group, layer, space) for group in (front, everything))
        offered = _offered(layer, space)
        shares.append([of_front.share(column) if column in offered else None for column in columns])
        hovers.append(
            [
                f"<b>{place}</b> {column}<br>"
                + (
                    f"front: {of_front.text(column)}<br>all trained: {of_all.text(column)}"
                    if column in offered
                    else "no choice"
                )
                for column in columns
            ]
        )
    figure = go.Figure(layout=layout())
    figure.add_trace(
        go.Heatmap(
            x=columns,
            y=list(layers),
            z=[[None if share is None else round(100 * share, 1) for share in line] for line in shares],
            text=[["" if share is None else f"{100 * share:.0f}" for share in line] for line in shares],
            texttemplate="%{text}",
            hoverinfo="text",
            hovertext=hovers,
            zmin=0,
            zmax=100,
            colorscale="Cividis",
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": "Share of the front (%)", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    figure.update_xaxes(type="category", side="top", showgrid=False, showline=False, tickangle=-45)
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, showline=False, tickfont={"family": MONO, "size": 12}
    )
    return figure.update_layout(height=124 + 26 * len(layers), margin={"t": 90, "b": 16})


def parallel_figure(records: Sequence[TrialRecord], objectives: Sequence[str], space: Space) -> go.Figure:
    """Objectives, multiply-adds and the parameters that vary most on the front, an axis each, a line a candidate.

    Members of the front are blue; drag along an axis to pick out lines. A choice of a layer that is not there is its own.
    """
    valued = [record for record in trained(records) if all(name in record.objectives for name in objectives)]
    names = list(objectives)
    if "macs" not in names and all(value_of(record, "macs") is not None for record in valued):
        names.append("macs")
    front = pareto_front(valued, objectives)
    if not front:
        return quiet("Candidates appear here once they are trained.")
    members = {record.number for record in front}
    behind = [record for record in valued if record.number not in members]
    drawn = [*behind[:: -(-len(behind) // _LINES) or 1], *front]  # the last ones are drawn on top
    varied = sorted(space.parameters, key=lambda name: -_entropy([choice_of(record, name, space) for record in front]))
    figure = go.Figure(layout=layout())
    figure.add_trace(
        go.Parcoords(
            dimensions=[
                *(_quantity_axis(drawn, name) for name in names),
                *(_choice_axis(drawn, name, space) for name in varied[:_PARAMETERS]),
            ],
            line={
                "color": [int(record.number in members) for record in drawn],
                "colorscale": [[0, "rgba(139,143,148,0.35)"], [1, BLUE]],
                "cmin": 0,
                "cmax": 1,
            },
            labelangle=-25,
            labelfont={"color": GREY, "size": 12},
            tickfont={"color": GREY, "size": 11},
            rangefont={"color": GREY, "size": 10},
            unselected={"line": {"color": GREY, "opacity": 0.1}},
        )
    )
    return figure.update_layout(margin={"l": 80, "r": 80, "t": 100, "b": 24})


# ---------------------------------------------------------------- choices of a layer


@dataclass(frozen=True)
class _Taken:
    """How many of some networks lack a layer, and how many of the others take each choice in it."""

    networks: int
    counts: Counter[str]

    @classmethod
    def of(cls, records: Sequence[TrialRecord], layer: Sequence[str], space: Space) -> _Taken:
        return cls(len(records), Counter(word for record in records for word in _words(record, layer, space)))

    def among(self, word: str) -> int:
        """Of how many networks the word is told: those that have the layer, or all."""
        return self.networks - (0 if word == _NOT_THERE else self.counts[_NOT_THERE])

    def share(self, word: str) -> float | None:
        return self.counts[word] / self.among(word) if self.among(word) >= _LEAST_LAYERS else None

    def text(self, word: str) -> str:
        share, among = self.share(word), self.among(word)
        if not among:
            return "no network has this layer"
        counted = f"{self.counts[word]:,} of {among:,}"
        return counted if share is None else f"{100 * share:.0f} % ({counted})"


def _layers(space: Space) -> dict[str, list[str]]:
    """The names of the slots of each layer, by the layer's place: s0.l1 is the second one of the first stage."""
    found: dict[str, list[str]] = {}
    for name in space.slots:
        slot = space.slot(name)
        if slot.layer is not None:
            stage = "" if slot.stage is None else f"s{slot.stage}."
            found.setdefault(f"{stage}l{slot.layer}", []).append(name)
    return found


def _words(record: TrialRecord, layer: Sequence[str], space: Space) -> list[str]:
    """What a network takes at a layer, as names of columns."""
    if not space.is_active(layer[0], record.parameters):
        return [_NOT_THERE]
    return [space.choice_word(name, record.parameters.get(name, space.slots[name][0])) for name in layer]


def _columns(space: Space) -> list[str]:
    """All choices that layers of the space have, key by key in the order of the slots."""
    of_layers = [name for layer in _layers(space).values() for name in layer]
    words: dict[str, dict[Choice, str]] = {space.slot(name).key: {} for name in of_layers}
    for name in of_layers:
        if len(space.slots[name]) > 1:
            words[space.slot(name).key] |= {choice: space.choice_word(name, choice) for choice in space.slots[name]}
    columns = [own[choice] for own in words.values() for choice in sorted(own)]
    return [*columns, _NOT_THERE] if any(space.slot(name).optional for name in of_layers) else columns


def _offered(layer: Sequence[str], space: Space) -> set[str]:
    """The columns of a layer that are a choice there."""
    several = [name for name in layer if len(space.slots[name]) > 1]
    words = {space.choice_word(name, choice) for name in several for choice in space.slots[name]}
    return words | ({_NOT_THERE} if any(space.slot(name).optional for name in layer) else set())


# ---------------------------------------------------------------- parallel axes


def _entropy(choices: Sequence[Choice | None]) -> float:
    shares = [count / len(choices) for count in Counter(choices).values()]
    return -sum(share * math.log(share) for share in shares)


def _quantity_axis(records: Sequence[TrialRecord], name: str) -> dict[str, Any]:
    """An axis of a cost that ranges widely is logarithmic, its ticks in plain numbers."""
    values = [value_of(record, name) or 0.0 for record in records]
    title = escape(capital(label(name)), quote=False)
    if is_score(name):
        scale, unit = shown_scale(name), unit_of(name)
        return {
            "label": f"{title} ({unit})" if unit else title,
            "values": [round(scale * value, 1) if unit == "%" else value for value in values],
        }
    if not is_wide(values):
        return {"label": title, "values": values, "tickformat": "~s" if unit_of(name) != "ms" else ""}
    low, high = math.log10(min(values)), math.log10(max(values))
    ticks = [low + (high - low) * step / 4 for step in range(5)]
    texts = [objective(name).show(10**tick) for tick in ticks]
    return {"label": title, "values": [round(math.log10(v), 5) for v in values], "tickvals": ticks, "ticktext": texts}


def _choice_axis(records: Sequence[TrialRecord], name: str, space: Space) -> dict[str, Any]:
    chosen = [choice_of(record, name, space) for record in records]
    stops: list[Choice | None] = [*([None] if None in chosen else []), *space.parameters[name]]
    return {
        "label": escape(name, quote=False),
        "values": [stops.index(choice) if choice in stops else 0 for choice in chosen],
        "tickvals": list(range(len(stops))),
        "ticktext": [NOTHING if choice is None else choice_text(choice) for choice in stops],
        "range": [-0.2, len(stops) - 0.8],
    }
