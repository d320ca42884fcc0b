"""A task whose targets lie within the image: where is the spot? Nothing of nas was edited for it.

Targets are places (N, 2), x and y of -1 to 1 across the image; the score is the mean distance, and less is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nas.data.image_data import ImageData, Split
from nas.tasks.base import Loss, Score, Task
from nas.tasks.motion import Motion

SIDE = 8
Places = NDArray[np.float32]


def distance(targets: Places, predictions: Places) -> float:
    return float(np.linalg.norm(targets - predictions, axis=1).mean())


def spots(images: int, seed: int) -> Split:
    """Grey noise with a bright spot of 2×2 pixels anywhere."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (images, 1, SIDE, SIDE), dtype=np.uint8)
    corners = random.integers(0, SIDE - 1, (images, 2))
    for image, (x, y) in zip(pixels, corners, strict=True):
        image[0, y : y + 2, x : x + 2] = 255
    return Split(pixels, ((corners + 1) / (SIDE / 2) - 1).astype(np.float32))


class SquaredDistance(Loss):
    def __call__(self, raw: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (raw - targets).square().sum(1)


class PointTask(Task):
    name = "point"
    score = Score("distance", distance, direction="minimize", unit="")
    targets_move = True

    def read(self, data: str, *, channels: int, size: int, split_seed: int) -> ImageData:
        train, validation, test = (spots(images, seed) for seed, images in enumerate((512, 128, 128)))
        return ImageData(data, (), train, validation, test, (0.2,), (0.25,), True, split_seed)

    def outputs(self, classes: Sequence[str]) -> int:
        return 2

    def loss(self, targets: torch.Tensor, classes: Sequence[str], smoothing: float) -> SquaredDistance:
        return SquaredDistance()

    def move(self, targets: torch.Tensor, motion: Motion) -> torch.Tensor:
        """`motion` says where places come from, so targets go the other way."""
        into = torch.linalg.inv(motion.affine[:, :, :2])
        return (into @ (targets - motion.affine[:, :, 2])[:, :, None])[:, :, 0]

    def decode(self, raw: torch.Tensor) -> Places:
        return raw.cpu().numpy()

    def scores(self, raw: torch.Tensor, predictions: Any, targets: Any) -> dict[str, float]:
        return {"distance": distance(targets, predictions)}

    def draw(self, image: Image.Image, found: Places, classes: Sequence[str]) -> Image.Image:
        """A red cross."""
        x, y = (float(place) for place in (found + 1) / 2 * np.array(image.size))
        brush = ImageDraw.Draw(image)
        brush.line((x - 8, y, x + 8, y), (255, 0, 0), 3)
        brush.line((x, y - 8, x, y + 8), (255, 0, 0), 3)
        return image


TASK = PointTask()
