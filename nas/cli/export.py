"""`nas export`: candidates of a run as folders to deploy from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli.options import Directory, Picks, named_here
from nas.views.terminal.console import plain_console

if TYPE_CHECKING:
    from nas.runs.record import TrialRecord

console = plain_console()


def export(
    directory: Directory,
    to: Annotated[Path, typer.Option(metavar="OUT", help="The folder to make; of several picks each in OUT/DIGEST.")],
    pick: Picks = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Beside PyTorch source and safetensors: pt2 (torch.export), onnx, torchscript; may be repeated.",
            show_default=False,
        ),
    ] = None,
    fold_bn: Annotated[bool, typer.Option("--fold-bn", help="Batch norm folded into the convolutions.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Weights and computation in float16.")] = False,
    weights: Annotated[
        Literal["full", "search"],
        typer.Option(
            help="Those of the candidate's full training (nas train), where it has one, or those of the search."
        ),
    ] = "full",
    measure: Annotated[
        bool, typer.Option(help="Measure the latency of each format, on the run's device by its protocol.")
    ] = True,
) -> None:
    """Export trained candidates: plain PyTorch source, weights, a script to classify with, a model card, further formats.

    Each format is loaded in a fresh process without nas, and its outputs compared with the searched network's; a
    difference fails the export. What the folder holds: docs/export.md.

    Example: nas export results/digits-20261124-070000 --pick knee --pick 'latency<=2ms' --format onnx --to models
    """
    from nas.export.folder import ExportOptions, export_all, export_candidate
    from nas.runs.picks import pick_all, pick_texts
    from nas.runs.store import open_run

    run = open_run(directory)
    picks = pick_texts(pick or ["knee"])
    records = pick_all(run.judged(), run.settings.objectives, picks)
    asked = (form.strip() for given in formats or () for form in given.split(","))
    options = ExportOptions(tuple(form for form in asked if form), fold_bn, half, measure, weights)
    with named_here(out="--to"):
        if len(picks) > 1:
            folders = export_all(run, records, to, options)
        else:
            folders = [export_candidate(run, records[0], to, options)]
    for record, folder in zip(records, folders, strict=True):
        _print(record, folder)
    console.print(
        f"Next: python {shlex.quote(str(folders[0] / 'predict.py'))} IMAGE",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _print(record: TrialRecord, folder: Path) -> None:
    """What is in the folder, how it was checked and how fast it is."""
    from nas.views.text import NOTHING

    content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    own, checks, latencies = content["measured"], content["export"]["checks"], content["latency"]
    lines = [f"{record.text} is in {folder}, with the weights of {own['weights']}:"]
    lines += [f"  {sentence}" for sentence in own["sentences"]]
    lines.append(
        f"Checked in a fresh process without nas, {checks['tolerance']:g} of the largest logit allowed; "
        + (
            f"latency measured now on {latencies['source']['device_name']}:"
            if latencies
            else "latency not measured now:"
        )
    )
    for form, difference in checks["largest_difference"].items():
        ms = latencies.get(form, {}).get("ms")
        time = NOTHING if ms is None else f"{ms:.3f} ms"
        marks = [mark for mark in ("noisy", "contended") if latencies.get(form, {}).get(mark)]
        lines.append(f"  {form:12} difference {difference:<8.1g} {', '.join([time, *marks])}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
