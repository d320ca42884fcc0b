"""Images sorted into folders by class, in a folder or an archive: listed, laid out in parts and decoded.

An archive is never unpacked: its members are read into memory. Folders and archives alike become relative posix
paths, so that one piece of code finds parts and classes in both.
"""

from __future__ import annotations

import logging
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from nas.errors import InputError
from nas.pixels import open_image, to_pixels

logger = logging.getLogger(__name__)

PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names that a part may have."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
_TAR_MODES: dict[str, Literal["r:", "r:gz", "r:bz2", "r:xz"]] = {
    ".tar": "r:",
    ".tar.gz": "r:gz",
    ".tgz": "r:gz",
    ".tar.bz2": "r:bz2",
    ".tar.xz": "r:xz",
}
ARCHIVE_SUFFIXES = (*_TAR_MODES, ".zip")
MAX_CORRUPT_SHARE = 0.05
"""The share of all images that may be unreadable: a few happen in every large collection, many are a mistake."""


@dataclass(frozen=True)
class Listing:
    """What a folder or archive holds, hidden entries aside, by relative posix path.

    `files` are the images, each with its size in bytes and its time of change in ns; `folders` are all folders.
    """

    files: dict[str, tuple[int, int]]
    folders: frozenset[str]


@dataclass(frozen=True)
class Layout:
    """Classes in the order of their labels, and by part (train, val, test) each image's relative path and label."""

    classes: tuple[str, ...]
    parts: dict[str, list[tuple[str, int]]]


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive; `content` holds the bytes of a file that was asked for."""

    path: PurePosixPath
    is_folder: bool
    size: int
    content: bytes | None


def list_files(path: Path) -> Listing:
    """The images and folders in a folder or archive.

    Raises `InputError` for an archive that is damaged or has a member which is not plainly a file inside it.
    """
    files: dict[str, tuple[int, int]] = {}
    folders: set[str] = set()
    if path.is_dir():
        for folder, names in _walk(path):
            folders.add(folder.as_posix())
            files |= {(folder / n).as_posix(): _stamp(path / folder / n) for n in names if _is_image(folder / n)}
    else:
        for member in _members(path, wanted=()):
            if _is_hidden(member.path):
                continue
            folder = member.path if member.is_folder else member.path.parent
            if folder.as_posix() not in folders:
                folders.update(f.as_posix() for f in (folder, *folder.parents))
            if not member.is_folder and _is_image(member.path):
                if member.path.as_posix() in files:
                    raise InputError(f"{path}: holds {str(member.path)!r} twice")
                files[member.path.as_posix()] = (member.size, 0)
    return Listing(files, frozenset(folders - {"."}))


def find_layout(path: Path, listing: Listing) -> Layout:
    """Parts and classes of what `path` holds; images count at any depth below their class's folder.

    A test folder without classes is left out. Raises `InputError`, which names the folder that is not as it must be.
    """
    if not listing.files:
        raise InputError(f"{path}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    for name in listing.files:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: {name!a}: the name of a folder or file is not UTF-8") from error
    roots = _part_folders(path, listing)
    classes = _subfolders(listing, roots["train"])
    if len(classes) < 2:
        found = "none" if not classes else f"only {classes[0]!r}"
        raise InputError(f"{path / roots['train']}: needs one folder a class, at least two; found {found}")
    parts = {}
    for part, folder in roots.items():
        found_here = _subfolders(listing, folder)
        if part == "test" and not found_here:
            logger.warning("%s: no folders by class; a test part is split off the training images", path / folder)
            continue
        unknown, missing = sorted(set(found_here) - set(classes)), sorted(set(classes) - set(found_here))
        if unknown:
            raise InputError(f"{path / folder / unknown[0]}: a class that {path / roots['train']} does not have")
        if missing:
            raise InputError(f"{path / folder}: class {missing[0]!r} of {path / roots['train']} is missing here")
        files = _files_by_class(listing, folder)
        empty = [name for name in classes if name not in files]
        if empty:
            raise InputError(f"{path / folder / empty[0]}: no images ({', '.join(IMAGE_SUFFIXES)})")
        parts[part] = [(file, label) for label, name in enumerate(classes) for file in sorted(files[name])]
    return Layout(tuple(classes), parts)


def _part_folders(path: Path, listing: Listing) -> dict[str, PurePosixPath]:
    """The folder of each part; of "train" alone where the classes lie there at once."""
    root = PurePosixPath(".")
    inside = _subfolders(listing, root)
    if len(inside) == 1 and inside[0] not in PART_NAMES and _subfolders(listing, root / inside[0]):
        root = root / inside[0]  # a folder around everything
        inside = _subfolders(listing, root)
    named = [name for name in inside if name in PART_NAMES]
    other_case = [name for name in inside if name not in PART_NAMES and name.lower() in PART_NAMES]
    if other_case:
        name = other_case[0]
        raise InputError(
            f"{path / root / name}: named like a part of the data: write {name.lower()}/, or rename the class"
        )
    if "train" not in named:
        if named and named == inside:
            raise InputError(f"{path / root}: has {', '.join(f'{name}/' for name in named)} but no train/")
        return {"train": root}
    folders: dict[str, PurePosixPath] = {}
    for name in sorted(named, key=list(PART_NAMES).index):
        other = folders.setdefault(PART_NAMES[name], root / name)
        if other.name != name:
            raise InputError(f"{path / root}: has both {other.name}/ and {name}/, which name the same part")
    return folders


def _files_by_class(listing: Listing, folder: PurePosixPath) -> dict[str, list[str]]:
    start = "" if folder == PurePosixPath(".") else f"{folder}/"
    files: dict[str, list[str]] = {}
    for file in listing.files:
        name, slash, _ = file.removeprefix(start).partition("/")
        if file.startswith(start) and slash:
            files.setdefault(name, []).append(file)
    return files


def decode_into(path: Path, layout: Layout, images: Mapping[str, NDArray[np.uint8]]) -> tuple[str, ...]:
    """Decode a layout's files into `images`, by part uint8 (N, C, H, W) with H = W, on all cores that may be used.

    Returns the relative paths of the unreadable ones, sorted, whose rows are left as they are. Raises `InputError`
    when these are more than `MAX_CORRUPT_SHARE` of all, or all of a class.
    """
    plain = {part: np.asarray(array) for part, array in images.items()}  # a view of a memory map is a large object
    rows = {file: plain[part][row] for part, items in layout.parts.items() for row, (file, _) in enumerate(items)}
    failed = {file: problem for file, problem in _decode_each(_contents(path, rows), rows) if problem}
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
    return corrupt


def _decode_each(
    contents: Iterable[tuple[str, Path | BytesIO]], rows: Mapping[str, NDArray[np.uint8]]
) -> Iterator[tuple[str, str | None]]:
    workers = len(os.sched_getaffinity(0))
    pending: deque[tuple[str, Future[str | None]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for file, content in contents:
            pending.append((file, pool.submit(_decode, content, rows[file])))
            if len(pending) > 16 * workers:  # so few that their bytes fit into memory
                name, future = pending.popleft()
                yield name, future.result()
        for name, future in pending:
            yield name, future.result()


def _decode(content: Path | BytesIO, pixels: NDArray[np.uint8]) -> str | None:
    """Decode one image into `pixels` (C, H, W); returns what is wrong with it."""
    channels, height, width = pixels.shape
    try:
        with open_image(content) as image:
            pixels[:] = to_pixels(image, channels, (height, width))
    except UnidentifiedImageError:  # its text names an object in memory
        return "not an image of a known format"
    except Exception as error:  # PIL's decoders raise nearly anything on malformed files
        return f"{type(error).__name__}: {error}"
    return None


def _contents(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Path | BytesIO]]:
    if path.is_dir():
        yield from ((file, path / file) for file in wanted)
        return
    for member in _members(path, wanted):
        if member.content is not None:
            yield member.path.as_posix(), BytesIO(member.content)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(path)


def _subfolders(listing: Listing, folder: PurePosixPath) -> list[str]:
    return sorted(sub.name for sub in map(PurePosixPath, listing.folders) if sub.parent == folder)


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:  # a link to nowhere, say: it is counted as unreadable when its turn comes
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _walk(path: Path) -> Iterator[tuple[PurePosixPath, list[str]]]:
    """Every visible folder below `path`, relative to it, and the names of its files; links are followed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: could not be listed: {error.strerror}")

    for folder, subfolders, names in os.walk(path, onerror=refuse, followlinks=True):
        here = os.path.realpath(folder)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not _is_hidden(PurePosixPath(name))
            # A link to a folder that it lies in would be followed for ever.
            and not Path(here).is_relative_to(os.path.realpath(os.path.join(folder, name)))
        )
        yield PurePosixPath(Path(folder).relative_to(path).as_posix()), sorted(names)


def _members(path: Path, wanted: Collection[str]) -> Iterator[_Member]:
    """The members of an archive in its own order, with the content of those wanted; raises `InputError`."""
    suffix = next((s for s in ARCHIVE_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})")
    with _damage_named(path):
        yield from _zip_members(path, wanted) if suffix == ".zip" else _tar_members(path, _TAR_MODES[suffix], wanted)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a whole archive of the kind that its name says: {error}") from error


def _tar_members(
    path: Path, mode: Literal["r:", "r:gz", "r:bz2", "r:xz"], wanted: Collection[str]
) -> Iterator[_Member]:
    with tarfile.open(path, mode) as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # a million of them would fill the memory
            kind = "a symbolic link" if entry.issym() else "a hard link" if entry.islnk() else "a device"
            inside = _safe_path(path, entry.name, None if entry.isreg() or entry.isdir() else kind)
            file = archive.extractfile(entry) if inside.as_posix() in wanted else None
            yield _Member(inside, entry.isdir(), entry.size, file.read() if file else None)
        # tarfile takes a file that ends early, or goes on with rubbish, for one that ends well.
        stream = archive.fileobj
        assert stream is not None
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it has no end mark")
        while stream.read(1 << 20):  # to the checksum at the end of a compressed file
            pass


def _zip_members(path: Path, wanted: Collection[str]) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise InputError(f"{path}: member {entry.filename!r} is encrypted: give an archive without a password")
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive does not come from Unix
            link = "a symbolic link" if stat.S_ISLNK(kind) else "a device"
            name = entry.filename.replace("\\", "/")  # as some programs on Windows write it
            inside = _safe_path(path, name, None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else link)
            is_wanted = inside.as_posix() in wanted
            yield _Member(inside, name.endswith("/"), entry.file_size, archive.read(entry) if is_wanted else None)


def _safe_path(path: Path, name: str, kind: str | None) -> PurePosixPath:
    inside = PurePosixPath(name)
    problem = "an absolute path" if inside.is_absolute() else "a path with .." if ".." in inside.parts else kind
    if problem:
        raise InputError(
            f"{path}: member {name!r} is {problem}, and an archive may hold only files and folders inside it"
        )
    return inside
