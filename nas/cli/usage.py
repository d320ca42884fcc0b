"""What is wrong with a command line that the parser refuses, as a sentence."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import ValidationError

from nas.common.problems import allowed
from nas.common.text import cut

# Typer has no public name for the error that unknown flags and missing arguments raise.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def usage_sentence(error: Any) -> str:
    """A usage error of the parser: the flag, the value and what is allowed; and where the command's help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "nas"
    return f"{_problem(error)} (see `{command} --help`)"


def _problem(error: Any) -> str:
    parameter = getattr(error, "param", None)
    if parameter is None or not error.message:  # of no parameter, or of one that is missing
        return str(error.format_message()).rstrip(".")
    names = "/".join(name for name in parameter.opts if name.startswith("--")) or parameter.human_readable_name
    if not isinstance(error.__cause__, ValidationError):  # whose message names the value
        return f"{names}: {error.message.rstrip('.')}"
    problem = error.__cause__.errors()[0]
    return f"{names} {cut(str(problem['input'])) or repr('')}: {allowed(problem)}"
