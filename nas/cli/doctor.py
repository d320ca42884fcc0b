"""`nas doctor`: what is here of all that nas can use, and how to get the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from nas.common.text import plural
from nas.views.terminal.console import plain_console

console = plain_console()

_SIGNS = {"here": ("✓", "green"), "missing": ("–", "dim"), "trouble": ("!", "red")}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What is here: devices, runtimes, extras, folders that are written, shared memory, Ray, a browser for pictures.

    ✓ is here, – is missing and only needed for what its line says, ! is in trouble. Exit code 1 where a plain search cannot run.

    Example: nas doctor
    """
    from nas.workflows.doctor import examine

    checks = examine()
    failing = [check for check in checks if check.fails]
    if as_json:
        print(json.dumps({"fit": not failing, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for topic, group in groupby(checks, key=lambda check: check.topic):
            console.print(topic.capitalize(), style="bold")
            for check in group:
                remedy = (f" ({check.remedy})", "dim") if check.remedy else ""
                line = Text.assemble("  ", _SIGNS[check.state], f" {check.name}: {check.found}", remedy)
                console.print(line, highlight=False, soft_wrap=True)
        told = f"not for want of {plural(len(failing), 'thing')} marked above" if failing else "yes"
        console.print(f"\nCan a plain search run here: {told}", highlight=False)
    if failing:
        raise typer.Exit(1)
