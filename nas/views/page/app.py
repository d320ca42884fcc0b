"""The Dash app of `nas browse`: what happens in the page, and which part of it is filled by what."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update
from dash.exceptions import DependencyException, PreventUpdate
from flask import abort, request
from werkzeug.exceptions import HTTPException

from nas.common.errors import InputError
from nas.common.text import capital, done_word, plural, time_text
from nas.runs.front import primary_cost
from nas.runs.objectives import score_of
from nas.runs.pace import left_text
from nas.runs.state import SILENT_S
from nas.runs.status import Phase, RunStatus
from nas.views.page import candidate, choosing, panels
from nas.views.page.actions import Jobs, Kind
from nas.views.page.guard import Guard
from nas.views.page.layout import page
from nas.views.page.runs import Seen
from nas.views.page.state import SCALES, TABS, Runs, one_of, query_values
from nas.views.terminal.front import counts_text

logger = logging.getLogger(__name__)

_ADDRESS = ("tab", "run", "x", "y", "scale-x", "scale-y", "colour", "pick", "over", "dominated", "candidate", "compare")
"""What the page's address keeps; the same names in assets/browse.js."""
_INDEX = """<!doctype html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
_ACTIONS = ("stop", "export", "train")
"""Buttons that change something."""
_VALUE = {"tab": "data", "candidate": "data", "compare": "data"}


def make_app(runs: Runs, guard: Guard, jobs: Jobs) -> Dash:
    """The app, whose `server` is the WSGI application. Nothing that it serves comes from, or goes to, another machine."""
    app = Dash(
        __name__,
        title="nas browse",
        index_string=_INDEX,
        update_title="",
        serve_locally=True,
        assets_external_path="",
        enable_mcp=False,
        add_log_handler=False,
    )
    app.layout = lambda: page(runs)
    _address(app, runs)
    _look(app, runs, jobs)
    panels.front(app, runs)
    panels.other_views(app, runs)
    choosing.choosing(app, runs)
    choosing.drawer(app, runs)
    _allowed(app, guard)
    _actions(app, runs, guard, jobs)
    guard.install(app.server, app.csp_hashes())
    _refuse_nonsense(app)
    return app


def _address(app: Dash, runs: Runs) -> None:
    """The page's address says what it shows: read when it is opened, kept up by assets/browse.js."""

    @app.callback(
        [Output(name, "options") for name in ("x", "y", "colour")],
        [Output(name, _VALUE.get(name, "value")) for name in _ADDRESS],
        Input("url", "search"),
    )
    def read(search: object) -> list[Any]:
        values = query_values(search)
        key = runs.key(values.get("run"))
        seen = runs.look(key)
        chosen = runs.chosen(values.get("candidate"))
        return [
            *panels.axis_options(seen),
            one_of(values.get("tab"), TABS, TABS[0]),
            key,
            one_of(values.get("x"), seen.quantities, primary_cost(seen.objectives)),
            one_of(values.get("y"), seen.quantities, score_of(seen.objectives)),
            one_of(values.get("scale-x"), SCALES, SCALES[0]),
            one_of(values.get("scale-y"), SCALES, SCALES[0]),
            one_of(values.get("colour"), seen.colours, "") or None,
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
        State("title", "children"),
        State("status", "children"),
        State("problems", "children"),
        State("stop", "hidden"),
        State("jobs-seen", "data"),
    )
    def look(
        _: object, run: object, over: object, opened: object, acted: object,
        version: object, title: object, status: object, problems: object, hidden: object, jobs_seen: object,
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
            seen.run.path.name if seen.run.path.name != title else no_update,
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
    """How a run stands, in one line: whether its search runs, what is done, what runs, what failed, time left.

    It changes only when something happens, so that a look at a run where nothing does brings nothing.
    """
    status, done = seen.status, done_word(seen.settings.evaluation.recipe.epochs)
    parts = [_phase(status), f"{status.trained:,} of {plural(status.candidates, 'candidate')} {done}"]
    if status.confirmations:
        parts.append(f"{status.confirmed} of {plural(status.confirmations, 'training')} to confirm the front")
    live = status.phase in (Phase.RUNNING, Phase.STOPPING)
    if live and status.driver is not None:
        parts.append(f"{len(status.driver.running)} running")
    if live and status.seconds_left is not None:
        parts.append(left_text(status.seconds_left))
    parts += [counts_text(status.outcomes), f"front of {plural(status.front, 'network')}"]
    return " · ".join(parts)


def _phase(status: RunStatus) -> str:
    driver = status.driver
    if driver is None or status.phase in (Phase.UNKNOWN, Phase.BUSY):
        return "A search is starting, or a fidelity check runs" if status.phase is Phase.BUSY else "Nothing runs here"
    if status.phase is Phase.ENDED:
        return f"Ended {time_text(driver.ended or driver.written)}"
    if status.phase is Phase.DEAD:
        return f"The driver on {driver.host} is gone, last heard of {time_text(driver.written)}"
    silent = status.now - driver.written > SILENT_S
    running = f"{'Running' if status.phase is Phase.RUNNING else 'Stopping'} on {driver.host}"
    return f"{running}, nothing heard since {time_text(driver.written)}" if silent else running


def _allowed(app: Dash, guard: Guard) -> None:
    """What a page may do: all of it where it holds the token, else read."""
    app.clientside_callback(
        ClientsideFunction("browse", "takeToken"), Output("token", "data"), Input("url", "hash"), State("token", "data")
    )

    @app.callback(
        Output("read-only", "hidden"),
        *(Output(name, "disabled") for name in _ACTIONS),
        Input("token", "data"),
    )
    def allow(token: object) -> list[bool]:
        may_act = guard.may_act(token)
        return [may_act, *(not may_act for _ in _ACTIONS)]


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

    def on_click(button: str, told: State, act: Callable[[object], dict[str, str]]) -> None:
        @app.callback(
            Output("acted", "data", allow_duplicate=True),
            Input(button, "n_clicks"),
            told,
            State("token", "data"),
            prevent_initial_call=True,
        )
        @guard.needs_token
        def clicked(of: object) -> dict[str, str]:
            return act(of)

    def stop(run: object) -> dict[str, str]:
        seen = runs.look(run)
        if seen.status.phase is Phase.RUNNING:
            seen.run.request_stop()
        return {}

    on_click("export", State("candidate", "data"), functools.partial(start, "export"))
    on_click("train", State("candidate", "data"), functools.partial(start, "train"))
    on_click("stop", State("run", "value"), stop)


def _refuse_nonsense(app: Dash) -> None:
    """Requests that no page of ours makes are the asker's fault, and tell them nothing."""

    def known_callback() -> None:
        if request.path == "/_dash-update-component":
            body = request.get_json(silent=True)
            output = body.get("output") if isinstance(body, dict) else None
            if not isinstance(output, str) or output not in app.callback_map:
                abort(400)

    def unexpected(error: Exception) -> Any:
        if isinstance(error, HTTPException):
            return error
        if isinstance(error, DependencyException):  # a script that is no part of Dash
            return "Not found", 404
        logger.error("%r could not be answered", request.path, exc_info=error)
        return "The request could not be answered.", 500

    app.server.before_request(known_callback)
    app.server.register_error_handler(Exception, unexpected)
