"""Scores that guessing would get: a search or a supernet that has such scores is warned of."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.errors import arg
from nas.common.text import plural
from nas.runs.record import Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import SearchSettings
from nas.tasks.base import task_of


def chance_note(settings: SearchSettings, provenance: Provenance, records: Sequence[TrialRecord]) -> str | None:
    """How many of a run's own candidates score no better than guessing would, in a sentence that names arguments by `arg`; None where none does.

    Told by the score that the task has for it, whatever the run's metric.
    """
    task = task_of(settings.evaluation.task)
    guess = task.guess(provenance.classes, provenance.validation_images)
    done = [record.evaluation for record in records if record.outcome is Outcome.DONE and not record.imported_from]
    if guess is None:
        return None
    scores = [evaluation.history[-1].scores.get(guess.score.name) for evaluation in done if evaluation.history]
    guesses = sum(score is not None and guess.covers(score) for score in scores)
    if not guesses:
        return None
    if settings.evaluation.recipe.epochs:
        cure = f"more {arg('epochs')}, another {arg('learning_rate')}, or weights to start from ({arg('init')})"
    else:
        cure = "a supernet that was trained for longer, or at least one epoch of fine-tuning"
    return (
        f"{guesses} of {plural(len(done), 'candidate')} {'scores' if guesses == 1 else 'score'} no better than guessing "
        f"would (a {guess.score.title} of {guess.text}), which ranks nothing; try {cure}"
    )
