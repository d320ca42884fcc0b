"""Scores of classifiers: accuracy, macro F1, balanced accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from nas.tasks.base import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels: TypeAlias = NDArray[np.int64]


# scikit-learn is slow to import, and most processes score nothing.


def _accuracy(labels: Labels, predictions: Labels) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def _macro_f1(labels: Labels, predictions: Labels) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def _balanced_accuracy(labels: Labels, predictions: Labels) -> float:
    """The mean recall, as balanced accuracy is defined; sklearn's own function warns of classes without labels."""
    from sklearn.metrics import recall_score

    return float(recall_score(labels, predictions, average="macro", zero_division=0))


def binomial_error(share: float, examples: int) -> float | None:
    """The binomial standard error of a share of so many examples."""
    if examples < 1 or not 0 <= share <= 1:
        return None
    return math.sqrt(share * (1 - share) / examples)


GUESS_ERRORS = 2.0
"""Standard errors of a guess within which a score is taken for one."""


def by_guessing(classes: int, images: int) -> float:
    """The largest accuracy, each class weighing the same, that may be the luck of a guess over so many images."""
    share = 1 / classes
    return share + GUESS_ERRORS * math.sqrt(share * (1 - share) / max(1, images))


ACCURACY = Score("accuracy", _accuracy, error=binomial_error, error_title="binomial standard error")
METRICS = {
    score.name: score
    for score in (ACCURACY, Score("macro_f1", _macro_f1), Score("balanced_accuracy", _balanced_accuracy))
}
