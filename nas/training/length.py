"""How long a training is, and how much of it is done: epochs, steps and seconds of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.training.recipe import Recipe


@dataclass(frozen=True)
class Length:
    """A training by a recipe on so many images, where its patience does not end it before.

    The odd rest of an epoch, less than a batch, is left out. Of `seconds` None is without end.
    """

    batch_size: int
    steps_an_epoch: int
    steps: int
    seconds: float | None = None

    @classmethod
    def of(cls, recipe: Recipe, images: int, ranks: int = 1) -> Length:
        """Of a batch each of the `ranks` processes that train together has the same share."""
        batch_size = min(recipe.batch_size, images) // ranks * ranks
        steps_an_epoch = max(1, images // batch_size)
        steps = recipe.epochs * steps_an_epoch
        return cls(batch_size, steps_an_epoch, min(steps, recipe.steps or steps), recipe.seconds)

    @property
    def epochs(self) -> int:
        """Epochs that it takes, the last of which may be cut short."""
        return math.ceil(self.steps / self.steps_an_epoch)

    @property
    def images(self) -> int:
        """Images that it sees, each as often as it sees it."""
        return self.steps * self.batch_size


@dataclass
class Spent:
    """Steps and seconds of a training that are done, and their share of its length."""

    length: Length
    steps: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """What is spent of the steps or of the seconds, whichever is more: 0 to 1."""
        of_time = self.seconds / self.length.seconds if self.length.seconds else 0.0
        return min(1.0, max(self.steps / self.length.steps, of_time))

    @property
    def share_in_step(self) -> float:
        """The same in the middle of the next step: a schedule that starts at zero would waste its first step."""
        return min(1.0, self.share + 0.5 / self.length.steps)
