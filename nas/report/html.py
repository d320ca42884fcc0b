"""The report: one HTML file that holds everything it shows, plotly.js included, and never uses the network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from nas.front import REFERENCE_TRIALS
from nas.objectives import objective
from nas.record import Outcome
from nas.report import sections
from nas.report.audit import audit
from nas.report.baselines import baselines
from nas.report.confirmation import confirmation
from nas.report.curves import learning_curves_figure
from nas.report.figures import cost_objectives
from nas.report.latency import latency_protocol, prediction
from nas.report.markup import Html, join, tag
from nas.report.progress import hypervolume_figure, reference_text
from nas.report.scatter import scatter_figure
from nas.report.sections import Findings
from nas.run import RunDirectory
from nas.wording import plural


def write_report(run: RunDirectory) -> Path:
    """Write the run's report and return its path; a reader sees the old file or the whole new one.

    Raises `InputError` when it cannot be written.
    """
    return run.save_report(report_page(sections.find(run)))


def report_page(found: Findings) -> Html:
    """The whole document."""
    figures: dict[str, go.Figure] = {}
    body = tag(
        "main",
        sections.headline(found),
        *(tag("h2", "Pareto front"), _pareto(found, figures), sections.front_table(found), _bias(found)),
        confirmation(found),
        baselines(found),
        audit(found, figures),
        *_progress(found, figures),
        *(tag("h2", "All trials"), sections.trials_table(found)),
        *(tag("h2", "Failures"), sections.failures(found)),
        *(tag("h2", "Latency protocol"), latency_protocol(found)),
        prediction(found),
        *(tag("h2", "Settings and versions"), sections.settings_list(found)),
        *(tag("h2", "Commands"), sections.commands(found)),
    )
    scripts = [get_plotlyjs(), _asset("report.js")] if figures else []
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


def _pareto(found: Findings, figures: dict[str, go.Figure]) -> Html:
    """One plot for each cost; the figures are added to `figures` by the id of their place."""
    if not found.scored:
        return tag("p", "The front appears here once a candidate is trained.", class_="note")
    settings = found.settings
    costs = cost_objectives(settings.objectives)
    plots = []
    for cost in costs:
        figures[f"pareto-{cost}"] = scatter_figure(
            found.scored,
            settings.objectives,
            cost,
            "accuracy",
            metric=found.metric,
            images=found.provenance.validation_images,
            marks={digest: " · ".join(names) for digest, names in found.names.items()},
            limits=settings.evaluation.limits,
            baselines=found.compared,
            again=found.again,
        )
        size = "plot large" if len(costs) == 1 else "plot"
        plots.append(tag("figure", tag("div", id=f"pareto-{cost}", class_=size)))
    return join(
        [tag("div", *plots, class_="pair" if len(costs) > 1 else ""), tag("figcaption", _pareto_caption(found))]
    )


def _pareto_caption(found: Findings) -> str:
    sentences = []
    bars = []
    if any(objective(name).unit == "ms" for name in found.settings.objectives):
        bars.append("p10 to p90 of the latency")
    if found.metric == "accuracy":
        bars.append(f"one binomial standard error of the accuracy ({found.provenance.validation_images:,} images)")
    if bars:
        sentences.append(f"Bars: {', and '.join(bars)}.")
    if len(found.settings.objectives) > 2:
        sentences.append("Filled points are on the front of all objectives together; the line is the front of two.")
    outcomes = [record.outcome for record in found.records]
    rejected, stopped = outcomes.count(Outcome.REJECTED), outcomes.count(Outcome.STOPPED)
    if rejected:
        sentences.append(f"Not drawn: {plural(rejected, 'candidate')} over a hard budget, never trained.")
    if stopped:
        sentences.append(f"Not drawn: {plural(stopped, 'candidate')} stopped before the full training.")
    return " ".join(sentences)


def _bias(found: Findings) -> Html:
    if not found.front:
        return Html("")
    text = (
        "Scores are of the validation images that the search selects on: expect a little less on images it never saw."
    )
    return tag("p", text, class_="soft")


def _progress(found: Findings, figures: dict[str, go.Figure]) -> list[Html]:
    """Hypervolume and learning curves, where there is something to see."""
    if not found.scored:
        return []
    objectives = found.settings.objectives
    if found.reference is None:
        missing = f"The hypervolume's reference point is fixed once {REFERENCE_TRIALS} candidates are trained."
        volume = tag("p", missing, class_="note")
    else:
        figures["hypervolume"] = hypervolume_figure(found.scored, objectives)
        caption = reference_text(found.reference, objectives)
        volume = join([tag("div", id="hypervolume", class_="plot"), tag("figcaption", caption)])
    figures["learning-curves"] = learning_curves_figure(found.records, objectives, found.metric)
    stopped = any(record.outcome is Outcome.STOPPED for record in found.records)
    drawn = f"Members of the Pareto front{', and in grey what was stopped early' if stopped else ''}."
    curves = join([tag("div", id="learning-curves", class_="plot"), tag("figcaption", drawn)])
    return [
        tag("h2", "Progress"),
        tag(
            "div",
            tag("figure", tag("h3", "Hypervolume of the front"), volume),
            tag("figure", tag("h3", "Learning curves"), curves),
            class_="pair",
        ),
    ]


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
    return files("nas.report").joinpath(name).read_text(encoding="utf-8")
