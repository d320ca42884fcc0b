"""Expected hypervolume improvement, in closed form for independent normal objectives, two or more."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from nas.common.pareto import boxes_left

Floats = NDArray[np.float64]

MAX_FRONT = {2: 400, 3: 60, 4: 20}
"""Members of the front that boxes are cut around at most, by the number of objectives: boxes grow fast with it."""
BEYOND = 0.1
"""How far the reference point lies beyond the front's worst values, in its ranges."""


def expected_improvement(front: Floats, means: Floats, stds: Floats) -> Floats:
    """Expected growth (N,) of the front's hypervolume by each of N points; less is better in every objective.

    `front` is (members, objectives), `means` and `stds` (N, objectives); a known value has a standard deviation of 0.
    The region that nothing dominates is cut into boxes; in each the growth is a product over objectives (Yang,
    Emmerich, Deutz & Bäck, "Efficient computation of expected hypervolume improvement", 2019; the boxes by Lacour,
    Klamroth & Fonseca, 2017).
    """
    objectives = front.shape[1]
    most = MAX_FRONT.get(objectives, 10)
    if len(front) > most:
        order = np.lexsort(front.T[::-1])
        front = front[order[np.linspace(0, len(front) - 1, most).astype(int)]]
    best, worst = front.min(0), front.max(0)
    reference = worst + BEYOND * np.where(worst > best, worst - best, 1.0)
    lower, upper = boxes_left(front, reference)
    growth = np.ones((len(means), len(lower)))
    for objective in range(objectives):
        mean, std = means[:, objective, None], stds[:, objective, None]
        growth *= _below(upper[:, objective], mean, std) - _below(lower[:, objective], mean, std)
    return growth.sum(1)


def _below(level: Floats, mean: Floats, std: Floats) -> Floats:
    """Expectation of max(level - value, 0), (N, levels)."""
    gap = np.where(np.isfinite(level), level, -1e300) - mean
    with np.errstate(over="ignore"):
        z = np.clip(gap / np.maximum(std, 1e-12), -40, 40)
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    value = np.maximum(gap * normal_cdf(z) + std * density, 0)
    return np.where(z <= -39, 0.0, np.where(z >= 39, gap, value))


def normal_cdf(z: Floats) -> Floats:
    """The standard normal distribution function."""
    return torch.special.ndtr(torch.from_numpy(np.asarray(z))).numpy()
