"""Can a run's proxy training rank candidates? What a fidelity check trains, and what its trainings say.

Each chosen candidate is trained by a longer recipe, twice, and once more by the proxy one, all with new seeds: nas/workflows/fidelity/ranking.py
says what these are for. The cost is that of two full trainings and a proxy one for each candidate; further initial weights
add one proxy training each (nas/workflows/fidelity/inits.py). What was scored without fine-tuning has no seed: it would score the same once
more, and is only trained in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.common.kinds import checks_kinds
from nas.common.seeds import derive_seed
from nas.models.sources import SCRATCH
from nas.runs.front import losses, pareto_front, primary_cost, trained
from nas.runs.objectives import score_of
from nas.runs.record import AuditRecord, InitialWeights, Outcome, TrialRecord
from nas.runs.store import RunDirectory
from nas.training.recipe import Recipe, longer, read_recipe
from nas.workflows.fidelity.inits import InitRanking, compare
from nas.workflows.fidelity.ranking import Audited, Brief, Ranking, Verdict, by_latency, rank, verdict_on

LENGTHENED = 4
"""How many times as long as the proxy training a full training is where nothing is said."""
FULL_TRAININGS = 2
"""Full trainings of a candidate: as many as it takes to see how far two of them agree."""


@dataclass(frozen=True)
class Training:
    """A training that a fidelity check asks for: of a trial's candidate, by a recipe and a seed, from the run's weights or `init`."""

    trial: TrialRecord
    recipe: Recipe
    seed: int
    init: InitialWeights | None = None

    @property
    def key(self) -> tuple[str, int, Recipe, InitialWeights | None]:
        """What makes two of them the same."""
        return self.trial.digest, self.seed, self.recipe, self.init


@dataclass(frozen=True)
class Audit:
    """What the trainings by one full recipe say.

    `rankings` begins with all candidates; bands of latency follow where each has enough. `failed` and `unfinished`
    count candidates that are left out. Of the `full_front` candidates that are on the front by their mean full score,
    `kept_front` are on that of the proxy scores. `seconds` is what all trainings took together. `inits` compares initial
    weights, the run's own first; it is empty where no others were tried.
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
    inits: tuple[InitRanking, ...] = ()


# ---------------------------------------------------------------- what to train


def full_recipe(brief: Recipe, epochs: int | None = None) -> Recipe:
    """The proxy recipe made longer, to `epochs` or `LENGTHENED` times its own; steps and seconds grow alike.

    One of 0 epochs counts as one of as many as by default. Patience is lifted: a full training goes on to the end of its
    schedule. Raises `InputError` for one that is too long.
    """
    brief = brief if brief.epochs else replace(brief, epochs=Recipe().epochs)
    epochs = epochs or LENGTHENED * brief.epochs
    return read_recipe(replace(longer(brief, epochs / brief.epochs), epochs=epochs, patience=0))


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


def trainings_of(
    trial: TrialRecord, brief: Recipe, full: Recipe, seed: int, inits: Mapping[InitialWeights, Recipe] | None = None
) -> list[Training]:
    """What a fidelity check trains of one candidate; `seed` is that of the run's evaluations.

    `inits` are further initial weights, with their proxy recipes.
    """
    again = [Training(trial, brief, _brief_seed(seed))] if brief.epochs else []
    others = [Training(trial, recipe, _brief_seed(seed), init) for init, recipe in (inits or {}).items()]
    return [*(Training(trial, full, of_full) for of_full in _full_seeds(seed)), *again, *others]


def _full_seeds(seed: int) -> list[int]:
    return [derive_seed(seed, "audit", number) for number in range(FULL_TRAININGS)]


def _brief_seed(seed: int) -> int:
    return derive_seed(seed, "audit", "brief")


# ---------------------------------------------------------------- what it says


@checks_kinds
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
    weights = {record.init.name: record.init for record in of_brief if record.init}  # the latest of each name
    of_brief = [record for record in of_brief if not record.init or weights[record.init.name] == record.init]
    trials = {record.digest: record for record in trained(run.judged())}
    began = {record.digest for record in of_full} & trials.keys()
    counted = [record for record in (*of_full, *of_brief) if record.digest in began]
    brief, own, seed = run.settings.evaluation.recipe, run.settings.evaluation.init, run.settings.evaluation.seed
    score = score_of(run.settings.objectives)
    audited = {digest: _audited(trials[digest], brief, counted, seed, own, score) for digest in began}
    failing = {r.digest for r in counted if r.evaluation.outcome is Outcome.FAILED and not r.init}
    complete = [candidate for candidate in audited.values() if candidate]
    left_out = [digest for digest, candidate in audited.items() if candidate is None]
    failed = sum(digest in failing for digest in left_out)
    return conclude(
        brief,
        full,
        complete,
        run.settings.objectives,
        failed=failed,
        unfinished=len(left_out) - failed,
        seconds=sum(record.evaluation.seconds for record in counted),
        own=own,
        inits=list(weights),
    )


def _audited(
    trial: TrialRecord, brief: Recipe, records: Sequence[AuditRecord], seed: int, own: str, score: str
) -> Audited | None:
    """The candidate of a trial with what its trainings gave; None while one from the run's `own` weights is missing."""
    done = [record for record in records if record.digest == trial.digest and record.evaluation.outcome is Outcome.DONE]
    by_seed = {record.seed: record.evaluation for record in done if not record.init}
    seeds = _full_seeds(seed)
    if any(wanted not in by_seed for wanted in (*seeds, *([_brief_seed(seed)] if brief.epochs else ()))):
        return None
    curves = tuple(tuple(epoch.score for epoch in by_seed[of_full].history) for of_full in seeds)
    again = by_seed[_brief_seed(seed)] if brief.epochs else trial.evaluation
    by_init = {own: again, **{record.init.name: record.evaluation for record in done if record.init}}
    briefs = {init: Brief(found.history[-1].score, found.seconds) for init, found in by_init.items()}
    scores = (trial.objectives[score], briefs[own].score)
    return Audited(trial, scores, tuple(curve[-1] for curve in curves), curves, briefs)


def conclude(
    brief: Recipe,
    full: Recipe,
    audited: Sequence[Audited],
    objectives: Sequence[str],
    *,
    failed: int = 0,
    unfinished: int = 0,
    seconds: float = 0.0,
    own: str = SCRATCH,
    inits: Sequence[str] = (),
) -> Audit:
    """Rankings and verdicts from the trainings of so many candidates; `inits` are those tried beside the run's `own`."""
    ordered = by_latency(audited)
    rankings = rank(ordered)
    score = score_of(objectives)
    by_full = [_scored(candidate, score, float(np.mean(candidate.full))) for candidate in ordered]
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
        verdict=verdict_on(brief, full, ordered, rankings),
        seconds=seconds,
        inits=tuple(compare(ordered, brief, own, inits)) if inits else (),
    )


def _scored(candidate: Audited, name: str, score: float) -> TrialRecord:
    return replace(candidate.trial, objectives={**candidate.trial.objectives, name: score})
