"""A task of somebody else's, in a file of its own: how bright is an image? Nothing of nas was edited for it.

Targets are the mean brightness of each image, (N, 1) from 0 to 1; its score is the mean absolute error, and less is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.data.image_data import ImageData, Split
from nas.data.sets import load_data
from nas.tasks.base import Loss, Score, Task

Brightness = NDArray[np.float32]


def mean_error(targets: Brightness, predictions: Brightness) -> float:
    return float(np.abs(targets - predictions).mean())


def r2(targets: Brightness, predictions: Brightness) -> float:
    return float(1 - np.square(targets - predictions).sum() / np.square(targets - targets.mean()).sum())


class SquaredError(Loss):
    def __call__(self, raw: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (raw - targets).square().mean(1)


class BrightnessTask(Task):
    name = "brightness"
    score = Score("mae", mean_error, direction="minimize", unit="levels")

    def read(self, data: str, *, channels: int, size: int, split_seed: int) -> ImageData:
        classified = load_data(data, channels=channels, size=size, split_seed=split_seed)
        train, validation = self._bright(classified.train), self._bright(classified.validation)
        test = classified.test and self._bright(classified.test)
        return replace(classified, classes=(), train=train, validation=validation, test=test)

    def _bright(self, part: Split) -> Split:
        means = np.concatenate([images.mean((1, 2, 3)) for images in part.chunks()])
        return Split(part.images, (means[:, None] / 255).astype(np.float32), part.rows)

    def outputs(self, classes: Sequence[str]) -> int:
        return 1

    def loss(self, targets: torch.Tensor, classes: Sequence[str], smoothing: float) -> SquaredError:
        return SquaredError()

    def decode(self, raw: torch.Tensor) -> Brightness:
        return raw.clamp(0, 1).cpu().numpy()

    def scores(self, raw: torch.Tensor, predictions: Any, targets: Any) -> dict[str, float]:
        return {"mae": mean_error(targets, predictions), "r2": r2(targets, predictions)}


TASK = BrightnessTask()
