"""Scores of predictions: accuracy, macro F1, balanced accuracy, or a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nas.common.errors import CandidateError, InputError
from nas.common.plugins import load_function

Metric = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


# scikit-learn is slow to import, and most processes score nothing.


def _accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def _macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0))


def _balanced_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """The mean recall, as balanced accuracy is defined; sklearn's own function warns of classes without labels."""
    from sklearn.metrics import recall_score

    return float(recall_score(labels, predictions, average="macro", zero_division=0))


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
}


def load_metric(name: str) -> Metric:
    """A metric by name, or `module:function` taking (labels, predictions), both (N,) int64; higher is better.

    Raises `InputError` when there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if not name.partition(":")[2]:
        raise InputError(f"unknown metric {name!r}: use one of {', '.join(METRICS)}, or module:function")
    return load_function("metric", name)


def score(metric: Metric, labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """The metric's value as a float; raises `CandidateError` when it is not a finite number."""
    value = float(metric(labels, predictions))
    if not math.isfinite(value):
        raise CandidateError(f"the metric gave {value}")
    return value
