"""What nas and the Ray that it started left on this machine's disks, who needs it, and removing what nobody does.

Only folders and files of this user's, of names that we give, are ever removed; links are never followed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.common.errors import arg
from nas.common.scratch import PREFIX, is_abandoned
from nas.common.user_cache import cache_folder
from nas.data.sets import NAMED
from nas.latency.cache import cache_folder as latency_folder
from nas.latency.lease import lease_directory

UNUSED_S = 30 * 86_400.0
"""Seconds after their last use for which decoded images and latencies are kept by default."""
_FRESH_S = 60.0
"""A scratch folder younger than this may not have its lock yet."""
_HALF_DECODED_S = 86_400.0
_DECODED = "decoded images"
_ENTRY, _HALF_ENTRY = re.compile("[0-9a-f]{32}"), re.compile(r"\.[a-z0-9_]{8}")
"""Names of the folders of nas.data.cache, whole and on the way."""


@dataclass(frozen=True)
class Leftover:
    """A folder or file of ours: its size in bytes, the time of its last use, and whether nobody needs it, with the reason."""

    kind: str
    path: Path
    size: int
    used: float
    removable: bool
    reason: str


def leftovers(unused_s: float = UNUSED_S, with_ray: bool = False) -> list[Leftover]:
    """All that lies in our folders. Decoded images and latencies are needed for `unused_s` seconds after their last use.

    With `with_ray`, sessions that ended in Ray's own folder count as removable; other programs may have left them.
    """
    processes = _processes()
    found = [*_scratch(processes), *_ray_sessions(processes, with_ray), *_decoded(processes, unused_s)]
    return sorted([*found, *_latencies(unused_s), *_kept()], key=lambda each: (each.kind, each.used))


def remove(leftover: Leftover) -> bool:
    """Remove what is removable; whether all of it is gone."""
    if leftover.removable and _is_own(leftover.path, stat.S_ISDIR):
        shutil.rmtree(leftover.path, ignore_errors=True)  # which does not follow links
    elif leftover.removable and _is_own(leftover.path, stat.S_ISREG):
        with suppress(OSError):
            leftover.path.unlink()
    return not os.path.lexists(leftover.path)


def _scratch(processes: str) -> Iterator[Leftover]:
    for place in _temporary_places():
        for path in _folders(place, f"{PREFIX}*"):
            used = path.lstat().st_mtime
            if not (path / ".lock").exists():
                continue  # of another program
            gone = is_abandoned(path) and time.time() - used > _FRESH_S and not _in_use(path, processes)
            reason = "its process is gone" if gone else "in use"
            yield Leftover("scratch", path, _size(path), used, gone, reason)
        for path in _folders(place, "nas-tune-*"):  # of versions without a lock
            gone = time.time() - path.lstat().st_mtime > _HALF_DECODED_S and not _in_use(path, processes)
            reason = "its process is gone" if gone else "may be in use"
            yield Leftover("scratch", path, _size(path), path.lstat().st_mtime, gone, reason)


def _ray_sessions(processes: str, with_ray: bool) -> Iterator[Leftover]:
    for place in _temporary_places():
        for path in _folders(place / "ray", "session_*"):
            ended = not _in_use(path, processes)
            reason = f"ended; {arg('with_ray')} removes it too, whoever left it" if ended and not with_ray else "ended"
            yield Leftover(
                "Ray session", path, _size(path), _changed(path), ended and with_ray, reason if ended else "in use"
            )


def _decoded(processes: str, unused_s: float) -> Iterator[Leftover]:
    cache = cache_folder("data", "NAS_DATA")
    for path in _folders(cache / "decoded", "*") if cache else ():
        whole = (path / "index.json").is_file()
        if not (_ENTRY.fullmatch(path.name) if whole else _HALF_ENTRY.fullmatch(path.name)):
            continue
        used = _changed(path / "index.json" if whole else path)
        patience = unused_s if whole else _HALF_DECODED_S
        if _in_use(path, processes):
            yield Leftover(_DECODED, path, _size(path), used, False, "in use")
        elif time.time() - used < patience:
            reason = "the next run on them need not decode them" if whole else "may be in use"
            yield Leftover(_DECODED, path, _size(path), used, False, reason)
        else:
            reason = "not used since; decoded again when needed" if whole else "cut off half-way"
            yield Leftover(_DECODED, path, _size(path), used, True, reason)


def _latencies(unused_s: float) -> Iterator[Leftover]:
    """Files of the latency cache, each of a host and a user; a read of one is a use too."""
    folder = latency_folder()
    for path in sorted(folder.glob("*.jsonl")) if folder else ():
        if _is_own(path, stat.S_ISREG):
            old = time.time() - _changed(path) >= unused_s
            reason = "not used since; measured again when needed" if old else "later searches look latencies up there"
            yield Leftover("latencies", path, path.stat().st_size, _changed(path), old, reason)


def _kept() -> Iterator[Leftover]:
    data = cache_folder("data", "NAS_DATA")
    places = [("download", data / name, "runs on it need it") for name in NAMED] if data else []
    places.append(("leases", lease_directory(), "whoever measures locks files there"))
    for kind, path, reason in places:
        if path.is_dir() and (size := _size(path)):
            yield Leftover(kind, path, size, _changed(path), False, reason)


def _temporary_places() -> list[Path]:
    """Where scratch folders and Ray's sessions may lie, each once."""
    named = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    places = [tempfile.gettempdir(), *named, "/tmp", "/var/tmp", "/dev/shm"]
    return list(dict.fromkeys(Path(os.path.realpath(place)) for place in places))


def _folders(place: Path, pattern: str) -> list[Path]:
    """This user's own folders of such names, and no links."""
    with suppress(OSError):
        return sorted(path for path in place.glob(pattern) if _is_own(path, stat.S_ISDIR))
    return []


def _is_own(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether it is this user's, and of a kind by its mode; a link is neither folder nor file."""
    with suppress(OSError):
        found = path.lstat()
        return kind(found.st_mode) and found.st_uid == os.getuid()
    return False


def _processes() -> str:
    """What the processes of this machine have as arguments, working directory and mapped files."""
    texts = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        for part in ("cmdline", "maps"):
            with suppress(OSError):
                texts.append((process / part).read_bytes().decode(errors="replace"))
        with suppress(OSError):
            texts.append(os.readlink(process / "cwd"))
    return "\n".join(texts)


def _in_use(path: Path, processes: str) -> bool:
    """Whether a process has the folder, or a Ray session in it still answers, as one of another container would."""
    if str(path) in processes:
        return True
    return any(_answers(found) for found in [*path.glob("sockets/*"), *path.glob("session_*/sockets/*")])


def _answers(path: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1)
        asking.connect(str(path))
        return True
    return False


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    """Bytes of its files, links not followed."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(inside, name)).st_size
    return total
