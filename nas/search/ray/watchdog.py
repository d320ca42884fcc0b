"""Killing a process that hangs, from outside it: a thread of its own would hang with it."""

from __future__ import annotations

import subprocess
import sys

# Reads seconds, a line each, and kills its parent that long after the last one (0: never); ends with its parent.
_WATCH = """
import os, select, signal, sys
parent, left, text = os.getppid(), None, b""
while True:
    if not select.select([0], [], [], left)[0]:
        if os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        break
    read = os.read(0, 4096)
    if not read:
        break
    text += read
    *lines, text = text.split(b"\\n")
    if lines:
        left = float(lines[-1]) or None
"""


class Watchdog:
    """A small process that kills this one, by SIGKILL, when it is not told in time that all is well."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def expect_within(self, seconds: float) -> None:
        """Kill this process in so many seconds, unless told otherwise before."""
        self._tell(max(seconds, 0.001))

    def rest(self) -> None:
        """Wait without an end."""
        self._tell(0.0)

    def _tell(self, seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
