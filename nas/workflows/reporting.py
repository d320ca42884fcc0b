"""Who writes the report of a run: not the workflow, which tells it when there is something to report."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nas.common.errors import InputError
from nas.common.text import command_text
from nas.runs.store import RunDirectory

logger = logging.getLogger(__name__)

Report = Callable[[RunDirectory], object]
"""Writes the report of a run; told whenever a workflow on the run ends, well or not."""


def no_report(run: RunDirectory) -> None:
    """Write none."""


def write_or_warn(report: Report, run: RunDirectory) -> None:
    """Have the report of a workflow that ended written; where it cannot be, as on a full disk, why the workflow ended is still what is told."""
    try:
        report(run)
    except InputError as error:
        logger.warning("%s; once it can be: %s", error, command_text("report", run.path))
