"""The figures of the report and the app: what they show is what the records hold, in every state of a run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
from mobile import mobile_space
from test_report import BASELINES, HOSTILE, SETTINGS, SPACE, make_baseline, make_record, scattered

from nas.models.build import build
from nas.runs.front import pareto_front
from nas.runs.record import Outcome, TrialRecord
from nas.spaces.families import architecture_cost, layer_rows
from nas.spaces.mobile.architecture import Architecture, LayerSpec, StemSpec
from nas.tasks.base import Score
from nas.tasks.classification_metrics import METRICS
from nas.views.report.choices import choices_figure, parallel_figure
from nas.views.report.curves import learning_curves_figure
from nas.views.report.importance import importance_figure, importances
from nas.views.report.layers import compare_figure, layers_figure
from nas.views.report.progress import hypervolume_figure, outcomes_figure, phases
from nas.views.report.quantities import choice_of, colours, quantities, value_of
from nas.views.report.scatter import scatter_figure

TWO = ("accuracy", "latency")


def traces(figure: go.Figure) -> dict[str | None, Any]:
    return {trace.name: trace for trace in figure.data}


def test_the_front_is_a_step_line_with_its_errors() -> None:
    cheap, dear, dominated = make_record(0, 0.8, 0.2), make_record(1, 0.9, 0.4), make_record(2, 0.7, 0.3)
    rejected = make_record(3, 0.0, 0.1, outcome=Outcome.REJECTED)
    drawn = traces(scatter_figure([cheap, dear, dominated, rejected], TWO, "latency", "accuracy", images=400))
    front = drawn["Pareto front"]
    assert list(front.x) == [0.2, 0.4]
    assert list(front.y) == [80.0, 90.0]
    assert list(front.error_x.array) == pytest.approx([0.04, 0.08])
    assert list(front.error_x.arrayminus) == pytest.approx([0.02, 0.04])
    assert list(front.error_y.array) == pytest.approx([2.0, 1.5])
    assert list(drawn["dominated"].x) == [0.3]
    assert drawn[None].line.shape == "hv"
    for words in (cheap.digest, "80.00 ± 2.00 %", "0.200 ms (0.180–0.240)", "400.0 k MACs", "batch 1 · eager"):
        assert words in front.hovertext[0]


def test_an_axis_of_memory_is_in_bytes() -> None:
    records = [make_record(0), make_record(1)]
    records = [replace(r, objectives=r.objectives | {"memory": 2e6 + r.number}) for r in records]
    axis = scatter_figure(records, ("accuracy", "memory"), "memory", "accuracy").layout.xaxis
    assert (axis.title.text, axis.tickformat, axis.ticksuffix) == ("Peak inference memory", "~s", "B")


def test_a_metric_other_than_accuracy_has_no_binomial_error() -> None:
    records = [make_record(0, 0.8, 0.2), make_record(1, 0.9, 0.4)]
    figure = scatter_figure(records, TWO, "latency", "accuracy", metric=METRICS["macro_f1"], images=400)
    assert traces(figure)["Pareto front"].error_y.array is None
    assert "±" not in traces(figure)["Pareto front"].hovertext[0]
    assert figure.layout.yaxis.title.text == "Validation macro f1 (%)"


def test_with_three_objectives_the_line_is_the_front_of_the_two_drawn() -> None:
    objectives = ("accuracy", "latency", "macs")
    records = [
        make_record(0, 0.9, 0.4, macs=500),
        make_record(1, 0.8, 0.2, macs=900),
        make_record(2, 0.7, 0.5, macs=100),
    ]
    drawn = traces(scatter_figure(records, objectives, "latency", "accuracy"))
    assert list(drawn["Pareto front"].x) == [0.2, 0.4, 0.5]
    assert list(drawn[None].x) == [0.2, 0.4]


def test_baselines_are_named_and_the_widths_of_one_network_joined() -> None:
    figure = scatter_figure(scattered(8), TWO, "latency", "accuracy", baselines=[BASELINES[i] for i in (1, 2, 0)])
    drawn = {trace.text[0]: trace for trace in figure.data if trace.name == "baseline"}
    assert set(drawn) == {"mobilenet_v2", "resnet18"}
    assert list(drawn["mobilenet_v2"].x) == [3.0, 4.0]
    assert list(drawn["mobilenet_v2"].y) == [88.0, 92.0]
    assert "mobilenet_v2_050" in drawn["mobilenet_v2"].hovertext[0]
    assert [trace.showlegend for trace in drawn.values()].count(True) == 1
    assert figure.layout.xaxis.type == "log"  # they are far from the candidates
    (alone,) = (t for t in scatter_figure([], TWO, "latency", "accuracy", baselines=BASELINES[:1]).data if t.text)
    assert alone.text[0] == "mobilenet_v2_050"


def test_hypervolume_reaches_to_the_last_trained_candidate() -> None:
    (line,) = hypervolume_figure(scattered(40), TWO).data
    assert (line.x[0], line.x[-1]) == (8, 40)
    assert list(line.y) == sorted(line.y)
    (timed,) = hypervolume_figure(scattered(40), TWO, "time").data
    assert list(timed.y) == list(line.y)
    assert [round(minutes * 12) for minutes in timed.x] == list(line.x)  # one every five seconds


def test_phases_of_a_search() -> None:
    named = SPACE.architecture(SPACE.sample(random.Random(99)))
    first = [named, SPACE.smallest, SPACE.backbone, SPACE.largest]
    records = [
        replace(
            make_record(i, latency_ms=0.5 + i / 10), architecture=arch, digest=arch.digest, text=str(arch.canonical)
        )
        for i, arch in enumerate(first)
    ]
    records += [make_record(4, outcome=Outcome.STOPPED), *(make_record(i, i / 100) for i in range(5, 20))]
    records.append(make_record(20, outcome=Outcome.FAILED))
    settings = replace(SETTINGS, enqueue=(str(named.canonical),))
    assert [(phase.name, phase.start, phase.end) for phase in phases(records, settings)] == [
        ("first networks", 0, 4),
        ("spread out", 4, 8),
        ("by the model", 8, 19),
    ]
    drawn = hypervolume_figure(records, TWO, "trials", settings).layout.shapes
    assert [shape.name for shape in drawn] == ["first networks (4)", "spread out (4)", "by the model (11)"]
    at_random = phases(records, replace(settings, sampler="random"))
    assert [(phase.name, phase.end) for phase in at_random] == [("first networks", 4), ("at random", 19)]


def test_what_was_taken_over_starts_the_hypervolume_and_is_not_counted() -> None:
    earlier = [replace(record, imported_from="old trial 1") for record in scattered(10)]
    own = [replace(record, number=record.number + 10) for record in scattered(20)[10:]]
    drawn = traces(hypervolume_figure([*earlier, *own], TWO))
    assert drawn["hypervolume"].x[0] == drawn["imported from earlier runs"].x[0] == 0
    assert drawn["hypervolume"].x[-1] == 10


def test_outcomes_add_up_to_the_trials_that_ended() -> None:
    kinds = [Outcome.DONE, Outcome.FAILED, Outcome.DONE, Outcome.REJECTED, Outcome.REPEAT]
    records = [make_record(i, outcome=kinds[i % 5]) for i in range(900)]
    figure = outcomes_figure([*records, replace(make_record(900), imported_from="old")])
    assert all(type(height) is int for trace in figure.data for height in trace.y)  # a True would be drawn as nothing
    assert [sum(heights) for heights in zip(*(trace.y for trace in figure.data), strict=True)] == list(figure.data[0].x)
    assert figure.data[0].x[-1] == 901
    assert {trace.name for trace in figure.data} == {
        "done (360)", "failed (180)", "rejected (180)", "repeat (180)", "from earlier runs (1)"
    }  # fmt: skip


@pytest.mark.parametrize("ended", [1, 2, 7])
def test_few_trials_are_counted_in_whole_numbers(ended: int) -> None:
    figure = outcomes_figure([make_record(number) for number in range(ended)])
    assert (figure.layout.xaxis.dtick, figure.layout.yaxis.dtick) == (1, 1)


def test_learning_curves_are_those_of_the_front() -> None:
    records = scattered(60)
    front = pareto_front(records, TWO)
    figure = learning_curves_figure(records, TWO)
    assert len(figure.data) == len(front) < 60
    named = {trace.name for trace in figure.data if trace.showlegend}
    assert named == {"fastest", "knee", "most accurate"}
    assert traces(figure)["most accurate"].y[-1] == pytest.approx(100 * front[-1].objectives["accuracy"], abs=1e-3)


# ---------------------------------------------------------------- the scatter


def test_the_step_line_is_the_front_of_the_axes_whichever_way_round() -> None:
    records = scattered(200)
    for cost in ("latency", "macs"):
        front = pareto_front(records, ("accuracy", cost))
        line = traces(scatter_figure(records, TWO, cost, "accuracy"))[None]
        turned = traces(scatter_figure(records, TWO, "accuracy", cost))[None]
        assert list(line.x) == pytest.approx([record.objectives[cost] for record in front], rel=1e-5)
        assert list(line.y) == pytest.approx([100 * record.objectives["accuracy"] for record in front], abs=1e-3)
        assert (line.x, line.y) == (turned.y, turned.x)
        assert (line.line.shape, turned.line.shape) == (
            "hv",
            "vh",
        )  # at no cost is more accuracy promised than there is
    assert not traces(scatter_figure(records, TWO, "macs", "latency"))[None].x
    assert not traces(scatter_figure(records, TWO, "trial", "accuracy"))[None].x


@pytest.mark.parametrize("colour", [None, "params", "s1.depth"])
def test_points_carry_the_digests_of_their_candidates(colour: str | None) -> None:
    records = scattered(60)
    by_digest = {record.digest: record for record in records}
    front = {record.digest for record in pareto_front(records, TWO)}
    drawn = traces(scatter_figure(records, TWO, "macs", "latency", colour=colour, space=SPACE))
    for name, expected in (("Pareto front", front), ("dominated", set(by_digest) - front)):
        points = drawn[name]
        assert {digest for (digest,) in points.customdata} == expected
        for x, y, (digest,) in zip(points.x, points.y, points.customdata, strict=True):
            values = by_digest[digest].objectives
            assert (x, y) == pytest.approx((values["macs"], values["latency"]), rel=1e-5)


def test_only_what_was_trained_in_full_is_drawn() -> None:
    records = [make_record(0), make_record(1, outcome=Outcome.STOPPED), make_record(2, outcome=Outcome.REJECTED)]
    drawn = traces(scatter_figure(records, TWO, "latency", "accuracy"))
    assert [list(drawn[name].x) for name in ("dominated", "Pareto front")] == [[], [0.5]]
    assert value_of(records[2], "accuracy") is None


def test_limits_shade_the_side_that_is_not_allowed() -> None:
    records = scattered(60)
    figure = scatter_figure(records, TWO, "latency", "accuracy", limits={"latency": 1.5, "accuracy": 0.75, "macs": 1e6})
    over, below = (shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (over.x0, over.x1) == (1.5, pytest.approx(10 ** figure.layout.xaxis.range[1]))
    assert (below.y0, below.y1) == (75.0, pytest.approx(figure.layout.yaxis.range[0]))
    assert below.y1 < 75.0
    assert all(10 ** figure.layout.xaxis.range[0] < record.objectives["latency"] < over.x1 for record in records)
    turned = scatter_figure(records, TWO, "accuracy", "latency", limits={"latency": 1.5}, log_y=False)
    (over,) = (shape for shape in turned.layout.shapes if shape.type == "rect")
    assert (over.y0, over.y1) == (1.5, pytest.approx(turned.layout.yaxis.range[1]))
    assert not scatter_figure(records, TWO, "latency", "accuracy", limits={"latency": 100.0}).layout.shapes


def test_axes_are_logarithmic_as_asked_or_as_the_values_ask() -> None:
    records = scattered(60)

    def kinds(log_x: bool | None = None, log_y: bool | None = None) -> tuple[str | None, str | None]:
        figure = scatter_figure(records, TWO, "macs", "accuracy", log_x=log_x, log_y=log_y)
        return figure.layout.xaxis.type, figure.layout.yaxis.type

    assert kinds() == ("log", None)
    assert kinds(log_x=False, log_y=True) == (None, "log")
    zero = [replace(record, objectives=record.objectives | {"macs": 0.0}) for record in records[:3]]
    assert scatter_figure(zero, TWO, "macs", "accuracy", log_x=True).layout.xaxis.type is None


def test_colours_tell_choices_apart_and_what_is_not_there() -> None:
    records = scattered(60)
    figure = scatter_figure(records, TWO, "latency", "accuracy", colour="s0.l1.separable", space=SPACE)
    key = {trace.name: trace.marker.color for trace in figure.data if trace.name and "separable" in trace.name}
    assert set(key) == {"s0.l1.separable yes", "s0.l1.separable no", "s0.l1.separable not there"}
    by_digest = {record.digest: record for record in records}
    for name in ("dominated", "Pareto front"):
        points = traces(figure)[name]
        for (digest,), colour in zip(points.customdata, points.marker.color, strict=True):
            record = by_digest[digest]
            choice = {True: "yes", False: "no"}[bool(record.parameters["s0.l1.separable"])]
            there = record.parameters["s0.depth"] > 1
            assert colour == key[f"s0.l1.separable {choice if there else 'not there'}"]


def test_a_quantity_as_colour_has_a_scale_with_its_units() -> None:
    (bar,) = (
        t for t in scatter_figure(scattered(60), TWO, "latency", "accuracy", colour="macs").data if t.marker.showscale
    )
    assert bar.marker.colorbar.title.text == "MACs"
    assert bar.marker.colorbar.ticktext[-1].endswith(" M")


def test_marks_are_named_beside_their_candidates() -> None:
    records = scattered(30)
    best = pareto_front(records, TWO)[-1]
    drawn = traces(
        scatter_figure(records, TWO, "latency", "accuracy", marks={best.digest: "most accurate", "gone": "x"})
    )
    assert drawn["most accurate"].text == ("most accurate",)
    assert drawn["most accurate"].x[0] == pytest.approx(best.objectives["latency"], rel=1e-5)
    assert "x" not in drawn


def test_what_can_be_put_on_axes_and_colours() -> None:
    records = scattered(20)
    assert quantities(records, ("accuracy", "macs")) == ["accuracy", "macs", "latency", "params", "trial", "seconds"]
    assert set(colours(records, TWO, SPACE)) == {*quantities(records, TWO), *SPACE.parameters}
    assert colours(records[:1], TWO, SPACE) == quantities(records, TWO)
    shallow = next(record for record in records if record.parameters["s0.depth"] == 0)
    assert [choice_of(shallow, name, SPACE) for name in ("s0.depth", "s0.out_channels", "s0.l0.kernel_size")] == [
        0,
        None,
        None,
    ]


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("name", ["digits", "cifar", "lite0"])
def test_layers_add_up_to_the_cost_of_the_architecture(name: str) -> None:
    space, rng = mobile_space(name), random.Random(1)
    for architecture in [space.smallest, space.largest, *(space.architecture(space.sample(rng)) for _ in range(20))]:
        rows, cost = layer_rows(architecture, 7), architecture_cost(architecture, 7)
        assert (sum(row.macs for row in rows), sum(row.params for row in rows)) == (cost.macs, cost.params)
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert [row.name for row in rows][1 : 1 + len(architecture.layers)] == [
            str(number) for number in range(1, 1 + len(architecture.layers))
        ]
        for row, after in itertools.pairwise(rows):
            assert (row.out_channels, row.size_out) == (after.in_channels, after.size_in)


def test_receptive_fields_are_those_of_the_gradient() -> None:
    layers = (LayerSpec(3, 2, 2, True, 8, 2), LayerSpec(5, 1, 1, False, 8, 1), LayerSpec(3, 1, 3, True, 8, 2))
    architecture = Architecture(1, 97, StemSpec(3, 2, 4), layers, 0)
    network = build(architecture, 2).double().eval()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)  # no gradient may vanish by chance
    image = torch.rand(1, 1, 97, 97, dtype=torch.float64, requires_grad=True)
    maps = [network.stem(image)]
    for block in network.blocks:
        maps.append(block(maps[-1]))
    for row, features in zip(layer_rows(architecture, 2), maps, strict=False):
        middle = features.shape[-1] // 2
        (gradient,) = torch.autograd.grad(features[0, :, middle, middle].sum(), image, retain_graph=True)
        seen = gradient[0, 0].abs().sum(0).nonzero().flatten()
        assert int(seen[-1] - seen[0]) + 1 == row.receptive_field, row.name
        assert features.shape[1:] == (row.out_channels, row.size_out, row.size_out)


def test_a_strip_shows_each_layer_and_tells_dense_from_separable_without_colour() -> None:
    architecture = Architecture(
        1, 32, StemSpec(3, 1, 8), (LayerSpec(5, 2, 4, True, 16, 2), LayerSpec(3, 1, 2, False, 16, 1)), 0
    )
    figure = layers_figure(architecture, 10)
    rows = {row.name: row for row in layer_rows(architecture, 10)}
    drawn = traces(figure)
    assert set(drawn) == {"stem", "separable", "fused", "classifier"}
    assert "k5 d2 e4 /2" in drawn["separable"].y[0].replace("\u00a0", " ")
    assert drawn["separable"].x[0] == pytest.approx(100 * rows["1"].share, abs=1e-3)
    assert f"receptive field {rows['1'].receptive_field} pixels" in drawn["separable"].hovertext[0]
    assert len({trace.marker.pattern.shape for trace in (drawn["separable"], drawn["fused"])}) == 2
    assert len(figure.layout.yaxis.categoryarray) == len(rows) == sum(len(trace.y) for trace in figure.data)


def test_candidates_are_compared_layer_by_layer_on_one_scale() -> None:
    shown = {"small <b>": SPACE.smallest, "large": SPACE.largest}
    figure = compare_figure(shown, 10)
    macs = [sum(sum(trace.y) for trace in figure.data if trace.xaxis == axis) for axis in ("x", "x2")]
    assert macs == [architecture_cost(architecture, 10).macs for architecture in shown.values()]
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert figure.layout.yaxis.title.text == "small &lt;b&gt;"
    assert figure.layout.xaxis2.categoryarray[-1] == "classifier"


# ---------------------------------------------------------------- choices and importance


def planted(count: int, name: str) -> list[TrialRecord]:
    """Candidates whose accuracy one parameter decides, but for some noise."""
    rng = random.Random(3)
    return [
        replace(
            make_record(number, 0.5 + 0.1 * SPACE.parameters[name].index(record.parameters[name]) + rng.gauss(0, 0.02)),
            parameters=record.parameters,
        )
        for number, record in enumerate(scattered(count))
    ]


@pytest.mark.parametrize("name", ["head_channels", "s1.l0.kernel_size"])
def test_a_planted_parameter_is_the_most_important(name: str) -> None:
    records = planted(120, name)
    found = importances(records, TWO, SPACE)
    assert set(found) == {"accuracy"}  # in latency they do not differ
    assert next(iter(found["accuracy"])) == name
    assert sum(found["accuracy"].values()) == pytest.approx(1)
    figure = importance_figure(records, TWO, SPACE)
    assert figure.data[0].y[0] == name
    assert len(figure.data[0].y) == 15
    assert figure == importance_figure(records, TWO, SPACE)


def test_the_heat_map_holds_shares_of_the_front() -> None:
    records = scattered(80)
    front = pareto_front(records, TWO)
    heat = choices_figure(records, TWO, SPACE).data[0]
    cells = {
        (layer, choice): z
        for layer, line in zip(heat.y, heat.z, strict=True)
        for choice, z in zip(heat.x, line, strict=True)
    }
    having = [record for record in front if record.parameters["s0.depth"] > 1]
    large = [record for record in having if record.parameters["s0.l1.kernel_size"] == 5]
    assert 0 < len(having) < len(front)
    assert cells["s0.l1", "k5"] == pytest.approx(100 * len(large) / len(having), abs=0.05)
    assert cells["s0.l1", "k3"] + cells["s0.l1", "k5"] == pytest.approx(100, abs=0.1)
    assert cells["s0.l1", "separable"] + cells["s0.l1", "fused"] == pytest.approx(100, abs=0.1)
    assert cells["s0.l1", "not there"] == pytest.approx(100 * (1 - len(having) / len(front)), abs=0.05)
    assert cells["s1.l0", "not there"] is None  # each network has it
    hover = heat.hovertext[heat.y.index("s0.l1")][heat.x.index("k5")]
    assert f"({len(large)} of {len(having)})" in hover


def test_parallel_axes_have_the_objectives_and_what_varies_on_the_front() -> None:
    records = scattered(60)
    plot = parallel_figure(records, TWO, SPACE).data[0]
    labels = [dimension.label for dimension in plot.dimensions]
    assert labels[:3] == ["Accuracy (%)", "Latency", "MACs"]
    assert len(labels) == 9
    assert set(labels[3:]) < set(SPACE.parameters)
    assert sum(plot.line.color) == len(pareto_front(records, TWO))
    assert all(len(dimension.values) == 60 for dimension in plot.dimensions)


# ---------------------------------------------------------------- every state


FIGURES: dict[str, Callable[[list[TrialRecord], tuple[str, ...]], go.Figure]] = {
    "scatter": lambda records, objectives: scatter_figure(
        records,
        objectives,
        objectives[1],
        "accuracy",
        colour="s0.l0.kernel_size",
        space=SPACE,
        limits={objectives[1]: 0.4},
    ),
    "quantities": lambda records, objectives: scatter_figure(records, objectives, "trial", "seconds", colour="memory"),
    "hypervolume": lambda records, objectives: hypervolume_figure(records, objectives, "trials", SETTINGS),
    "time": lambda records, objectives: hypervolume_figure(records, objectives, "time", SETTINGS),
    "outcomes": lambda records, objectives: outcomes_figure(records),
    "importance": lambda records, objectives: importance_figure(records, objectives, SPACE),
    "choices": lambda records, objectives: choices_figure(records, objectives, SPACE),
    "parallel": lambda records, objectives: parallel_figure(records, objectives, SPACE),
    "curves": lambda records, objectives: learning_curves_figure(records, objectives),
}
STATES = {
    "empty": [],
    "one": [make_record(0)],
    "none feasible": [make_record(number, 0.0, outcome=Outcome.REJECTED) for number in range(12)],
    "none alive": [make_record(0, outcome=Outcome.FAILED), make_record(1, outcome=Outcome.LOST)],
    "all alike": [replace(make_record(number), parameters=make_record(0).parameters) for number in range(12)],
    "without latency": [make_record(number, latency_ms=None) for number in range(12)],
    "of another space": [replace(make_record(number), parameters={"width": 3}) for number in range(12)],
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_figure_or_a_sentence(name: str, state: str) -> None:
    for objectives in (TWO, ("accuracy", "macs"), ("accuracy", "latency", "params")):
        figure = FIGURES[name](STATES[state], objectives)
        assert figure.data or figure.layout.annotations[0].text.endswith(".")
        assert figure.to_json() == FIGURES[name](STATES[state], objectives).to_json()


def test_nothing_to_compare_is_said() -> None:
    assert "Choose two" in compare_figure({}, 10).layout.annotations[0].text


@pytest.mark.parametrize("name", FIGURES)
def test_text_of_files_is_escaped(name: str) -> None:
    target = f"latency:{HOSTILE}"
    records = [
        replace(
            record,
            digest=f"{HOSTILE}{record.number}",
            text=HOSTILE,
            imported_from=HOSTILE if record.number % 2 else None,
        )
        for record in scattered(20)
    ]
    records = [
        replace(record, objectives=record.objectives | {target: record.objectives["latency"]}) for record in records
    ]
    for objectives in (TWO, ("accuracy", target)):
        figure = FIGURES[name](records, objectives)
        for trace in figure.data:
            trace.customdata = None  # data, which no page shows
        assert "<img" not in str(figure.to_plotly_json())
        assert "</script" not in str(figure.to_plotly_json())


def test_hostile_names_in_marks_baselines_and_comparisons_are_escaped() -> None:
    records = scattered(9)
    marks = {record.digest: HOSTILE for record in records}
    baselines = [replace(make_baseline(HOSTILE, 0.8, 1.0), init=HOSTILE)]
    for figure in (
        scatter_figure(
            records, TWO, "latency", "accuracy", metric=Score(HOSTILE, lambda *_: 0.0), marks=marks, baselines=baselines
        ),
        compare_figure({HOSTILE: SPACE.smallest}, 10),
    ):
        assert "&lt;img" in str(figure.to_plotly_json())
        assert "<img" not in str(figure.to_plotly_json())


def test_five_thousand_candidates_are_drawn_with_webgl() -> None:
    records = [replace(record, number=100 + number) for number, record in enumerate(scattered(100) * 50)]
    worse = [replace(r, objectives=r.objectives | {"accuracy": 0.1, "latency": 50.0}) for r in records]
    drawn = traces(scatter_figure(worse + scattered(10), TWO, "latency", "accuracy", colour="macs"))
    assert drawn["dominated"].type == "scattergl"
    assert len(drawn["dominated"].x) + len(drawn["Pareto front"].x) == 5_010
    assert traces(scatter_figure(records[:100], TWO, "latency", "accuracy"))["dominated"].type == "scatter"
