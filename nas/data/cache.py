"""The cache of decoded images: a folder or archive is decoded once, for each number of channels and image size.

An entry is a folder with two .npy a part, its images and their hashes, and an index in JSON. It is written beside its place and then renamed, so
that it is either whole or not there. What is read from it is checked, and never unpickled.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from pydantic import TypeAdapter

from nas.common.errors import InputError
from nas.common.patience import reading
from nas.common.user_cache import make_folder, open_to_group
from nas.data.image_decoding import Decoding, FileSizes, decode_into
from nas.data.image_files import Listing, list_files
from nas.data.image_hashes import Hashes
from nas.data.image_layout import Layout, find_layout

logger = logging.getLogger(__name__)

FORMAT = 4
"""Counts changes of what is decoded or how it is stored."""
MEMORY_MAPPED_BYTES = 1 << 30
"""A part's images above this size stay in the cache's file, of which the system keeps in memory what is read."""


@dataclass(frozen=True)
class Decoded:
    """Images by part, uint8 (N, C, size, size), and their labels (N,), -1 for the unreadable ones named in `corrupt`.

    `hashes` (N,) and `sizes` are those of the files; `remarks` and `licence` are those of the `Layout`.
    """

    classes: tuple[str, ...]
    images: dict[str, NDArray[np.uint8]]
    labels: dict[str, NDArray[np.int64]]
    hashes: dict[str, Hashes]
    corrupt: tuple[str, ...]
    sizes: FileSizes | None
    remarks: tuple[str, ...]
    licence: str | None


@dataclass(frozen=True)
class _Index:
    classes: tuple[str, ...]
    labels: dict[str, list[int]]
    corrupt: tuple[str, ...]
    sizes: FileSizes | None
    remarks: tuple[str, ...]
    licence: str | None


_INDEX = TypeAdapter(_Index)


def load_decoded(path: Path, channels: int, size: int, cache: Path) -> Decoded:
    """The images of a folder or archive, from the directory `cache` or decoded and left there.

    Parts of more than `MEMORY_MAPPED_BYTES` are read-only memory maps of the cache's files. A cache that cannot be
    written is warned of. Raises `InputError` for what is wrong with the images or their folders, and when a part
    that is too large for memory cannot be written.
    """
    listing = list_files(path) if path.is_dir() else None
    layout = find_layout(path, listing) if listing else None
    reading(cache)
    entry = cache / _key(path, listing, channels, size)
    found = _read(entry, channels, size)
    if found:  # what is no image is not in the key: of a folder, the remarks are those of today
        return replace(found, remarks=layout.remarks, licence=layout.licence) if layout else found
    layout = layout or find_layout(path, list_files(path))
    shapes = {part: (len(items), channels, size, size) for part, items in layout.parts.items()}
    mapped = [part for part, shape in shapes.items() if math.prod(shape) > MEMORY_MAPPED_BYTES]
    reading(None)
    with ExitStack() as stack:
        scratch, images = None, {}
        with _cache_trouble(path, cache, is_fatal=bool(mapped)):
            make_folder(cache)
            made = tempfile.TemporaryDirectory(prefix=".", dir=cache, ignore_cleanup_errors=True)
            scratch = Path(stack.enter_context(made)) / "entry"
            scratch.mkdir()  # with the usual permissions, other than its parent: a cache may be shared
            images = {part: _new_map(_array_file(scratch, part), shapes[part]) for part in mapped}
        images |= {part: np.zeros(shape, np.uint8) for part, shape in shapes.items() if part not in mapped}
        decoding = decode_into(path, layout, images)
        labels = _labels(layout, decoding)
        decoded = Decoded(
            layout.classes,
            images,
            labels,
            decoding.hashes,
            decoding.corrupt,
            decoding.sizes,
            layout.remarks,
            layout.licence,
        )
        reading(None)
        if scratch is not None:
            with _cache_trouble(path, cache, is_fatal=bool(mapped)):
                _write(decoded, scratch)
                for made_here in (scratch, *scratch.iterdir()):
                    open_to_group(made_here, cache)
                _publish(scratch, entry, channels, size)
    if not mapped:
        return decoded
    found = _read(entry, channels, size)  # the maps were opened under another name, and may be written
    if found is None:
        raise InputError(f"{path}: its decoded images were removed from {entry} while they were in use")
    return found


def open_map(file: Path) -> NDArray[np.uint8]:
    """A part's images as a read-only memory map; raises `ValueError` or `OSError` for a file that is not whole."""
    return np.lib.format.open_memmap(file, mode="r")


def _array_file(entry: Path, part: str) -> Path:
    return entry / f"{part}.npy"


def _hash_file(entry: Path, part: str) -> Path:
    return entry / f"{part}.hashes.npy"


def _key(path: Path, listing: Listing | None, channels: int, size: int) -> str:
    """Changes with whatever changes the decoded images, as far as that shows without reading them."""
    digest = hashlib.sha256(repr((FORMAT, pillow_version, str(path.resolve()), channels, size)).encode())
    if listing is None:
        stat = path.stat()
        digest.update(repr((stat.st_size, stat.st_mtime_ns)).encode())
    else:
        digest.update(repr(sorted(listing.folders)).encode())
        for file, stamp in sorted(listing.files.items()):
            digest.update(repr((file, stamp)).encode())
    return digest.hexdigest()[:32]


def _labels(layout: Layout, decoding: Decoding) -> dict[str, NDArray[np.int64]]:
    lost = set(decoding.corrupt)
    return {
        part: np.array([-1 if file in lost else label for file, label in items], dtype=np.int64)
        for part, items in layout.parts.items()
    }


def _read(entry: Path, channels: int, size: int) -> Decoded | None:
    if not entry.exists():
        return None
    try:
        index = _INDEX.validate_json((entry / "index.json").read_bytes())
        labels = {part: np.array(values, dtype=np.int64) for part, values in index.labels.items()}
        images = {part: open_map(_array_file(entry, part)) for part in labels}
        for part, array in images.items():
            if array.dtype != np.uint8 or array.shape != (len(labels[part]), channels, size, size):
                raise ValueError(f"{part}.npy holds {array.dtype} {array.shape}")
        hashes = {part: np.load(_hash_file(entry, part), allow_pickle=False) for part in labels}
        for part, found in hashes.items():
            if found.dtype != np.uint64 or found.shape != labels[part].shape:
                raise ValueError(f"{part}.hashes.npy holds {found.dtype} {found.shape}")
    except Exception as error:  # whatever the damage does to JSON or to numpy's header
        reason = str(error).splitlines()[0]
        logger.warning("%s: damaged, so its images are decoded again: %s", entry, reason)
        return None
    with suppress(OSError):  # it may be another user's
        os.utime(entry / "index.json")  # when it was last used, for nas clean
    images = {part: array if array.nbytes > MEMORY_MAPPED_BYTES else np.array(array) for part, array in images.items()}
    return Decoded(index.classes, images, labels, hashes, index.corrupt, index.sizes, index.remarks, index.licence)


def _new_map(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    new = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    with file.open("r+b") as opened:  # a full disk is an error here; later on it would kill the process
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return new


def _write(decoded: Decoded, folder: Path) -> None:
    for part, images in decoded.images.items():
        if isinstance(images, np.memmap):
            images.flush()
        else:
            np.save(_array_file(folder, part), images, allow_pickle=False)
        np.save(_hash_file(folder, part), decoded.hashes[part], allow_pickle=False)
    labels = {part: values.tolist() for part, values in decoded.labels.items()}
    index = _Index(decoded.classes, labels, decoded.corrupt, decoded.sizes, decoded.remarks, decoded.licence)
    (folder / "index.json").write_bytes(_INDEX.dump_json(index))


def _publish(folder: Path, entry: Path, channels: int, size: int) -> None:
    try:
        folder.rename(entry)
    except OSError:
        if _read(entry, channels, size):  # another process was faster
            return
        shutil.rmtree(entry, ignore_errors=True)
        folder.rename(entry)


@contextmanager
def _cache_trouble(path: Path, cache: Path, *, is_fatal: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if is_fatal:
            raise InputError(
                f"{path}: its decoded images are too large for memory and cannot be written to {cache}; let NAS_DATA "
                f"name a directory with room for them: {reason}"
            ) from error
        logger.warning("%s: its decoded images cannot be kept in %s for the next time: %s", path, cache, reason)
