"""`nas status` and `nas stop`: how a search stands, and ending it, from any machine that sees its directory."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.options import Directory
from nas.common.text import command_text
from nas.views.terminal.console import plain_console

console = plain_console()


def status(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """How a search stands: what runs where, what failed, time left, device hours spent.

    Reads only, and needs nothing but to see the directory: any machine will do.

    Example: nas status results/digits-20261124-070000
    """
    from nas.runs.status import status_of
    from nas.runs.store import open_run
    from nas.views.terminal.status import head_lines, status_json, status_table

    found = status_of(open_run(directory))
    if as_json:
        print(status_json(found))
    else:
        for line in head_lines(found):
            console.print(line, highlight=False, soft_wrap=True)
        console.print()
        console.print(status_table(found), highlight=False)


def stop(directory: Directory) -> None:
    """End a search gently: nothing more is started, what runs finishes, and it can be resumed.

    Works from any machine that sees the directory. Exit code 1 where nothing runs on it.

    Example: nas stop results/digits-20261124-070000
    """
    from nas.runs.status import Phase, status_of
    from nas.runs.store import open_run
    from nas.views.terminal.status import phase_text, resume_command

    run = open_run(directory)
    found = status_of(run)
    sentence, driver = phase_text(found), found.driver
    if found.phase is Phase.BUSY:
        run.request_stop()
        sentence += "; a search hears of this once it has started, a fidelity check does not (Ctrl-C stops one)"
    elif found.phase is Phase.RUNNING and driver is not None:
        run.request_stop()
        sentence = (
            f"Asked the search on {driver.host} (pid {driver.pid}) to stop: it starts nothing more, and what runs "
            f"({len(driver.running)} now) finishes first. {command_text('status', run.path)} shows it; then to go on: "
            f"{resume_command(found)}"
        )
    elif found.phase is not Phase.STOPPING:
        sentence = f"Nothing to stop. {sentence}"
    console.print(sentence, highlight=False, soft_wrap=True)
    if found.phase not in (Phase.RUNNING, Phase.STOPPING, Phase.BUSY):
        raise typer.Exit(1)
