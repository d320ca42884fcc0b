"""Being the driver of a run directory: its lock, what a driver tells there (state.json), and what it is told (stop)."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from nas.common.errors import InputError, TakenOverError, arg
from nas.common.files import is_newer, only_process, remove_half_written, write_atomically
from nas.common.jsonl import parse_json
from nas.runs.layout import LOCK, PARTS, STATE, STOP
from nas.runs.links import links_of_trackers, refuse_link_outside, refuse_links_outside
from nas.runs.state import SILENT_S, DriverState

logger = logging.getLogger(__name__)
_STATE = TypeAdapter(DriverState)
PARTS_THERE = f"a replica, or a copy of one, whose newest records lie in {PARTS}/ there"
"""Of a directory that `has_parts`."""


def has_parts(path: Path) -> bool:
    """Whether a directory is a replica, or a copy of one, that was not ended: its newest records are in no file of a run."""
    return any((path / PARTS).glob("*/*"))


class DriverFiles:
    """Those of the run directory at `path`, and which driver told its state through this object, if one did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._driver: DriverState | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only search or fidelity check on this directory; raises `InputError` when another process is.

        The kernel's lock is free as soon as its process is dead. Where it does not reach, as between the hosts of some
        network file systems, the state of another driver says that it lives. An older request to stop is removed. A link that leads
        outside of the directory is refused likewise, and so is a replica.
        """
        busy = f"{self.path}: another search is running on this directory, or a fidelity check"
        refuse_links_outside(self.path, *links_of_trackers(self.path))
        if has_parts(self.path):
            uri = self.path.absolute().as_uri()
            raise InputError(
                f"{self.path}: {PARTS_THERE}; {arg('resume')} {uri} goes on with all of them in a new folder"
            )
        with only_process(self.path / LOCK, self.path, busy):
            self._refuse_beside_another_host()
            self.remove_stop_request()
            remove_half_written(self.path)
            yield

    def _refuse_beside_another_host(self) -> None:
        state = self.state()
        if state is None or state.ended is not None or state.host == socket.gethostname():
            return
        # Both times by the clock of the file system, since those of two hosts may differ.
        os.utime(self.path / LOCK)
        age = max(0.0, (self.path / LOCK).stat().st_mtime - self.state_path.stat().st_mtime)
        if age < SILENT_S:
            raise InputError(
                f"{self.path}: a search runs on it on {state.host} (pid {state.pid}), heard of {age:.0f} s ago; if that "
                f"one is dead, try again in {SILENT_S - age:.0f} s"
            )

    @property
    def is_locked(self) -> bool:
        """Whether a search or a fidelity check runs on this directory, as far as the kernel's lock reaches. Writes nothing."""
        try:
            with (self.path / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # none was ever started
            return False
        return False

    @property
    def state_path(self) -> Path:
        """Where the state of the driver that runs, or ran last, lies."""
        return self.path / STATE

    def write_state(self, state: DriverState) -> None:
        """Replace the state of the driver; readers see a whole one.

        From then on this run is that driver's: raises `TakenOverError` once another one has told its state, and `OSError`.
        """
        self.check_driver()
        write_atomically(self.state_path, _STATE.dump_json(state))
        self._driver = state

    def check_driver(self) -> None:
        """Raise `TakenOverError` where a driver told its state through this object, and another one has since.

        That happens where the kernel's lock does not reach, once a driver was silent for a minute: its host slept.
        """
        if self._driver is None:
            return
        try:
            now = self.read_state()
        except InputError:  # it cannot be read, which says nothing of another driver
            return
        if now is not None and not now.is_of(self._driver):
            raise TakenOverError(
                f"{self.path}: a search on {now.host} (pid {now.pid}) goes on with it, since this one was silent for too long; "
                "this one adds nothing more"
            )

    def state(self) -> DriverState | None:
        """The last state of a driver; None where there is none, or with a warning where it cannot be read."""
        try:
            return self.read_state()
        except InputError as error:
            logger.warning("%s", error)
            return None

    def read_state(self) -> DriverState | None:
        """The last state of a driver, None where there is none; raises `InputError` where it cannot be used."""
        try:
            data = parse_json(self.state_path.read_bytes())
            if is_newer(data):
                raise InputError("state.json: written by a newer version; left out")
            return _STATE.validate_python(data)
        except FileNotFoundError:
            return None
        except InputError:
            raise
        except (OSError, ValueError) as error:  # JSON, UTF-8 and validation errors all are ValueErrors
            raise InputError(f"state.json: cannot be read, left out ({type(error).__name__})") from error

    def request_stop(self) -> None:
        """Ask the search that runs on this directory to stop; raises `InputError` when that cannot be written."""
        refuse_link_outside(self.path, STOP)
        try:
            (self.path / STOP).touch()
        except OSError as error:
            raise InputError(f"{self.path}: the request to stop cannot be written: {error.strerror}") from error

    @property
    def stop_requested(self) -> bool:
        """Whether the search is asked to stop, and has not heard of it yet."""
        return (self.path / STOP).exists()

    def remove_stop_request(self) -> None:
        """It was obeyed, or is of an earlier search."""
        (self.path / STOP).unlink(missing_ok=True)
