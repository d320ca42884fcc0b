"""What images of a data set are like, as far as it is known before they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from nas.common.text import plural


@dataclass(frozen=True)
class Look:
    """What images are like: in colour or grey, of a middle size in pixels; `classes` where they were counted."""

    colour: bool
    width: int
    height: int
    classes: int | None = None

    @property
    def side(self) -> int:
        """The shorter side, which is resized to a network's input."""
        return min(self.width, self.height)

    def __str__(self) -> str:
        counted = f", {plural(self.classes, 'class', 'classes')}" if self.classes else ""
        return f"{'colour' if self.colour else 'grey'} images of {self.width}×{self.height} px{counted}"


NAMED_LOOKS = {
    "digits": Look(False, 8, 8, 10),
    "cifar10": Look(True, 32, 32, 10),
    "cifar100": Look(True, 32, 32, 100),
    "fashion_mnist": Look(False, 28, 28, 10),
    "svhn": Look(True, 32, 32, 10),
}
"""Of the data sets that `nas.data.sets` has by name."""
