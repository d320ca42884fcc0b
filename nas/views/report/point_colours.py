"""How the points of a scatter are coloured: by a quantity, or by a choice of the space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from nas.runs.objectives import is_score
from nas.runs.record import TrialRecord
from nas.spaces.base import Choice, Space
from nas.views.report.figures import GREY, is_wide
from nas.views.report.quantities import (
    choice_of,
    choice_text,
    is_quantity,
    quantity_text,
    quantity_title,
    value_of,
)

_SCALE = "Viridis"

Paint = Callable[[Sequence[TrialRecord], str], "str | list[str]"]


def paint_of(records: Sequence[TrialRecord], name: str | None, space: Space | None) -> tuple[Paint, list[go.Scatter]]:
    """How to colour the points of some records, given the colour of those that lack a value; and the key to it."""
    if name is None:
        return lambda group, plain: plain, []
    if is_quantity(name):
        return _quantity_paint(records, name)
    present = {choice for record in records if (choice := _choice(record, name, space)) is not None}
    choices: list[Choice] = sorted(present)
    known = dict(zip(choices, _shades([i / max(len(choices) - 1, 1) for i in range(len(choices))]), strict=True))
    names = {f"{name} {choice_text(choice)}": colour for choice, colour in known.items()}
    if any(_choice(record, name, space) is None for record in records):
        names[f"{name} not there"] = GREY

    def paint(group: Sequence[TrialRecord], plain: str) -> list[str]:
        chosen = (_choice(record, name, space) for record in group)
        return [GREY if choice is None else known[choice] for choice in chosen]

    return paint, [key(text, colour, 9) for text, colour in names.items()]


def _quantity_paint(records: Sequence[TrialRecord], name: str) -> tuple[Paint, list[go.Scatter]]:
    values = [value for record in records if (value := value_of(record, name)) is not None]
    if not values:
        return lambda group, plain: plain, []
    scale: Callable[[float], float] = math.log10 if not is_score(name) and is_wide(values) else float
    low, high = scale(min(values)), scale(max(values))

    def paint(group: Sequence[TrialRecord], plain: str) -> list[str]:
        own = [value_of(record, name) for record in group]
        shares = [0.0 if value is None else (scale(value) - low) / ((high - low) or 1.0) for value in own]
        return [GREY if value is None else shade for value, shade in zip(own, _shades(shares), strict=True)]

    steps = [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
    back: Callable[[float], float] = (lambda step: 10.0**step) if scale is math.log10 else float
    bar = {
        "title": {"text": escape(quantity_title(name).removesuffix(" (%)"), quote=False), "side": "right"},
        "tickvals": steps,
        "ticktext": [quantity_text(name, back(step)) for step in steps],
        "thickness": 12,
        "outlinewidth": 0,
    }
    look = {"color": [low], "cmin": low, "cmax": high if high > low else low + 1, "showscale": True, "colorbar": bar}
    look["colorscale"] = [[i / 8, shade] for i, shade in enumerate(_shades([i / 8 for i in range(9)]))]
    return paint, [go.Scatter(x=[None], y=[None], mode="markers", hoverinfo="skip", showlegend=False, marker=look)]


def key(text: str, colour: str, size: int) -> go.Scatter:
    """An entry of the legend that stands for points of other traces."""
    look = {"color": colour, "size": size, "line": {"color": GREY, "width": 1}}
    name = escape(text, quote=False)
    return go.Scatter(x=[None], y=[None], mode="markers", hoverinfo="skip", name=name, marker=look)


def _shades(shares: Sequence[float]) -> list[str]:
    """Colours of shares of 1; the darkest of the scale are left out, which a dark page would swallow."""
    return list(sample_colorscale(_SCALE, [0.15 + 0.85 * share for share in shares])) if shares else []


def _choice(record: TrialRecord, name: str, space: Space | None) -> Choice | None:
    return record.parameters.get(name) if space is None else choice_of(record, name, space)


def colour_text(record: TrialRecord, name: str, space: Space | None) -> str:
    if is_quantity(name):
        value = value_of(record, name)
        text = f"{quantity_title(name)}: {'not known' if value is None else quantity_text(name, value)}"
    else:
        choice = _choice(record, name, space)
        text = f"{name}: {'not there' if choice is None else choice_text(choice)}"
    return escape(text, quote=False)
