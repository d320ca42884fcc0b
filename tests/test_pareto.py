"""Fronts, ranks, volumes and boxes, held against what they mean."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.common.pareto import boxes_left, hypervolume, on_front, ranks

Points = NDArray[np.float64]


def dominates(one: Points, other: Points) -> bool:
    return bool((one <= other).all() and (one < other).any())


def scattered(count: int, objectives: int, seed: int, tied: bool) -> Points:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, (count, objectives)).astype(float) if tied else rng.random((count, objectives))


def cells(points: Points, corner: Points) -> list[tuple[Points, Points]]:
    """The grid that the points' values span up to the corner, cell by cell."""
    axes = [np.unique([*points[:, axis], corner[axis]]) for axis in range(len(corner))]
    lower = itertools.product(*(axis[:-1] for axis in axes))
    upper = itertools.product(*(axis[1:] for axis in axes))
    return [(np.array(a), np.array(b)) for a, b in zip(lower, upper, strict=True)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_a_front_is_what_nothing_dominates_and_ranks_are_fronts_taken_away(objectives: int, tied: bool) -> None:
    points = scattered(40, objectives, objectives, tied)
    left, rank = list(range(len(points))), np.full(len(points), -1)
    for level in range(len(points)):
        best = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        rank[best] = level
        left = [i for i in left if i not in best]
    assert on_front(points).tolist() == (rank == 0).tolist()
    assert ranks(points).tolist() == rank.tolist()
    some = ranks(points, 3)
    ranked = rank <= sorted(rank)[2]
    assert some[ranked].tolist() == rank[ranked].tolist()
    assert (some[~ranked] > some[ranked].max()).all()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("objectives", "count"), [(2, 12), (3, 8), (4, 6), (5, 4)])
def test_volumes_and_boxes_are_those_of_the_grid(objectives: int, count: int, tied: bool) -> None:
    points = scattered(count, objectives, objectives, tied)
    corner = points.max(0) + 0.5
    grid = [
        (low, high, math.prod(high - low), any((point <= low).all() for point in points))
        for low, high in cells(points, corner)
    ]
    assert hypervolume(points, corner) == pytest.approx(sum(volume for *_, volume, taken in grid if taken))
    lower, upper = boxes_left(points, corner)
    for low, high, _, taken in grid:  # every cell is in one box, or in none
        middle = (low + high) / 2
        assert ((lower < middle) & (middle < upper)).all(1).sum() == (0 if taken else 1)


def test_what_is_beyond_the_corner_adds_nothing() -> None:
    corner = np.array([1.0, 1.0])
    assert hypervolume(np.array([[0.5, 0.5], [0.1, 1.0], [2.0, 0.0]]), corner) == 0.25
    assert hypervolume(np.array([[2.0, 0.0]]), corner) == 0.0
    assert on_front(np.empty((0, 2))).tolist() == []
