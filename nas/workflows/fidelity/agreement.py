"""How far two scores agree in ranking the same candidates, with bootstrap intervals, and what noise allows.

Kendall's tau-b (Kendall, "The treatment of ties in ranking problems", 1945) and Spearman's rho with mean ranks. Both
are sums over the signs of pairs of candidates, so that a bootstrap sample, given as how often it holds each candidate,
is a product of matrices; a candidate drawn twice is no pair of its own. The intervals are percentiles of the bootstrap over
candidates (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Coefficient = Literal["kendall", "spearman"]

DRAWS = 4_000
"""Bootstrap samples: the ends of a 95 % interval then move by about 0.01 from one seed to another."""
_COVERED = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; NaN where it is not defined (a score that is the same for all)."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=8)
def resamples(candidates: int, draws: int = DRAWS, seed: int = 0) -> Floats:
    """How often each bootstrap sample holds each candidate (draws + 1, candidates), to be read only; the first row is the sample itself."""
    drawn = np.random.default_rng(seed).multinomial(candidates, np.full(candidates, 1 / candidates), size=draws)
    counts = np.vstack([np.ones(candidates), drawn])
    counts.setflags(write=False)  # whoever asks for as many gets the same array
    return counts


def interval(samples: Floats) -> Interval:
    """What the rows of `resamples` gave, as a value and its interval."""
    defined = samples[1:][np.isfinite(samples[1:])]
    low, high = np.percentile(defined, _COVERED) if len(defined) else (np.nan, np.nan)
    return Interval(float(samples[0]), float(low), float(high))


def rank_correlation(kind: Coefficient, a: ArrayLike, b: ArrayLike, weights: Floats) -> Floats:
    """The coefficient of two scores (candidates,) in each row of `resamples`; NaN where one of them is constant."""
    first, second = _signs(a), _signs(b)
    if kind == "spearman":
        # Weighted with how often each of the others is there, the signs of a candidate sum to its rank, centred.
        first, second = weights @ first.T, weights @ second.T
        both, alone, other = ((weights * x * y).sum(1) for x, y in _products(first, second))
    else:
        both, alone, other = (((weights @ (x * y)) * weights).sum(1) for x, y in _products(first, second))
    scale = np.sqrt(alone * other)
    return np.divide(both, scale, out=np.full(len(weights), np.nan), where=scale > 0)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation; ties share their rank. NaN where one of the two is constant."""
    return float(rank_correlation("spearman", a, b, np.ones((1, len(np.asarray(a)))))[0])


def mean_correlation(kind: Coefficient, score: ArrayLike, trainings: Floats, weights: Floats) -> Floats:
    """How well a score (candidates,) ranks what one training gives: the mean over `trainings` (candidates, repeats)."""
    return np.mean([rank_correlation(kind, score, training, weights) for training in trainings.T], axis=0)


def repeatability(kind: Coefficient, trainings: Floats, weights: Floats) -> Floats:
    """How well one training ranks what another gives with a new seed: the mean over pairs of `trainings`."""
    pairs = combinations(trainings.T, 2)
    return np.mean([rank_correlation(kind, one, other, weights) for one, other in pairs], axis=0)


def attenuated(kind: Coefficient, reliabilities: Sequence[Floats]) -> Floats:
    """The correlation that two scores of these two reliabilities have where their true values rank alike.

    The square root of their product (Spearman, "The proof and measurement of association between two things", 1904);
    for tau by way of the correlation that it stands for under a normal distribution, sin(π τ / 2) (Greiner, 1909).
    """
    one, other = (np.clip(r if kind == "spearman" else np.sin(np.pi * r / 2), 0, 1) for r in reliabilities)
    highest = np.sqrt(one * other)
    return highest if kind == "spearman" else 2 / np.pi * np.arcsin(highest)


def _signs(score: ArrayLike) -> Floats:
    """Whether the first of each pair of candidates is above the second (candidates, candidates)."""
    values = np.asarray(score, dtype=np.float64)
    return np.sign(values[:, None] - values[None, :])


def _products(first: Floats, second: Floats) -> tuple[tuple[Floats, Floats], ...]:
    return (first, second), (first, first), (second, second)
