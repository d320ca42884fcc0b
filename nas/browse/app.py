"""The Dash app of `nas browse`: what happens in the page, and which part of it is filled by what."""

from __future__ import annotations

import logging
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, Patch, State, ctx, no_update
from dash.exceptions import PreventUpdate
from flask import abort, request
from werkzeug.exceptions import HTTPException

from nas.browse import candidate, tables, views
from nas.browse.actions import Jobs, Kind, command_text
from nas.browse.guard import Guard
from nas.browse.layout import page
from nas.browse.runs import Seen
from nas.browse.state import SCALES, TABS, Runs, one_of, query_values
from nas.errors import InputError
from nas.front import primary_cost
from nas.report.layers import compare_figure, layers_figure
from nas.report.quantities import colours, quantities, quantity_title
from nas.report.sections import settings_groups
from nas.show import counts_text
from nas.show_status import phase_text
from nas.status import Phase
from nas.wording import capital, duration_text, plural

logger = logging.getLogger(__name__)

_ADDRESS = ("tab", "run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated", "candidate", "compare")
"""What the page's address keeps; the same names in assets/browse.js."""
_VALUE = {"tab": "data", "candidate": "data", "compare": "data"}


def make_app(runs: Runs, guard: Guard, jobs: Jobs) -> Dash:
    """The app, whose `server` is the WSGI application. Nothing that it serves comes from, or goes to, another machine."""
    app = Dash(
        __name__,
        title="nas browse",
        update_title="",
        serve_locally=True,
        assets_external_path="",
        csrf_token_name=guard.cookie,
        enable_mcp=False,
        add_log_handler=False,
    )
    app.layout = lambda: page(runs, guard.may_act())
    _address(app, runs)
    _look(app, runs, jobs)
    _front(app, runs)
    _other_views(app, runs)
    _choosing(app, runs)
    _drawer(app, runs)
    _actions(app, runs, guard, jobs)
    guard.install(app.server, app.csp_hashes())
    _refuse_nonsense(app)
    return app


def _address(app: Dash, runs: Runs) -> None:
    """The page's address says what it shows: read when it is opened, kept up by assets/browse.js."""

    @app.callback([Output(name, _VALUE.get(name, "value")) for name in _ADDRESS], Input("url", "search"))
    def read(search: object) -> list[Any]:
        values = query_values(search)
        key = runs.key(values.get("run"))
        seen = runs.look(key)
        known = quantities(seen.comparable, seen.objectives) or list(seen.objectives)
        chosen = runs.chosen(values.get("candidate"))
        return [
            one_of(values.get("tab"), TABS, TABS[0]),
            key,
            one_of(values.get("x"), known, primary_cost(seen.objectives)),
            one_of(values.get("y"), known, "accuracy"),
            one_of(values.get("scale-x"), SCALES, SCALES[0]),
            one_of(values.get("scale-y"), SCALES, SCALES[0]),
            one_of(values.get("colour"), colours(seen.comparable), "") or None,
            values.get("pick", "")[:200],
            runs.keys(values.get("over", "").split(",")),
            [] if values.get("dominated") == "hidden" else ["shown"],
            chosen.text if chosen else None,
            [each.text for each in runs.all_chosen(values.get("compare", "").split(","))],
        ]

    app.clientside_callback(
        ClientsideFunction("browse", "keepAddress"),
        Output("ignored", "children"),
        [Input(name, _VALUE.get(name, "value")) for name in _ADDRESS],
    )


def _look(app: Dash, runs: Runs, jobs: Jobs) -> None:
    """The one request that is made again and again: nothing comes back where nothing changed."""

    @app.callback(
        Output("version", "data"),
        Output("title", "children"),
        Output("status", "children"),
        Output("problems", "children"),
        Output("stop", "hidden"),
        Output("jobs", "children"),
        Output("jobs-seen", "data"),
        Input("tick", "n_intervals"),
        Input("run", "value"),
        Input("over", "value"),
        Input("candidate", "data"),
        Input("acted", "data"),
        State("version", "data"),
        State("status", "children"),
        State("problems", "children"),
        State("stop", "hidden"),
        State("jobs-seen", "data"),
    )
    def look(
        _: object, run: object, over: object, opened: object, acted: object,
        version: object, status: object, problems: object, hidden: object, jobs_seen: object,
    ) -> list[Any]:  # fmt: skip
        key = runs.key(run)
        seen = runs.look(key)
        keys = [key, *(each for each in runs.keys(over) if each != key)]
        now = " ".join(f"{each}:{runs.look(each).version}" for each in keys)
        chosen = runs.chosen(opened)
        of_candidate = jobs.of(runs.look(chosen.key).run.path, chosen.record.digest) if chosen else []
        told, refused = repr(of_candidate), acted.get("refused", "") if isinstance(acted, dict) else ""
        new_jobs = told + str(refused) != jobs_seen
        sentences = "\n".join(seen.problems)
        unstoppable = seen.status.phase is not Phase.RUNNING
        answer = [
            now if now != version else no_update,
            seen.run.path.name if version is None or ctx.triggered_id == "run" else no_update,
            line if (line := status_line(seen)) != status else no_update,
            sentences if sentences != (problems or "") else no_update,
            unstoppable if unstoppable != hidden else no_update,
            candidate.jobs(of_candidate, str(refused)) if new_jobs else no_update,
            told + str(refused) if new_jobs else no_update,
        ]
        if all(part is no_update for part in answer):
            raise PreventUpdate
        return answer


def status_line(seen: Seen) -> str:
    """How a run stands, in one line: whether its search runs, what is done, what runs, what failed, time left."""
    status = seen.status
    parts = [phase_text(status), f"{status.trained:,} of {status.candidates:,} candidates trained"]
    if status.confirmations:
        parts.append(f"{status.confirmed} of {status.confirmations} trainings to confirm the front")
    live = status.phase in (Phase.RUNNING, Phase.STOPPING)
    if live and status.driver is not None:
        parts.append(f"{len(status.driver.running)} running")
    if live and status.seconds_left is not None:
        parts.append(f"about {duration_text(status.seconds_left)} left")
    parts += [counts_text(status.outcomes), f"front of {plural(status.front, 'network')}"]
    return " · ".join(parts)


def _front(app: Dash, runs: Runs) -> None:
    @app.callback(
        Output("x", "options"),
        Output("y", "options"),
        Output("colour", "options"),
        Input("version", "data"),
        Input("run", "value"),
        State("x", "options"),
        State("colour", "options"),
    )
    def options(_: object, run: object, axes: object, shades: object) -> list[Any]:
        seen = runs.look(run)
        known = quantities(seen.comparable, seen.objectives) or list(seen.objectives)
        new_axes = [{"label": quantity_title(name, seen.metric), "value": name} for name in known]
        new_shades = [
            {"label": quantity_title(name, seen.metric) if name in known else name, "value": name}
            for name in colours(seen.comparable)
        ]
        if new_axes == axes and new_shades == shades:
            raise PreventUpdate
        return [new_axes, new_axes, new_shades]

    @app.callback(
        Output("scatter", "figure"),
        Output("pick-note", "children"),
        Input("version", "data"),
        Input("tab", "data"),
        Input("candidate", "data"),
        *(
            Input(name, "value")
            for name in ("run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated")
        ),
    )
    def scatter(version: object, tab: object, opened: object, *controls: object) -> tuple[Any, Any]:
        if tab != "front" or version is None:
            raise PreventUpdate
        run, x, y, scale_x, scale_y, colour, pick, over, dominated = controls
        key = runs.key(run)
        seen = runs.look(key)
        known = quantities(seen.comparable, seen.objectives) or list(seen.objectives)
        axes = views.Axes(
            one_of(x, known, primary_cost(seen.objectives)),
            one_of(y, known, "accuracy"),
            one_of(scale_x, SCALES, SCALES[0]),
            one_of(scale_y, SCALES, SCALES[0]),
            one_of(colour, colours(seen.comparable), "") or None,
            pick[:200] if isinstance(pick, str) else "",
            dominated=bool(dominated),
        )
        chosen = runs.chosen(opened)
        if [each["prop_id"] for each in ctx.triggered] == ["candidate.data"]:
            patch = Patch()  # thousands of points stay where they are
            patch["data"][-1] = views.ring(chosen.record if chosen else None, axes)
            return patch, no_update
        others = {each: runs.look(each) for each in runs.keys(over) if each != key}
        figure = views.drawn(views.front_figure, seen, axes, others, chosen.record if chosen else None)
        return figure, views.picked(seen, axes.picks)[1]


def _other_views(app: Dash, runs: Runs) -> None:
    """Each view is worked out while it is looked at, and not before."""

    def shown(name: str, tab: object, version: object, run: object) -> Seen:
        if tab != name or version is None:
            raise PreventUpdate
        return runs.look(run)

    here = (Input("tab", "data"), Input("version", "data"), Input("run", "value"))

    @app.callback(
        Output("hypervolume", "figure"),
        Output("reference", "children"),
        Output("curves", "figure"),
        *here,
        Input("progress-over", "value"),
    )
    def progress(tab: object, version: object, run: object, over: object) -> tuple[Any, ...]:
        seen = shown("progress", tab, version, run)
        return (*views.progress_figures(seen, one_of(over, ("trials", "time"), "trials")), views.front_curves(seen))

    @app.callback(Output("grid", "columnDefs"), *here, State("grid", "columnDefs"))
    def columns(tab: object, version: object, run: object, known: object) -> Any:
        found = tables.trial_columns(shown("trials", tab, version, run))
        return no_update if found == known else found

    @app.callback(Output("grid", "rowData"), *here)
    def rows(tab: object, version: object, run: object) -> Any:
        return tables.trial_rows(shown("trials", tab, version, run), runs.key(run))

    @app.callback(
        Output("compare-table", "children"),
        Output("compare-strips", "figure"),
        Output("compare-curves", "figure"),
        *here,
        Input("compare", "data"),
    )
    def compare(tab: object, version: object, run: object, compared: object) -> tuple[Any, ...]:
        seen = shown("compare", tab, version, run)
        found = {
            f"{runs.look(each.key).run.path.name} {each.record.digest[:8]}"
            if len(runs.items()) > 1
            else each.record.digest[:8]: each
            for each in runs.all_chosen(compared)
        }
        records = {name: each.record for name, each in found.items()}
        strips = {name: record.architecture for name, record in records.items()}
        return (
            candidate.comparison([(name, runs.look(each.key), each.record) for name, each in found.items()]),
            views.drawn(compare_figure, strips if len(strips) > 1 else {}, seen.classes),
            views.drawn(views.curves_figure, records if len(records) > 1 else {}, seen.metric),
        )

    @app.callback(Output("failures-list", "children"), *here)
    def failures(tab: object, version: object, run: object) -> Any:
        return tables.failures(shown("failures", tab, version, run))

    @app.callback(Output("panel-settings", "children"), *here)
    def settings(tab: object, version: object, run: object) -> Any:
        seen = shown("settings", tab, version, run)
        return tables.facts(settings_groups(seen.settings, seen.run.provenance))


def _choosing(app: Dash, runs: Runs) -> None:
    """Tabs, the opened candidate, and those that are compared."""

    @app.callback(
        Output("candidate", "data", allow_duplicate=True),
        Output("scatter", "clickData"),
        Input("scatter", "clickData"),
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
    ) -> tuple[Any, Any]:  # fmt: skip
        key = runs.key(run)
        match ctx.triggered_id:
            case "scatter":
                found = _of_points(point, key)[:1]
            case "grid":
                found = _of_row(cell, runs.look(key), key)
            case "open-selected":
                found = _of_rows(ticked)[:1]
            case "close":
                return None, None
            case step:
                return _stepped(runs.look(key), key, now, -1 if step == "previous" else 1) or no_update, None
        chosen = runs.chosen(found[0]) if found else None
        return chosen.text if chosen else no_update, None

    @app.callback(
        Output("compare", "data", allow_duplicate=True),
        Output("grid", "deselectAll"),
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
        points: object, ticked: object, _a: object, _c: object, now: object, opened: object, run: object
    ) -> Any:
        known = now if isinstance(now, list) else []
        match ctx.triggered_id:
            case "scatter":
                found = _of_points(points, runs.key(run))
                if len(set(found)) < 2:  # a single one is a click
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


def _of_points(given: object, key: str) -> list[str]:
    """The candidates of points that were clicked or selected; a point of another run's front names that run."""
    points = given.get("points") if isinstance(given, dict) else None
    found = []
    for point in points if isinstance(points, list) else []:
        custom = point.get("customdata") if isinstance(point, dict) else None
        if isinstance(custom, list) and custom:
            found.append(f"{custom[1] if len(custom) > 1 else key}:{custom[0]}")
    return found


def _of_row(cell: object, seen: Seen, key: str) -> list[str]:
    place = cell.get("rowId") if isinstance(cell, dict) else None
    number = place.removeprefix(f"{key}.") if isinstance(place, str) else ""
    known = number.isascii() and number.isdecimal() and int(number[:9]) < len(seen.records)
    return [f"{key}:{seen.records[int(number[:9])].digest}"] if known else []


def _of_rows(given: object) -> list[str]:
    rows = given if isinstance(given, list) else []
    return [text for row in rows if isinstance(row, dict) and isinstance(text := row.get("candidate"), str)]


def _stepped(seen: Seen, key: str, now: object, step: int) -> str | None:
    """The next member of the front in one direction; from elsewhere the cheapest or the dearest."""
    members = [f"{key}:{record.digest}" for record in seen.front]
    if not members:
        return None
    if now not in members:
        return members[0 if step > 0 else -1]
    return members[min(max(members.index(str(now)) + step, 0), len(members) - 1)]


def _drawer(app: Dash, runs: Runs) -> None:
    names = ("drawer-figures", "record", "export-command", "train-command")

    @app.callback(
        Output("drawer", "hidden"),
        Output("drawer-title", "children"),
        *(Output(name, "children") for name in names),
        Output("strip", "figure"),
        Output("curve", "figure"),
        Input("candidate", "data"),
        Input("version", "data"),
    )
    def drawer(opened: object, _: object) -> tuple[Any, ...]:
        chosen = runs.chosen(opened)
        if chosen is None:
            return True, *[no_update] * (len(names) + 3)
        seen, record = runs.look(chosen.key), chosen.record
        path, digest = seen.run.path, record.digest
        texts = [
            candidate.described(seen, record),
            candidate.record_text(record),
            command_text("export", path, digest),
            command_text("train", path, digest),
        ]
        strip = views.drawn(layers_figure, record.architecture, seen.classes)
        return False, digest, *texts, strip, views.drawn(views.curves_figure, {digest: record}, seen.metric)


def _actions(app: Dash, runs: Runs, guard: Guard, jobs: Jobs) -> None:
    """What changes something: each a callback of its own, that needs the token."""

    def start(kind: Kind, opened: object) -> dict[str, str]:
        chosen = runs.chosen(opened)
        if chosen is None:
            raise PreventUpdate
        try:
            jobs.start(kind, runs.look(chosen.key).run.path, chosen.record.digest)
        except InputError as error:
            return {"refused": capital(str(error))}
        return {}

    @app.callback(
        Output("acted", "data", allow_duplicate=True),
        Input("export", "n_clicks"),
        State("candidate", "data"),
        prevent_initial_call=True,
    )
    @guard.needs_token
    def export(_: object, opened: object) -> dict[str, str]:
        return start("export", opened)

    @app.callback(
        Output("acted", "data", allow_duplicate=True),
        Input("train", "n_clicks"),
        State("candidate", "data"),
        prevent_initial_call=True,
    )
    @guard.needs_token
    def train(_: object, opened: object) -> dict[str, str]:
        return start("train", opened)

    @app.callback(
        Output("acted", "data", allow_duplicate=True),
        Input("stop", "n_clicks"),
        State("run", "value"),
        prevent_initial_call=True,
    )
    @guard.needs_token
    def stop(_: object, run: object) -> dict[str, str]:
        seen = runs.look(run)
        if seen.status.phase is Phase.RUNNING:
            seen.run.request_stop()
        return {}


def _refuse_nonsense(app: Dash) -> None:
    """Requests that no page of ours makes are the asker's fault, and tell them nothing."""

    def known_callback() -> None:
        if request.path == "/_dash-update-component":
            body = request.get_json(silent=True)
            if not isinstance(body, dict) or body.get("output") not in app.callback_map:
                abort(400)

    def unexpected(error: Exception) -> Any:
        if isinstance(error, HTTPException):
            return error
        logger.error("%s: %s", request.path, type(error).__name__, exc_info=error)
        return "The request could not be answered.", 500

    app.server.before_request(known_callback)
    app.server.register_error_handler(Exception, unexpected)
