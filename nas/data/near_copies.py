"""Near copies: images that look as one picture does that was saved or resized again. They are counted, and left where they are.

What an image looks like is its thumbnail, means of 16×17 areas. Alike ones are found by the signs of its steps from left to right (a difference
hash of 256 bits) and told from others that only resemble it by their correlation. How well that does, and what it takes, is in docs/design.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.common.text import plural
from nas.data.image_data import ImageData, Split

MOST_BITS, LEAST_CORRELATION = 24, 0.992
"""Two thumbnails are of one picture where no more bits differ, and they correlate as much."""
_ROWS, _COLUMNS = 16, 17
_STEP = 1
"""Grey levels above which a step counts: in plain areas there is none, rather than noise."""
_BANDS = 16
"""Parts of a hash of which copies have at least one in common: pairs that have none are not compared."""
_COMMON = 256
"""A part that more than this share of images has, one in so many, tells nothing, and is not looked up."""

Thumbnails = NDArray[np.uint8]
Codes = NDArray[np.uint64]


def near_remarks(data: ImageData) -> tuple[str, ...]:
    """How many images that score look like training images; none where there are none, or images are in maps on disk."""
    if isinstance(data.train.images, np.memmap):  # to read all of it again would take minutes
        return ()
    train = thumbnails(data.train)
    told = []
    for name, part in (("validation", data.validation), ("test", data.test)):
        if part is not None and (count := int(near_copies(thumbnails(part), train).sum())):
            told.append(f"{count:,} of {plural(len(part), f'{name} image')}")
    if not told:
        return ()
    look = "looks like a training image" if told[0].startswith("1 ") and len(told) == 1 else "look like training images"
    return (f"{' and '.join(told)} {look} (near copies, as of one picture saved or resized again), and stay",)


def near_copies(some: Thumbnails, of: Thumbnails) -> NDArray[np.bool_]:
    """Which of some thumbnails (N, 16, 17) are near copies of any of others (M, 16, 17): (N,)."""
    codes, others = _codes(some), _codes(of)
    bands, other_bands = codes.view(np.uint16), others.view(np.uint16)
    found = np.zeros(len(codes), dtype=np.bool_)
    for band in range(_BANDS):
        order = np.argsort(other_bands[:, band], kind="stable")
        ordered, asked = other_bands[order, band], bands[:, band]
        first, behind = np.searchsorted(ordered, asked, "left"), np.searchsorted(ordered, asked, "right")
        counts = np.where(behind - first <= 1 + len(of) // _COMMON, behind - first, 0)
        counts[found] = 0
        for start in range(0, len(codes), 2048):  # so few that their pairs fit into memory
            now = slice(start, start + 2048)
            each = np.repeat(np.arange(len(codes))[now], counts[now])
            place = np.arange(len(each)) - np.repeat(np.cumsum(counts[now]) - counts[now], counts[now])
            pair = order[np.repeat(first[now], counts[now]) + place]
            close = np.bitwise_count(codes[each] ^ others[pair]).sum(axis=1) <= MOST_BITS
            each, pair = each[close], pair[close]
            found[each[_correlations(some[each], of[pair]) >= LEAST_CORRELATION]] = True
    return found


def thumbnails(part: Split) -> Thumbnails:
    """Means of areas of the middle channel (green), which has the most of what is seen."""
    height, width = part.images.shape[2:]
    down, across = _areas(height, _ROWS), _areas(width, _COLUMNS).T
    chunks = (images[:, images.shape[1] // 2].astype(np.float32) for images in part.chunks())
    return np.concatenate([np.rint(down @ (images @ across)).astype(np.uint8) for images in chunks])


def _areas(pixels: int, areas: int) -> NDArray[np.float32]:
    """The share of each pixel in the mean of each area of a line: (areas, pixels)."""
    edges, places = np.linspace(0, pixels, areas + 1), np.arange(pixels)
    shared = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return (shared.clip(min=0) * (areas / pixels)).astype(np.float32)


def _codes(thumbnails: Thumbnails) -> Codes:
    """Their difference hashes (N, 4)."""
    steps = np.diff(thumbnails.astype(np.int16), axis=2) > _STEP
    return np.packbits(steps.reshape(-1, _ROWS * (_COLUMNS - 1)), axis=1).view(np.uint64)


def _correlations(one: Thumbnails, other: Thumbnails) -> NDArray[np.float32]:
    """Pearson's, of each pair (N,); 0 where one of them is plain."""
    a, b = (each.reshape(-1, _ROWS * _COLUMNS).astype(np.float32) for each in (one, other))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a), np.float32), where=norms > 0)
