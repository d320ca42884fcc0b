"""A data set of another package: squares that are bright or dark. To add one of your own, copy this file.

It is named `toy_data:squares`, or by the name of an entry point in the group `nas.data` that leads to the function.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Squares:
    """Anything with a length whose items are an image, here (H, W) uint8, and a label from 0 on; `classes` are their names."""

    classes = ("dark", "bright")

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        label = index % 2
        return self._rng.integers(0, 100, (8, 8), dtype=np.uint8) + np.uint8(150 * label), label


def squares() -> dict[str, Squares]:
    """Datasets by split; what is missing (`val`, `test`) is split off the training images."""
    return {"train": Squares(200, seed=0), "test": Squares(40, seed=1)}
