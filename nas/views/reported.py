"""What users call to search, train and test fidelity: each writes the report of its run when it ends.

In a notebook a search shows its progress, unless another is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, update_wrapper
from pathlib import Path

from nas.common.kinds import StrPath, checks_kinds
from nas.search.renewal import Renewal
from nas.views.notebook import progress_here
from nas.views.report import write_report
from nas.views.run import Run
from nas.workflows import search, train
from nas.workflows.fidelity import auditing
from nas.workflows.plan import SearchPlan
from nas.workflows.search import Finished, Progress


@dataclass(frozen=True)
class Searched(Finished):
    """A search that ended, and its run with tables and figures."""

    run: Run


@checks_kinds
def run_search(plan: SearchPlan, progress: Progress | None = None) -> Searched:
    """Run a planned search to its end, tell `progress` of it and write the report.

    Ray is started when it does not run yet, and keeps running until this process ends, for the next search.
    """
    return _searched(search.run_search(plan, progress or progress_here(), write_report))


@checks_kinds
def resume_search(
    path: StrPath,
    renewal: Renewal | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    replica: str | None = None,
    storage: str | None = None,
) -> Searched:
    """Go on with a search where its records end, as `nas.workflows.search.resume_search` says, and write the report."""
    told = progress or progress_here()
    return _searched(search.resume_search(Path(path), renewal, address, told, replica, storage, write_report))


def _searched(ended: Finished) -> Searched:
    return Searched(Run.of(ended.run), ended.reason, ended.resumable, ended.interrupted, ended.seconds)


run_training = update_wrapper(partial(train.run_training, report=write_report), train.run_training)
run_audit = update_wrapper(partial(auditing.run_audit, report=write_report), auditing.run_audit)
