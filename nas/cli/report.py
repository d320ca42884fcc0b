"""`nas report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import Directory
from nas.common.errors import InputError, about
from nas.views.terminal.console import plain_console

console = plain_console()


def report(
    directory: Directory,
    png: Annotated[bool, typer.Option("--png", help="The front as a picture for slides, too: DIR/front.png.")] = False,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to put the picture instead.")] = None,
) -> None:
    """Write the report of a run: one HTML file that needs no network.

    Example: nas report results/digits-20261124-070000 --png
    """
    from nas.runs.store import open_run
    from nas.views.report import write_front, write_report

    if to is not None and not png:
        raise InputError(f"--to {to}: says where --png goes, which is not given; the report itself stays in the run")
    if to is not None and not to.absolute().parent.is_dir():  # before a browser draws it
        raise InputError(f"--to {to}: {to.parent} is no folder")
    run = open_run(directory)
    with about("to"):
        pictures = [write_front(run, to)] if png else []
    for path in (write_report(run), *pictures):
        console.print(str(path), highlight=False, soft_wrap=True)
