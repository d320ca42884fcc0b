"""What the trainings of a fidelity check say: how far scores agree, whether the proxy one ranks well enough, and what would help.

The ceiling is how well one full training ranks what the other gives: no score can be expected to do better against a single
training (the noise ceiling of Nili et al., "A toolbox for representational similarity analysis", 2014). The brief
score, MACs and the ceiling are therefore all held against a single full training, the mean over the two. A second proxy
training tells noise from bias: two scores that rank alike but for the noise of their trainings agree as far as their
reliabilities allow (`nas.workflows.fidelity.agreement.attenuated`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.common.text import capital, plural
from nas.runs.record import TrialRecord
from nas.training.recipe import Recipe
from nas.workflows.fidelity.agreement import (
    Coefficient,
    Floats,
    Interval,
    attenuated,
    interval,
    mean_correlation,
    rank_correlation,
    repeatability,
    resamples,
)
from nas.workflows.fidelity.proxy import MIN_NETWORKS

MARGIN = 0.2
"""Kendall's tau that may be lost against the ceiling: one pair of candidates in ten more in the wrong order."""
_BANDS = ("fast third", "middle third", "slow third")


@dataclass(frozen=True)
class Brief:
    """What a proxy training gave: its score, and the seconds that it took, those of inheriting weights among them."""

    score: float
    seconds: float


@dataclass(frozen=True)
class Audited:
    """A candidate with all of its trainings: the scores of the search and of one more proxy training, then the full ones.

    Where the search scored without fine-tuning, both proxy scores are that of the search. `curves` holds the score after
    each epoch of each full training. `by_init` has a proxy training for each of the initial weights that were tried, the
    run's own among them, all with the seed of that one more.
    """

    trial: TrialRecord
    brief: tuple[float, float]
    full: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]
    by_init: Mapping[str, Brief] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How well each of these ranks what one full training gives, by one coefficient.

    `ceiling` is another full training, `allowed` what the noise of both trainings leaves to a proxy one that has no
    bias, `shortfall` the ceiling less the proxy score, `bias` what is allowed less the proxy score, and `lead` the proxy
    score less MACs.
    """

    brief: Interval
    macs: Interval
    ceiling: Interval
    allowed: Interval
    shortfall: Interval
    bias: Interval
    lead: Interval


@dataclass(frozen=True)
class Ranking:
    """The agreements within a group of candidates, whose latencies lie between `fastest_ms` and `slowest_ms`."""

    name: str
    candidates: int
    fastest_ms: float
    slowest_ms: float
    agreements: dict[Coefficient, Agreement]


@dataclass(frozen=True)
class Verdict:
    """Whether the proxy training ranks well enough, or the `epochs` it should have; the sentence, and what else to know."""

    kind: Literal["enough", "raise", "unsure"]
    sentence: str
    notes: tuple[str, ...] = ()
    epochs: int | None = None


def by_latency(audited: Sequence[Audited]) -> list[Audited]:
    """The fastest first."""
    return sorted(audited, key=lambda candidate: (_latency_ms(candidate), candidate.trial.number))


def rank(ordered: Sequence[Audited]) -> list[Ranking]:
    """The agreements among all candidates, the fastest first, and within thirds of them where each has enough."""
    return [
        Ranking(name, len(group), _latency_ms(group[0]), _latency_ms(group[-1]), _agreements(group))
        for name, group in groups(ordered).items()
    ]


def groups(ordered: Sequence[Audited]) -> dict[str, Sequence[Audited]]:
    """All candidates, the fastest first, and their thirds, by name, as far as each has enough to be ranked."""
    if len(ordered) < MIN_NETWORKS:
        return {}
    thirds = [ordered[part[0] : part[-1] + 1] for part in np.array_split(np.arange(len(ordered)), len(_BANDS))]
    bands = dict(zip(_BANDS, thirds, strict=True)) if min(map(len, thirds)) >= MIN_NETWORKS else {}
    return {"all": ordered, **bands}


def _latency_ms(candidate: Audited) -> float:
    latency = candidate.trial.evaluation.latency
    assert latency is not None  # `choose` takes no candidate without one
    return latency.ms


def _macs(candidate: Audited) -> int:
    cost = candidate.trial.evaluation.cost
    assert cost is not None
    return cost.macs


def _agreements(group: Sequence[Audited]) -> dict[Coefficient, Agreement]:
    weights = resamples(len(group))
    brief = np.array([candidate.brief for candidate in group])
    full = np.array([candidate.full for candidate in group])
    macs = np.array([_macs(candidate) for candidate in group])
    found: dict[Coefficient, Agreement] = {}
    for kind in get_args(Coefficient):
        of_brief = mean_correlation(kind, brief[:, 0], full, weights)
        of_macs = mean_correlation(kind, macs, full, weights)
        ceiling = repeatability(kind, full, weights)
        allowed = attenuated(kind, (repeatability(kind, brief, weights), ceiling))
        samples = (of_brief, of_macs, ceiling, allowed, ceiling - of_brief, allowed - of_brief, of_brief - of_macs)
        found[kind] = Agreement(*map(interval, samples))
    return found


def verdict_on(brief: Recipe, full: Recipe, audited: Sequence[Audited], rankings: Sequence[Ranking]) -> Verdict:
    """By the interval of what the proxy score loses, in Kendall's tau, against a second full training.

    Enough where the loss is surely within the margin and the proxy score surely ranks at all; to be raised where there
    surely is a loss; else not to be told.
    """
    if not rankings:
        few = f"Cannot tell with so few: {plural(len(audited), 'candidate has', 'candidates have')} all trainings"
        return Verdict("unsure", f"{few}, and it takes {MIN_NETWORKS}.")
    tau = rankings[0].agreements["kendall"]
    if not math.isfinite(tau.brief.value + tau.ceiling.value):
        return Verdict("unsure", "Cannot tell: the candidates all score alike.")
    reach = f"τ {interval_text(tau.brief)} against a full training, where a second full training reaches {tau.ceiling.value:.2f}"
    notes = [_macs_note(tau)]
    if tau.shortfall.high <= MARGIN and tau.brief.low > 0:
        sentence = f"{capital(_brief_text(brief))} ranks well enough: {reach}."
        return Verdict("enough", sentence, tuple(filter(None, notes)))
    lost = f"between {tau.shortfall.low:.2f} and {tau.shortfall.high:.2f}"
    if tau.shortfall.low > 0:
        epochs, why = _epochs_needed(brief, full, audited)
        now = f"{plural(brief.epochs, 'epoch')} rank" if brief.epochs else f"{_brief_text(brief)} ranks"
        sentence = f"Raise the budget to {plural(epochs, 'epoch')}: {now} with {reach}."
        notes = [f"What is lost lies {lost}. {_cause(tau)}", why, *notes]
        return Verdict("raise", sentence, tuple(filter(None, notes)), epochs)
    if tau.ceiling.low <= 0:
        notes.insert(
            0, "The full trainings themselves do not surely agree: these candidates may differ by less than noise."
        )
    sentence = (
        f"Cannot tell with so few: with {len(audited)} candidates {_brief_text(brief)} ranks with {reach}, and what is lost "
        f"lies {lost} ({MARGIN:g} is allowed)."
    )
    return Verdict("unsure", sentence, tuple(filter(None, notes)))


def _brief_text(brief: Recipe) -> str:
    return f"the proxy training of {plural(brief.epochs, 'epoch')}" if brief.epochs else "scoring without fine-tuning"


def _cause(tau: Agreement) -> str:
    """What a loss comes from: the noise of a proxy training, or what it gets wrong with every seed."""
    left = f"The noise of the trainings leaves a proxy one τ {interval_text(tau.allowed)}"
    if tau.bias.low > 0:
        return f"{left}: the rest of the loss is the same with every seed, and takes more epochs."
    return f"{left}, which may explain the loss: the mean of several seeds may help as much as more epochs."


def _macs_note(tau: Agreement) -> str:
    if not math.isfinite(tau.macs.value) or tau.lead.low > 0:
        return ""
    how = "rank better than it" if tau.lead.high < 0 else "may rank as well, without any training"
    return f"MACs alone {how}: τ {interval_text(tau.macs)}."


def _epochs_needed(brief: Recipe, full: Recipe, audited: Sequence[Audited]) -> tuple[int, str]:
    """How many epochs would rank well enough, and why so many.

    The first epoch from which on the scores of one full training surely rank what the other ended with, but for the
    margin. Passing through an epoch at a high learning rate ranks worse than ending a schedule there does, so that it is
    at most so many. Twice the brief epochs, at least one, where the curves cannot be read so.
    """
    lengths = {len(curve) for candidate in audited for curve in candidate.curves}
    if lengths != {full.epochs} or full.epochs <= brief.epochs or brief.steps or brief.seconds or brief.patience:
        limits = " (and its steps and seconds alike)" if brief.steps or brief.seconds else ""
        more = f"Twice the budget{limits}" if brief.epochs else "One epoch"
        return max(
            1, 2 * brief.epochs
        ), f"{more} is a guess: the curves do not tell; check the fidelity of a run of it again."
    curves: NDArray[np.float64] = np.array(
        [candidate.curves for candidate in audited]
    )  # (candidates, trainings, epochs)
    weights = resamples(len(audited))
    ceiling = repeatability("kendall", curves[:, :, -1], weights)
    needed = full.epochs
    while needed > brief.epochs + 1:
        agreement = _between_trainings(curves[:, :, needed - 2], curves[:, :, -1], weights)
        if not interval(ceiling - agreement).high <= MARGIN:
            break
        needed -= 1
    end = "" if needed < full.epochs else ", which is the end of it"
    return needed, (
        f"From epoch {needed} on{end}, a full training ranks what another one ends with as well as is allowed; a schedule "
        "that ends there anneals and usually ranks better than one that passes by, so that fewer epochs may do."
    )


def _between_trainings(scores: Floats, finals: Floats, weights: Floats) -> Floats:
    """How well scores of a training (candidates, trainings) rank what the other trainings end with."""
    count = scores.shape[1]
    pairs = [(one, other) for one in range(count) for other in range(count) if one != other]
    return np.mean(
        [rank_correlation("kendall", scores[:, one], finals[:, other], weights) for one, other in pairs], axis=0
    )


def interval_text(value: Interval) -> str:
    """A value with its 95 % interval."""
    if not math.isfinite(value.value):
        return "not defined"
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"
