"""Scratch folders: gone with the process that made them, and told from those that a killed process left behind.

Their names begin with `PREFIX`. The kernel frees the lock of a process that dies, so that `nas clean` sees which are in use.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nas.common.errors import InputError

PREFIX = "nas."
"""Short, since the paths of sockets in it may have 107 bytes."""
_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: str | None = None) -> Iterator[Path]:
    """A new folder that no other user can enter, below `parent` or where `TMPDIR` says; raises `InputError`."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        where = parent or os.environ.get("TMPDIR") or "/tmp"
        raise InputError(
            f"TMPDIR {where}: no temporary folder can be made there: {error.strerror or error}; let TMPDIR name another one"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def is_abandoned(folder: Path) -> bool:
    """Whether the process that made a scratch folder is gone."""
    with suppress(OSError):
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True
    return False


@functools.cache
def scratch_until_exit() -> Path:
    """A scratch folder of this process's, the same at each call."""
    held = ExitStack()
    atexit.register(held.close)
    return held.enter_context(scratch_folder())
