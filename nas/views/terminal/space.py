"""A search space as tables: its choices, its landmarks, and whether a budget can be met."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from nas.latency.result import Latency
from nas.runs.objectives import objective
from nas.runs.settings import Budgets
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.cost import architecture_cost, least_cost
from nas.spaces.mobile.space import SearchSpace
from nas.views.front_latency import range_title
from nas.views.terminal.latency import latency_text, marks_legend


def choices_table(space: SearchSpace) -> Table:
    """Every choice of a space, a row a stage."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "depth", "channels", "stride", "kernel size", "dilation", "expansion", "separable"):
        table.add_column(column, no_wrap=True)

    def text(choices: Sequence[object]) -> str:
        return " ".join({True: "yes", False: "no"}.get(c, str(c)) if isinstance(c, bool) else f"{c}" for c in choices)

    stem = space.stem
    table.add_row("input", "", text([space.input.channels]), "", "", "", "", "", style="dim")
    table.add_row("stem", "1", text(stem.out_channels), text(stem.stride), text(stem.kernel_size), "1", "", "no")
    for index, stage in enumerate(space.stages):
        table.add_row(
            f"stage {index}",
            *(text(getattr(stage, key)) for key in ("depth", "out_channels", "stride")),
            *(text(getattr(stage, key)) for key in ("kernel_size", "dilation", "expansion", "separable")),
        )
    table.add_row("head", "", text(space.head_channels), "", "", "", "", "")
    return table


def landmarks(space: SearchSpace) -> dict[str, Architecture]:
    """The networks that a space is shown by."""
    return {name: getattr(space, name) for name in ("smallest", "middle", "backbone", "largest")}


def median_macs(space: SearchSpace, num_classes: int, samples: int = 1_000) -> float:
    """Median multiply-adds of uniformly sampled candidates."""
    rng = random.Random(0)
    drawn = (space.architecture(space.sample(rng)) for _ in range(samples))
    return statistics.median(architecture_cost(architecture, num_classes).macs for architecture in drawn)


def landmarks_table(space: SearchSpace, num_classes: int, latencies: dict[str, Latency]) -> Group:
    """Cost of the landmarks, latency where it was measured; then their architectures, which fit no column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network", no_wrap=True)
    ranges = range_title([*latencies.values()])
    for column in ("input", "MACs", "params", f"latency ms ({ranges})", "receptive field"):
        table.add_column(column, justify="right", no_wrap=True)
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True)
    networks.add_column(overflow="fold", style="dim")
    for name, architecture in landmarks(space).items():
        cost = architecture_cost(architecture, num_classes)
        table.add_row(
            name,
            f"{architecture.input_size}",
            objective("macs").show(cost.macs),
            objective("params").show(cost.params),
            latency_text(latencies[name]) if name in latencies else "-",
            f"{architecture.canonical.receptive_field}",
        )
        networks.add_row(name, str(architecture.canonical))
    return Group(table, *marks_legend(latencies.values()), "", networks)


def budget_sentences(
    space: SearchSpace, num_classes: int, budgets: Budgets, latencies: dict[str, Latency]
) -> list[str]:
    """For each budget given, whether the space can meet it; of latency as far as the landmarks show, where measured."""
    sentences = []
    limits = {"macs": ("MACs", budgets.max_macs), "params": ("parameters", budgets.max_params)}
    for name, (what, limit) in limits.items():
        if limit is not None:
            value = least_cost(space, num_classes, name)
            can = "can" if value <= limit else "cannot"
            sentences.append(f"A budget of {limit:,} {what} {can} be met: the smallest network has {value:,} {what}.")
    if budgets.max_latency_ms is not None:
        budget = f"A budget of {budgets.max_latency_ms:,g} ms"
        if not latencies:
            return [*sentences, f"{budget} was not checked: latency was not measured."]
        name, fastest = min(latencies.items(), key=lambda item: item[1].ms)
        can = "can be met" if fastest.ms <= budgets.max_latency_ms else "can hardly be met"
        sentences.append(f"{budget} {can}: the fastest of these networks, the {name}, takes {fastest.ms:.3f} ms.")
    return sentences
