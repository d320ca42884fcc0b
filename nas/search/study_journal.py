"""Optuna's journal file without its waits."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from nas.run_files import writing


class Journal(JournalFileBackend):
    """The study's journal file, for one writer: it could be made anew from the records, which are on the disk.

    Optuna waits for the disk after each parameter of a trial, and keeps other writers out by a link, which a driver
    that is killed leaves behind, so that the next one would wait for 30 s. The run's lock keeps other drivers out.
    Optuna also opens the file twice a parameter, to write it and to read what it wrote. Here it stays open, and what was
    written is handed back from memory, unless somebody else (optuna-dashboard) wrote to the file since.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._written: deque[bytes] = deque()  # lines that are not read yet
        self._number = self._end = -1  # lines that were read; bytes that hold these and the written ones

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations on the study. Raises `InputError` where the file cannot be written."""
        lines = [f"{json.dumps(log, separators=(',', ':'))}\n".encode() for log in logs]
        size = self._size()
        mine = size == self._end
        if not mine and size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
            lines.insert(0, b"\n")  # a line that was torn must not swallow these
        content = b"".join(lines)
        with writing(self._path):
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
        if mine and self._size() == size + len(content):
            self._written += lines
            self._end = size + len(content)
        else:
            self._end = -1

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The operations from that number on."""
        offsets = self._log_number_offset
        if log_number_from == self._number and self._size() == self._end:
            while self._written:
                line = self._written.popleft()
                offsets[self._number + 1] = offsets[self._number] + len(line)
                self._number += 1
                yield json.loads(line)
            return
        self._written.clear()
        yield from super().read_logs(log_number_from)
        self._number = max(offsets)
        self._end = offsets[self._number]

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size
