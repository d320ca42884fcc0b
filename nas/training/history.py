"""What the epochs of a training gave. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch gave; `seconds` is wall time, waiting for the lease included, `images_per_s` is of training alone.

    `learning_rate` is that of its last step; fields that older records lack are None. Epoch 0 is a network that was
    scored as it was, without training: it has no training loss and no learning rate, and no image was trained on.
    """

    epoch: int
    train_loss: float | None
    validation_loss: float
    score: float
    accuracy: float
    images_per_s: float
    seconds: float
    top5: float | None = None
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    learning_rate: float | None = None
