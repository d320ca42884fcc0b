"""Where a run is copied to: a folder of any file system that pyarrow or fsspec reaches, and who copies to it."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from nas.runs.links import is_linked
from nas.runs.store import RunDirectory

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

STALE = 4
"""Times the interval, after which a driver that has not copied is taken for dead."""
LONGEST_S = 600.0
"""Seconds that is at most, whatever a marker says."""
MARKER = "mirror.json"
_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Where a file appears whole or not at all, so that none is written beside and moved."""
_BY_PYARROW = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""Schemes of URIs whose file systems are pyarrow's own; others are fsspec's."""


@dataclass(frozen=True)
class Marker:
    """Which run a replica holds (when and on which host it was started), and which driver copies to it.

    `copied` is when it last did (UTC seconds), `every_s` how often it does, `closed` that it has ended.
    """

    created: float
    started_on: str
    host: str
    pid: int
    folder: str
    copied: float
    every_s: float
    closed: bool = False

    @classmethod
    def of(cls, run: RunDirectory, every_s: float) -> Marker:
        """That of this process."""
        provenance, folder = run.provenance, str(run.path.absolute())
        return cls(provenance.created, provenance.host, socket.gethostname(), os.getpid(), folder, time.time(), every_s)

    def is_driver(self, other: Marker) -> bool:
        """Whether both are of one process."""
        return (self.host, self.pid, self.folder) == (other.host, other.pid, other.folder)

    @property
    def wait_s(self) -> float:
        """Seconds until its driver is taken for dead; 0 when it is, or has ended. By this host's clock."""
        return 0.0 if self.closed or self.is_ahead else max(0.0, self.copied + self._lasts_s - time.time())

    @property
    def is_ahead(self) -> bool:
        """Whether it is of a time so far ahead that a clock is wrong: it says nothing of whether its driver lives."""
        return self.copied - time.time() > self._lasts_s

    @property
    def _lasts_s(self) -> float:
        return min(STALE * self.every_s, LONGEST_S)


_MARKER = TypeAdapter(Marker)


class RemoteFolder:
    """A folder behind a URI. Its methods raise `OSError`, or whatever else its file system does, where it fails."""

    def __init__(self, filesystem: FileSystem, root: str) -> None:
        self.filesystem, self.root = filesystem, root

    @classmethod
    def at(cls, uri: str) -> RemoteFolder:
        """The place of a URI; S3 is asked for the region of the bucket. Raises `ValueError` for a wrong one."""
        from fsspec import available_protocols
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem as LocalByFsspec
        from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

        scheme, separator, _ = uri.partition("://")
        if not separator:
            raise ValueError("not a URI")
        if scheme in _BY_PYARROW:
            filesystem, root = FileSystem.from_uri(uri)
        elif scheme not in available_protocols():
            raise ValueError(f"{scheme}:// is no kind of storage that pyarrow or fsspec knows")
        else:
            known, root = url_to_fs(uri)
            local = isinstance(known, LocalByFsspec)  # local://, where links are to be known as such
            filesystem = LocalFileSystem() if local else PyFileSystem(FSSpecHandler(known))
        if not root.strip("/"):
            raise ValueError("it names no folder")
        return cls(filesystem, root.rstrip("/"))

    def names(self) -> list[str]:
        """All files by their path from here."""
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True, recursive=True))
        # A file system of fsspec's may give the paths with or without the first slash.
        start = len(self.root.strip("/")) + 1
        return [file.path.strip("/")[start:] for file in found if file.type == FileType.File]

    def names_unlinked(self) -> list[str]:
        """Those of them that are no links (`is_linked`)."""
        return [name for name in self.names() if not self.is_linked(name)]

    def is_linked(self, name: str) -> bool:
        """Whether a path from here is a symbolic link of this host, or leads through one: to what nobody copied here."""
        return self.filesystem.type_name == "local" and is_linked(Path(self.root), name)

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file; readers see the whole of it, or what was there before."""
        path = f"{self.root}/{name}"
        if self.filesystem.type_name in _OBJECT_STORES:
            self._put(path, content)
            return
        folder, _, last = path.rpartition("/")
        self.filesystem.create_dir(folder, recursive=True)
        self._put(f"{folder}/.{last}.tmp", content)
        self.filesystem.move(f"{folder}/.{last}.tmp", path)

    def _put(self, path: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(path) as file:
            file.write(content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.root}/{name}")

    def remove_empty(self, name: str) -> None:
        """Remove a folder and those in it where no file is in them, on a file system of this host: elsewhere folders cost nothing."""
        if self.filesystem.type_name == "local" and not self.is_linked(name):
            for folder in sorted((Path(self.root) / name).glob("**/"), reverse=True):  # follows no links
                with suppress(OSError):
                    folder.rmdir()

    def marker(self) -> Marker | None:
        """Who copies to it, if anybody ever did."""
        content = self.read(MARKER)
        try:
            return None if content is None else _MARKER.validate_json(content)
        except ValidationError as error:
            raise OSError(f"{MARKER} there is damaged") from error

    def mark(self, marker: Marker) -> None:
        """Write the marker."""
        self.write(MARKER, _MARKER.dump_json(marker))
