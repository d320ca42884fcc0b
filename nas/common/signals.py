"""Signals that stop a search or a training: what a terminal, SLURM, Kubernetes and spot machines send.

A first signal lets what runs finish. SIGUSR1 and SIGHUP never do more, however often they come: the one is a notice
(`--signal=USR1@120`) that may be repeated, the other says that a terminal is gone. SIGINT or SIGTERM after any of them
stops at once: a SIGTERM long after a notice comes shortly before SIGKILL, when a trial that did not finish in the time
since will not, and a report and a clean end can still be had.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

NOTICES = (signal.SIGUSR1, signal.SIGHUP)
ONE_ORDER_S = 1.0
"""Seconds after a first signal within which a SIGTERM is a part of it: `timeout` and others send it twice."""
SAME_COMMAND = "the same command goes on with it"

logger = logging.getLogger(__name__)


class Stoppable(Protocol):
    """What can be told to start nothing more."""

    def stop(self, reason: str) -> None:
        """Start nothing more; what runs may finish."""


@dataclass
class StopRequest:
    """Remembers why it was told to stop, for what looks between two steps; None while it was not."""

    reason: str | None = None

    def stop(self, reason: str) -> None:
        """The first reason counts."""
        self.reason = self.reason or reason


@contextmanager
def gentle_signals(stoppable: Stoppable, go_on: str = SAME_COMMAND) -> Iterator[None]:
    """A first signal starts nothing more and lets what runs finish; a second SIGINT or SIGTERM raises KeyboardInterrupt.

    Both say `go_on`, how to go on afterwards. SIGHUP is left alone where it is ignored (`nohup`). Does nothing on
    another thread than the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stoppable.stop(f"stopped by {signal.Signals(number).name}")
            logger.warning("stopping when what runs has finished; Ctrl-C (or SIGTERM) stops at once; %s", go_on)
        elif number == signal.SIGINT or (number == signal.SIGTERM and time.monotonic() - first > ONE_ORDER_S):
            logger.warning("stopped at once: what had finished is kept; %s", go_on)
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *NOTICES)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, stop)
    for notice in tuple(_early):
        stop(notice, None)
    try:
        yield
    finally:
        for number, handler in before.items():
            # Once stopped, the process ends soon, and says how to go on: a repeated notice must not kill it before.
            signal.signal(number, signal.SIG_IGN if first is not None and number in NOTICES else handler)


@contextmanager
def notices_kept() -> Iterator[None]:
    """A SIGUSR1 or SIGHUP within, before there is something to stop, stops it as soon as there is (`gentle_signals`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def keep(number: int, frame: object) -> None:
        _early.append(number)

    before = {number: signal.getsignal(number) for number in NOTICES}
    replaced = [number for number in NOTICES if before[number] is not signal.SIG_IGN]
    for number in replaced:
        signal.signal(number, keep)
    try:
        yield
    finally:
        _early.clear()
        for number in replaced:
            if signal.getsignal(number) is keep:  # otherwise it was stopped, and ignores them
                signal.signal(number, before[number])


_early: list[int] = []
"""Notices that came before there was something to stop."""

_leaving = threading.local()
"""Whether the thread, where a child of it is made now, has it leave the process group."""


@contextmanager
def apart() -> Iterator[None]:
    """Processes that Ray starts within leave this one's process group, and ignore SIGUSR1 and SIGHUP: signals to all are for this one.

    It holds for those that run Python code before their program, as Ray has its own do, and for what they start. A SIGTERM waits until
    all are there, so that they can be ended.
    """
    _register()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    _leaving.now = True
    try:
        yield
    finally:
        _leaving.now = False
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _register() -> None:
    """Have each child that is made from now on look whether it is to leave: what is registered stays so."""
    os.register_at_fork(after_in_child=_leave)


def _leave() -> None:
    if getattr(_leaving, "now", False):
        os.setpgid(0, 0)
        for number in NOTICES:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
