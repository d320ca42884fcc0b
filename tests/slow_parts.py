"""What a user's own code may be: slow. Imported by Ray's workers in tests."""

from __future__ import annotations

import time

import numpy as np


def slow_score(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Accuracy, after a while."""
    time.sleep(0.8)
    return float((labels == predictions).mean())


def slow_data() -> dict[str, list[tuple[np.ndarray, int]]]:
    """Forty grey images in two parts, after a while."""
    time.sleep(0.8)
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 255, (8, 8, 1), dtype=np.uint8), index % 2) for index in range(40)]
    return {"train": images[:30], "validation": images[30:]}
