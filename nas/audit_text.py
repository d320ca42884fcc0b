"""An audit in words, for the terminal and the report. Plain text: nothing here is escaped."""

from __future__ import annotations

from collections.abc import Callable

from nas.agreement import Coefficient, Interval
from nas.audit import Audit
from nas.ranking import MARGIN, Agreement, Ranking, interval_text
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
    brief = f" and once more for {audit.brief.epochs}" if audit.brief.epochs else ""
    parts = [f"{done}, each trained twice for {plural(audit.full.epochs, 'epoch')}{brief}, with new seeds."]
    if not brief:
        parts.append("The search scored them without fine-tuning, which gives the same score once more.")
    for count, why in ((audit.failed, "a training failed"), (audit.unfinished, "a training is missing")):
        if count:
            parts.append(f"{plural(count, 'candidate is', 'candidates are')} left out, of which {why}.")
    if audit.audited:
        members = plural(audit.full_front, "candidate")
        parts.append(
            f"Of the {members} on the front by the full scores, the brief scores have {audit.kept_front} on theirs."
        )
    return " ".join(parts)
