"""Callbacks that fill the views of a page: each worked out while it is looked at, and not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import plotly.graph_objects as go
from dash import Dash, Input, Output, Patch, State, ctx, no_update
from dash.exceptions import PreventUpdate

from nas.runs.front import primary_cost, reference_point
from nas.runs.objectives import score_of
from nas.runs.record import TrialRecord
from nas.spaces.base import Space
from nas.views.page import candidate, tables, views
from nas.views.page.layout import sized
from nas.views.page.runs import Seen
from nas.views.page.state import SCALES, Runs, one_of
from nas.views.report.choices import choices_figure, parallel_figure
from nas.views.report.importance import importance_figure
from nas.views.report.layers import compare_figure
from nas.views.report.progress import hypervolume_figure, outcomes_figure, reference_text
from nas.views.report.quantities import quantity_title
from nas.views.report.rerun import change_groups, settings_groups

_LOOKED_AT = (Input("tab", "data"), Input("version", "data"), Input("run", "value"))
"""What decides whether a view is worked out, and of which run."""


def axis_options(seen: Seen) -> list[list[dict[str, str]]]:
    """What is offered for the two axes and the colour."""
    axes = [{"label": quantity_title(name, seen.metric), "value": name} for name in seen.quantities]
    parameters = [name for name in seen.colours if name not in seen.quantities]
    return [axes, axes, [*axes, *({"label": name, "value": name} for name in parameters)]]


def front(app: Dash, runs: Runs) -> None:
    """The scatter, and what its controls offer."""

    @app.callback(
        [Output(name, "options", allow_duplicate=True) for name in ("x", "y", "colour")],
        Input("version", "data"),
        Input("run", "value"),
        [State(name, "options") for name in ("x", "y", "colour")],
        prevent_initial_call=True,
    )
    def options(_: object, run: object, *known: object) -> list[Any]:
        offered = axis_options(runs.look(run))
        if offered == list(known):
            raise PreventUpdate
        return offered

    @app.callback(
        Output("scatter", "figure"),
        Output("pick-note", "children"),
        Input("version", "data"),
        Input("tab", "data"),
        Input("candidate", "data"),
        Input("compare", "data"),
        *(
            Input(name, "value")
            for name in ("run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated")
        ),
    )
    def scatter(version: object, tab: object, opened: object, compare: object, *controls: object) -> tuple[Any, Any]:
        if tab != "front" or version is None:
            raise PreventUpdate
        run, x, y, scale_x, scale_y, colour, pick, over, dominated = controls
        key = runs.key(run)
        seen = runs.look(key)
        axes = _axes(seen, x, y, scale_x, scale_y, colour, pick, dominated)
        chosen = runs.chosen(opened)
        compared = [each.record for each in runs.all_chosen(compare)]
        triggered = {each["prop_id"] for each in ctx.triggered}
        if triggered and triggered <= {"candidate.data", "compare.data"}:
            patch = Patch()  # thousands of points stay where they are
            patch["data"][-2] = views.rings(compared, axes)
            patch["data"][-1] = views.ring(chosen.record if chosen else None, axes)
            return patch, no_update
        others = {each: runs.look(each) for each in runs.keys(over) if each != key}
        opened_record = chosen.record if chosen else None
        what = (
            axes,
            tuple((each, other.version) for each, other in others.items()),
            opened_record and opened_record.digest,
        )
        figure = runs.once(
            (*what, tuple(record.digest for record in compared)),
            seen,
            lambda: views.drawn(views.front_figure, seen, axes, others, opened_record, compared),
        )
        return figure, views.picked(seen, axes.picks)[1]


def _axes(
    seen: Seen, x: object, y: object, scale_x: object, scale_y: object, colour: object, pick: object, dominated: object
) -> views.Axes:
    """What a browser sent, as far as the run has it."""
    return views.Axes(
        one_of(x, seen.quantities, primary_cost(seen.objectives)),
        one_of(y, seen.quantities, score_of(seen.objectives)),
        one_of(scale_x, SCALES, SCALES[0]),
        one_of(scale_y, SCALES, SCALES[0]),
        one_of(colour, seen.colours, "") or None,
        pick[:200] if isinstance(pick, str) else "",
        dominated=bool(dominated),
    )


def _shown(runs: Runs, name: str, tab: object, version: object, run: object) -> Seen:
    """The run whose view is looked at; raises `PreventUpdate` while another one is."""
    if tab != name or version is None:
        raise PreventUpdate
    return runs.look(run)


def other_views(app: Dash, runs: Runs) -> None:
    """All the other views."""
    _progress_view(app, runs)
    _choices_view(app, runs)
    _trials_view(app, runs)
    _compare_view(app, runs)
    _listed_views(app, runs)


def _progress_view(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("hypervolume", "figure"),
        Output("reference", "children"),
        *_LOOKED_AT,
        Input("progress-over", "value"),
    )
    def progress(tab: object, version: object, run: object, over: object) -> tuple[Any, ...]:
        seen = _shown(runs, "progress", tab, version, run)
        unit: Literal["time", "trials"] = "time" if over == "time" else "trials"

        def drawn() -> tuple[Any, ...]:
            reference = reference_point(seen.recorded, seen.objectives)
            figure = views.drawn(hypervolume_figure, seen.recorded, seen.objectives, unit, seen.settings)
            return figure, reference_text(reference, seen.objectives) if reference else ""

        return runs.once(("progress", unit), seen, drawn)

    @app.callback(Output("outcomes", "figure"), Output("curves", "figure"), *_LOOKED_AT)
    def curves(tab: object, version: object, run: object) -> tuple[Any, ...]:
        seen = _shown(runs, "progress", tab, version, run)
        return runs.once(
            "curves", seen, lambda: (views.drawn(outcomes_figure, seen.recorded), views.drawn(views.front_curves, seen))
        )


def _of_space(figure: Callable[[Sequence[TrialRecord], Sequence[str], Space], go.Figure], seen: Seen) -> go.Figure:
    return views.drawn(figure, seen.comparable, seen.objectives, seen.settings.space)


def _choices_view(app: Dash, runs: Runs) -> None:
    @app.callback(Output("choices-figure", "children"), Output("parallel", "figure"), *_LOOKED_AT)
    def choices(tab: object, version: object, run: object) -> tuple[Any, ...]:
        seen = _shown(runs, "choices", tab, version, run)
        return runs.once(
            "choices", seen, lambda: (sized(_of_space(choices_figure, seen)), _of_space(parallel_figure, seen))
        )

    @app.callback(Output("importance", "children"), *_LOOKED_AT)
    def importance(tab: object, version: object, run: object) -> Any:
        seen = _shown(runs, "choices", tab, version, run)
        return runs.once("importance", seen, lambda: sized(_of_space(importance_figure, seen)))


def _trials_view(app: Dash, runs: Runs) -> None:
    @app.callback(Output("grid", "columnDefs"), *_LOOKED_AT, State("grid", "columnDefs"))
    def columns(tab: object, version: object, run: object, known: object) -> Any:
        found = tables.trial_columns(_shown(runs, "trials", tab, version, run))
        return no_update if found == known else found

    @app.callback(Output("grid", "rowData"), *_LOOKED_AT)
    def rows(tab: object, version: object, run: object) -> Any:
        seen, key = _shown(runs, "trials", tab, version, run), runs.key(run)
        return runs.once("trials", seen, lambda: tables.trial_rows(seen, key))


def _compare_view(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("compare-table", "children"),
        Output("compare-strips", "children"),
        Output("compare-curves", "figure"),
        Output("compare-figures", "hidden"),
        *_LOOKED_AT,
        Input("compare", "data"),
    )
    def compare(tab: object, version: object, run: object, compared: object) -> tuple[Any, ...]:
        seen = _shown(runs, "compare", tab, version, run)
        found = {runs.title(each): each for each in runs.all_chosen(compared)}
        records = {name: each.record for name, each in found.items()}
        table = candidate.comparison([(name, runs.look(each.key), each.record) for name, each in found.items()])
        if len(found) < 2:
            return table, no_update, no_update, True
        strips = {name: record.architecture for name, record in records.items()}
        return (
            table,
            sized(views.drawn(compare_figure, strips, seen.classes)),
            views.drawn(views.curves_figure, records, seen.metric),
            False,
        )


def _listed_views(app: Dash, runs: Runs) -> None:
    @app.callback(Output("failures-list", "children"), *_LOOKED_AT)
    def failures(tab: object, version: object, run: object) -> Any:
        return tables.failures(_shown(runs, "failures", tab, version, run))

    @app.callback(Output("panel-settings", "children"), *_LOOKED_AT)
    def settings(tab: object, version: object, run: object) -> Any:
        seen = _shown(runs, "settings", tab, version, run)
        return tables.facts(
            [*settings_groups(seen.settings, seen.run.provenance), *change_groups(seen.run.content.changes)]
        )
