"""Output that is no terminal, as a log: whoever reads it sees a line at least every half minute while something goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console

from nas.common.errors import named
from nas.common.text import duration_text

QUIET_S = 25.0
"""Seconds without a line after which one says what goes on."""


class Pulse:
    """Prints lines; while the context lasts, also one that says what is done where none was printed for `QUIET_S`.

    `doing` is what goes on, in words, or a function that is asked for it on another thread; a text is followed by the
    time since it was set. `called` says what arguments are called that a line names. On a terminal, which shows progress in other ways, nothing comes by itself.
    """

    def __init__(self, console: Console, doing: str | Callable[[], str], called: Callable[[str], str] = str) -> None:
        self.console = console
        self._called = called
        self._doing = doing
        self._since = self._said = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    @property
    def doing(self) -> str | Callable[[], str]:
        """What goes on."""
        return self._doing

    @doing.setter
    def doing(self, doing: str | Callable[[], str]) -> None:
        self._doing, self._since = doing, time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        self._said = time.monotonic()
        self.console.out(named(text, self._called), highlight=False)

    def __enter__(self) -> Pulse:
        if not self.console.is_terminal:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(max(0.0, self._said + QUIET_S - time.monotonic())):
            if time.monotonic() - self._said >= QUIET_S:
                try:
                    self.say(self._words())
                except OSError:  # a full disk, as whoever prints next finds out
                    return

    def _words(self) -> str:
        if callable(self._doing):
            return self._doing()
        return f"{self._doing}, for {duration_text(time.monotonic() - self._since)} so far"
