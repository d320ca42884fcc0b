"""Per-device reader-writer lease: shared for bursts of computing, exclusive for measuring, by kernel file locks.

Ray's resources are bookkeeping; nothing stops two processes from computing on one device at once. Every process
here takes a shared lease for each short burst of work, and a measurement takes the exclusive one, so that the
others pause at their next step. The kernel frees the locks of a process that dies. A second file serves as
turnstile: a waiting measurement holds it, so that new bursts queue behind it and cannot starve it (Courtois,
Heymans & Parnas, "Concurrent control with readers and writers", 1971, problem 2).

A process that loses patience with a hung holder goes on; the times of the files then tell both that the device was
shared. The lease is per physical device of one node. The files lie in a folder of the user's own, /tmp/nas-leases-UID, or in `NAS_LEASE_DIR`,
which users and containers that share a device must share and which must not be on NFS. Whoever can write there can keep
the others waiting, though not for ever.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nas.common.errors import InputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LONGEST_WAIT = 30
"""Times the patience, after which a hold waits no more, however often the device changed hands; from then on, once it."""
BURST_S = 0.05
"""Seconds of work under one shared lease; with one step, where that is longer, what a measurement may wait."""
_POLL_S, _LONGEST_POLL_S = 0.001, 0.01
"""Seconds between two attempts, at first and in a long wait: paused processes must not disturb the measurement."""
_LOG_AFTER_S = 10.0

_open: set[_Files] = set()
_warned: set[Path] = set()
_tired: set[str] = set()
"""Paths of lock files of devices that were waited for for so long."""
_given_up: dict[str, int] = {}
"""By path of the lock files: the measurement (its `_mark`) that this process no longer waits for."""


def _close_inherited() -> None:
    # A forked child shares its parent's locks; while it lived it would hold what the parent has released.
    for files in list(_open):
        files.close()


os.register_at_fork(after_in_child=_close_inherited)


def lease_directory() -> Path:
    """The node-local folder of the lock files; raises `InputError` unless its path is absolute."""
    folder = Path(os.environ.get("NAS_LEASE_DIR") or own_directory())
    if not folder.is_absolute():  # workers have another working directory: they would lock other files
        raise InputError(f"NAS_LEASE_DIR {folder}: must be an absolute path, so that all processes find the same files")
    return folder


def own_directory() -> Path:
    """Where the lock files lie that no other user can reach."""
    return Path(f"/tmp/nas-leases-{os.getuid()}")


def _make(directory: Path) -> None:
    """Make the folder, or look at one that is there; raises `InputError` where it cannot be made, or is another user's trap."""
    own = directory == own_directory()
    try:
        directory.mkdir(mode=0o700 if own else 0o777, parents=not own)
        if not own:
            with suppress(OSError):
                directory.chmod(0o1777)  # users who share a device share its lease
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"NAS_LEASE_DIR {directory}: cannot be made: {error.strerror}") from error
    found = directory.lstat() if own else directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"NAS_LEASE_DIR {directory}: cannot be made: {os.strerror(errno.ENOTDIR)}")
    if own and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise InputError(
            f"{directory}: another user made it, or can write there; remove it, or let NAS_LEASE_DIR name another folder"
        )
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX and directory not in _warned:
        _warned.add(directory)
        logger.warning("NAS_LEASE_DIR %s: every user can delete its files (chmod +t forbids that)", directory)


@dataclass
class Grant:
    """What an exclusive lease gave: whether the device may have been in use (settled when it ends), the seconds waited."""

    contended: bool
    waited_s: float


@dataclass(frozen=True)
class DeviceLease:
    """The lease of one device; `key` names it on this node (`cpu`, or the UUID of a GPU or MIG instance).

    `patience_s` is for each measurement that is waited for, so that a queue that moves on is waited for to its end.
    """

    key: str
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        _make(lease_directory())

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Compute on the device; CUDA work must be synchronised before leaving.

        Waits behind measurements, but not for one that takes over `patience_s`: it goes on beside that, with a warning,
        and the measurement is marked contended.
        """
        with _Files(self) as files:
            granted = files.lock("turnstile", fcntl.LOCK_EX, again=False)
            granted = files.lock("device", fcntl.LOCK_SH, again=False) and granted
            files.unlock("turnstile")
            if granted:
                yield
                return
            files.give_up()
            files.touch("turnstile")
            try:
                yield
            finally:
                files.touch("turnstile")

    @contextmanager
    def exclusive(self) -> Iterator[Grant]:
        """Have the device alone. Where patience ends first, the grant says `contended` instead of waiting for ever."""
        start = time.monotonic()
        with _Files(self) as files:
            granted = files.lock("turnstile", fcntl.LOCK_EX)
            granted = files.lock("device", fcntl.LOCK_EX) and granted
            grant = Grant(contended=not granted, waited_s=time.monotonic() - start)
            if not granted:
                logger.warning("device %s: not free after %.0f s; measuring beside others", self.key, grant.waited_s)
                files.touch("turnstile")
            files.touch("device")
            before = files.mark("turnstile")
            yield grant
            grant.contended = grant.contended or files.mark("turnstile") != before
        time.sleep(_LONGEST_POLL_S)  # a process that measures on and on lets the others have a turn


class _Files:
    """The two lock files of a device, for one hold; leaving gives back what was locked.

    Their times of change are marks. The device's: a new measurement has begun. The turnstile's: someone computes
    without a lease.
    """

    def __init__(self, lease: DeviceLease) -> None:
        self._lease = lease
        self._stem = f"{lease_directory()}/{re.sub(r'[^A-Za-z0-9.-]', '_', lease.key)}"
        self._opened: dict[str, int] = {}
        self._start = self._since = time.monotonic()
        self._told = False

    def __enter__(self) -> Self:
        _open.add(self)
        try:
            for part in ("device", "turnstile"):
                self._opened[part] = _reopened(f"{self._stem}.{part}")
        except OSError as error:
            self.close()
            raise InputError(
                f"NAS_LEASE_DIR {lease_directory()}: its lock files cannot be opened: {error.strerror}"
            ) from error
        self._measurement = self.mark("device")
        return self

    def __exit__(self, *_: object) -> None:
        # Unlocked first: closing alone would leave the locks to a child that forked and has not closed its copies yet.
        self.unlock("device")
        self.unlock("turnstile")
        self.close()

    def lock(self, part: str, operation: int, again: bool = True) -> bool:
        """Whether the lock was granted before patience ended; `again`: even if it ended for this measurement before."""
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(self._opened[part], operation | fcntl.LOCK_NB)
                self._since = time.monotonic()
                return True
            now, measurement = time.monotonic(), self.mark("device")
            if measurement != self._measurement:
                self._since, self._measurement = now, measurement
            if now - self._since > self._lease.patience_s or self._too_long(now - self._start):
                return False
            if not again and _given_up.get(self._stem) == measurement:
                return False
            if now - self._start > _LOG_AFTER_S and not self._told:
                self._told = True
                logger.warning("device %s: waiting for it for over %.0f s", self._lease.key, _LOG_AFTER_S)
            time.sleep(min(_LONGEST_POLL_S, max(_POLL_S, (now - self._since) / 10)))

    def _too_long(self, waited_s: float) -> bool:
        """Whether the device was waited for for so long that it is done, since somebody takes it again and again."""
        times = 1 if self._stem in _tired else LONGEST_WAIT
        if waited_s <= times * self._lease.patience_s:
            return False
        _tired.add(self._stem)
        return True

    def give_up(self) -> None:
        """Remember that this measurement is not worth waiting for; a warning, once."""
        if _given_up.get(self._stem) != self._measurement:
            _given_up[self._stem] = self._measurement
            logger.warning(
                "device %s: a measurement held it for over %.0f s; going on", self._lease.key, self._lease.patience_s
            )

    # A child that forked inside a hold has nothing open: leaving the hold there must not touch its parent's.

    def mark(self, part: str) -> int:
        """When the file was last touched, in ns."""
        return os.fstat(self._opened[part]).st_mtime_ns if part in self._opened else 0

    def touch(self, part: str) -> None:
        """Change the mark, to the present time: another one would be refused on another user's file."""
        if part in self._opened:
            os.utime(self._opened[part])

    def unlock(self, part: str) -> None:
        """Give back one of the locks."""
        if part in self._opened:
            fcntl.flock(self._opened[part], fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files; the locks are gone when every process that shares the open files has closed them."""
        _open.discard(self)
        while self._opened:
            os.close(self._opened.popitem()[1])


def _reopened(path: str) -> int:
    # For each hold: flock belongs to the open file, and threads that shared one would convert each other's
    # locks. First without O_CREAT, which the kernel refuses on another user's file in /tmp.
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

    Taking the lease again for each step would cost more than a small network's step. `waited_s` is the time spent
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
