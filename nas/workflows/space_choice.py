"""Which of the spaces that ship fits a data set, judged by a few of its images.

A space is chosen where none is named; one that is named and does not fit gets a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.common.errors import InputError, about, arg
from nas.common.patience import patiently, reading
from nas.common.plugins import code_folder, searched_last
from nas.data.archives import members
from nas.data.function import DATA_SETS, made_by
from nas.data.image_data import ImageData
from nas.data.image_files import MOST_BYTES, image_suffixes, list_files
from nas.data.image_layout import find_layout
from nas.data.look import NAMED_LOOKS, Look
from nas.data.pixels import as_image, open_image, upright_opaque
from nas.data.sets import check_data_name
from nas.models.weights import load_weights, source_of
from nas.spaces.base import Space
from nas.spaces.files import load_space

logger = logging.getLogger(__name__)

DEFAULT = "digits"
"""The space where neither it nor data are named."""
SAMPLE, _OF_A_FOLDER = 16, 2
"""Images that are looked at, and of these so many of one folder."""
TINY, SMALL = 16, 40
"""Shorter sides in pixels up to which images are for `digits` (where they are grey) and for `cifar`."""
ENLARGED, SHRUNK, ENOUGH = 2, 3, 64
"""Factors by which a space that fits neither enlarges nor shrinks images; pixels to which any image may be shrunk."""
_COLOURED = 24, 0.002
"""A colour image has more than this share of pixels whose channels differ by more than so many of 255: scans are never all grey."""


def chosen_space(given: str | None, data: str | None, init: str) -> tuple[Space, str | None]:
    """The space that is named, or one that fits the data (or that the supernet of the initial weights has), and why.

    Raises `InputError` where there is no such space, or the data cannot be looked at.
    """
    if given is not None:
        return load_space(given), None
    source = source_of(init)
    with about("init"):
        of_weights = source.trained_on()
    if of_weights is not None:
        return of_weights.space, f"Space {of_weights.space.name}: that of {source.title}"
    if data is None:
        return load_space(DEFAULT), None
    with about("data"):
        check_data_name(data)
        look = look_at(data, counted=True)
    if look is None:
        raise InputError(f"{arg('data')} {data}: none of its images can be read")
    with about("init"):
        space = min(fitting(look), key=lambda space: _not_inherited(init, space))  # the first of those that are alike
    return space, f"Space {space.name} for {look}; name another one to have that (nas space list)"


def warn_unfit(space: Space, data: str) -> None:
    """Warn where the data's images are not what the space is for, and name the one that fits better."""
    look = look_at(data)
    reason = look and unfit(space, look)
    if look and reason:
        better = fitting(look)[0].name
        hint = f"; {better} fits them better" if better != space.name else ""
        logger.warning("space %s %s, and %s has %s%s", space.name, reason, data, look, hint)


def fitting(look: Look) -> list[Space]:
    """The spaces that ship, the one that fits best first."""
    if look.side <= TINY and not look.colour:
        order = ["digits", "cifar", "lite0_small", "lite0"]
    elif look.side <= SMALL:
        order = ["cifar", "lite0_small", "lite0"]
    else:
        order = ["lite0_small", "lite0", "cifar"]
    return [load_space(name) for name in order]


def unfit(space: Space, look: Look) -> str | None:
    """What a space does to such images that it should not; None where it fits."""
    smallest, largest = min(space.input_sizes), max(space.input_sizes)
    if space.input_channels == 1 and look.colour:
        return f"is for grey images of {largest} px"
    if look.side * ENLARGED <= smallest:
        return f"enlarges images to {smallest} px"
    if look.side >= SHRUNK * largest and largest < ENOUGH:
        return f"shrinks images to {largest} px"
    return None


def look_at(data: str, counted: bool = False) -> Look | None:
    """What a data set's images are like; None where that is not known without loading it.

    With `counted`, classes are counted, for which a folder or archive is listed and a function of the user's called.
    """
    if data in NAMED_LOOKS:
        return NAMED_LOOKS[data]
    if os.path.exists(data):
        return patiently(lambda: _look_at_files(Path(data), counted))
    return _made(data) if counted and (":" in data or data in DATA_SETS.names) else None


def _look_at_files(path: Path, counted: bool) -> Look | None:
    classes = len(find_layout(path, list_files(path)).classes) if counted else None
    look = _seen(_few(path))
    return look and replace(look, classes=classes)


def _not_inherited(init: str, space: Space) -> int:
    """How many layers of a space's backbone find nothing in the initial weights."""
    inheritance = load_weights(init).inherit(space.backbone, 2)
    return inheritance.reinitialized if inheritance else 0


def _few(path: Path) -> Iterator[Image.Image]:
    """A few images of a folder, or the first of an archive."""
    reading(path)
    if path.is_dir():
        for folder, subfolders, names in os.walk(path, followlinks=True):
            subfolders.sort()
            here = (name for name in sorted(names) if os.path.splitext(name)[1].lower() in image_suffixes())
            yield from _opened(Path(folder, name) for name in islice(here, _OF_A_FOLDER))
    else:
        found = members(path, lambda inside: MOST_BYTES if inside.suffix.lower() in image_suffixes() else 0)
        yield from _opened(BytesIO(member.content) for member in found if member.content is not None)


def _opened(files: Iterator[Path | BytesIO]) -> Iterator[Image.Image]:
    for file in files:
        if isinstance(file, Path):
            reading(file)
        with suppress(Exception), open_image(file) as image:  # PIL raises nearly anything on malformed files
            yield upright_opaque(image)


def _seen(images: Iterator[Image.Image]) -> Look | None:
    sizes, coloured = [], False
    for image in islice(images, SAMPLE):
        sizes.append(image.size)
        coloured = coloured or _is_coloured(image)
    if not sizes:
        return None
    width, height = sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]
    return Look(coloured, width, height)


def _is_coloured(image: Image.Image) -> bool:
    if image.mode == "L":
        return False
    small = image.reduce(max(1, min(image.size) // 256))
    pixels = np.asarray(small.convert("RGB"), dtype=np.int16)
    spread, share = _COLOURED
    return bool((np.ptp(pixels, axis=2) > spread).mean() > share)


def _made(name: str) -> Look | None:
    """Of a function of the user's: its images, whatever their number, are those of the first part."""
    made = made_by(name)
    if isinstance(made, ImageData):
        height, width = made.image_size
        return Look(made.channels == 3, width, height, len(made.classes))
    dataset: Any = made.get("train") if isinstance(made, Mapping) else made
    with suppress(Exception), searched_last(code_folder()):  # what is wrong with it is said when it is loaded
        return _seen(as_image(dataset[number][0]) for number in range(min(SAMPLE, len(dataset))))
    return None
