"""`nas space`: list, show, check and make search spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from nas.cli.options import Device, MaxLatency, MaxMacs, MaxParams, Space
from nas.cli.space_from import space_from
from nas.common.text import count_text, plural
from nas.latency.device import device_name, resolve_device
from nas.latency.protocol import default_protocol
from nas.runs.settings import Budgets
from nas.spaces.families import architecture_cost
from nas.views.terminal.console import plain_console

space_app = typer.Typer(no_args_is_help=True, help="List, show, check and make search spaces.")

console = plain_console()
space_app.command("from")(space_from)


@space_app.command("list")
def space_list() -> None:
    """Search spaces that ship.

    Example: nas space list
    """
    from nas.spaces.files import list_spaces, load_space

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "networks", "default data", "what for"):
        table.add_column(column)
    for name in list_spaces():
        space = load_space(name)
        table.add_row(name, count_text(space.size), space.data or "-", space.summary)
    console.print(table)


@space_app.command("check")
def space_check(path: Annotated[Path, typer.Argument(metavar="PATH", help="A YAML file.")]) -> None:
    """Check the file of a search space, and that its data set is there.

    Example: nas space check my_space.yaml
    """
    from nas.data.sets import check_data_name
    from nas.spaces.files import check_space

    space = check_space(path, check_data_name)
    console.print(
        f"{path}: a valid search space, {plural(len(space.parameters), 'parameter')}, {count_text(space.size)} networks",
        soft_wrap=True,
    )


@space_app.command("show")
def space_show(
    name: Space,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the classifier that costs are counted with.")] = 10,
    device: Device = "auto",
    measure: Annotated[bool, typer.Option(help="Measure latency of the reference networks.")] = True,
    max_latency: MaxLatency = None,
    max_macs: MaxMacs = None,
    max_params: MaxParams = None,
) -> None:
    """Choices, size, reference networks with cost and measured latency, and whether a budget can be met.

    Example: nas space show lite0 --max-macs 100M
    """
    from nas.spaces.files import load_space
    from nas.views.terminal import space as show_space

    space, here = load_space(name), resolve_device(device)
    console.print(Text.assemble((space.name, "bold"), f"  {space.summary}\n"))
    console.print(show_space.choices_table(space))
    for remark in space.remarks:
        console.print(remark, highlight=False, soft_wrap=True, style="dim")
    sides = " ".join(f"{side}x{side}" for side in space.input_sizes)
    console.print(
        f"\ninput {sides}; {len(space.parameters)} parameters, {count_text(space.size)} different networks",
        highlight=False,
    )
    latencies = {}
    where = "latency not measured"
    if measure:
        from nas.search.latency import candidate_latency

        protocol = default_protocol(here)
        where = f"latency on {device_name(protocol.device)}, batch 1, {protocol.dtype}, {protocol.mode}"
        where += f", {protocol.threads} thread" if protocol.device == "cpu" else ""
        if console.is_terminal:
            console.print("measuring", style="dim")  # no spinner: its thread would be measured too
        for reference, architecture in space.references.items():
            latencies[reference] = candidate_latency(architecture, classes, protocol)
        cached = sum(latency.cached for latency in latencies.values())
        where += f", {cached} of {len(latencies)} looked up" if cached else ""
        doubts = list(filter(None, (latency.doubted for latency in latencies.values())))
        where += f"; {len(doubts)} measured again: {doubts[-1]}" if doubts else ""
    console.print(f"with {classes} classes; {where}\n", highlight=False)
    console.print(show_space.references_table(space, classes, latencies))
    ratio = show_space.median_macs(space, classes) / architecture_cost(space.backbone, classes).macs
    console.print(f"\nThe median of 1,000 sampled networks has {ratio:.2f} times the backbone's MACs.", highlight=False)
    budgets = Budgets(max_macs, max_params, max_latency)
    for sentence in show_space.budget_sentences(space, classes, budgets, latencies):
        console.print(sentence, highlight=False)
