"""A fidelity check as tables and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.runs.store import RunDirectory
from nas.tasks.base import Score
from nas.views.audit_text import (
    COEFFICIENTS,
    INIT_COLUMNS,
    band_rows,
    counts,
    group_text,
    init_notes,
    init_rows,
    legend,
    rows,
)
from nas.workflows.fidelity.audit import Audit


def audit_table(audit: Audit, metric: Score) -> Group:
    """Agreements within each group, what they are, and the verdict."""
    parts: list[Table | Text] = []
    for ranking in audit.rankings:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True)
        for name in COEFFICIENTS.values():
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows(ranking):
            table.add_row(*row)
        parts += [Text(group_text(ranking), style="bold"), table, Text()]
    if audit.rankings:
        parts += [Text(legend(audit), style="dim"), Text()]
    verdict = [Text(audit.verdict.sentence, style="bold"), *map(Text, audit.verdict.notes)]
    return Group(*parts, Text(counts(audit)), Text(), *verdict, *_init_tables(audit, metric))


def _init_tables(audit: Audit, metric: Score) -> list[Table | Text]:
    """What is known of initial weights, and a verdict on each; nothing where none were compared."""
    if not audit.inits:
        return []
    parts: list[Table | Text] = []
    for head, rows_of in ((INIT_COLUMNS, init_rows(audit, metric)), band_rows(audit)):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(head[0], overflow="fold")
        for name in head[1:]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows_of:
            table.add_row(*row)
        parts += [Text(), table] if rows_of else []
    verdicts = [Text(ranking.verdict.sentence, style="bold") for ranking in audit.inits if ranking.verdict]
    return [*parts, Text(), Text(" ".join(init_notes(audit)), style="dim"), Text(), *verdicts]


def audit_json(run: RunDirectory, audit: Audit) -> str:
    """Everything that a fidelity check found, as JSON; what is not defined is null."""
    data = asdict(audit)
    data["audited"] = [
        {
            "digest": candidate.trial.digest,
            "trial": candidate.trial.number,
            "latency_ms": candidate.trial.evaluation.latency.ms if candidate.trial.evaluation.latency else None,
            "macs": candidate.trial.evaluation.cost.macs if candidate.trial.evaluation.cost else None,
            "brief": candidate.brief,
            "full": candidate.full,
            "by_init": {init: asdict(brief) for init, brief in candidate.by_init.items()},
        }
        for candidate in audit.audited
    ]
    return json.dumps(_defined({"run": str(run.path), "metric": run.settings.evaluation.metric, **data}), indent=2)


def _defined(value: Any) -> Any:
    """The value with None for each NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if value != value else value
