"""The file of a run's study, in the format of Optuna's journal, for one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from nas.common.files import writing
from nas.common.jsonl import parse_json


class StudyJournal(BaseJournalBackend):
    """A journal that `optuna-dashboard` and any Optuna opens; it could be made again from the records, which are on the disk.

    Optuna's own waits for the disk after each parameter of a trial, and keeps other writers out by a link, which a driver
    that is killed leaves behind, so that the next one would wait for 30 s. The run's lock keeps other drivers out; what
    somebody else (optuna-dashboard) writes meanwhile is read like our own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._number = self._offset = 0  # lines that were read, and the bytes of those in the file
        self._buffered: list[bytes] | None = None
        self._buffered_read = 0
        self.is_out_of_order = False
        """Whether somebody else wrote before what was held and is read already."""

    @contextmanager
    def in_one_piece(self) -> Iterator[None]:
        """What is added in here is in the file at the end, or not at all where an error is raised.

        Where `is_out_of_order` afterwards, or an error was raised, the study has to be read again.
        """
        self._buffered, self._buffered_read = [], 0
        try:
            yield
            content = b"".join(self._buffered)
        finally:
            self._buffered = None
        self.is_out_of_order = self._write(content) != self._offset
        self._offset += len(content)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations on the study. Raises `InputError` where the file cannot be written."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._buffered is None:
            self._write(b"".join(lines))
        else:
            self._buffered += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from that number on. Raises `ValueError` where a line is none."""
        if self._buffered:
            lines, self._buffered_read = self._buffered[self._buffered_read :], len(self._buffered)
            self._number += len(lines)
            yield from map(parse_json, lines)
            return
        if log_number_from < self._number:
            self._number = self._offset = 0
        *lines, _torn = os.pread(self._file.fileno(), self._size() - self._offset, self._offset).split(b"\n")
        for line in lines:
            operation = parse_json(line)
            self._offset += len(line) + 1
            self._number += 1
            if self._number > log_number_from:
                yield operation

    def _write(self, content: bytes) -> int:
        """Append to the file; where in it that begins."""
        size = self._size()
        if size > self._offset and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
            content = b"\n" + content  # a line that was torn must not swallow these
        with writing(self._path):
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
        return size

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size
