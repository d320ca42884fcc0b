"""Can a run's brief fine-tune rank candidates? What an audit trains, and what its trainings say.

Each chosen candidate is trained by a longer recipe, twice, and once more by the brief one, all with new seeds. The
ceiling is how well one full training ranks what the other gives: no score can be expected to do better against a single
training (the noise ceiling of Nili et al., "A toolbox for representational similarity analysis", 2014). The brief
score, MACs and the ceiling are therefore all held against a single full training, the mean over the two. The brief
repeat tells noise from bias: two scores that rank alike but for the noise of their trainings agree as far as their
reliabilities allow (`nas.agreement.attenuated`).

The cost is that of two full trainings and a brief one for each candidate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.agreement import (
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
from nas.front import losses, pareto_front, primary_cost, trained
from nas.proxy import MIN_NETWORKS
from nas.recipe import Recipe
from nas.record import Outcome, TrialRecord
from nas.run import AuditRecord, RunDirectory
from nas.settings import derive_seed
from nas.wording import plural

LENGTHENED = 4
"""How many times as long as the brief fine-tune a full training is where nothing is said."""
FULL_TRAININGS = 2
"""Full trainings of a candidate: as many as it takes to see how far two of them agree."""
MARGIN = 0.2
"""Kendall's tau that may be lost against the ceiling: one pair of candidates in ten more in the wrong order."""
_BANDS = ("fast third", "middle third", "slow third")


@dataclass(frozen=True)
class Training:
    """A training that an audit asks for: of a trial's candidate, by a recipe and a seed."""

    trial: TrialRecord
    recipe: Recipe
    seed: int

    @property
    def key(self) -> tuple[str, int, Recipe]:
        """What makes two of them the same."""
        return self.trial.digest, self.seed, self.recipe


@dataclass(frozen=True)
class Audited:
    """A candidate with all of its trainings: the scores of the search and of one more brief training, then the full ones.

    `curves` holds the score after each epoch of each full training.
    """

    trial: TrialRecord
    brief: tuple[float, float]
    full: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Agreement:
    """How well each of these ranks what one full training gives, by one coefficient.

    `ceiling` is another full training, `allowed` what the noise of both trainings leaves to a brief one that has no
    bias, `shortfall` the ceiling less the brief score, and `lead` the brief score less MACs.
    """

    brief: Interval
    macs: Interval
    ceiling: Interval
    allowed: Interval
    shortfall: Interval
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
    """Whether the brief fine-tune ranks well enough, or the `epochs` it should have; the sentence, and what else to know."""

    kind: Literal["enough", "raise", "unsure"]
    sentence: str
    notes: tuple[str, ...] = ()
    epochs: int | None = None


@dataclass(frozen=True)
class Audit:
    """What the trainings by one full recipe say.

    `rankings` begins with all candidates; bands of latency follow where each has enough. `failed` and `unfinished`
    count candidates that are left out. Of the `full_front` candidates that are on the front by their mean full score,
    `kept_front` are on that of the brief scores. `seconds` is what all trainings took together.
    """

    brief: Recipe
    full: Recipe
    audited: tuple[Audited, ...]
    failed: int
    unfinished: int
    rankings: tuple[Ranking, ...]
    full_front: int
    kept_front: int
    verdict: Verdict
    seconds: float


# ---------------------------------------------------------------- what to train


def full_recipe(brief: Recipe, epochs: int | None = None) -> Recipe:
    """The brief recipe made longer, to `epochs` or `LENGTHENED` times its own; steps and seconds grow alike.

    Patience is lifted: a full training goes on to the end of its schedule.
    """
    epochs = epochs or LENGTHENED * brief.epochs
    times = epochs / brief.epochs
    return replace(
        brief,
        epochs=epochs,
        steps=brief.steps and math.ceil(times * brief.steps),
        seconds=brief.seconds and times * brief.seconds,
        patience=0,
    )


def choose(records: Sequence[TrialRecord], objectives: Sequence[str], count: int) -> list[TrialRecord]:
    """At most `count` trained candidates: of the front up to half of them, evenly along it, and the others behind it.

    Those are taken one after another, each the farthest from all chosen so far (Kennard and Stone, "Computer aided
    design of experiments", 1969), by their ranks in each objective, so that outliers draw no more than others.
    """
    found = [record for record in trained(records) if all(name in record.objectives for name in objectives)]
    found = [record for record in found if record.evaluation.cost and record.evaluation.latency]
    front = pareto_front(found, objectives)
    members = {record.number for record in front}
    behind = [record for record in found if record.number not in members]
    of_front = min(len(front), max(count // 2, count - len(behind)))
    along = np.unique(np.linspace(0, len(front) - 1, of_front).round().astype(int))
    chosen = [front[index] for index in along]
    pool = [*chosen, *behind]
    ranks = losses(pool, objectives).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    place = ranks / max(1, len(pool) - 1)
    distance = np.linalg.norm(place[:, None] - place[None, :], axis=2)
    taken = list(range(len(chosen)))
    while len(taken) < min(count, len(pool)):
        nearest = distance[:, taken].min(axis=1) if taken else distance.max(axis=1)
        nearest[taken] = -1.0
        taken.append(int(nearest.argmax()))
    cost = primary_cost(objectives)
    return sorted((pool[index] for index in taken), key=lambda record: (record.objectives[cost], record.number))


def trainings_of(trial: TrialRecord, brief: Recipe, full: Recipe, seed: int) -> list[Training]:
    """What an audit trains of one candidate; `seed` is that of the run's evaluations."""
    again = Training(trial, brief, _brief_seed(seed))
    return [*(Training(trial, full, of_full) for of_full in _full_seeds(seed)), again]


def _full_seeds(seed: int) -> list[int]:
    return [derive_seed(seed, "audit", number) for number in range(FULL_TRAININGS)]


def _brief_seed(seed: int) -> int:
    return derive_seed(seed, "audit", "brief")


# ---------------------------------------------------------------- what it says


def audit_of(run: RunDirectory, full: Recipe | None = None) -> Audit | None:
    """What the recorded trainings by a full recipe say, by default the latest one; None where there are none."""
    records = run.audit_records()
    seeds = _full_seeds(run.settings.evaluation.seed)
    of_full = [record for record in records if record.seed in seeds and full in (None, record.recipe)]
    if not of_full:
        return None
    full = of_full[-1].recipe
    of_full = [record for record in of_full if record.recipe == full]
    of_brief = [record for record in records if record.seed == _brief_seed(run.settings.evaluation.seed)]
    trials = {record.digest: record for record in trained(run.records())}
    began = {record.digest for record in of_full} & trials.keys()
    counted = [record for record in (*of_full, *of_brief) if record.digest in began]
    audited = {digest: _audited(trials[digest], counted, seeds) for digest in began}
    failing = {record.digest for record in counted if record.evaluation.outcome is Outcome.FAILED}
    complete = [candidate for candidate in audited.values() if candidate]
    left_out = [digest for digest, candidate in audited.items() if candidate is None]
    failed = sum(digest in failing for digest in left_out)
    return conclude(
        run.settings.evaluation.recipe,
        full,
        complete,
        run.settings.objectives,
        failed=failed,
        unfinished=len(left_out) - failed,
        seconds=sum(record.evaluation.seconds for record in counted),
    )


def _audited(trial: TrialRecord, records: Sequence[AuditRecord], seeds: Sequence[int]) -> Audited | None:
    """The candidate of a trial with what its trainings gave; None while one of them is missing."""
    own = [record for record in records if record.digest == trial.digest and record.evaluation.outcome is Outcome.DONE]
    by_seed = {record.seed: record.evaluation.history for record in own}
    if len(by_seed) < FULL_TRAININGS + 1:
        return None
    curves = tuple(tuple(epoch.score for epoch in by_seed.pop(seed)) for seed in seeds)
    (again,) = by_seed.values()
    brief = (trial.objectives["accuracy"], again[-1].score)
    return Audited(trial, brief, tuple(curve[-1] for curve in curves), curves)


def conclude(
    brief: Recipe,
    full: Recipe,
    audited: Sequence[Audited],
    objectives: Sequence[str],
    *,
    failed: int = 0,
    unfinished: int = 0,
    seconds: float = 0.0,
) -> Audit:
    """Rankings and verdict from the trainings of so many candidates."""
    ordered = sorted(audited, key=lambda candidate: (_latency_ms(candidate), candidate.trial.number))
    groups = {"all": ordered} if len(ordered) >= MIN_NETWORKS else {}
    thirds = [
        ordered[part[0] : part[-1] + 1] for part in np.array_split(np.arange(len(ordered)), len(_BANDS)) if len(part)
    ]
    if thirds and min(map(len, thirds)) >= MIN_NETWORKS:
        groups |= dict(zip(_BANDS, thirds, strict=True))
    rankings = [
        Ranking(name, len(group), _latency_ms(group[0]), _latency_ms(group[-1]), _agreements(group))
        for name, group in groups.items()
    ]
    by_full = [_scored(candidate, float(np.mean(candidate.full))) for candidate in ordered]
    full_front = {record.digest for record in pareto_front(by_full, objectives)}
    brief_front = {record.digest for record in pareto_front([each.trial for each in ordered], objectives)}
    return Audit(
        brief=brief,
        full=full,
        audited=tuple(ordered),
        failed=failed,
        unfinished=unfinished,
        rankings=tuple(rankings),
        full_front=len(full_front),
        kept_front=len(full_front & brief_front),
        verdict=_verdict(brief, full, ordered, rankings),
        seconds=seconds,
    )


def _scored(candidate: Audited, accuracy: float) -> TrialRecord:
    return replace(candidate.trial, objectives={**candidate.trial.objectives, "accuracy": accuracy})


def _latency_ms(candidate: Audited) -> float:
    latency = candidate.trial.evaluation.latency
    assert latency is not None  # `choose` takes no candidate without one
    return latency.median_ms


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
        samples = (of_brief, of_macs, ceiling, allowed, ceiling - of_brief, of_brief - of_macs)
        found[kind] = Agreement(*map(interval, samples))
    return found


def _verdict(brief: Recipe, full: Recipe, audited: Sequence[Audited], rankings: Sequence[Ranking]) -> Verdict:
    """By the interval of what the brief score loses, in Kendall's tau, against a second full training.

    Enough where the loss is surely within the margin and the brief score surely ranks at all; to be raised where there
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
        sentence = f"The brief fine-tune of {plural(brief.epochs, 'epoch')} ranks well enough: {reach}."
        return Verdict("enough", sentence, tuple(filter(None, notes)))
    lost = f"between {tau.shortfall.low:.2f} and {tau.shortfall.high:.2f}"
    if tau.shortfall.low > 0:
        epochs, why = _epochs_needed(brief, full, audited)
        sentence = f"Raise the budget to {plural(epochs, 'epoch')}: {plural(brief.epochs, 'epoch')} rank with {reach}."
        notes = [f"What is lost lies {lost}, more than noise explains. {why}", *notes]
        return Verdict("raise", sentence, tuple(filter(None, notes)), epochs)
    if tau.ceiling.low <= 0:
        notes.insert(
            0, "The full trainings themselves do not surely agree: these candidates differ by less than noise."
        )
    sentence = (
        f"Cannot tell with so few: with {len(audited)} candidates the brief fine-tune ranks with {reach}, and what is lost "
        f"lies {lost} ({MARGIN:g} is allowed)."
    )
    return Verdict("unsure", sentence, tuple(filter(None, notes)))


def _macs_note(tau: Agreement) -> str:
    if not math.isfinite(tau.macs.value) or tau.lead.low > 0:
        return ""
    how = "rank better than it" if tau.lead.high < 0 else "may rank as well, without any training"
    return f"MACs alone {how}: τ {interval_text(tau.macs)}."


def _epochs_needed(brief: Recipe, full: Recipe, audited: Sequence[Audited]) -> tuple[int, str]:
    """How many epochs would rank well enough, and why so many.

    The first epoch from which on the scores of one full training surely rank what the other ended with, but for the
    margin. Passing through an epoch at a high learning rate ranks worse than ending a schedule there does, so that it is
    at most so many. Twice the brief epochs where the curves cannot be read so.
    """
    lengths = {len(curve) for candidate in audited for curve in candidate.curves}
    if lengths != {full.epochs} or full.epochs <= brief.epochs or brief.steps or brief.seconds or brief.patience:
        limits = " (and its steps and seconds alike)" if brief.steps or brief.seconds else ""
        return (
            2 * brief.epochs,
            f"Twice the budget{limits} is a guess: the curves do not tell; audit a run of it again.",
        )
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
