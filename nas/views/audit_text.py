"""A fidelity check in words, for the terminal and the report. Plain text: nothing here is escaped."""

from __future__ import annotations

from collections.abc import Callable

from nas.common.text import plural
from nas.tasks.base import Score
from nas.views.text import NOTHING
from nas.workflows.fidelity.agreement import Coefficient, Interval
from nas.workflows.fidelity.audit import Audit
from nas.workflows.fidelity.inits import short_names
from nas.workflows.fidelity.ranking import MARGIN, Agreement, Ranking, interval_text

COEFFICIENTS: dict[Coefficient, str] = {"kendall": "Kendall τ", "spearman": "Spearman ρ"}
_COMPARED: dict[str, Callable[[Agreement], Interval]] = {
    "proxy score": lambda agreement: agreement.brief,
    "MACs alone": lambda agreement: agreement.macs,
    "ceiling: another full training": lambda agreement: agreement.ceiling,
    "noise allows a proxy one": lambda agreement: agreement.allowed,
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
        "reaches, with a new seed. Noise allows: what a proxy training without bias would reach, its own noise included. "
        f"A proxy score ranks well enough where it surely loses at most {MARGIN:g} in τ against the ceiling, which is one "
        f"pair of candidates in {2 / MARGIN:.0f}."
    )


INIT_COLUMNS = ("initial weights", *COEFFICIENTS.values(), "score", "s each", "n")
"""Heads of the table that compares initial weights."""


def init_rows(audit: Audit, metric: Score) -> list[tuple[str, ...]]:
    """How well proxy scores from each initial weights rank, their mean, and the seconds of a training."""
    names = short_names([ranking.init for ranking in audit.inits])
    return [
        (
            names[ranking.init],
            *(_interval_or_nothing(ranking.agreements.get(kind)) for kind in COEFFICIENTS),
            metric.show(ranking.score) if ranking.candidates else NOTHING,
            f"{ranking.seconds:.2f}" if ranking.candidates else NOTHING,
            str(ranking.candidates),
        )
        for ranking in audit.inits
    ]


def band_rows(audit: Audit) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of τ within each band of latency; no rows where there are no bands."""
    names = short_names([ranking.init for ranking in audit.inits])
    bands = list(dict.fromkeys(band for ranking in audit.inits for band in ranking.bands))
    rows = [
        (names[ranking.init], *(_interval_or_nothing(ranking.bands.get(band)) for band in bands))
        for ranking in audit.inits
    ]
    return ("τ within", *bands), rows if bands else []


def init_notes(audit: Audit) -> list[str]:
    """What the table of initial weights holds, and what to know of it."""
    names = short_names([ranking.init for ranking in audit.inits])
    own, *others = audit.inits
    notes = [
        f"{_each(audit)}, held against the same full trainings, which began with {names[own.init]}. Score and seconds "
        "are means over n candidates; inheriting weights is among the seconds."
    ]
    notes += [
        f"From {names[ranking.init]} the learning rate was {ranking.learning_rate:g}, its default, in place of "
        f"{own.learning_rate:g}."
        for ranking in others
        if ranking.learning_rate != own.learning_rate
    ]
    notes += [f"{names[init]} is {init}." for init in names if names[init] != init]
    return notes


def _each(audit: Audit) -> str:
    """What was done from each initial weights."""
    if not audit.brief.epochs:
        return "One score without fine-tuning from each initial weights"
    epochs = plural(audit.brief.epochs, "epoch")
    return f"One proxy training of {epochs} from each initial weights, all with the same seed, which is not that of the search"


def _interval_or_nothing(value: Interval | None) -> str:
    return interval_text(value) if value else NOTHING


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
            f"Of the {members} on the front by the full scores, the proxy scores have {audit.kept_front} on theirs."
        )
    return " ".join(parts)
