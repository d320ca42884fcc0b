"""Who writes the report of a run: not the workflow, which tells it when there is something to report."""

from __future__ import annotations

from collections.abc import Callable

from nas.runs.store import RunDirectory

Report = Callable[[RunDirectory], object]
"""Writes the report of a run; told whenever a workflow on the run ends, well or not."""


def no_report(run: RunDirectory) -> None:
    """Write none."""
