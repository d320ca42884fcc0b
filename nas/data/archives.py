"""Tar and zip archives, read member by member into memory, up to so many bytes each, and never unpacked."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from nas.common.errors import InputError
from nas.common.patience import reading
from nas.common.text import quoted

_TAR_MODES: dict[str, Literal["r:", "r:gz", "r:bz2", "r:xz"]] = {
    ".tar": "r:",
    ".tar.gz": "r:gz",
    ".tgz": "r:gz",
    ".tar.bz2": "r:bz2",
    ".tbz2": "r:bz2",
    ".tar.xz": "r:xz",
    ".txz": "r:xz",
}
ARCHIVE_SUFFIXES = (*_TAR_MODES, ".zip")

Wanted = Callable[[PurePosixPath], int]
"""How many bytes of a file's content are asked for, from its start; 0 where none are."""


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive; `content` holds as many bytes of a file as were asked for, None where none were."""

    path: PurePosixPath
    is_folder: bool
    size: int
    content: bytes | None


def members(path: Path, wanted: Wanted) -> Iterator[Member]:
    """The members of an archive in its own order, with the content of those wanted.

    Raises `InputError` for an archive that is damaged or has a member which is not plainly a file inside it.
    """
    suffix = next((s for s in ARCHIVE_SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path}: neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})")
    reading(path)
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


def _tar_members(path: Path, mode: Literal["r:", "r:gz", "r:bz2", "r:xz"], wanted: Wanted) -> Iterator[Member]:
    with tarfile.open(path, mode) as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # a million of them would fill the memory
            inside = _safe_path(path, entry.name, _odd_kind(entry))
            most = wanted(inside)
            file = archive.extractfile(entry) if most else None
            yield Member(inside, entry.isdir(), entry.size, file.read(most) if file else None)
            reading(path)
        # tarfile takes a file that ends early, or goes on with rubbish, for one that ends well.
        stream = archive.fileobj
        assert stream is not None
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it has no end mark")
        while stream.read(1 << 20):  # to the checksum at the end of a compressed file
            reading(path)


def _zip_members(path: Path, wanted: Wanted) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.flag_bits & 1:
                raise InputError(
                    f"{path}: member {quoted(entry.filename)} is encrypted: give an archive without a password"
                )
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive does not come from Unix
            link = "a symbolic link" if stat.S_ISLNK(kind) else "a device"
            name = entry.filename.replace("\\", "/")  # as some programs on Windows write it
            inside = _safe_path(path, name, None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else link)
            yield Member(inside, name.endswith("/"), entry.file_size, _beginning(archive, entry, wanted(inside)))
            reading(path)


def _beginning(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes | None:
    if not most or entry.is_dir():
        return None
    with archive.open(entry) as file:
        return file.read(most)


def _odd_kind(entry: tarfile.TarInfo) -> str | None:
    """What a member is that is neither plainly a file nor a folder; a sparse one may be of any size in a small archive."""
    if entry.isdir() or (entry.isreg() and not entry.issparse()):
        return None
    kinds = ((entry.issym(), "a symbolic link"), (entry.islnk(), "a hard link"), (entry.issparse(), "a sparse file"))
    return next((kind for found, kind in kinds if found), "a device")


def _safe_path(path: Path, name: str, kind: str | None) -> PurePosixPath:
    inside = PurePosixPath(name)
    problem = "an absolute path" if inside.is_absolute() else "a path with .." if ".." in inside.parts else kind
    if problem:
        raise InputError(
            f"{path}: member {quoted(name)} is {problem}, and an archive may hold only files and folders inside it"
        )
    return inside
