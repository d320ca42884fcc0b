"""Data sets that a function returns: `module:function` of the user's, or one that an installed package brings by name."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas.common.doors import Door
from nas.common.errors import InputError
from nas.common.plugins import load_function
from nas.common.text import quoted
from nas.data.class_names import normal
from nas.data.image_data import ImageData, Split
from nas.data.image_decoding import FileSizes
from nas.data.image_hashes import image_hash
from nas.data.pixels import as_image, covering, upright_opaque
from nas.data.split_names import SPLIT_NAMES

DATA_SETS: Door[Callable[[], Any]] = Door("data set", "nas.data", {})
"""Functions that other packages bring, which return what `module:function` may return (`nas.data.sets.load_data`)."""


@dataclass(frozen=True)
class Returned:
    """Classes and parts (train, val, test) of the datasets that a function returned, and the sizes of their images."""

    classes: tuple[str, ...]
    parts: dict[str, Split]
    sizes: FileSizes | None


def read_function(name: str, channels: int, size: int) -> ImageData | Returned:
    """What the function of that name returns, checked, and its datasets read; raises `InputError`."""
    made = made_by(name)
    if isinstance(made, ImageData):
        return _checked(f"data {quoted(name)}", made, channels)
    datasets = dict(made) if isinstance(made, Mapping) else {"train": made}
    unknown = [part for part in datasets if part not in SPLIT_NAMES]
    if unknown:
        raise InputError(f"data {quoted(name)} returned a part {quoted(unknown[0])}: use {', '.join(SPLIT_NAMES)}")
    if "train" not in datasets:
        raise InputError(
            f"data {quoted(name)} returned no part 'train', only {', '.join(datasets) or 'an empty mapping'}"
        )
    if len({SPLIT_NAMES[part] for part in datasets}) < len(datasets):
        raise InputError(f"data {quoted(name)} returned the validation split twice: {', '.join(datasets)}")
    sizes: list[tuple[int, int]] = []
    parts = {
        SPLIT_NAMES[part]: _part(f"data {quoted(name)}, {part}", items, channels, size, sizes)
        for part, items in datasets.items()
    }
    present = np.unique(parts["train"].labels)
    named = getattr(datasets["train"], "classes", None)
    classes = _class_names(f"data {quoted(name)}", [*(named if isinstance(named, Sequence | np.ndarray) else present)])
    for part, loaded in parts.items():
        wrong = np.setdiff1d(loaded.labels, np.arange(len(classes)))
        if len(wrong):
            allowed = f"0 to {len(classes) - 1}, for {len(classes)} classes"
            raise InputError(f"data {quoted(name)}, {part}: has the label {wrong[0]}: labels must be {allowed}")
    if len(classes) < 2 or len(present) < len(classes):
        raise InputError(
            f"data {quoted(name)}, train: has images of {len(present)} of {len(classes)} classes, and needs all of at least two"
        )
    return Returned(classes, parts, FileSizes.of(sizes))


def _class_names(where: str, classes: Sequence[Any]) -> tuple[str, ...]:
    """The names as they are recorded; raises `InputError` where two are the same to a reader."""
    found: dict[str, str] = {}
    for name in map(str, classes):
        if found.setdefault(normal(name), name) != name:
            both = f"{found[normal(name)]!a} and {name!a}"
            raise InputError(f"{where}: the classes {both} differ in Unicode normalisation only: give them one name")
    return tuple(normal(str(name)) for name in classes)


def _checked(where: str, data: ImageData, channels: int) -> ImageData:
    """What a plug-in made, when a training can use it; raises `InputError`."""
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if part is None:
            continue
        if part.images.dtype != np.uint8 or part.images.ndim != 4 or not len(part):
            raise InputError(
                f"{where}, {name}: images must be uint8 of shape (N, C, H, W), N at least 1; "
                f"these are {part.images.dtype} of shape {part.images.shape}"
            )
        if part.images.shape[1] != channels:
            raise InputError(
                f"{where}, {name}: has images of {part.images.shape[1]} channels, and the space takes {channels}"
            )
        wrong = np.setdiff1d(part.labels, np.arange(len(data.classes)))
        if len(wrong):
            raise InputError(f"{where}, {name}: has the label {wrong[0]}: labels must be 0 to {len(data.classes) - 1}")
    if not all(math.isfinite(value) and value > 0 for value in data.std):
        raise InputError(f"{where}: has the standard deviation {data.std}: it must be above 0 for each channel")
    classes = _class_names(where, data.classes)
    return data if classes == data.classes else replace(data, classes=classes)


def made_by(name: str) -> Any:
    """What the function of that name returns."""
    function = load_function("data", name) if ":" in name else DATA_SETS.get(name)
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise InputError(f"data {quoted(name)} raised {type(error).__name__}: {error}") from error


def _part(where: str, dataset: Any, channels: int, size: int, sizes: list[tuple[int, int]]) -> Split:
    """A dataset read into memory; the height and width of each image are appended to `sizes`."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or isinstance(dataset, str | bytes):
        raise InputError(f"{where}: is {type(dataset).__name__}, not a dataset with __len__ and __getitem__")
    try:
        count = len(dataset)
    except Exception as error:  # the user's code
        raise InputError(f"{where}: its length raised {type(error).__name__}: {error}") from error
    if not count:
        raise InputError(f"{where}: holds no images")
    images = np.zeros((count, channels, size, size), dtype=np.uint8)
    labels = np.zeros(count, dtype=np.int64)
    hashes = np.zeros(count, dtype=np.uint64)
    for number in range(count):
        here = f"{where}: item {number}"
        try:
            item = dataset[number]
        except Exception as error:  # the user's code
            raise InputError(f"{here} raised {type(error).__name__}: {error}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{here} is {type(item).__name__}, not an image and a label")
        try:
            labels[number] = operator.index(item[1])
        except (TypeError, OverflowError) as error:
            raise InputError(f"{here} has the label {quoted(item[1])}, not an int") from error
        try:
            image = upright_opaque(as_image(item[0]))
            images[number] = covering(image, channels, (size, size))
            hashes[number] = image_hash(image)
        except Exception as error:  # PIL reads a file only now, and raises nearly anything
            raise InputError(f"{here}: {error}") from error
        sizes.append((image.height, image.width))
    return Split(images, labels, hashes=hashes)
