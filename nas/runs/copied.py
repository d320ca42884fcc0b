"""What of a run directory a replica is given: which files, in which order, and what of each."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nas.runs.layout import RUN_FILE, STATE, TRAINED, TRIALS, WEIGHTS, is_kept
from nas.runs.links import is_linked

Stamp = tuple[int, int]
"""Bytes and time of a file."""


def noted_files(folder: Path) -> dict[str, Stamp]:
    """Stamp of each file by its name, noted in the order of the dictionary: what refers to others first. Links are left out."""
    rest = [path for path in folder.rglob("*") if path.parent != folder / WEIGHTS]
    noted = {}
    for paths in (sorted(rest, key=_precedence), (folder / WEIGHTS).glob("*")):  # a glob looks when it is reached
        for path in paths:
            name = path.relative_to(folder).as_posix()
            if (is_kept(name) or name == STATE) and path.is_file() and not is_linked(folder, name):
                with suppress(FileNotFoundError):  # weights are deleted meanwhile
                    noted[name] = _stamp(path.stat())
    return noted


def _precedence(path: Path) -> int:
    """Run.yaml before the study and the rest, before what was recorded of trials, before the trials' own records.

    The weights of full trainings come last: they are kept before they are recorded.
    """
    if path.name == RUN_FILE:
        return 0
    if path.parent.name == TRAINED:
        return 4
    return 3 if path.name == TRIALS else 2 if path.suffix == ".jsonl" else 1


def is_records(name: str) -> bool:
    """Whether a path from the run directory is that of records. The study grows too, but is made of them, and may be made again."""
    return name.endswith(".jsonl") and "/" not in name


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_size, stat.st_mtime_ns


def content_of(path: Path) -> tuple[bytes, Stamp]:
    """All that a file holds which is replaced, not added to, and its stamp as of then. Raises `FileNotFoundError`."""
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        return file.read(), stamp
