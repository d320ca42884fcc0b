"""The report: one HTML file that holds everything it shows, plotly.js included, and never uses the network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from nas.common.files import write_atomically, writing
from nas.common.kinds import checks_kinds
from nas.common.text import plural
from nas.runs.store import RunDirectory
from nas.views.report import plots, tables
from nas.views.report.audit import audit
from nas.views.report.baselines import baselines
from nas.views.report.confirmation import confirmation
from nas.views.report.findings import Findings, find
from nas.views.report.headline import headline
from nas.views.report.latency import latency_protocol, prediction
from nas.views.report.markup import Html, join, tag
from nas.views.report.rerun import commands, settings_list
from nas.views.report.slide import slide_png
from nas.views.report.trainings import trainings


@checks_kinds
def write_report(run: RunDirectory) -> Path:
    """Write the run's report and return its path; a reader sees the old file or the whole new one.

    Raises `InputError` when it cannot be written.
    """
    return run.save_report(report_page(find(run)))


def write_front(run: RunDirectory, to: Path | None = None) -> Path:
    """Write the front as a picture for slides, by default into the run, and return its path.

    Raises `InputError` when it cannot be drawn or written.
    """
    path = to or run.picture_path
    content = slide_png(find(run))
    with writing(path):
        if to is None:  # a link that somebody else left there is replaced, not followed
            write_atomically(path, content)
        else:
            path.write_bytes(content)
    return path


def report_page(found: Findings) -> Html:
    """The whole document."""
    figures: dict[str, go.Figure] = {}
    body = tag(
        "main",
        headline(found),
        trainings(found),
        *(tag("h2", "Pareto front"), plots.pareto(found, figures), tables.front_table(found), _bias(found)),
        confirmation(found),
        baselines(found),
        plots.networks(found, figures),
        plots.preferences(found, figures),
        audit(found, figures),
        plots.progress(found, figures),
        *(tag("h2", "All trials"), tables.trials_table(found)),
        *(tag("h2", "Failures"), tables.failures(found)),
        *(tag("h2", "Latency protocol"), latency_protocol(found)),
        prediction(found),
        *(tag("h2", "Settings and versions"), settings_list(found)),
        *(tag("h2", "Commands"), commands(found)),
    )
    scripts = [get_plotlyjs(), _asset("report.js")] if figures else []
    scripts += [_asset("table.js")] if found.records else []
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{found.settings.space.name} · nas report"),
        tag("style", Html(_asset("report.css"))),
    )
    data = tag("script", _as_json(figures), type="application/json", id="figures") if figures else ""
    end = join(tag("script", Html(script)) for script in scripts)
    return join([Html("<!doctype html>\n"), tag("html", head, tag("body", body, data, end), lang="en"), "\n"])


def _bias(found: Findings) -> Html:
    if not found.front:
        return Html("")
    epochs = found.settings.evaluation.recipe.epochs
    weights = (
        f"the weights of the search's proxy training, {plural(epochs, 'epoch')}," if epochs else "weights as inherited"
    )
    text = (
        f"Scores are of {weights} on the {plural(found.provenance.validation_images, 'validation image')} that the search "
        "selects on: expect a little less on images it never saw. Latencies were measured in the search."
    )
    return tag("p", text, class_="soft")


def _as_json(figures: dict[str, go.Figure]) -> Html:
    """The figures by id; no `<` is left that could end the script element they lie in."""
    items = ",".join(f'"{name}":{figure.to_json()}' for name, figure in figures.items())
    return Html("{" + items.replace("<", "\\u003c") + "}")


def _policy(scripts: list[str]) -> str:
    """A content security policy: nothing is fetched, and no script runs but these (plotly's WebGL needs eval)."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(["'unsafe-eval'", *(f"'sha256-{value}'" for value in hashes)]) if scripts else "'none'"
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"


def _asset(name: str) -> str:
    return files("nas.views.report").joinpath(name).read_text(encoding="utf-8")
