"""Image files decoded into arrays, on all cores that may be used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from nas.common.errors import InputError
from nas.common.patience import read_by, readers
from nas.data.image_files import MOST_BYTES, contents
from nas.data.image_hashes import Hashes, image_hash
from nas.data.image_layout import Layout
from nas.data.pixels import covering, open_image, upright_opaque

MAX_CORRUPT_SHARE = 0.05
"""The share of all images that may be unreadable: a few happen in every large collection, many are a mistake."""


@dataclass(frozen=True)
class FileSizes:
    """Height and width of the smallest, the middle and the largest image by their pixels, before any resizing."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]

    @staticmethod
    def of(sizes: Iterable[tuple[int, int]]) -> FileSizes | None:
        """Those of some images, None of none."""
        ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        return FileSizes(ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else None


@dataclass(frozen=True)
class Decoding:
    """What came of decoding files: the sorted relative paths of the unreadable ones, and the sizes of the others.

    `hashes` are by part those of its images (N,), 0 for unreadable ones.
    """

    corrupt: tuple[str, ...]
    sizes: FileSizes | None
    hashes: dict[str, Hashes]


class _Image(NamedTuple):
    """Height and width of an image that was decoded, before any resizing, and its hash."""

    size: tuple[int, int]
    hashed: int


def decode_into(path: Path, layout: Layout, images: Mapping[str, NDArray[np.uint8]]) -> Decoding:
    """Decode a layout's files into `images`, by part uint8 (N, C, H, W) with H = W.

    The rows of unreadable ones are left as they are. Raises `InputError` when these are more than
    `MAX_CORRUPT_SHARE` of all, or all of a class.
    """
    plain = {part: np.asarray(array) for part, array in images.items()}  # a view of a memory map is a large object
    rows = {file: plain[part][row] for part, items in layout.parts.items() for row, (file, _) in enumerate(items)}
    failed: dict[str, str] = {}
    read: dict[str, _Image] = {}
    for file, found in _decode_each(contents(path, rows), rows):
        if isinstance(found, str):
            failed[file] = found
        else:
            read[file] = found
    corrupt = tuple(sorted(failed))
    if len(corrupt) > MAX_CORRUPT_SHARE * len(rows):
        raise InputError(
            f"{path}: {len(corrupt)} of {len(rows)} images ({len(corrupt) / len(rows):.1%}) are not readable, more "
            f"than the {MAX_CORRUPT_SHARE:.0%} that may be; the first is {corrupt[0]}: {failed[corrupt[0]]}"
        )
    for part, items in layout.parts.items():
        lost = set(range(len(layout.classes))) - {label for file, label in items if file not in failed}
        if lost:
            name = layout.classes[min(lost)]
            first = next(file for file, label in items if label == min(lost))
            raise InputError(f"{path}: no image of class {name!r} in {part} is readable; {first}: {failed[first]}")
    hashes = {
        part: np.array([read[file].hashed if file in read else 0 for file, _ in items], dtype=np.uint64)
        for part, items in layout.parts.items()
    }
    return Decoding(corrupt, FileSizes.of(image.size for image in read.values()), hashes)


def _decode_each(
    files: Iterable[tuple[str, Path | BytesIO]], rows: Mapping[str, NDArray[np.uint8]]
) -> Iterator[tuple[str, _Image | str]]:
    workers = len(os.sched_getaffinity(0))
    pending: deque[tuple[str, Future[_Image | str], Path | BytesIO]] = deque()
    waiting = 0
    with readers(workers) as submit:
        for file, content in files:
            pending.append((file, submit(_decode, content, rows[file]), content))
            waiting += _size(content)
            while len(pending) > 16 * workers or waiting > MOST_BYTES:  # so few that their bytes fit into memory
                name, future, oldest = pending.popleft()
                waiting -= _size(oldest)
                yield name, read_by(future, oldest if isinstance(oldest, Path) else name)
        for name, future, last in pending:
            yield name, read_by(future, last if isinstance(last, Path) else name)


def _size(content: Path | BytesIO) -> int:
    """Bytes in memory; a file is read where it is decoded."""
    return content.getbuffer().nbytes if isinstance(content, BytesIO) else 0


def _decode(content: Path | BytesIO, pixels: NDArray[np.uint8]) -> _Image | str:
    """Decode one image into `pixels` (C, H, W); returns what it was like, or what is wrong with it."""
    channels, height, width = pixels.shape
    try:
        with open_image(content) as opened:
            image = upright_opaque(opened)
            pixels[:] = covering(image, channels, (height, width))
            return _Image((image.height, image.width), image_hash(image))
    except UnidentifiedImageError:  # its text names an object in memory
        return "not an image of a known format"
    except Exception as error:  # PIL's decoders raise nearly anything on malformed files
        return f"{type(error).__name__}: {error}"
