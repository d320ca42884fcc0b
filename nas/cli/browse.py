"""`nas browse`: a live page on runs."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from nas.views.terminal.console import plain_console

console = plain_console()
errors = plain_console(stderr=True)


def browse(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories, finished or running.")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the page; 0 is any free one.")] = 8050,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own lets others in.")
    ] = "127.0.0.1",
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, and open no browser.")] = False,
) -> None:
    """A live page on one run or several: fronts, candidates, progress, choices, trials; new trials appear by themselves.

    Whoever has the printed address may also export and train from it; without its token the page can only be read.

    Example: nas browse results/digits-20261124-070000
    """
    from nas.views.page.serve import LOOPBACK, open_server

    server = open_server(directories, host, port)
    if host not in LOOPBACK:
        errors.print(
            f"nas: warning: --host {host} lets everybody who reaches this machine read these runs, and whoever sees the "
            "address below start exports and trainings; it is not encrypted. A tunnel is safer: "
            "ssh -L 8050:localhost:8050 MACHINE",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    def announce() -> None:
        console.print(server.url, highlight=False, soft_wrap=True)
        console.print("Ctrl-C ends it.", highlight=False)
        if not no_open and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(server.url_once)

    server.serve(announce)
