"""Scores of predictions: accuracy, macro F1, balanced accuracy, or a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from nas.errors import CandidateError, InputError
from nas.plugin import load_function

Metric = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


def _macro_f1(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    return float(metrics.f1_score(labels, predictions, average="macro", zero_division=0))


METRICS: dict[str, Metric] = {
    "accuracy": lambda labels, predictions: float(metrics.accuracy_score(labels, predictions)),
    "macro_f1": _macro_f1,
    # The mean recall, as balanced accuracy is defined; sklearn's own function warns of classes without labels.
    "balanced_accuracy": lambda labels, predictions: float(
        metrics.recall_score(labels, predictions, average="macro", zero_division=0)
    ),
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
