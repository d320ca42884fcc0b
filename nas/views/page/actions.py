"""What a page may start: the command that exports or trains a candidate, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from nas.common.errors import InputError
from nas.common.plugins import children_path
from nas.common.text import command_text
from nas.runs.layout import EXPORTS
from nas.runs.links import refuse_link_outside
from nas.views.page.runs import is_digest

Kind = Literal["export", "train"]
_TAIL = 2_000
"""Bytes of a process's last output that are shown."""


@dataclass(frozen=True)
class Job:
    """A command that was started for a candidate: still running while `code` is None; `output` is the end of what it said."""

    kind: Kind
    command: str
    code: int | None
    output: str
    seconds: float


@dataclass
class _Process:
    command: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    started: float
    ended: float | None = None


class Jobs:
    """The commands that a server's pages started. `close` ends what still runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[tuple[Path, str, Kind], _Process] = {}

    def start(self, kind: Kind, run: Path, digest: str) -> None:
        """Start it; raises `InputError` where that cannot be: it runs already, or `digest` is none."""
        if not is_digest(digest):
            raise InputError(f"{digest!r} is no digest, so nothing was started")
        with self._lock:
            key = (run, digest, kind)
            known = self._processes.get(key)
            if known is not None and known.process.poll() is None:
                raise InputError(f"{known.command}: runs already")
            if kind == "export":
                refuse_link_outside(run, EXPORTS)
                _make(run / EXPORTS)
            output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nas.cli", *_arguments(kind, run, digest)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": children_path(), "COLUMNS": "100", "NO_COLOR": "1"},
                start_new_session=True,  # Ctrl-C in the terminal is the server's, which then ends it
            )
            if known is not None:
                known.output.close()
            self._processes[key] = _Process(job_command(kind, run, digest), process, output, time.monotonic())

    def of(self, run: Path, digest: str) -> list[Job]:
        """The commands started for a candidate, the last of each kind."""
        with self._lock:
            found = [(key[2], each) for key, each in self._processes.items() if key[:2] == (run, digest)]
            return [_job(kind, each) for kind, each in found]

    def close(self) -> None:
        """End what still runs."""
        with self._lock:
            for each in self._processes.values():
                if each.process.poll() is None:
                    each.process.terminate()
            for each in self._processes.values():
                try:
                    each.process.wait(10)
                except subprocess.TimeoutExpired:
                    each.process.kill()
                each.output.close()
            self._processes.clear()


def job_command(kind: Kind, run: Path, digest: str) -> str:
    """The command as a person would type it."""
    return command_text(*_arguments(kind, run, digest))


def _arguments(kind: Kind, run: Path, digest: str) -> list[str]:
    arguments = [kind, str(run), "--pick", digest]
    return [*arguments, "--to", str(run / EXPORTS / digest)] if kind == "export" else arguments


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error


def _job(kind: Kind, each: _Process) -> Job:
    code = each.process.poll()
    if code is not None and each.ended is None:
        each.ended = time.monotonic()
    size = os.fstat(each.output.fileno()).st_size
    output = os.pread(each.output.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace")
    return Job(kind, each.command, code, output.strip(), (each.ended or time.monotonic()) - each.started)
