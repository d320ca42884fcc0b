"""CIFAR-10 from `../shared`, as many images of it as the environment asks for (`FIDELITY_TRAIN`, 4,000 by default)."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SHARED = Path(os.environ.get("NAS_SHARED", Path(__file__).parents[3] / "shared"))
VALIDATION = 4000


@dataclass(frozen=True)
class Images:
    """Some images with their labels, and the names of the classes."""

    items: tuple[tuple[Image.Image, int], ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return self.items[number]


def cifar10() -> dict[str, Images]:
    """Training images, 4,000 others of the training split for validation, and all test images; alike for each class."""
    found: dict[tuple[str, str], list[Image.Image]] = {}
    for part, label, image in _files(SHARED / "data" / "cifar10-imagefolder.tar.xz"):
        found.setdefault((part, label), []).append(image)
    classes = tuple(sorted({label for _, label in found}))
    each, held_out = int(os.environ.get("FIDELITY_TRAIN", "4000")) // len(classes), VALIDATION // len(classes)

    def some(part: str, first: int, last: int | None) -> Images:
        items = ((image, number) for number, label in enumerate(classes) for image in found[part, label][first:last])
        return Images(tuple(items), classes)

    return {
        "validation": some("train", 0, held_out),
        "train": some("train", held_out, held_out + each),
        "test": some("test", 0, None),
    }


def _files(path: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Split, class and image of each file, in the order of their names."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile():
                part, label, _ = Path(member.name).parts[-3:]
                content = archive.extractfile(member)
                assert content is not None
                image = Image.open(content)
                image.load()
                yield part, label, image
