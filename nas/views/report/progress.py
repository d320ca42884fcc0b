"""Figures of a search as it goes on: hypervolume with the sampler's phases, and how trials ended. As in `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import plotly.graph_objects as go

from nas.common.errors import InputError
from nas.runs.front import (
    REFERENCE_TRIALS,
    ReferencePoint,
    hypervolume,
    hypervolume_history,
    reference_point,
    trained,
)
from nas.runs.objectives import objective
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.search.samplers import SAMPLERS, sampler_kind
from nas.search.samplers.base import SamplerKind
from nas.views.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    counting_axis,
    layout,
    quiet,
)
from nas.views.text import label

_FIRST = "first networks"
_FIRST_TINT, _DRAWN_TINT, _PROPOSED_TINT = "rgba(230,159,0,0.18)", "rgba(204,121,167,0.18)", "rgba(0,158,115,0.10)"
_EARLIER = "from earlier runs"
_OUTCOMES = {
    Outcome.DONE.value: BLUE,
    _EARLIER: SKY,
    Outcome.STOPPED.value: GREEN,
    Outcome.SKIPPED.value: YELLOW,
    Outcome.REJECTED.value: ORANGE,
    Outcome.REPEAT.value: GREY,
    Outcome.FAILED.value: VERMILLION,
    Outcome.LOST.value: PURPLE,
}
_STEPS = 400
"""Positions at which the outcomes are counted, at most: more would not be seen."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a search in which networks are chosen in one way: from `start` to `end` trained candidates."""

    name: str
    start: int
    end: int
    tint: str


def phases(records: Sequence[TrialRecord], settings: SearchSettings) -> list[Phase]:
    """What a search began with, when its sampler had seen enough to go by it, and where it is now.

    First come the networks that the user named and the space's ends and backbone, then ones drawn apart or at random
    until the sampler has the trials that it wants, then what it proposes. Of a sampler that is not here it is not known when.
    """
    kind = _kind_here(settings.sampler)
    drawn, proposed = (kind.draws, kind.proposes) if kind else ("at random", "")
    wanted = 0 if kind is None else math.inf if kind.startup is None else kind.startup
    space = settings.space
    ends = {network.digest for network in (space.smallest, space.backbone, space.largest)}
    named = known = count = 0
    started = None
    for record in records:
        if known >= wanted and started is None:
            started = count
        known += record.outcome in (Outcome.DONE, Outcome.REJECTED, Outcome.REPEAT)
        count += _is_counted(record)
        named += _is_counted(record) and (record.text in settings.enqueue or record.digest in ends)
    bounds = [0, named, count if started is None else max(named, started), count]
    names = (_FIRST, drawn, proposed or f"by {settings.sampler}")
    found = zip(names, bounds, bounds[1:], (_FIRST_TINT, _DRAWN_TINT, _PROPOSED_TINT), strict=False)
    return [Phase(name, start, end, tint) for name, start, end, tint in found if end > start]


def _kind_here(name: str) -> SamplerKind | None:
    """The sampler of a run, where it can be had without running the code of a user's own file."""
    try:
        return sampler_kind(name) if name in SAMPLERS.names else None
    except InputError:
        return None


def no_hypervolume(records: Sequence[TrialRecord], objectives: Sequence[str]) -> str | None:
    """Why there is no course of the hypervolume to draw, in a sentence; None where there is one."""
    done = [record for record in trained(records) if all(name in record.objectives for name in objectives)]
    reference = reference_point(done, objectives)
    if reference is None:
        return f"The hypervolume's reference point is fixed once {REFERENCE_TRIALS} candidates are trained."
    ends = zip(objectives, reference.worst, reference.ideal, strict=True)
    flat = [label(name) for name, worst, ideal in ends if math.isclose(worst, ideal, rel_tol=1e-6, abs_tol=1e-8)]
    if flat:
        return (
            f"The first {REFERENCE_TRIALS} candidates do not differ in {' and '.join(flat)}, so that there is no range to measure a "
            "hypervolume by."
        )
    if any(record.counts for record in done[REFERENCE_TRIALS:]):
        return None
    volume = hypervolume(done, objectives, reference)
    return f"The hypervolume is {volume:.3f} so far; its course begins with the next candidate that is trained."


def hypervolume_figure(
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
    over: Literal["trials", "time"] = "trials",
    settings: SearchSettings | None = None,
) -> go.Figure:
    """Hypervolume against the number of trained candidates or the time since the search began, its phases shaded.

    Phases are those of `phases`, where the settings are given. Show it with `reference_text`: a hypervolume means nothing
    without its reference point.
    """
    missing = no_hypervolume(records, objectives)
    if missing is not None:
        return quiet(missing)
    valued = [record for record in records if all(name in record.objectives for name in objectives)]
    history = hypervolume_history(valued, objectives)
    count = sum(map(_is_counted, valued))
    history.append((count, history[-1][1]))
    times, unit = _times(valued) if over == "time" else ([], "")

    def at(count: int) -> float:
        return round(times[count], 4) if over == "time" else count

    figure = go.Figure(layout=layout())
    text = "after %{x:.2f} " + unit if over == "time" else "after %{x} trained"
    figure.add_trace(
        go.Scatter(
            x=[at(count) for count, _ in history],
            y=[round(volume, 6) for _, volume in history],
            mode="lines",
            line={"color": BLUE, "width": 2, "shape": "hv"},
            hovertemplate=text + ": %{y:.4f}<extra></extra>",
            name="hypervolume",
            showlegend=False,
        )
    )
    if history[0][0] == 0:
        start = {"x": [0], "y": [history[0][1]], "mode": "markers", "marker": {"color": BLUE, "size": 9}}
        figure.add_trace(go.Scatter(**start, name="imported from earlier runs", hoverinfo="skip"))
    for phase in phases(records, settings) if settings else ():
        name = f"{phase.name} ({phase.end - phase.start:,})"
        figure.add_vrect(
            at(phase.start),
            at(phase.end),
            fillcolor=phase.tint,
            line_width=0,
            layer="below",
            name=name,
            showlegend=True,
        )
    if over == "time":
        figure.update_xaxes(title=f"Time since the search began ({unit})")
    else:
        figure.update_xaxes(title="Trained candidates", **counting_axis([count for count, _ in history]))
    return figure.update_yaxes(title="Hypervolume")


def outcomes_figure(records: Sequence[TrialRecord]) -> go.Figure:
    """How many trials had ended in which way, in the order in which they ended."""
    if not records:
        return quiet("No trial has ended yet.")
    kinds = [_EARLIER if record.imported_from else record.outcome.value for record in records]
    stops = sorted({round(i * len(kinds) / _STEPS) for i in range(_STEPS + 1)} | {0, len(kinds)})
    figure = go.Figure(layout=layout())
    for kind, colour in _OUTCOMES.items():
        if kind not in kinds:
            continue
        counts = [0, *accumulate(int(one == kind) for one in kinds)]
        figure.add_trace(
            go.Scatter(
                x=stops,
                y=[counts[stop] for stop in stops],
                stackgroup="outcomes",
                mode="lines",
                line={"color": colour, "width": 1, "shape": "hv"},
                name=f"{kind} ({counts[-1]:,})",
                hovertemplate=f"{kind}: %{{y:,}} of %{{x:,}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="Trials ended", **counting_axis(stops))
    return figure.update_yaxes(title="Trials", rangemode="tozero", **counting_axis(stops))


def reference_text(reference: ReferencePoint, objectives: Sequence[str]) -> str:
    """Where the hypervolume is measured from, and what its unit is, in plain text."""
    worst, ideal = (
        ", ".join(f"{label(name)} {objective(name).show(value)}" for name, value in zip(objectives, point, strict=True))
        for point in (reference.worst, reference.ideal)
    )
    return (
        f"Reference point: {worst}. The unit is the box from there to {ideal}; both are fixed by the first trained "
        "candidates, so 1 is passed as the search finds better."
    )


def _is_counted(record: TrialRecord) -> bool:
    return (record.outcome is Outcome.DONE or record.over_limit) and record.counts


def _times(records: Sequence[TrialRecord]) -> tuple[list[float], str]:
    """By how many candidates were trained, the time since the first trial began, and its unit."""
    own = [record for record in records if record.imported_from is None]
    start = min((record.started for record in own), default=0.0)
    ends = [record.finished - start for record in own if _is_counted(record)]
    whole = max(ends, default=0.0)
    unit, seconds = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if whole >= 3 * size or size == 1
    )
    return [0.0, *accumulate((end / seconds for end in ends), max)], unit
