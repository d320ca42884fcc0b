"""What trials that were stopped early tell: their final values, predicted from where complete trials stood at that step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

Floats = NDArray[np.float64]

STEPS = "steps"
"""User attribute of a trial: a list of the objectives' values after each step of it, in order of the study's directions.

Complete trials and pruned ones should have it: the values of the last step of a pruned trial are what is known of it, and
from complete trials that came as far is learnt what they mean.
"""
FEWEST = 5
"""Complete trials that must have come to a step before a line is fitted through them."""
SLOPE = 1.0
"""How far the slope of that line may be from 1, as a standard deviation."""
STEEPEST = 3.0
"""By how much a difference at a step may be taken to grow until the end; below 0 it would turn the order round."""


def steps_of(trial: FrozenTrial, objectives: int) -> Floats | None:
    """The values (steps, objectives) after each step of a trial; None where they are missing, broken or not finite."""
    try:
        steps = np.array(trial.user_attrs.get(STEPS), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if steps.ndim != 2 or steps.shape[1] != objectives or not len(steps) or not np.isfinite(steps).all():
        return None
    return steps


def predict_final(last: Floats, step: int, complete: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Final values and their standard deviations (objectives,), given those after `step` steps.

    `complete` are steps and final values of complete trials. Of those that came to the step a line is fitted for each
    objective, with a slope of 1 ± `SLOPE` as prior, and another as if all scatter were that of the early values, which
    flattens the first one; the truth is taken to lie between. The deviation is that of a new trial, with the doubt in the
    slope, so that it grows away from the trials that the line was fitted to: those that are stopped are mostly worse. A
    cost that is the same after every step comes out exact. With fewer than `FEWEST` trials the value stands for itself, the deviation being that of all final values.
    """
    finals = np.array([final for _, final in complete]).reshape(len(complete), len(last))
    there = [i for i, (steps, _) in enumerate(complete) if len(steps) >= step]
    if len(there) < FEWEST:
        return last, finals.std(0) if len(finals) > 1 else np.abs(last)
    count = len(there)
    x, y = np.array([complete[i][0][step - 1] for i in there]), finals[there]
    centre, middle = x.mean(0), y.mean(0)
    x, y, away = x - centre, y - middle, last - centre
    squares, products = np.maximum((x**2).sum(0), 1e-300), (x * y).sum(0)
    variance = ((y - x * products / squares) ** 2).sum(0) / (count - 2)
    pull = np.maximum(variance / SLOPE**2, 1e-12 * squares + 1e-300)
    diluted = np.clip((products + pull) / (squares + pull), 0.0, STEEPEST)
    undiluted = np.clip(np.sqrt((y**2).sum(0) / squares), diluted, STEEPEST)
    slope, either_way = (diluted + undiluted) / 2, (undiluted - diluted) / 2
    return middle + slope * away, np.sqrt(
        variance * (1 + 1 / count + away**2 / (squares + pull)) + (either_way * away) ** 2
    )
