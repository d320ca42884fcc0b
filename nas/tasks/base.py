"""The door for tasks: what targets are, what a network of it gives, its loss, its scores. No torch, so that reading a run stays quick.

A task is one object, ours or of somebody else's (`TASKS`). It is asked by name, which runs keep in their settings.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nas.common.doors import Door
from nas.common.errors import CandidateError, InputError
from nas.common.text import amount_text, plural, quoted, scale_of
from nas.tasks.predict import predict_source
from nas.tasks.report import ScoreReport, numbers_text

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from nas.data.image_data import ImageData
    from nas.tasks.motion import Motion

Direction = Literal["maximize", "minimize"]


def not_known(value: float, examples: int) -> None:
    """The standard error of a score of which none is known."""


@dataclass(frozen=True)
class Score:
    """A number that says how good predictions are: its name, how it is worked out, and how people read it.

    `compute` takes targets and predictions of the same examples. `unit` is % for a share of 1, else what stands behind
    the number, if anything. `error` gives the standard error of a value from n examples, None where it is not known,
    and `error_title` says what it is, empty where none is known of any.
    """

    name: str
    compute: Callable[[Any, Any], float]
    direction: Direction = "maximize"
    unit: str = "%"
    error: Callable[[float, int], float | None] = not_known
    error_title: str = ""

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def scale(self) -> float:
        """What a value is multiplied by where its unit stands beside it."""
        return scale_of(self.unit)

    def show(self, value: float) -> str:
        """A value with its unit, a share in percent."""
        return amount_text(value, None, self.unit)

    def text(self, value: float, examples: int) -> str:
        """The same, with its standard error over so many examples where that is known."""
        return amount_text(value, self.error(value, examples), self.unit)

    def __call__(self, targets: Any, predictions: Any) -> float:
        """The value of some predictions; raises `CandidateError` when it is not a finite number."""
        given = self.compute(targets, predictions)
        try:
            value = float(given)
        except (TypeError, ValueError) as error:
            raise CandidateError(f"the metric gave {quoted(given)}, which is no number") from error
        if not math.isfinite(value):
            raise CandidateError(f"the metric gave {value}")
        return value


@dataclass(frozen=True)
class Guess:
    """The best value of a score that may be the luck of a guess; `text` says it, and of what (`at most 13.0 %`)."""

    score: Score
    best: float
    text: str

    def covers(self, value: float) -> bool:
        """Whether a value is no better."""
        return value <= self.best if self.score.direction == "maximize" else value >= self.best


@dataclass(frozen=True)
class About:
    """A network for a task, in words: a headline, what it gives (`a logit for each class`), sentences on its limits."""

    headline: str
    gives: str
    limits: tuple[str, ...]


class Loss(ABC):
    """What a training goes down; made once for it, and asked each step."""

    @abstractmethod
    def __call__(self, raw: torch.Tensor, targets: Any) -> torch.Tensor:
        """The loss of each example (N,) in float32, from a network's outputs (N, ...)."""

    def weights(self, targets: Any) -> torch.Tensor | None:
        """How much each example (N,) is to count where rare kinds count as much as frequent ones; None without kinds."""
        return None

    def distil(self, raw: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The mean loss against what another network says of the same images, for networks that share weights."""
        return (raw - teacher).square().mean()


class Task(ABC):
    """What networks are for. Targets are rows of an array, one for each image, also where they are on a device.

    `classes` are the names of what is told apart, and empty where a task has none.
    """

    name: str
    """What it is called in a sentence."""
    score: Score
    """What a search goes by; the objective has its name."""
    targets_move = False
    """Whether targets lie within the image, so that augmentation has to move them (`move`)."""

    def metric(self, name: str) -> Score:
        """A score by name that may take the place of `score`, in the same direction and unit; `InputError` if unknown.

        Nothing of the user's is loaded.
        """
        if name != self.score.name:
            raise InputError(f"unknown metric {quoted(name)}: {self.name} has {self.score.name}")
        return self.score

    def guess(self, classes: Sequence[str], images: int) -> Guess | None:
        """What guessing may score over so many images; None where that is not known."""
        return None

    def title(self, name: str) -> str:
        """One of its scores as people call it."""
        return name.replace("_", " ")

    def load_metric(self, name: str) -> Score:
        """The same, loaded; raises `InputError` where that fails."""
        return self.metric(name)

    @abstractmethod
    def read(self, data: str, *, channels: int, size: int, split_seed: int) -> ImageData:
        """The data set of that name, images and targets, as `nas.data.sets.load_data` says; raises `InputError`."""

    @abstractmethod
    def outputs(self, classes: Sequence[str]) -> int:
        """How many values a network gives for an image: what its head ends in."""

    @abstractmethod
    def loss(self, targets: Any, classes: Sequence[str], smoothing: float) -> Loss:
        """The loss of a training on these targets; `smoothing` is the recipe's, for tasks that smooth."""

    def move(self, targets: Any, motion: Motion) -> Any:
        """Targets after what augmentation did to their images; asked where `targets_move`."""
        return targets

    @abstractmethod
    def decode(self, raw: torch.Tensor) -> Any:
        """Predictions of a network's outputs (N, ...), as scores take them; those of one image by its number."""

    @abstractmethod
    def scores(self, raw: torch.Tensor, predictions: Any, targets: Any) -> dict[str, float]:
        """All scores by name, kept of each epoch; targets as the data have them."""

    def caption(self, found: Any, classes: Sequence[str]) -> str:
        """One image's target or prediction in a few words: `cat`; by default its numbers."""
        return numbers_text(found)

    def draw(self, image: Image, found: Any, classes: Sequence[str]) -> Image | None:
        """One image's target or prediction drawn into it; None where nothing of it lies within the image.

        `image` is all that the network read, RGB and enlarged to any size.
        """
        return None

    def predict_source(self) -> str:
        """The source of predict.py in exported folders, which says what their network tells of images."""
        return predict_source()

    def about(self, classes: Sequence[str]) -> About:
        """What exported folders say of a network for it."""
        return About(
            f"A network for the task {self.name}", f"{plural(self.outputs(classes), 'value')} for each image", ()
        )

    def report(self, raw: torch.Tensor, predictions: Any, targets: Any, classes: Sequence[str]) -> ScoreReport:
        """How a network does on a whole split of the data, kept with full trainings."""
        return ScoreReport(len(targets), self.score(targets, predictions), self.scores(raw, predictions, targets))


DEFAULT = "classification"
"""The task where none is named."""
TASKS: Door[Task] = Door("task", "nas.tasks", {"classification": "nas.tasks.classification:CLASSIFICATION"}, Task)


@functools.cache
def task_of(name: str) -> Task:
    """The task of that name; raises `InputError`."""
    return TASKS.get(name)


def outputs_of(data: ImageData) -> int:
    """How many values a network gives for an image of the data."""
    return task_of(data.task).outputs(data.classes)
