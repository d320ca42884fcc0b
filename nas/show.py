"""What the command line prints: tables of a front and of a space, and the front as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import random
import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from nas.architecture import Architecture
from nas.cost import architecture_cost
from nas.front import hypervolume, knee, pareto_front, pick, reference_point
from nas.objectives import OBJECTIVES
from nas.record import Latency, Outcome, TrialRecord
from nas.run import RunDirectory
from nas.settings import Budgets
from nas.space import SearchSpace
from nas.wording import score_text


def accuracy_text(record: TrialRecord, run: RunDirectory) -> str:
    """The run's metric, with the binomial standard error where it is the accuracy."""
    metric, images = run.settings.evaluation.metric, run.provenance.validation_images
    return score_text(record.objectives["accuracy"], metric, images).removesuffix(" %")


def front_table(run: RunDirectory, records: Sequence[TrialRecord]) -> Group:
    """The Pareto front, cheapest first: figures, then the architectures, which fit no column."""
    objectives = run.settings.objectives
    front = pareto_front(records, objectives)
    table = Table(box=None, pad_edge=False, header_style="bold")
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True, style="cyan")
    networks.add_column(overflow="fold", style="dim")
    table.add_column("digest", no_wrap=True, style="cyan")
    table.add_column(f"{run.settings.evaluation.metric} %", justify="right", no_wrap=True)
    table.add_column("latency ms (p10-p90)", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="green")
    names = {pick(records, objectives, which).digest: which for which in ("most-accurate", "fastest")} if front else {}
    if front:
        names.setdefault(knee(front, objectives).digest, "knee")
    for record in front:
        cost, latency = record.evaluation.cost, record.evaluation.latency
        table.add_row(
            record.digest[:8],
            accuracy_text(record, run),
            latency_text(latency) if latency else "",
            OBJECTIVES["macs"].show(cost.macs) if cost else "",
            OBJECTIVES["params"].show(cost.params) if cost else "",
            names.get(record.digest, ""),
        )
        networks.add_row(record.digest[:8], record.text)
    return Group(table, "", networks)


def latency_text(latency: Latency) -> str:
    """Median and range, with a mark where the number deserves less trust."""
    mark = "!" if latency.contended else "~" if latency.noisy else ""
    return f"{latency.median_ms:.3f} ({latency.p10_ms:.3f}-{latency.p90_ms:.3f}){mark}"


def front_json(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front with everything known of it, as JSON."""
    objectives = run.settings.objectives
    reference = reference_point(records, objectives)
    data = {
        "run": str(run.path),
        "objectives": list(objectives),
        "metric": run.settings.evaluation.metric,
        "hypervolume": hypervolume(records, objectives, reference),
        "reference_point": dict(zip(objectives, reference.worst, strict=True)) if reference else None,
        "front": [_row(record) for record in pareto_front(records, objectives)],
    }
    return json.dumps(data, indent=2)


def front_csv(run: RunDirectory, records: Sequence[TrialRecord]) -> str:
    """The front as CSV, a row a member."""
    rows = [_row(record) for record in pareto_front(records, run.settings.objectives)]
    columns = ["digest", "trial", "accuracy", "latency_ms", "latency_p10_ms", "latency_p90_ms", "macs", "params"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, "architecture"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _row(record: TrialRecord) -> dict[str, Any]:
    latency, cost = record.evaluation.latency, record.evaluation.cost
    return {
        "digest": record.digest,
        "trial": record.number,
        "accuracy": record.objectives["accuracy"],
        "latency_ms": latency.median_ms if latency else None,
        "latency_p10_ms": latency.p10_ms if latency else None,
        "latency_p90_ms": latency.p90_ms if latency else None,
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        "architecture": record.text,
    }


def outcome_counts(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how, in words."""
    counts = {outcome: sum(record.outcome is outcome for record in records) for outcome in Outcome}
    return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count) or "no trials yet"


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
    for column in ("input", "MACs", "params", "latency ms (p10-p90)", "receptive field"):
        table.add_column(column, justify="right", no_wrap=True)
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(no_wrap=True)
    networks.add_column(overflow="fold", style="dim")
    for name, architecture in landmarks(space).items():
        cost = architecture_cost(architecture, num_classes)
        table.add_row(
            name,
            f"{architecture.input_size}",
            OBJECTIVES["macs"].show(cost.macs),
            OBJECTIVES["params"].show(cost.params),
            latency_text(latencies[name]) if name in latencies else "-",
            f"{architecture.canonical.receptive_field}",
        )
        networks.add_row(name, str(architecture.canonical))
    return Group(table, "", networks)


def _plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def budget_sentences(space: SearchSpace, num_classes: int, budgets: Budgets, smallest: Latency | None) -> list[str]:
    """For each budget given, whether the space's smallest network meets it."""
    cost = architecture_cost(space.smallest, num_classes)
    sentences = []
    for what, value, limit in (
        ("MACs", cost.macs, budgets.max_macs),
        ("parameters", cost.params, budgets.max_params),
        ("ms", smallest.median_ms if smallest else None, budgets.max_latency_ms),
    ):
        if limit is None:
            continue
        if value is None:
            sentences.append(f"A budget of {limit:,} {what} was not checked: latency was not measured.")
        elif value <= limit:
            sentences.append(f"A budget of {limit:,} {what} can be met: the smallest network has {_plain(value)}.")
        else:
            sentences.append(f"A budget of {limit:,} {what} cannot be met: the smallest network has {_plain(value)}.")
    return sentences
