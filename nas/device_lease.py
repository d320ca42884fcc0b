"""Who may use a device now: shared for bursts of computing, exclusive for measuring, by kernel file locks.

Ray's resources are bookkeeping; nothing stops two processes from computing on one device at once. Every process
here takes a shared lease for each short burst of work, and a measurement takes the exclusive one, so that the
others pause at their next step. The kernel frees the locks of a process that dies. A second file serves as
turnstile: a waiting measurement holds it, so that new bursts queue behind it and cannot starve it (Courtois,
Heymans & Parnas, "Concurrent control with readers and writers", 1971, problem 2).

The lease is per physical device of one node. The files lie in `NAS_LEASE_DIR` (default /tmp/nas-leases), which
containers that share a device must share and which must not be on NFS.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import InputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DEFAULT_DIRECTORY = Path("/tmp/nas-leases")
BURST_S = 0.05
"""Seconds of work under one shared lease; with one step, where that is longer, what a measurement may wait."""
_POLL_S = 0.001

_held: set[int] = set()


def _close_inherited() -> None:
    # A forked child shares its parent's locks; while it lived it would hold what the parent has released.
    for fd in list(_held):
        with suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_inherited)


def lease_directory() -> Path:
    """The node-local folder of the lock files."""
    return Path(os.environ.get("NAS_LEASE_DIR", DEFAULT_DIRECTORY))


@dataclass(frozen=True)
class Grant:
    """What an exclusive lease gave: whether the device may have been in use, and the seconds waited."""

    contended: bool
    waited_s: float


@dataclass(frozen=True)
class DeviceLease:
    """The lease of one device; `key` names it on this node (`cpu`, or the UUID of a GPU or MIG instance)."""

    key: str
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        directory = lease_directory()
        if not directory.is_dir():
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"NAS_LEASE_DIR {directory}: cannot be made: {error.strerror}") from error
            with suppress(OSError):
                directory.chmod(0o1777)  # users who share a device share its lease

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Compute on the device; CUDA work must be synchronised before leaving.

        Waits behind a measurement, `patience_s` at most; then it goes on, with a warning.
        """
        with self._lock("turnstile", fcntl.LOCK_EX, self.patience_s):
            lock = self._lock("device", fcntl.LOCK_SH, self.patience_s)
            granted = lock.__enter__()
        try:
            if not granted:
                logger.warning("device %s: a measurement held it for over %.0f s; going on", self.key, self.patience_s)
            yield
        finally:
            lock.__exit__(None, None, None)

    @contextmanager
    def exclusive(self) -> Iterator[Grant]:
        """Have the device alone. After `patience_s` the grant says `contended` instead of waiting for ever."""
        start = time.monotonic()
        with (
            self._lock("turnstile", fcntl.LOCK_EX, self.patience_s) as first,
            self._lock("device", fcntl.LOCK_EX, self.patience_s) as second,
        ):
            waited = time.monotonic() - start
            if not (first and second):
                logger.warning("device %s: not free after %.0f s; measuring beside others", self.key, waited)
            yield Grant(contended=not (first and second), waited_s=waited)

    @contextmanager
    def _lock(self, part: str, operation: int, patience_s: float) -> Iterator[bool]:
        """Hold one lock file; yields whether the lock was granted within `patience_s` seconds."""
        fd = _open(lease_directory() / f"{re.sub(r'[^A-Za-z0-9.-]', '_', self.key)}.{part}")
        _held.add(fd)
        deadline = time.monotonic() + patience_s
        granted = False
        try:
            while not granted:
                try:
                    fcntl.flock(fd, operation | fcntl.LOCK_NB)
                    granted = True
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(_POLL_S)
            yield granted
        finally:
            _held.discard(fd)
            os.close(fd)


def _open(path: Path) -> int:
    # Opened anew for each hold: flock belongs to the open file, and threads that shared one would convert
    # each other's locks. First without O_CREAT, which the kernel refuses on another user's file in /tmp.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o666)
        with suppress(OSError):
            os.fchmod(fd, 0o666)
        return fd


def lease_for(device: str) -> DeviceLease:
    """The lease of a torch device: `cpu`, `cuda` or `cuda:N`."""
    if device == "cpu":
        return DeviceLease("cpu")
    import torch

    return DeviceLease(f"gpu-{torch.cuda.get_device_properties(torch.device(device)).uuid}")


class Bursts:
    """Work under the shared lease in bursts of about `BURST_S`: enter once a step; `close` after the last one.

    Taking the lease anew for each step would cost more than a small network's step. `waited_s` is the time spent
    waiting for it.
    """

    def __init__(self, lease: DeviceLease | None, device: torch.device) -> None:
        self._lease = lease
        self._device = device
        self._held: AbstractContextManager[None] | None = None
        self._until = 0.0
        self.waited_s = 0.0

    def __enter__(self) -> None:
        if self._lease is not None and self._held is None:
            start = time.perf_counter()
            self._held = self._lease.shared()
            self._held.__enter__()
            now = time.perf_counter()
            self.waited_s += now - start
            self._until = now + BURST_S

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None or time.perf_counter() > self._until:
            self.close()

    def close(self) -> None:
        """Give the lease back, once the device has done what was queued."""
        if self._lease is None or self._held is None:
            return
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        self._held.__exit__(None, None, None)
        self._held = None
