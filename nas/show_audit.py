"""An audit as tables and as JSON; the words are those of the report, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.agreement import Coefficient, Interval
from nas.audit import MARGIN, Agreement, Audit, Ranking, interval_text
from nas.run import RunDirectory
from nas.wording import plural

COEFFICIENTS: dict[Coefficient, str] = {"kendall": "Kendall τ", "spearman": "Spearman ρ"}
_COMPARED: dict[str, Callable[[Agreement], Interval]] = {
    "brief score": lambda agreement: agreement.brief,
    "MACs alone": lambda agreement: agreement.macs,
    "ceiling: another full training": lambda agreement: agreement.ceiling,
    "noise allows a brief one": lambda agreement: agreement.allowed,
}


def group_text(ranking: Ranking) -> str:
    """A group of candidates, and where their latencies lie."""
    return f"{ranking.name}: {ranking.candidates} candidates, {ranking.fastest_ms:.3g} to {ranking.slowest_ms:.3g} ms"


def rows(ranking: Ranking) -> list[tuple[str, ...]]:
    """What is compared within a group, and how well it ranks what one full training gives, by each coefficient."""
    return [
        (name, *(interval_text(of(ranking.agreements[kind])) for kind in COEFFICIENTS))
        for name, of in _COMPARED.items()
    ]


def legend(audit: Audit) -> str:
    """What the columns are, in plain text."""
    return (
        "Agreement with the ranking of one full training, with 95 % intervals. Ceiling: what another full training "
        "reaches, with a new seed. Noise allows: what a brief training without bias would reach, its own noise included. "
        f"A brief score ranks well enough where it surely loses at most {MARGIN:g} in τ against the ceiling, which is one "
        f"pair of candidates in {2 / MARGIN:.0f}."
    )


def counts(audit: Audit) -> str:
    """What was trained, what is left out, and what a user would have chosen, in sentences."""
    done = plural(len(audit.audited), "candidate")
    brief, full = audit.brief.epochs, audit.full.epochs
    parts = [f"{done}, each trained twice for {full} epochs and once more for {brief}, with new seeds."]
    for count, why in ((audit.failed, "a training failed"), (audit.unfinished, "a training is missing")):
        if count:
            parts.append(f"{plural(count, 'candidate is', 'candidates are')} left out, of which {why}.")
    if audit.audited:
        members = plural(audit.full_front, "candidate")
        parts.append(
            f"Of the {members} on the front by the full scores, the brief scores have {audit.kept_front} on theirs."
        )
    return " ".join(parts)


def audit_table(audit: Audit) -> Group:
    """Agreements within each group, what they are, and the verdict."""
    parts: list[Table | Text] = []
    for ranking in audit.rankings:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(group_text(ranking), no_wrap=True)
        for name in COEFFICIENTS.values():
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows(ranking):
            table.add_row(*row)
        parts += [table, Text()]
    if audit.rankings:
        parts += [Text(legend(audit), style="dim"), Text()]
    verdict = [Text(audit.verdict.sentence, style="bold"), *map(Text, audit.verdict.notes)]
    return Group(*parts, Text(counts(audit)), Text(), *verdict)


def audit_json(run: RunDirectory, audit: Audit) -> str:
    """Everything that an audit found, as JSON; what is not defined is null."""
    data = asdict(audit)
    data["audited"] = [
        {
            "digest": candidate.trial.digest,
            "trial": candidate.trial.number,
            "latency_ms": candidate.trial.evaluation.latency.median_ms if candidate.trial.evaluation.latency else None,
            "macs": candidate.trial.evaluation.cost.macs if candidate.trial.evaluation.cost else None,
            "brief": candidate.brief,
            "full": candidate.full,
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
