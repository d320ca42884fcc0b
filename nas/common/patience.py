"""Reads that may never come back, as of a file system that stopped answering: waited for, but not for ever.

A read that hangs cannot be interrupted. So reads are done by threads that keep no process from ending, and whoever waits for one gives it up.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from nas.common.errors import InputError

READ_TIMEOUT_S = 600.0
"""Seconds after which a single read counts as hung: more than a disk that spins up or a tape that is fetched takes."""
_UNWIND_S = 1.0

_T = TypeVar("_T")
Submit = Callable[..., "Future[Any]"]


class _GivenUpError(BaseException):
    """Nobody waits any more for what this thread does."""


@dataclass
class _Progress:
    """What a thread reads, since when (of `time.monotonic`); nothing while it does something else."""

    what: object = None
    since: float = 0.0
    given_up: bool = False


class _Here(threading.local):
    progress: _Progress | None = None


_here = _Here()


def read_timeout_s() -> float | None:
    """Seconds that a read may take, by `NAS_READ_TIMEOUT` if it is set, None where that is `off`; raises `InputError`."""
    given = os.environ.get("NAS_READ_TIMEOUT")
    if given == "off":
        return None
    try:
        seconds = float(given) if given else READ_TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"NAS_READ_TIMEOUT {given}: must be seconds, more than 0, or off")
    return seconds


def patiently(read: Callable[[], _T]) -> _T:
    """What `read` gives, called in a thread of its own, which says by `reading` what it reads.

    Raises what it raises, and `InputError` where one read takes too long: the thread is left behind.
    """
    progress, found, limit = _Progress(), Future[_T](), read_timeout_s()
    threading.Thread(target=_run, args=(found, read, (), progress), daemon=True).start()
    try:
        while not found.done():
            what, since = progress.what, progress.since
            left = None if limit is None or what is None else since + limit - time.monotonic()
            if left is not None and left <= 0:
                raise hung(what)
            wait([found], timeout=1.0 if left is None else min(left, 1.0))
    except BaseException:
        progress.given_up = True
        wait([found], timeout=_UNWIND_S)  # it tidies up, where it can
        raise
    return found.result()


def reading(what: object) -> None:
    """Say what this thread reads next, for `patiently`; None: nothing, and what it does may take any time."""
    progress = _here.progress
    if progress is not None:
        if progress.given_up:
            raise _GivenUpError
        progress.since = time.monotonic()  # before: a thread that looks on sees no old time with a new name
        progress.what = what


@contextmanager
def readers(threads: int) -> Iterator[Submit]:
    """Threads that read; what is given takes a function and its arguments, and gives a future for `read_by`."""
    tasks: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
    closed = threading.Event()

    def work() -> None:
        while (task := tasks.get()) is not None:
            if not closed.is_set():
                _run(*task)

    def submit(function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        future: Future[_T] = Future()
        tasks.put((future, function, arguments))
        return future

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield submit
    finally:
        closed.set()
        for _ in range(threads):
            tasks.put(None)


def read_by(future: Future[_T], what: object) -> _T:
    """What one of `readers` gives; raises `InputError` where it takes too long to read `what`."""
    reading(None)  # this thread reads nothing itself
    if not future.done() and not wait([future], timeout=read_timeout_s()).done:
        raise hung(what)
    return future.result()


def hung(what: object) -> InputError:
    """The error of a read that does not come back."""
    return InputError(
        f"{what}: could not be read in {read_timeout_s():g} s: what it lies on, or waits for, does not answer; NAS_READ_TIMEOUT sets "
        "other seconds"
    )


def _run(
    future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...], progress: _Progress | None = None
) -> None:
    _here.progress = progress
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)
