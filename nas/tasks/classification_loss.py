"""The loss of classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nas.tasks.base import Loss


class CrossEntropy(Loss):
    """Cross-entropy of logits (N, classes) with label smoothing; rare classes weigh by their inverse frequency.

    Each image weighs as its own class does. torch's `weight` would weigh the smoothed share of every class by that
    class, and so pull all images towards the rare ones.
    """

    def __init__(self, labels: torch.Tensor, classes: int, smoothing: float) -> None:
        counts = torch.bincount(labels, minlength=classes).clamp_min(1)
        self.class_weights = len(labels) / (classes * counts.float())  # their mean over the images is 1
        self._smoothing = smoothing

    def __call__(self, raw: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(raw, targets, label_smoothing=self._smoothing, reduction="none")

    def weights(self, targets: torch.Tensor) -> torch.Tensor:
        return self.class_weights[targets]

    def distil(self, raw: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(raw, teacher.softmax(1))
