"""Scores that guessing would get: a search or a supernet that has such scores is warned of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.common.text import plural
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.runs.store import Provenance

ERRORS = 2.0
"""Standard errors of a guess within which a score is taken for one."""


def by_guessing(classes: int, images: int) -> float:
    """The largest accuracy, each class weighing the same, that may be the luck of a guess over so many images."""
    share = 1 / classes
    return share + ERRORS * math.sqrt(share * (1 - share) / max(1, images))


def chance_note(settings: SearchSettings, provenance: Provenance, records: Sequence[TrialRecord]) -> str | None:
    """How many of a run's own candidates score no better than guessing would, in a sentence; None where none does.

    Told by the balanced accuracy, whatever the run's metric: to guess the most frequent class does not raise it.
    """
    most = by_guessing(len(provenance.classes), provenance.validation_images)
    done = [record.evaluation for record in records if record.outcome is Outcome.DONE and not record.imported_from]
    scores = [evaluation.history[-1].scores.get("balanced_accuracy") for evaluation in done if evaluation.history]
    guesses = sum(score is not None and score <= most for score in scores)
    if not guesses:
        return None
    if settings.evaluation.recipe.epochs:
        cure = "more --epochs, another --learning-rate, or weights to start from (--init)"
    else:
        cure = "a supernet that was trained for longer, or at least one epoch of --finetune"
    return (
        f"{guesses} of {plural(len(done), 'candidate')} {'scores' if guesses == 1 else 'score'} no better than guessing "
        f"would (a balanced accuracy of at most {100 * most:.1f} % with {len(provenance.classes)} classes), which ranks "
        f"nothing; try {cure}"
    )
