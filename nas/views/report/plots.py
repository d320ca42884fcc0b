"""The report's sections around figures: the front, its networks, what it prefers, what decides, how the search went.

Each is a pure function from what a run found to HTML that adds its figures to `figures`, by the id of their place.
"""

from __future__ import annotations

from typing import TypeAlias

import plotly.graph_objects as go

from nas.common.text import command_text, plural
from nas.runs.objectives import objective, score_of
from nas.runs.record import Outcome, TrialRecord
from nas.views.front_latency import range_title
from nas.views.report.cells import architecture_cell, candidate_cell
from nas.views.report.choices import choices_figure, few_members, parallel_figure
from nas.views.report.curves import learning_curves_figure
from nas.views.report.figures import cost_objectives
from nas.views.report.findings import Findings
from nas.views.report.importance import LEAST, importance_figure
from nas.views.report.layers import layers_figure
from nas.views.report.markup import Html, join, tag
from nas.views.report.progress import hypervolume_figure, no_hypervolume, outcomes_figure, reference_text
from nas.views.report.scatter import scatter_figure

_OTHERS = 16
"""Members of the front without a name whose layers are shown at most, spread evenly: a page is to be mailed."""

Figures: TypeAlias = dict[str, go.Figure]


def pareto(found: Findings, figures: Figures) -> Html:
    """One plot for each cost."""
    if not found.scored:
        return tag("p", "The front appears here once a candidate is trained.", class_="note")
    costs = cost_objectives(found.settings.objectives)
    for cost in costs:
        figures[f"pareto-{cost}"] = front_figure(found, cost)
    size = "plot large" if len(costs) == 1 else "plot"
    plots = [tag("figure", tag("div", id=f"pareto-{cost}", class_=size)) for cost in costs]
    return join(
        [tag("div", *plots, class_="pair" if len(costs) > 1 else ""), tag("figcaption", _pareto_caption(found))]
    )


def front_figure(found: Findings, cost: str) -> go.Figure:
    """The score against a cost, with marks, hard budgets, baselines and longer trainings."""
    evaluation = found.settings.evaluation
    return scatter_figure(
        found.scored,
        found.settings.objectives,
        cost,
        score_of(found.settings.objectives),
        metric=found.metric,
        images=found.provenance.validation_images,
        marks={digest: " · ".join(names) for digest, names in found.names.items()},
        limits=evaluation.limits,
        baselines=found.compared,
        again=found.again,
    )


def networks(found: Findings, figures: Figures) -> Html:
    """The layers of the front's members: those with a name open, the others folded."""
    if not found.front:
        return Html("")
    named = [record for record in found.front if record.digest in found.names]
    others = [record for record in found.front if record.digest not in found.names]
    caption = (
        "A bar a layer, as long as its share of the network's multiply-adds, from the image down. "
        f"{found.settings.space.layer_legend}Behind what was chosen are the channels in and out. The field is the receptive "
        "field: the side in pixels of what one output sees, up to there."
    )
    parts = [tag("h2", "Networks"), tag("p", caption, class_="soft")]
    parts.append(tag("div", *(_network(found, record, figures) for record in named), class_="pair"))
    if others:
        shown = others[:: -(-len(others) // _OTHERS)]
        folded = tag("div", *(_network(found, record, figures) for record in shown), class_="pair")
        some = f"{len(shown)} of " if len(shown) < len(others) else ""
        summary = tag("summary", f"Show {some}{plural(len(others), 'other member')} of the front")
        parts.append(tag("details", summary, folded))
    return join(parts)


def _network(found: Findings, record: TrialRecord, figures: Figures) -> Html:
    place = f"layers-{record.number}"
    figures[place] = layers_figure(record.architecture, found.outputs)
    export = command_text("export", found.path, "--pick", record.digest, "--to", "model")
    train = command_text("train", found.path, "--pick", record.digest)
    return tag(
        "figure",
        tag("div", candidate_cell(record, found.names.get(record.digest, ())), class_="of"),
        architecture_cell(record.text),
        tag("div", id=place, class_="strip"),
        tag("pre", f"{export}\n{train}", title="Export it, or train it in full"),
        class_="network",
    )


def preferences(found: Findings, figures: Figures) -> Html:
    """Which choices the front takes, candidates along parallel axes, and which parameters decide an objective."""
    if not found.front:
        return Html("")
    settings = found.settings
    given = found.scored, settings.objectives, settings.space
    few = few_members(found.front)
    if few is None:
        figures["choices"] = choices_figure(*given)
    figures["parallel"] = parallel_figure(*given)
    caption = (
        f"Of {plural(len(found.front), 'member')} of the front, the share in percent that takes each choice at each layer; "
        "of a layer that some lack, the share of those that have it, where there are enough of them. s0.l1 is the second layer "
        "of the first stage."
    )
    lines = (
        "A line a candidate, the front in blue: objectives, multiply-adds, and the parameters that vary most on the front. "
        "Drag along an axis to pick out lines; – is a choice that the network has no use for."
    )
    parts = [
        tag("h2", "What the front prefers"),
        tag("p", few, class_="note")
        if few
        else tag(
            "figure",
            tag("div", tag("div", id="choices", class_="strip wide"), class_="scroll"),
            tag("figcaption", caption),
        ),
        tag(
            "figure",
            tag("div", tag("div", id="parallel", class_="plot wide"), class_="scroll"),
            tag("figcaption", lines),
        ),
    ]
    if len(found.scored) >= LEAST:
        figures["importance"] = importance_figure(*given)
        note = (
            "The share of each parameter in what a forest of decision trees explains of an objective, over the trained "
            "candidates (mean decrease in impurity). A parameter that the search hardly varied seems to matter little."
        )
        parts += [
            tag("h2", "What decides"),
            tag("figure", tag("div", id="importance", class_="strip"), tag("figcaption", note)),
        ]
    return join(parts)


def progress(found: Findings, figures: Figures) -> Html:
    """Hypervolume, outcomes and learning curves, where there is something to see."""
    if not found.records:
        return Html("")
    objectives = found.settings.objectives
    plots = []

    def add(place: str, title: str, figure: go.Figure, caption: str) -> None:
        figures[place] = figure
        plots.append(tag("figure", tag("h3", title), tag("div", id=place, class_="plot"), tag("figcaption", caption)))

    missing = no_hypervolume(found.recorded, objectives)
    given = found.recorded, objectives
    if missing is None and found.reference is not None:
        caption = reference_text(found.reference, objectives)
        figure = hypervolume_figure(*given, "trials", found.settings)
        add("hypervolume", "Hypervolume of the front, by candidates", figure, caption)
        caption = "Shaded: how networks were chosen, and how many."
        figure = hypervolume_figure(*given, "time", found.settings)
        add("hypervolume-time", "Hypervolume of the front, by time", figure, caption)
    elif missing is not None and found.scored:
        plots.append(tag("figure", tag("h3", "Hypervolume of the front"), tag("p", missing, class_="note")))
    if found.scored and found.settings.evaluation.recipe.epochs:
        stopped = any(record.outcome is Outcome.STOPPED for record in found.records)
        caption = f"Members of the Pareto front{', and in grey what was stopped early' if stopped else ''}."
        figure = learning_curves_figure(found.records, objectives, found.metric)
        add("learning-curves", "Learning curves", figure, caption)
    add("outcomes", "How trials ended", outcomes_figure(found.recorded), "In the order in which they ended.")
    return join([tag("h2", "Progress"), tag("div", *plots, class_="pair")])


def _pareto_caption(found: Findings) -> str:
    sentences = []
    bars = []
    if any(objective(name).unit == "ms" for name in found.settings.objectives):
        ranges = range_title([record.evaluation.latency for record in found.front])
        bars.append(
            {"95 %": "95 % intervals", "p10-p90": "p10 to p90"}.get(ranges, "95 % intervals, or p10 to p90,")
            + " of the latency"
        )
    images = found.provenance.validation_images
    if found.metric.error_title:
        bars.append(f"one {found.metric.error_title} of the {found.metric.title} ({images:,} images)")
    if bars:
        sentences.append(f"Bars: {', and '.join(bars)}.")
    if len(found.settings.objectives) > 2:
        sentences.append("Filled points are on the front of all objectives together; the line is the front of two.")
    outcomes = [record.outcome for record in found.recorded]
    tightened = sum(record.over_limit for record in found.recorded)
    in_turn = sum(record.outcome is Outcome.REJECTED for record in found.records) - outcomes.count(Outcome.REJECTED)
    rejected, stopped = outcomes.count(Outcome.REJECTED) - tightened, outcomes.count(Outcome.STOPPED)
    if rejected:
        sentences.append(f"Not drawn: {plural(rejected, 'candidate')} over a hard budget, never trained.")
    if tightened:
        more = plural(tightened, "trained candidate")
        sentences.append(f"Not drawn: {more} over a hard budget that was given or tightened later.")
    if in_turn > 0:
        more = plural(in_turn, "candidate")
        sentences.append(f"Not drawn: {more} found over a hard budget when measured in turn.")
    if stopped:
        sentences.append(f"Not drawn: {plural(stopped, 'candidate')} stopped before the full training.")
    return " ".join(sentences)
