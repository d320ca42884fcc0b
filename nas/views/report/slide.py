"""The front as a picture for slides, drawn by kaleido, which needs a Chromium or Chrome on this machine."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from nas.common.errors import InputError, arg
from nas.runs.front import primary_cost
from nas.views.report.findings import Findings
from nas.views.report.plots import front_figure

WIDTH, HEIGHT = 1600, 900
_LARGER = 1.75
"""By how much marks and text are larger than on a page: a slide is read from afar."""
_INK = "#22262b"


def slide_figure(found: Findings) -> go.Figure:
    """The score against the first cost, on white, in the sizes of a slide."""
    figure = front_figure(found, primary_cost(found.settings.objectives))
    for trace in figure.data:
        for part in (trace.marker, trace.line, trace.textfont):
            for key in ("size", "width"):
                if key in part and part[key] is not None:
                    part[key] *= _LARGER
        if trace.textfont.size is not None:
            trace.textfont.color = _INK
        for bar in (trace.error_x, trace.error_y):
            if bar.array is not None:
                bar.thickness = 2
    axis = {"gridcolor": "#e3e6ea", "linecolor": "#8b8f94", "title": {"standoff": 18}}
    return figure.update_layout(
        width=WIDTH, height=HEIGHT, paper_bgcolor="white", plot_bgcolor="white", margin={"l": 110, "r": 60, "t": 90, "b": 110},
        font={"size": 24, "color": _INK}, legend={"font": {"size": 22}}, xaxis=axis, yaxis=axis,
    )  # fmt: skip


def slide_png(found: Findings) -> bytes:
    """The picture, `WIDTH` by `HEIGHT` pixels; raises `InputError` where kaleido or a browser is missing or fails."""
    if not found.scored:
        raise InputError(f"{found.path}: {arg('png')} shows the front, and no candidate is trained yet")
    try:
        import kaleido
    except ImportError as error:
        raise InputError(f"{arg('png')} needs kaleido: pip install 'pareto-nas[png]'") from error
    options: dict[str, Any] = {"format": "png", "width": WIDTH, "height": HEIGHT, "scale": 1}
    try:
        # Without MathJax, which it would fetch from the network.
        return kaleido.calc_fig_sync(slide_figure(found), opts=options, kopts={"mathjax": False, "timeout": 60})
    except Exception as error:  # whatever the browser's driver raises
        if type(error).__name__ == "ChromeNotFoundError":
            raise InputError(
                f"{arg('png')} needs Chromium or Chrome: none is on the PATH, nor where BROWSER_PATH says"
            ) from error
        message = " ".join(str(error).split())[:200]
        raise InputError(
            f"{arg('png')}: the browser could not draw the front: {type(error).__name__}: {message}"
        ) from error
