"""The page without its data: where everything stands, by the ids that `nas.views.page.app` fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
import plotly.graph_objects as go
from dash import dcc, html

from nas.runs.picks import GRAMMAR
from nas.views.page.state import SCALES, TABS, Runs
from nas.views.report.figures import quiet

POLL_MS = 2_000
"""Milliseconds between two looks at the runs; a driver writes its state as often."""

_GRAPH: Any = {
    "displaylogo": False,
    "responsive": True,
    # Named one by one: plotly's own choice has a button that sends the chart to its makers' server.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg", "filename": "nas"},
}
_SELECTABLE = _GRAPH | {"modeBarButtons": [["toImage", "zoom2d", "pan2d", "select2d", "lasso2d", "resetScale2d"]]}
_STORES = ("version", "tab", "candidate", "compare", "clicked", "shift-clicked", "jobs-seen", "acted")
_READ_ONLY = (
    "Read only: this page was opened without the token of the address that nas browse printed, so it cannot export, "
    "train or stop."
)


def page(runs: Runs) -> html.Div:
    """The whole page, as it is before it is known whether it may act."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=POLL_MS),
            *(dcc.Store(id=name) for name in _STORES),
            dcc.Store(id="token", storage_type="local"),
            html.Div(id="ignored", hidden=True),
            _header(runs),
            html.Nav(
                [html.Button(name.capitalize(), id=f"tab-{name}", className="view") for name in TABS],
                **_aria(label="Views"),
            ),
            html.Main(
                [_front(runs), _progress(), _choices(), _trials(), _compare(), _failures(), _panel("settings", [])],
                id="panels",
            ),
            _drawer(),
        ],
        id="page",
    )


def _header(runs: Runs) -> html.Header:
    options = [{"label": run.name, "value": key} for key, run in runs.items()]
    return html.Header(
        [
            html.Div(
                [
                    html.H1(id="title"),
                    _control(
                        "Run", dcc.Dropdown(options, id="run", clearable=False, searchable=False), len(options) > 1
                    ),
                    html.Button(
                        "Stop the search",
                        id="stop",
                        className="quiet",
                        hidden=True,
                        disabled=True,
                        title="What runs finishes first; nas search --resume goes on with it",
                    ),
                ],
                className="bar",
            ),
            html.P(id="status", role="status", **_aria(live="polite")),
            html.Div(id="problems", role="alert"),
            html.P(_READ_ONLY, id="read-only", className="note", hidden=True),
        ]
    )


def _front(runs: Runs) -> html.Section:
    others = [{"label": run.name, "value": key} for key, run in runs.items()]
    scale = [{"label": name, "value": name} for name in SCALES]
    controls = html.Div(
        [
            _control("x axis", dcc.Dropdown(id="x", clearable=False)),
            _control(
                "x scale (log, linear)",
                dcc.Dropdown(scale, "auto", id="scale-x", clearable=False, searchable=False),
            ),
            _control("y axis", dcc.Dropdown(id="y", clearable=False)),
            _control(
                "y scale (log, linear)",
                dcc.Dropdown(scale, "auto", id="scale-y", clearable=False, searchable=False),
            ),
            _control("Colour", dcc.Dropdown(id="colour", placeholder="front or not")),
            _control(
                "Marked pick",
                dcc.Input(id="pick", type="text", debounce=True, placeholder="latency<=2ms", maxLength=200),
                title=f"{GRAMMAR}; several with commas between",
            ),
            _control("Also the fronts of", dcc.Dropdown(others, id="over", multi=True), len(others) > 1),
            _control(
                "Behind the front", dcc.Checklist([{"label": "shown", "value": "shown"}], ["shown"], id="dominated")
            ),
        ],
        className="controls",
    )
    steps = html.Div(
        [
            html.Button("← cheaper", id="previous", className="quiet"),
            html.Button("more expensive →", id="next", className="quiet"),
            html.Span(
                "A click opens a candidate, the arrow keys step along the front. A shift-click adds one to the comparison or "
                "takes it out, a lasso chooses several.",
                className="soft",
            ),
        ],
        className="steps",
    )
    scatter = _graph("scatter", _SELECTABLE, "plot large")
    whose = html.P(
        "Scores are those of the search's own weights on the validation split, latencies those measured in the search. What a "
        "full training got, with other weights, is told of the opened candidate.",
        className="soft",
    )
    return _panel("front", [controls, html.P(id="pick-note", className="note", role="status"), scatter, steps, whose])


def _progress() -> html.Section:
    over = [{"label": "trials", "value": "trials"}, {"label": "time", "value": "time"}]
    return _panel(
        "progress",
        [
            _control("Over", dcc.RadioItems(over, "trials", id="progress-over", inline=True)),
            *_figure("hypervolume", "Hypervolume of the front"),
            html.P(id="reference", className="soft"),
            *_figure("outcomes", "How trials ended"),
            *_figure("curves", "Learning curves of the front"),
        ],
    )


def _choices() -> html.Section:
    return _panel(
        "choices",
        [
            *_own("choices-figure", "What the front prefers, layer by layer"),
            *_figure("parallel", "Parallel coordinates", "plot wide"),
            *_own("importance", "What each objective hangs on"),
        ],
    )


def _trials() -> html.Section:
    buttons = html.Div(
        [
            html.Button("Save as CSV", id="csv", className="quiet"),
            html.Button("Open the selected", id="open-selected", className="quiet"),
            html.Span("A click on a row opens it; ticked rows are compared.", className="soft"),
        ],
        className="steps",
    )
    grid = dag.AgGrid(
        id="grid",
        className="grid",
        style={"height": "max(420px, calc(100vh - 250px))"},
        getRowId="params.data.id",
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "filter": "agTextColumnFilter",
            "floatingFilter": True,
            "cellDataType": False,
        },
        columnDefs=[],
        rowData=[],
        csvExportParams={"fileName": "trials.csv"},
        dashGridOptions={
            "rowSelection": {"mode": "multiRow", "enableClickSelection": False, "headerCheckbox": False},
            "localeText": {"noRowsToShow": "No trial has ended yet."},
            "animateRows": False,
            "enableCellTextSelection": True,
        },
    )
    return _panel("trials", [buttons, grid])


def _compare() -> html.Section:
    return _panel(
        "compare",
        [
            html.Div([html.Button("Clear", id="compare-clear", className="quiet")], className="steps"),
            html.Div(id="compare-table"),
            html.Div(
                [*_own("compare-strips", "Layers"), *_figure("compare-curves", "Learning curves")],
                id="compare-figures",
                hidden=True,
            ),
        ],
    )


def _failures() -> html.Section:
    return _panel("failures", [html.Div(id="failures-list")])


def _drawer() -> html.Aside:
    return html.Aside(
        [
            html.Div(
                [
                    html.H2(id="drawer-title", tabIndex=-1),
                    html.Button("Close", id="close", className="quiet", title="Escape"),
                ],
                className="bar",
            ),
            html.Div(id="drawer-figures"),
            *_own("strip", "Layers"),
            *_figure("curve", "Learning curve", "plot small"),
            html.H3("Commands"),
            *_command("export", "Export"),
            *_command("train", "Train"),
            html.Div(id="jobs", role="status", **_aria(live="polite")),
            html.Button("Compare with others", id="compare-add", className="quiet"),
            html.Details([html.Summary("Record"), html.Pre(id="record")]),
        ],
        id="drawer",
        hidden=True,
        **_aria(labelledby="drawer-title"),
    )


def _command(kind: str, label: str) -> Sequence[Any]:
    text = html.Pre(id=f"{kind}-command")
    copy = dcc.Clipboard(target_id=f"{kind}-command", title=f"Copy the command: {label}", className="copy")
    return (
        html.Div([text, copy], className="command"),
        html.Button(label, id=kind, disabled=True),
    )


def _panel(name: str, children: Sequence[Any]) -> html.Section:
    return html.Section(children, id=f"panel-{name}", hidden=True, **_aria(labelledby=f"tab-{name}"))


def _figure(id_: str, title: str, class_: str = "plot") -> Sequence[Any]:
    return html.H3(title), _graph(id_, _GRAPH, class_)


def _graph(id_: str, config: Any, class_: str) -> html.Div:
    """A figure that fills its box."""
    graph = dcc.Graph(id=id_, figure=quiet(""), config=config, style={"height": "100%"})
    return html.Div(graph, className=class_)


def _own(id_: str, title: str) -> Sequence[Any]:
    """A place for `sized` figures."""
    return html.H3(title), html.Div(html.P("Being worked out…", className="note"), id=id_, className="plot own")


def sized(figure: go.Figure) -> dcc.Graph:
    """A figure as high as it says: plotly forgets that when its window changes, unless its box has the same height."""
    return dcc.Graph(figure=figure, config=_GRAPH, style={"height": f"{figure.layout.height or 120}px"})


def _control(label: str, component: Any, shown: bool = True, title: str = "") -> html.Label:
    return html.Label([html.Span(label), component], className="control", hidden=not shown, title=title or None)


def _aria(**values: str) -> Any:
    """Accessible names and states, which have a hyphen in theirs."""
    return {f"aria-{name}": value for name, value in values.items()}
