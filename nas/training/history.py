"""What the epochs of a training gave. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import model_validator


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch gave; `seconds` is wall time, waiting for the lease included, `images_per_s` is of training alone.

    `score` is the run's metric, `scores` are all that the task has, by name. `learning_rate` is that of its last step;
    fields that older records lack are None. Epoch 0 is a network that was scored as it was, without training: it has no
    training loss and no learning rate, and no image was trained on.
    """

    epoch: int
    train_loss: float | None
    validation_loss: float
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)
    images_per_s: float = 0.0
    seconds: float = 0.0
    learning_rate: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, values: Any) -> Any:
        """Scores from among the fields, where files have them."""
        if not isinstance(values, dict) or "scores" in values:
            return values
        own = {name: value for name, value in values.items() if name in _FIELDS}
        others = {name: value for name, value in values.items() if name not in _FIELDS}
        return {**own, "scores": {name: value for name, value in others.items() if isinstance(value, int | float)}}

    def as_json(self) -> dict[str, Any]:
        """As files have it: each score beside the fields, under its own name."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "scores"}
        return {**self.scores, **own}


_FIELDS = frozenset(each.name for each in fields(EpochMetrics))
