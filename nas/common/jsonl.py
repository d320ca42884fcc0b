"""Append-only files of one JSON value a line, which several processes may write and a crash at any instant may tear."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, runtime_checkable


def json_line(record: Any) -> str:
    """A dataclass, and those within it, as one line of JSON; what has `to_json` is written as that says."""
    return json.dumps(record, default=_plain, separators=(",", ":"))


_LONG = re.compile(r"\d{19}"), re.compile(rb"\d{19}")


def parse_json(text: str | bytes) -> Any:
    """The value that a text holds; raises `ValueError` where it is none, also where brackets never end or a whole number has more than 64 bits."""
    try:
        is_long = _LONG[0].search(text) if isinstance(text, str) else _LONG[1].search(text)
        return json.loads(text, parse_int=_of_64_bits if is_long else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _of_64_bits(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text[:40]} is a number of more than 64 bits")
    return value


@runtime_checkable
class WritesJson(Protocol):
    """A value that says how it is written."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""


def _plain(value: Any) -> dict[str, Any]:
    return value.to_json() if isinstance(value, WritesJson) else fields_of(value)


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass's own fields by name, those within it as they are (`asdict` copies all of them, ten times slower).

    One that is otherwise in files has a method `as_json`.
    """
    if hasattr(value, "as_json"):
        found: dict[str, Any] = value.as_json()
        return found
    return {field.name: getattr(value, field.name) for field in fields(value)}


_LAST = 4096


@dataclass(frozen=True)
class Grown:
    """How far a file had grown that only ever grows: its bytes, and the last few of them."""

    size: int
    last: bytes

    @classmethod
    def of(cls, path: Path) -> Self:
        """How far it has grown now. Raises `OSError`."""
        with path.open("rb") as file:
            return cls._of(file)

    @classmethod
    def _of(cls, file: BinaryIO) -> Self:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST))
        return cls(size, file.read(_LAST))

    def is_start_of(self, file: BinaryIO) -> bool:
        """Whether an open file still holds that, and maybe more."""
        file.seek(self.size - len(self.last))
        return file.read(len(self.last)) == self.last


def append_line(path: Path, line: str, grown: Grown | None = None) -> Grown:
    """Add a line to a file, which is made where there is none; on return it is on the disk. How far it has grown then.

    A line torn by a crash never swallows this one. With what the file had `grown` to before nothing is written unless it
    still holds that: where it vanished or was replaced, a new one would pass for all that there was. Raises `OSError`.
    """
    create = 0 if grown else os.O_CREAT
    with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | create, 0o666), "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: nobody writes between the look at the end and the line
        if grown is not None and not grown.is_start_of(file):
            raise OSError(f"it no longer holds the {grown.size} bytes that it held: it was cut, or replaced")
        end = file.seek(0, os.SEEK_END)
        torn = False
        if end:
            file.seek(end - 1)
            torn = file.read(1) != b"\n"
        file.write(f"{chr(10) if torn else ''}{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
        return Grown._of(file)


def read_lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines from byte `start` on, as they are: the last one, written just now or torn, may lack its newline.

    Raises `OSError`.
    """
    with path.open("rb") as file:
        file.seek(start)
        yield from file


LONGEST_LINE = 1 << 24
"""Bytes up to which a line of a file that grows is taken for a record, which has a few thousand."""


def finished_lines(path: Path, start: int = 0) -> Iterator[tuple[bytes | None, int]]:
    """The lines from byte `start` on that have their newline, each with the byte behind it; None for one that is too long.

    A line that is just being written, or was torn by a crash, comes once something ended it. Raises `OSError`.
    """
    with path.open("rb") as file:
        file.seek(start)
        end = start
        while line := file.readline(LONGEST_LINE):
            whole: bytes | None = line
            end += len(line)
            while line and not line.endswith(b"\n"):
                whole, line = None, file.readline(LONGEST_LINE)
                end += len(line)
            if not line:
                return
            yield whole, end
