"""Callbacks for what a reader of a page picks out: a view, a candidate to open, candidates to compare."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from nas.runs.record import TrialRecord
from nas.views.page import candidate, views
from nas.views.page.actions import job_command
from nas.views.page.layout import sized
from nas.views.page.runs import Seen
from nas.views.page.state import TABS, Runs


def choosing(app: Dash, runs: Runs) -> None:
    """Tabs, the opened candidate, and those that are compared."""
    _opening(app, runs)
    _comparing(app, runs)
    _in_browser(app)


def _opening(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("candidate", "data", allow_duplicate=True),
        Input("clicked", "data"),
        Input("grid", "cellClicked"),
        Input("close", "n_clicks"),
        Input("previous", "n_clicks"),
        Input("next", "n_clicks"),
        Input("open-selected", "n_clicks"),
        State("grid", "selectedRows"),
        State("run", "value"),
        State("candidate", "data"),
        prevent_initial_call=True,
    )
    def choose(
        point: object, cell: object, _c: object, _p: object, _n: object, _o: object, ticked: object, run: object, now: object
    ) -> Any:  # fmt: skip
        key = runs.key(run)
        match ctx.triggered_id:
            case "clicked":
                found = _of_points(point, key)[:1]
            case "grid":
                found = _of_row(cell, runs.look(key), key)
            case "open-selected":
                found = _of_rows(ticked)[:1]
            case "close":
                return None
            case step:
                return _stepped(runs.look(key), key, now, -1 if step == "previous" else 1) or no_update
        chosen = runs.chosen(found[0]) if found else None
        return chosen.text if chosen else no_update


def _comparing(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("compare", "data", allow_duplicate=True),
        Output("grid", "deselectAll"),
        Input("shift-clicked", "data"),
        Input("scatter", "selectedData"),
        Input("grid", "selectedRows"),
        Input("compare-add", "n_clicks"),
        Input("compare-clear", "n_clicks"),
        State("compare", "data"),
        State("candidate", "data"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    def compare(
        point: object, points: object, ticked: object, _a: object, _c: object, now: object, opened: object, run: object
    ) -> Any:  # fmt: skip
        known = now if isinstance(now, list) else []
        found: list[Any]
        match ctx.triggered_id:
            case "shift-clicked":
                found = _toggled(known, _of_points(point, runs.key(run))[:1])
            case "scatter":
                found = _of_points(points, runs.key(run))
                if not found:  # a lasso around nothing, or one that was taken away
                    raise PreventUpdate
            case "grid":
                found = _of_rows(ticked)
                if not found and not known:
                    raise PreventUpdate
            case "compare-add":
                found = [*known, opened]
            case _:
                return [], True
        return [each.text for each in runs.all_chosen(found)], no_update


def _in_browser(app: Dash) -> None:
    """What a browser does without the server (assets/browse.js)."""

    app.clientside_callback(
        ClientsideFunction("browse", "pickPoint"),
        Output("clicked", "data"),
        Output("shift-clicked", "data"),
        Output("scatter", "clickData"),
        Input("scatter", "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("browse", "watchLabels"),
        Output("ignored", "title"),
        Input("scatter", "figure"),
    )
    app.clientside_callback(
        ClientsideFunction("browse", "pickTab"),
        Output("tab", "data", allow_duplicate=True),
        [Input(f"tab-{name}", "n_clicks") for name in TABS],
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("browse", "showTab"),
        [Output(f"panel-{name}", "hidden") for name in TABS] + [Output("tab-compare", "children")],
        Input("tab", "data"),
        Input("compare", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("browse", "saveCsv"),
        Output("grid", "exportDataAsCsv"),
        Input("csv", "n_clicks"),
        prevent_initial_call=True,
    )


def drawer(app: Dash, runs: Runs) -> None:
    """The opened candidate."""
    shown = (
        Output("drawer-title", "children"),
        *(Output(name, "children") for name in ("drawer-figures", "record", "export-command", "train-command")),
        Output("strip", "children"),
        Output("curve", "figure"),
    )

    @app.callback(Output("drawer", "hidden"), *shown, Input("candidate", "data"), Input("version", "data"))
    def drawer(opened: object, _: object) -> tuple[Any, ...]:
        chosen = runs.chosen(opened)
        if chosen is None:
            return True, *[no_update] * len(shown)
        return False, *_drawn(runs.look(chosen.key), chosen.record)


def _drawn(seen: Seen, record: TrialRecord) -> tuple[Any, ...]:
    """A candidate's digest, figures, record, commands, layers and learning curve."""
    path, digest = seen.run.path, record.digest
    strip = views.drawn(views.strip_figure, record, seen.classes)
    return (
        digest,
        candidate.described(seen, record),
        candidate.record_text(next(each for each in seen.recorded if each.number == record.number)),
        job_command("export", path, digest),
        job_command("train", path, digest),
        [candidate.layer_key(record, seen.classes), sized(strip)],
        views.drawn(views.curves_figure, {digest: record}, seen.metric),
    )


def _of_points(given: object, key: str) -> list[str]:
    """The candidates of points that were clicked or selected; a point of another run's front names that run."""
    points = given.get("points") if isinstance(given, dict) else None
    found = []
    for point in points if isinstance(points, list) else []:
        custom = point.get("customdata") if isinstance(point, dict) else None
        if isinstance(custom, list) and custom:
            found.append(f"{custom[1] if len(custom) > 1 else key}:{custom[0]}")
    return found


def _toggled(known: list[Any], chosen: list[str]) -> list[Any]:
    """What is compared once some were chosen: with them, or without those that were compared already."""
    return [*(each for each in known if each not in chosen), *(each for each in chosen if each not in known)]


def _of_row(cell: object, seen: Seen, key: str) -> list[str]:
    place = cell.get("rowId") if isinstance(cell, dict) else None
    number = place.removeprefix(f"{key}.") if isinstance(place, str) else ""
    known = number.isascii() and number.isdecimal() and int(number[:9]) < len(seen.records)
    return [f"{key}:{seen.records[int(number[:9])].digest}"] if known else []


def _of_rows(given: object) -> list[str]:
    rows = given if isinstance(given, list) else []
    return [text for row in rows if isinstance(row, dict) and isinstance(text := row.get("candidate"), str)]


def _stepped(seen: Seen, key: str, now: object, step: int) -> str | None:
    """The next member of the front in one direction; from elsewhere the cheapest or the most expensive."""
    members = [f"{key}:{record.digest}" for record in seen.front]
    if not members:
        return None
    if now not in members:
        return members[0 if step > 0 else -1]
    return members[min(max(members.index(str(now)) + step, 0), len(members) - 1)]
