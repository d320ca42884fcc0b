"""What the driver of a search tells in the run directory, and what it is told there: state.json and stop."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import TypeAdapter

from nas.common.errors import InputError, TakenOverError
from nas.common.files import is_newer, write_atomically
from nas.common.jsonl import parse_json
from nas.runs.layout import STATE, STOP
from nas.runs.state import DriverState

logger = logging.getLogger(__name__)
_STATE = TypeAdapter(DriverState)


class DriverFiles:
    """Those of the run directory at `path`, and which driver told its state through this object, if one did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._driver: DriverState | None = None

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
