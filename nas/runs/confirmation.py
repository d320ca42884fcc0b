"""Was a place on the front the luck of one short training? Which candidates are trained again, and what came of it.

Of many noisy scores the best flatters its owner (the winner's curse; Capen, Clapp & Campbell, 1971). So a share of the
budget trains candidates near the front again, longer and from other seeds. Their new scores are compared with each other
only: a longer training lifts them all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.common.text import amount_text
from nas.runs.front import contributions, losses, pareto_front, trained
from nas.runs.objectives import is_cost, score_of
from nas.runs.record import Confirmation, TrialRecord
from nas.runs.store import RunDirectory
from nas.tasks.base import Score

NEAR = math.sqrt(2)
"""Standard errors of a score within which two candidates cannot be told apart by one training each."""


@dataclass(frozen=True)
class Confirmed:
    """What training a candidate again gave: the mean score of so many trainings of so many epochs.

    `error` is the standard error: of the validation images and, from two trainings on, of the seeds; None where the
    metric's is not known. `on_front` says whether no other confirmed candidate dominates it now.
    """

    score: float
    error: float | None
    trainings: int
    epochs: int
    on_front: bool
    unit: str = "%"

    @property
    def text(self) -> str:
        """The score with its unit, and its standard error where there is one."""
        return amount_text(self.score, self.error, self.unit)


def confirmed(
    records: Sequence[TrialRecord],
    confirmations: Sequence[Confirmation],
    objectives: Sequence[str],
    metric: Score,
    images: int,
) -> dict[str, Confirmed]:
    """What is known of the candidates that were trained again, by digest; `images` are those of the validation split."""
    scores = _scores(confirmations)
    epochs = {confirmation.digest: confirmation.epochs for confirmation in confirmations}
    name = score_of(objectives)
    again = [_scored(record, name, float(np.mean(scores[record.digest]))) for record in _of(records, scores)]
    front = {record.digest for record in pareto_front(again, objectives)}
    found = {}
    for record in again:
        score, values = record.objectives[name], scores[record.digest]
        error = metric.error(score, images)
        if error is not None and len(values) > 1:
            error = math.hypot(error, float(np.std(values, ddof=1)) / math.sqrt(len(values)))
        found[record.digest] = Confirmed(
            score, error, len(values), epochs[record.digest], on_front=record.digest in front, unit=metric.unit
        )
    return found


def confirmed_in(run: RunDirectory, records: Sequence[TrialRecord]) -> dict[str, Confirmed]:
    """The same of a run that holds these records."""
    settings = run.settings
    images = run.provenance.validation_images
    return confirmed(records, run.confirmations(), settings.objectives, settings.evaluation.score, images)


def next_to_confirm(
    records: Sequence[TrialRecord],
    confirmations: Sequence[Confirmation],
    objectives: Sequence[str],
    metric: Score,
    images: int,
    running: Sequence[str] = (),
) -> TrialRecord | None:
    """The candidate to train again next, or None where nothing is trained; `running` are digests in training again.

    The front is that of the best guesses: the mean of longer trainings, or the proxy score and what longer trainings
    gave on average. First come its members that were not trained again, by what each adds to the hypervolume; then
    those so near behind it that noise may hide them; then the members that were trained again the least.
    """
    scores = _scores(confirmations)
    asked = Counter([*(confirmation.digest for confirmation in confirmations), *running])
    brief = {record.digest: record for record in trained(records) if all(n in record.objectives for n in objectives)}
    known = {digest: float(np.mean(values)) for digest, values in scores.items() if digest in brief}
    name = score_of(objectives)
    lift = float(np.mean([known[d] - brief[d].objectives[name] for d in known])) if known else 0.0
    guesses = [
        _scored(record, name, known.get(digest, record.objectives[name] + lift)) for digest, record in brief.items()
    ]
    front = pareto_front(guesses, objectives)
    if not front:
        return None
    added = dict(
        zip(
            [record.digest for record in front],
            contributions(losses(front, objectives), losses(guesses, objectives)),
            strict=True,
        )
    )
    new = [record for record in front if not asked[record.digest]]
    if new:
        return brief[max(new, key=lambda record: added[record.digest]).digest]
    near = _near(guesses, front, objectives, metric, images, asked)
    if near:
        return brief[min(near, key=lambda digest: near[digest])]
    return brief[min(front, key=lambda record: (asked[record.digest], -added[record.digest])).digest]


def _near(
    guesses: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    objectives: Sequence[str],
    metric: Score,
    images: int,
    asked: Mapping[str, int],
) -> dict[str, float]:
    """By digest how many standard errors the nearest candidates are behind the front, at their cost."""
    costs, score = [name for name in objectives if is_cost(name)], score_of(objectives)
    of_front, best = losses(front, costs), losses(front, [score])[:, 0]
    found = {}
    for record in guesses:
        error = metric.error(record.objectives[score], images)
        affordable = (of_front <= losses([record], costs)).all(1)
        if asked[record.digest] or not error or not affordable.any():
            continue
        behind = (score.loss(record.objectives[score]) - float(best[affordable].min())) / error
        if behind <= NEAR:
            found[record.digest] = behind
    return found


def _scores(confirmations: Sequence[Confirmation]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for confirmation in confirmations:
        if confirmation.score is not None:
            scores.setdefault(confirmation.digest, []).append(confirmation.score)
    return scores


def _of(records: Sequence[TrialRecord], digests: Mapping[str, object]) -> list[TrialRecord]:
    return [record for record in trained(records) if record.digest in digests]


def _scored(record: TrialRecord, name: str, score: float) -> TrialRecord:
    return replace(record, objectives=record.objectives | {name: score})
