"""A clock that is set back under a search: Ray's timers go by the time of day, and wait until it has caught up.

Until then Ray may start no worker, so that a search which needs one hangs. Workers that are there go on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas.common.text import duration_text

BACK_S = 30.0
"""Seconds that a clock has to be set back by to matter; Ray waits no longer than that."""
LEAST_S = 120.0
"""Seconds without a word of a worker that are never taken for a stall."""
POLL_S = 2.0


class Stall:
    """Whether nothing is heard of the workers since the clock was set back, for three times as long as it ever took before."""

    def __init__(self) -> None:
        self._heard = time.monotonic()
        self._longest_s = 0.0
        self._most_s = _ahead_s()
        self._since: float | None = None

    def heard(self) -> None:
        """Something was heard of a worker."""
        now = time.monotonic()
        self._longest_s, self._heard = max(self._longest_s, now - self._heard), now

    def reason(self) -> str | None:
        """Why the search has to end, if so."""
        now, ahead_s = time.monotonic(), _ahead_s()
        back_s = self._most_s - ahead_s
        has_caught_up = self._since is not None and now - self._since > back_s
        if has_caught_up or back_s < BACK_S:
            self._most_s, self._since = ahead_s if has_caught_up else max(ahead_s, self._most_s), None
            return None
        if self._since is None:
            self._since = now
            self._longest_s = max(self._longest_s, now - self._heard)
        silent_s = now - max(self._heard, self._since)
        if silent_s < max(LEAST_S, 3 * self._longest_s):
            return None
        return (
            f"the clock was set back by {duration_text(back_s)}, and no worker was heard of for {duration_text(silent_s)} "
            "since: Ray starts none before it has caught up"
        )


def _ahead_s() -> float:
    """How far the time of day is ahead of a clock that nobody sets."""
    return time.time() - time.monotonic()


@contextmanager
def clock_watched(last_words: Callable[[str], None]) -> Iterator[Stall]:
    """While the context lasts, end this process, after `last_words`, when a clock that was set back has stalled the search.

    The caller tells the `Stall` of whatever is heard. Calls of Ray hang then, so that nothing else can end the search.
    """
    stall, over = Stall(), threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            if reason := stall.reason():
                last_words(reason)
                os._exit(1)

    thread = threading.Thread(target=watch, name="clock", daemon=True)
    thread.start()
    try:
        yield stall
    finally:
        over.set()
        thread.join()
