"""Dominance among points (N, objectives), less being better: fronts, ranks, hypervolume, and the boxes that a front leaves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def on_front(points: Floats) -> Mask:
    """Which points (N,) no other dominates; equal ones all or none."""
    if not len(points):
        return np.zeros(0, dtype=bool)
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    return _first_of_equals(distinct)[inverse.reshape(-1)]


def ranks(points: Floats, enough: int | None = None) -> Ints:
    """How many fronts (N,) have to be taken away before each point is on one.

    Once `enough` points are ranked, the rest has the next rank.
    """
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    found = np.zeros(len(distinct), dtype=np.int64)
    left, rank = np.arange(len(distinct)), 0
    wanted = len(distinct) if enough is None else min(enough, len(distinct))
    while len(distinct) - len(left) < wanted:
        found[left] = rank
        left = left[~_first_of_equals(distinct[left])]
        rank += 1
    found[left] = rank
    return found[inverse.reshape(-1)]


def _first_of_equals(points: Floats) -> Mask:
    """`on_front` of points in lexical order; of equal ones the first alone."""
    if points.shape[1] == 2:
        best = np.minimum.accumulate(points[:, 1])
        return np.concatenate([[True], points[1:, 1] < best[:-1]])
    front = np.zeros(len(points), dtype=bool)
    left = np.arange(len(points))
    while len(left):
        front[left[0]] = True  # what comes first in order is dominated by nothing that is left
        left = left[(points[left] < points[left[0]]).any(1)]
    return front


def hypervolume(points: Floats, corner: Floats) -> float:
    """Volume of what some point dominates below a corner, itself below or at no point's worst."""
    inside = points[(points < corner).all(1)]
    if not len(inside):
        return 0.0
    distinct = np.unique(inside, axis=0)
    return _volume(distinct[_first_of_equals(distinct)], corner)


def _volume(front: Floats, corner: Floats) -> float:
    """The same of a front in lexical order.

    With four objectives and more, what each point adds to those behind it (While, Bradstreet & Barone, "A fast way of
    calculating exact hypervolumes", 2012): its own volume less that of the others' shadows on it. Those are in order of the
    first objective alone, so that points stay which others dominate; they add nothing.
    """
    if len(corner) == 2:
        tops = np.concatenate([corner[1:], front[:-1, 1]])
        return float((corner[0] - front[:, 0]) @ (tops - front[:, 1]))
    if len(corner) == 3:
        return _volume_of_columns(front, corner)
    if len(front) == 1:
        return math.prod((corner - front[0]).tolist())
    alone = (corner - front).prod(1)
    total = float(alone[-1])
    for index in range(len(front) - 1):
        shadows = np.maximum(front[index + 1 :], front[index])
        if len(shadows) > 2:
            shadows = shadows[_first_of_equals(shadows)]
        total += float(alone[index]) - _volume(shadows, corner)
    return total


def _volume_of_columns(front: Floats, corner: Floats) -> float:
    """Three objectives: heights over the grid of the first two, each that of the highest point at or before it."""
    by_second = np.argsort(front[:, 1], kind="stable")
    heights = np.zeros((len(front), len(front)))
    heights[by_second, np.arange(len(front))] = corner[2] - front[by_second, 2]
    heights = np.maximum.accumulate(np.maximum.accumulate(heights, 0), 1)
    widths = np.diff(front[:, 0], append=corner[0])
    depths = np.diff(front[by_second, 1], append=corner[1])
    return float(widths @ (heights @ depths))


def boxes_left(front: Floats, corner: Floats) -> tuple[Floats, Floats]:
    """Lower and upper corners (boxes, objectives) of boxes that part what no point of a front dominates below a corner.

    By local upper bounds (Klamroth, Lacour & Vanderpooten, "On the representation of the search region in multi-objective
    optimization", 2015; the boxes: Lacour, Klamroth & Fonseca, "A box decomposition algorithm to compute the hypervolume
    indicator", 2017). The bounds of the front are, mirrored, the points whose dominated region is what the front leaves.
    """
    distinct = np.unique(front, axis=0)
    bounds, _ = _local_bounds(distinct[_first_of_equals(distinct)], corner)
    turned = np.unique(-bounds, axis=0)
    infinity = np.full(len(corner), np.inf)
    bounds, definers = _local_bounds(turned[_first_of_equals(turned)], infinity)
    upper = bounds.copy()
    upper[:, 0] = infinity[0]
    lower = np.empty_like(bounds)
    lower[:, 0] = definers[:, 0, 0]
    for objective in range(1, len(corner)):
        lower[:, objective] = definers[:, :objective, objective].max(1)
    real = (lower < upper).all(1)
    return -upper[real], -lower[real]


def _local_bounds(front: Floats, corner: Floats) -> tuple[Floats, Floats]:
    """Local upper bounds (bounds, objectives) of a front in lexical order, and the points that define them.

    `definers[i, j]` is the point whose value in objective j bound i has; of the corner's, a point that is best in all others.
    """
    count = len(corner)
    bounds = corner[None].copy()
    definers = np.full((1, count, count), -np.inf)
    definers[0, range(count), range(count)] = corner
    for point in front:
        hit = (point < bounds).all(1)
        if not hit.any():
            continue
        parts, of_parts = [bounds[~hit]], [definers[~hit]]
        own = definers[hit].copy()
        own[
            :, range(count), range(count)
        ] = -np.inf  # a bound's own value in an objective does not keep it from another's
        own[:, :, 0] = -np.inf  # in which points are in order
        follows = point >= own.max(1)
        rows, objectives = np.nonzero(follows)
        each = np.arange(len(rows))
        new, of_new = bounds[hit][rows], definers[hit][rows]
        new[each, objectives] = point[objectives]
        of_new[each, objectives] = point
        bounds, definers = np.vstack([*parts, new]), np.vstack([*of_parts, of_new])
    return bounds, definers
