"""A search space as tables: its choices, its reference networks, and whether a budget can be met."""

from __future__ import annotations

import random
import statistics

from rich.console import Group
from rich.table import Table

from nas.latency.result import Latency
from nas.runs.objectives import objective
from nas.runs.settings import Budgets
from nas.spaces.base import Architecture, Space
from nas.spaces.cheapest import least_cost
from nas.spaces.families import architecture_cost, layer_rows
from nas.views.front_latency import range_title
from nas.views.terminal.latency import latency_text, marks_legend


def choices_table(space: Space) -> Table:
    """Every choice of a space."""
    headings, *rows = space.choices_table()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in headings:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def median_macs(space: Space, num_classes: int, samples: int = 1_000) -> float:
    """Median multiply-adds of uniformly sampled candidates."""
    rng = random.Random(0)
    drawn = (space.architecture(space.sample(rng)) for _ in range(samples))
    return statistics.median(architecture_cost(architecture, num_classes).macs for architecture in drawn)


def references_table(space: Space, num_classes: int, latencies: dict[str, Latency]) -> Group:
    """Cost of the reference networks, latency where it was measured; then their architectures, which fit no column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("network", no_wrap=True)
    ranges = range_title([*latencies.values()])
    for column in ("input", "MACs", "params", f"latency ms ({ranges})", "receptive field"):
        table.add_column(column, justify="right", no_wrap=True)
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True)
    networks.add_column(overflow="fold", style="dim")
    for name, architecture in space.references.items():
        cost = architecture_cost(architecture, num_classes)
        table.add_row(
            name,
            f"{architecture.input_size}",
            objective("macs").show(cost.macs),
            objective("params").show(cost.params),
            latency_text(latencies[name]) if name in latencies else "-",
            _receptive_field(architecture, num_classes),
        )
        networks.add_row(name, str(architecture.canonical))
    return Group(table, *marks_legend(latencies.values()), "", networks)


def _receptive_field(architecture: Architecture, num_classes: int) -> str:
    """Of one position of the last feature map, which the classifier reads; `-` where it is not known."""
    fields = [row.receptive_field for row in layer_rows(architecture, num_classes)[:-1]]
    return "-" if not fields or fields[-1] is None else f"{fields[-1]}"


def budget_sentences(space: Space, num_classes: int, budgets: Budgets, latencies: dict[str, Latency]) -> list[str]:
    """For each budget given, whether the space can meet it; of latency as far as the reference networks show, where measured."""
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
