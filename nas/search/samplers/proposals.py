"""Candidates for a sampler to choose from, as choice indices: random ones, mutants and crosses."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def random_rows(sizes: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Rows (count, parameters): half uniform, half leaning to the first or the last choices.

    Where choices are listed from cheap to dear, as they mostly are, uniform rows are nearly all of middling cost.
    """
    uniform = rng.integers(0, sizes, (count, len(sizes)))
    leaning = rng.binomial(sizes - 1, rng.random((count, 1)), (count, len(sizes)))
    return np.where(rng.random((count, 1)) < 0.5, uniform, leaning)


def mutants(parents: Ints, sizes: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Rows (count, parameters), each a random parent with one, two or more choices changed."""
    rows = parents[rng.integers(0, len(parents), count)]
    changes = np.minimum(rng.geometric(0.6, count), len(sizes))
    rank = rng.random(rows.shape).argsort(1).argsort(1)
    other = (rows + rng.integers(1, np.maximum(sizes, 2), rows.shape)) % sizes
    return np.where(rank < changes[:, None], other, rows)


def crosses(parents: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Rows (count, parameters), each with every choice from one or the other of two random parents."""
    mothers = parents[rng.integers(0, len(parents), count)]
    fathers = parents[rng.integers(0, len(parents), count)]
    return np.where(rng.random(mothers.shape) < 0.5, mothers, fathers)


def unseen(rows: Ints, known: Container[tuple[int, ...]]) -> Ints:
    """The different rows that are not known, in their order."""
    fresh = dict.fromkeys(row for row in map(tuple, rows.tolist()) if row not in known)
    return np.array(list(fresh), dtype=np.int64).reshape(len(fresh), rows.shape[1])
