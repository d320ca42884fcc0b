"""Images and what is to be told of them in three parts, in memory or memory-mapped: training, validation, test.

A search is handed training and validation only (`ImageData.without_test`); the test split is for the end.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.common.errors import InputError
from nas.data.cache import open_map
from nas.data.image_decoding import FileSizes
from nas.data.image_hashes import Hashes, array_hashes

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and the targets of a task, a row an image: for classification labels (N,) int64.

    With `rows` (N,), the part is these rows of `images`, which then may hold others too: so a part of a memory map
    is split without reading it. `take` reads images of any part. A part of a whole memory map is pickled as the
    map's path, for other processes of this machine. `hashes` (N,) are those of the images before they were resized,
    None where they are not known.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    rows: NDArray[np.int64] | None = None
    hashes: Hashes | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.images if self.rows is None else self.rows):
            raise ValueError(f"{len(self.labels)} labels do not fit the part's images")
        if self.hashes is not None and len(self.hashes) != len(self.labels):
            raise ValueError(f"{len(self.hashes)} hashes do not fit the part's images")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images with these numbers, each below `len(part)`."""
        return np.asarray(self.images[numbers if self.rows is None else self.rows[numbers]])

    def subset(self, numbers: NDArray[np.int64]) -> Split:
        """The part of the images with these numbers: a copy in memory, or other rows of the same memory map."""
        hashes = None if self.hashes is None else self.hashes[numbers]
        if isinstance(self.images, np.memmap):
            rows = numbers if self.rows is None else self.rows[numbers]
            return Split(self.images, self.labels[numbers], rows, hashes)
        return Split(self.take(numbers), self.labels[numbers], hashes=hashes)

    def chunks(self, numbers: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.uint8]]:
        """The images, or those with these numbers, in order and a few megabytes at a time."""
        numbers = np.arange(len(self)) if numbers is None else numbers
        step = max(1, _CHUNK_BYTES // self.images[0].nbytes)
        for start in range(0, len(numbers), step):
            yield self.take(numbers[start : start + step])

    @property
    def image_hashes(self) -> Hashes:
        """By which the same image is known again (N,): those of the images here where others are not known."""
        return np.concatenate([array_hashes(each) for each in self.chunks()]) if self.hashes is None else self.hashes

    def __getstate__(self) -> dict[str, Any]:
        # A slice of a map is a memmap too, but its base is that map.
        if isinstance(self.images, np.memmap) and isinstance(self.images.base, mmap.mmap):
            return {**self.__dict__, "images": Path(str(self.images.filename))}
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], Path):
            try:
                state = {**state, "images": open_map(state["images"])}
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{state['images']}: the decoded images cannot be read on this machine: let NAS_DATA name a "
                    f"directory that all workers see: {error}"
                ) from error
        self.__dict__.update(state)


@dataclass(frozen=True)
class ImageData:
    """A data set split in three; `mean` and `std` per channel of the training split, on a scale of 0 to 1.

    `hflip` says whether an image flipped left to right is still of its class (not so for digits). `corrupt` names the files that
    could not be read and are left out; `remarks` are sentences on what else was left out and what was guessed.
    `split_off` are the parts, validation and test, that were taken from the training images. `sizes` are those of the
    images before they were resized, None where they are not known; `licence` is the file that tells the data's licence, and
    its title. `task` is the name of the task that the targets are for; `classes` are empty where it has none.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    hflip: bool
    split_seed: int
    corrupt: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    split_off: tuple[str, ...] = ()
    sizes: FileSizes | None = None
    licence: str | None = None
    task: str = "classification"

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self.train.images.shape[2:]
        return int(height), int(width)

    def without_test(self) -> ImageData:
        """The same without the test split: what a search may see."""
        return replace(self, test=None)

    def with_validation(self) -> ImageData:
        """The same with the validation images among the training images, for a training that is not scored by them."""
        return replace(self, train=_joined(self.train, self.validation))

    def with_hashes(self) -> ImageData:
        """The same with the hashes of each part, computed where they are not known."""
        train, validation = (replace(part, hashes=part.image_hashes) for part in (self.train, self.validation))
        test = self.test and replace(self.test, hashes=self.test.image_hashes)
        return replace(self, train=train, validation=validation, test=test)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the content of training and validation splits."""
        return _content(self.train, self.validation)

    def test_fingerprint(self) -> str | None:
        """The same of the test split; None where there is none."""
        return None if self.test is None else _content(self.test)


def _content(*parts: Split) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr((len(part), *part.images.shape[1:])).encode())
        for images in part.chunks():
            digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(part.labels).data)
    return digest.hexdigest()[:16]


def _joined(first: Split, second: Split) -> Split:
    """Two parts as one: other rows of the same memory map, or a copy; of two maps a copy on disk, gone with the process."""
    labels = np.concatenate([first.labels, second.labels])
    known = [part.hashes for part in (first, second) if part.hashes is not None]
    hashes = np.concatenate(known) if len(known) == 2 else None
    if isinstance(first.images, np.memmap) and first.images is second.images:
        both = [np.arange(len(part)) if part.rows is None else part.rows for part in (first, second)]
        return Split(first.images, labels, np.concatenate(both), hashes)
    shape = (len(labels), *first.images.shape[1:])
    if isinstance(first.images, np.memmap):
        with tempfile.TemporaryFile() as file:
            images: NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
    else:
        images = np.empty(shape, dtype=np.uint8)
    start = 0
    for part in (first, second):
        for chunk in part.chunks():
            images[start : start + len(chunk)] = chunk
            start += len(chunk)
    return Split(images, labels, hashes=hashes)
