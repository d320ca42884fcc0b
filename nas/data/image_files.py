"""What a folder or an archive of images holds, by relative posix path.

Folders and archives are listed alike, so that one piece of code (`nas.data.image_layout`) finds parts and classes in both.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from nas.common.errors import InputError
from nas.common.patience import reading
from nas.common.text import quoted
from nas.data.archives import members
from nas.data.licence import NOTICE_BYTES, is_notice
from nas.data.pixels import raster_formats, to_pixels

__all__ = ["SIDE_FILES", "Listing", "contents", "image_suffixes", "list_files", "to_pixels"]

MOST_BYTES = 1 << 29
"""Of an image in an archive that are read: one that is larger is not whole, and counts as unreadable."""
SIDE_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
"""What systems leave in folders of images, in lower case; like hidden files they are not worth a word."""


@dataclass(frozen=True)
class Listing:
    """What a folder or archive holds, hidden entries and side files apart, by relative posix path.

    `files` are the images, by their suffix, each with its size in bytes and its time of change in ns; `others` are all
    other files; `folders` are all folders; `notices` are the beginnings of the files that may tell a licence.
    """

    files: dict[str, tuple[int, int]]
    others: tuple[str, ...]
    folders: frozenset[str]
    notices: dict[str, bytes]

    @cached_property
    def images_in(self) -> dict[str, list[str]]:
        """The images that lie in each folder at once, sorted, by its path; the top is the empty string."""
        found: dict[str, list[str]] = {}
        for file in sorted(self.files):
            found.setdefault(file.rpartition("/")[0], []).append(file)
        return found


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the files that the installed Pillow decodes by itself."""
    # Pillow reads MPO as JPEG. A .pcd is a Photo CD's picture to Pillow, and a cloud of points to everybody else.
    formats = {*raster_formats(), "MPO"} - {"PCD"}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def list_files(path: Path) -> Listing:
    """What a folder or archive holds.

    Raises `InputError` for an archive that is damaged or has a member which is not plainly a file inside it.
    """
    return _list_folder(path) if path.is_dir() else _list_archive(path)


def contents(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Path | BytesIO]]:
    """Files of a folder or archive by relative path, as something that can be opened; an archive's in its own order."""
    if path.is_dir():
        yield from ((file, path / file) for file in wanted)
        return
    for member in members(path, lambda inside: MOST_BYTES if inside.as_posix() in wanted else 0):
        if member.content is not None:
            yield member.path.as_posix(), BytesIO(member.content)


def _list_folder(path: Path) -> Listing:
    files: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    folders: set[str] = set()
    notices: dict[str, bytes] = {}
    for folder, names in _walk(path):
        folders.add(folder.as_posix())
        for inside in (folder / name for name in names if not _is_litter(PurePosixPath(name))):
            file = path / inside
            reading(file)
            if _is_image(inside):
                files[inside.as_posix()] = _stamp(file)
            else:
                others.append(inside.as_posix())
                if is_notice(inside):
                    notices[inside.as_posix()] = _beginning(file)
    return Listing(files, tuple(sorted(others)), frozenset(folders - {"."}), notices)


def _list_archive(path: Path) -> Listing:
    files: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    folders: set[str] = set()
    notices: dict[str, bytes] = {}
    for member in members(path, lambda inside: NOTICE_BYTES if is_notice(inside) else 0):
        inside = member.path
        if _is_litter(inside):
            continue
        folder = inside if member.is_folder else inside.parent
        if folder.as_posix() not in folders:
            folders.update(f.as_posix() for f in (folder, *folder.parents))
        if member.is_folder:
            continue
        if _is_image(inside):
            if inside.as_posix() in files:
                raise InputError(f"{path}: holds {quoted(str(inside))} twice")
            files[inside.as_posix()] = (member.size, 0)
        else:
            others.append(inside.as_posix())
            if member.content is not None:
                notices[inside.as_posix()] = member.content
    return Listing(files, tuple(sorted(others)), frozenset(folders - {"."}), notices)


def _is_litter(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return hidden or path.name.lower() in SIDE_FILES


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in image_suffixes()


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # a link to nowhere, say: it is counted as unreadable when its turn comes
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _beginning(file: Path) -> bytes:
    if not file.is_file():  # a pipe would be waited for
        return b""
    try:
        with file.open("rb") as opened:
            return opened.read(NOTICE_BYTES)
    except OSError:
        return b""


def _walk(path: Path) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Every visible folder below `path`, relative to it, and the names of its files; links are followed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: could not be listed: {error.strerror}")

    reading(path)
    for folder, subfolders, names in os.walk(path, onerror=refuse, followlinks=True):
        here = os.path.realpath(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not _is_litter(PurePosixPath(name))
            # A link to a folder that it lies in would be followed for ever.
            and not Path(here).is_relative_to(os.path.realpath(os.path.join(folder, name)))
        )
        yield PurePosixPath(Path(folder).relative_to(path).as_posix()), sorted(names)
        reading(path)
