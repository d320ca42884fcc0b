"""Images that a network finds hardest, beside what it says of them: for people to look at, never to choose by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.image_data import Split
from nas.tasks.report import Example

if TYPE_CHECKING:
    from nas.tasks.base import Task

TILE = 112
"""Pixels of a picture's longer side."""
_MOST = 12


def hardest(
    task: Task, split: Split, losses: NDArray[np.floating[Any]], predictions: Any, classes: Sequence[str]
) -> tuple[tuple[Example, ...], bytes]:
    """The images of a part with the greatest losses (N,), the greatest first, and their pictures as a PNG file.

    The file has a square tile an image, from left to right; where the task draws, its target is drawn into that, and what was found into a
    second one below.
    """
    numbers = np.argsort(-losses, kind="stable")[:_MOST]
    rows, examples = [], []
    for number, pixels in zip(numbers.tolist(), split.take(numbers), strict=True):
        target, found = split.labels[number], predictions[number]
        captions = (task.caption(target, classes), task.caption(found, classes))
        examples.append(Example(number, *captions, float(losses[number])))
        image = _enlarged(pixels)
        drawn = [task.draw(image.copy(), each, classes) for each in (target, found)]
        rows.append([each for each in drawn if each is not None] or [image])
    sheet = Image.new("RGB", (TILE * len(rows), TILE * max(map(len, rows))))
    for column, tiles in enumerate(rows):
        for row, tile in enumerate(tiles):
            sheet.paste(tile.convert("RGB"), (column * TILE, row * TILE))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return tuple(examples), file.getvalue()


def pictures(sheet: bytes) -> list[bytes]:
    """The picture of each image in what `hardest` gives, as PNG files.

    Raises `OSError` or `ValueError` where it is not that; a larger file is not decoded.
    """
    with Image.open(io.BytesIO(sheet), formats=["PNG"]) as image:
        if image.width > _MOST * TILE or image.height > 2 * TILE:
            raise ValueError(f"{image.width}×{image.height} px, at most {_MOST * TILE}×{2 * TILE}")
        whole = image.convert("RGB")
    found = []
    for left in range(0, whole.width, TILE):
        file = io.BytesIO()
        whole.crop((left, 0, left + TILE, whole.height)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def _enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """(C, H, W) as an RGB image, its longer side a tile's."""
    colours = pixels if len(pixels) in (1, 3) else pixels.mean(0, dtype=np.float64, keepdims=True).astype(np.uint8)
    image = Image.fromarray(np.moveaxis(np.broadcast_to(colours, (3, *colours.shape[1:])), 0, 2).copy())
    scale = TILE / max(image.size)
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
