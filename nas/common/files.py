"""The files of a run directory: records appended a line each, and read leniently; other files replaced whole."""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from nas.common.errors import InputError, NotHereError, arg
from nas.common.jsonl import finished_lines, parse_json, read_lines
from nas.common.problems import allowed
from nas.common.text import cut, without_controls
from nas.common.yaml_file import yaml_text

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1
"""Of all files that nas writes; a reader leaves out what a newer version wrote."""

_HALF_WRITTEN = re.compile(r"\..+\.([0-9a-f]{16}|\d+)\.tmp")
"""Names of files while they are written; of earlier versions with the process's number."""

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True)
class LaterRecords(Generic[_T]):
    """What a file holds from some byte on: its records, and the byte to read on from.

    `foreign` lines were no records, `newer` ones were written by a newer version, and `missing` says what others name that is not
    here; all are left out.
    """

    records: tuple[_T, ...]
    end: int
    foreign: int = 0
    newer: int = 0
    missing: frozenset[str] = frozenset()


def check_place(out: Path) -> bool:
    """Whether a folder that is to be written is there; raises `InputError` where it is not and cannot be made."""
    try:
        exists = out.exists()
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise InputError(f"{arg('out')} {cut(str(out), 200)}: {error.strerror}") from error
    if not exists and not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise InputError(f"{arg('out')} {out}: {parent} is not a folder that can be written to")
    return exists


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise `InputError` where something in a run directory cannot be written: its disk is full, or it is gone."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def only_process(lock: Path, run: Path, busy: str) -> Iterator[None]:
    """Hold the kernel's lock of a file of a run, free as soon as its process is dead; raises `InputError`, `busy` where it is held."""
    with writing(lock.parent):
        file = lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(busy) from error
        except OSError as error:
            raise InputError(f"{run}: cannot be locked by its file system: {error.strerror}") from error
        yield


def read_records(path: Path, kind: TypeAdapter[_T]) -> list[_T]:
    """The records of a file in the order written. A torn or foreign line is left out, with a warning."""
    return list(each_record(path, kind))


def each_record(path: Path, kind: TypeAdapter[_T]) -> Iterator[_T]:
    """The same, one after another."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = _record(line, kind)
        except _NewerError:
            _warn_once(f"{path}:{number}: written by a newer version; left out")
        except ValueError as error:
            missing = _not_here(error)
            _warn_once(
                f"{path}:{number}: not a record, left out ({_reason(error)})"
                if missing is None
                else f"{path}: records that cannot be read here are left out: {missing}"
            )
        else:
            yield record


@functools.lru_cache(maxsize=4096)
def _warn_once(text: str) -> None:
    """A file is read many times, and nobody needs to hear of its lines each time."""
    logger.warning("%s", text)


def _not_here(error: ValueError) -> NotHereError | None:
    """What a record names that is not to be had here, if that is why it could not be read."""
    problems = error.errors() if isinstance(error, ValidationError) else []
    causes = (problem.get("ctx", {}).get("error") for problem in problems)
    return next((cause for cause in causes if isinstance(cause, NotHereError)), None)


def _reason(error: ValueError) -> str:
    """Why a line is no record, in a few words."""
    if not isinstance(error, ValidationError):
        return "no whole line of JSON"
    problem = error.errors()[0]
    return cut(without_controls(": ".join([".".join(map(str, problem["loc"])), allowed(problem)])), 200)


def later_records(path: Path, kind: TypeAdapter[_T], start: int) -> LaterRecords[_T]:
    """The records that were finished from byte `start` on, for a reader that follows a file. Raises `OSError`."""
    records: list[_T] = []
    end, foreign, newer = start, 0, 0
    missing: set[str] = set()
    for line, behind in finished_lines(path, start):
        end = behind
        try:
            if line is None:
                foreign += 1
            elif line.strip():
                records.append(_record(line, kind))
        except _NewerError:
            newer += 1
        except ValueError as error:
            not_here = _not_here(error)
            foreign += not_here is None
            missing |= set() if not_here is None else {str(not_here)}
    return LaterRecords(tuple(records), end, foreign, newer, frozenset(missing))


class _NewerError(ValueError):
    """A record was written by a newer version."""


def _record(line: bytes, kind: TypeAdapter[_T]) -> _T:
    """One line as a record; raises `ValueError`, which JSON, UTF-8 and validation errors all are, where it is none."""
    data = parse_json(line)
    if is_newer(data):
        raise _NewerError
    if b"\\" in line or not line.isascii():  # JSON has no other way to write what a terminal obeys
        data = harmless(data)
    return kind.validate_python(data)


def harmless(data: Any) -> Any:
    """Something read from a file of others, in whose texts what a terminal obeys is written out."""
    if isinstance(data, str):
        return without_controls(data)
    if isinstance(data, dict):
        return {harmless(key): harmless(value) for key, value in data.items()}
    return [harmless(value) for value in data] if isinstance(data, list) else data


def is_newer(data: object) -> bool:
    """Whether something read from a file was written by a newer version."""
    return isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > SCHEMA_VERSION


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; raises `InputError` when it is none."""
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except Exception as error:  # safetensors raises its own error type
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error


def file_mark(path: Path) -> tuple[int, int, int] | None:
    """Inode, bytes and time of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def write_yaml(path: Path, data: Any) -> None:
    """Write a YAML file, its keys in the order given, that readers see whole or not at all; raises `InputError` where it cannot be written."""
    with writing(path):
        write_atomically(path, yaml_text(data).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that readers see whole, or not at all; on return it is on the disk, under its name. Raises `OSError`."""
    # Not by the process's number: one of another host may have the same.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_half_written(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing, an hour ago or earlier."""
    for path in folder.rglob(".*.tmp"):
        with suppress(OSError):
            if _HALF_WRITTEN.fullmatch(path.name) and time.time() - path.lstat().st_mtime > 3600:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def weights_content(state: Mapping[str, torch.Tensor]) -> bytes:
    """The content of a safetensors file of a network's weights."""
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
