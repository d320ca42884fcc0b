"""What full trainings gave: which belong together, and whose weights to take."""

from __future__ import annotations

from collections.abc import Sequence

from nas.runs.record import Outcome, TrainingRecord
from nas.runs.store import RunDirectory


def ended(records: Sequence[TrainingRecord]) -> list[TrainingRecord]:
    """Those that came to their end."""
    return [record for record in records if record.evaluation.outcome is Outcome.DONE]


def alike(records: Sequence[TrainingRecord]) -> list[list[TrainingRecord]]:
    """Those that differ in nothing but their seed together, by seed; in the order in which the first of each came."""
    groups: dict[tuple[object, ...], list[TrainingRecord]] = {}
    for record in records:
        groups.setdefault((record.digest, record.recipe, record.start, record.with_validation), []).append(record)
    return [sorted(group, key=lambda record: record.seed) for group in groups.values()]


def best_training(run: RunDirectory, digest: str) -> TrainingRecord | None:
    """The full training of a candidate whose weights to take; None where none came to its end."""
    return best_of([record for record in run.training_records() if record.digest == digest])


def best_of(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """The same of one candidate's full trainings.

    The test split never decides. A training on the validation split too, of which there is no score, is what is asked for
    last and goes before the others: of the latest of that kind the first seed. Of the others the best validation score
    counts.
    """
    own = ended(records)
    unscored = [record for record in own if record.with_validation]
    if unscored:
        return next(group[0] for group in alike(unscored) if unscored[-1] in group)
    return max(own, key=lambda record: record.score or 0.0, default=None)
