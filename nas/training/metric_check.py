"""Whether a score can be had of predictions at all, found out before a training that would fail at its end."""

from __future__ import annotations

import numpy as np
import torch

from nas.common.errors import InputError, arg
from nas.common.text import cut, plural
from nas.data.image_data import ImageData
from nas.tasks.base import Score, outputs_of, task_of

MOST = 512
"""Validation images whose targets it is tried on."""


def check_metric(score: Score, data: ImageData) -> None:
    """Raise `InputError` unless the score gives one finite number for some validation targets and predictions by chance."""
    targets = np.array(data.validation.labels[:: -(-len(data.validation) // MOST)])  # a copy, which it may change
    raw = torch.randn(len(targets), outputs_of(data), generator=torch.Generator().manual_seed(0))
    predictions = task_of(data.task).decode(raw)
    try:
        score(targets, predictions)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = cut(" ".join(f"{type(error).__name__}: {error}".split()), 300)
        raise InputError(
            f"{arg('metric')} {score.name}: needs to give one finite number, and for targets {targets.shape} and predictions "
            f"by chance of {plural(len(targets), 'image')} it did not: {reason}"
        ) from error
