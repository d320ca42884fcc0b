"""Latency of candidates: looked up where it was measured before, else measured, and kept for the next time.

The cache is the user's, shared by all runs: `NAS_LATENCY_CACHE` names its folder (`off`: there is none), by default
nas/latency in the user's cache folder. It has one file for each host and user that measured, only ever appended to, since
hosts may share a home folder over NFS, where appends of two of them would overwrite each other, and users a cache, where one cannot
append to what another made.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from nas.common import user_cache
from nas.common.errors import InputError
from nas.common.jsonl import append_line, read_lines
from nas.latency.at_work import is_quiet
from nas.latency.conditions import conditions
from nas.latency.device import device_name
from nas.latency.protocol import LatencyProtocol
from nas.latency.reference import SLOWED, Took, agree, reference_now
from nas.latency.result import Latency
from nas.latency.runtimes import check_protocol, software

logger = logging.getLogger(__name__)

SCHEMA = 1
"""Counts changes of how nas measures, and of what is stored: what another version wrote is not looked up."""
STANDS_S = 600.0
"""Seconds for which what the reference network took on a device says how fast that is now."""


def looked_up(digest: str, num_classes: int, protocol: LatencyProtocol, take: Callable[[], Latency]) -> Latency:
    """The latency of the network of a digest, in ms a batch; `take` measures it.

    One that was looked up is `cached` and keeps the time at which it was measured. It counts only where the reference network takes
    now what it took then; else it is measured again, and `doubted` says so. A noisy one is measured again where others
    leave the device alone now, and the surer of the two is kept. Raises `InputError` where it cannot be measured as asked; a cache that
    cannot be used is warned of.
    """
    check_protocol(protocol)
    folder = cache_folder()
    if folder is None:
        return take()
    cache, key = _cache(folder), _key(digest, num_classes, protocol)
    kept = cache.of(key)
    now = _speeds.now(key, protocol) if kept else None
    known = _surest(latency for latency in kept if now and latency.reference_ms and agree(latency.reference_ms, now))
    if known is None or (known.noisy and is_quiet(protocol)):
        latency = take()
        _speeds.learn(key, latency)
        cache.add(key, latency)
        latency = cache.judged(key, latency)
        if known is None:
            return replace(latency, doubted=_doubt(kept, now))
        if _rank(latency) <= _rank(known):
            return latency
    return replace(known, protocol=protocol, waited_s=0.0, cached=True)


def cache_folder() -> Path | None:
    """Where latencies are kept: `NAS_LATENCY_CACHE`, or nas/latency in the user's cache; None where that is `off`.

    Raises `InputError` unless its path is absolute: workers have another working directory.
    """
    given = os.environ.get("NAS_LATENCY_CACHE")
    if given == "off":
        return None
    if given:
        if not Path(given).is_absolute():
            raise InputError(f"NAS_LATENCY_CACHE {given}: must be an absolute path, or off")
        return Path(given)
    return user_cache.cache_folder("latency", "NAS_LATENCY_CACHE")


@dataclass(frozen=True)
class Key:
    """All that a latency depends on; `cores` are those that this process may run on, of a CPU alone.

    torch's name of a MIG instance has its profile in it.
    """

    digest: str
    num_classes: int
    protocol: LatencyProtocol
    device_name: str
    cores: int
    software: tuple[tuple[str, str], ...]
    conditions: tuple[tuple[str, str], ...] | None


@dataclass(frozen=True)
class _Entry:
    """A line of the cache. What the key has beside these fields is in the latency."""

    digest: str
    num_classes: int
    cores: int
    latency: Latency
    schema: int = SCHEMA

    @property
    def key(self) -> Key:
        versions = tuple(sorted((self.latency.software or {}).items()))
        protocol = _on_any(self.latency.protocol)
        own = self.latency.conditions
        told = None if own is None else tuple(sorted(own.items()))
        return Key(self.digest, self.num_classes, protocol, self.latency.device_name, self.cores, versions, told)


_ENTRY = TypeAdapter(_Entry)


class LatencyCache:
    """The latencies below a folder, by key. Trouble with the folder is warned of once. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Key, list[Latency]] = defaultdict(list)
        self._fastest: dict[Key, float] = {}  # the least that the reference network took, by `_speed_key`
        self._read: dict[Path, int] = {}  # bytes of each file that are known
        self._warned = False

    def find(self, key: Key) -> Latency | None:
        """The surest latency that any process has added under the key; the newest of those that are not noisy."""
        return _surest(self.of(key))

    def of(self, key: Key) -> list[Latency]:
        """All latencies that any process has added under the key, judged."""
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                self._catch_up(path)
            except OSError as error:
                self._warn("read", error)
        return [self.judged(key, latency) for latency in self._known.get(key, ())]

    def judged(self, key: Key, latency: Latency) -> Latency:
        """The latency as what it is by all that is known of the device's speed.

        Where the reference network took longer than it once did, by more than `SLOWED`, the whole device was slower: it is noisy,
        and the lower end of its interval is what it might have been at the speed of then.
        """
        fastest_ms = self._fastest.get(_speed_key(key))
        if fastest_ms is None or latency.reference_ms is None:
            return latency
        slowed = max(latency.reference_ms) / fastest_ms
        if slowed <= 1 + SLOWED:
            return latency
        interval = latency.interval_ms and (latency.interval_ms[0] / slowed, latency.interval_ms[1])
        return replace(latency, noisy=True, interval_ms=interval)

    def add(self, key: Key, latency: Latency) -> None:
        """Keep a latency, unless others used the device meanwhile or a number of it is not finite."""
        if not _worth_keeping(latency):
            return
        entry = _Entry(key.digest, key.num_classes, key.cores, latency)
        try:
            user_cache.make_folder(self.folder)
            line = json.dumps(asdict(entry), separators=(",", ":"))
            file = self.folder / f"{socket.gethostname()}.{os.getuid()}.jsonl"
            is_new = not file.exists()
            append_line(file, line)
            if is_new:
                user_cache.open_to_group(file, self.folder)
        except OSError as error:
            self._warn("written", error)

    def _catch_up(self, path: Path) -> None:
        """Read what was appended to a file since the last time, but for a line that is still being written."""
        known = self._read.get(path, 0)
        size = path.stat().st_size
        if size == known:
            return
        if size < known:  # deleted and begun again
            known = 0
        if not known:
            with suppress(OSError):  # it may be another user's
                os.utime(path)  # when it was last used, for nas clean
        for line in read_lines(path, known):
            if not line.endswith(b"\n"):
                break
            known += len(line)
            self._take(line)
        self._read[path] = known

    def _take(self, line: bytes) -> None:
        try:
            entry = _ENTRY.validate_json(line)
        except ValueError:  # torn, damaged, or of another version
            return
        if entry.schema != SCHEMA or not _worth_keeping(entry.latency):
            return
        self._known[entry.key].append(entry.latency)
        if entry.latency.reference_ms:
            speed, took = _speed_key(entry.key), max(entry.latency.reference_ms)
            self._fastest[speed] = min(took, self._fastest.get(speed, took))

    def _warn(self, what: str, error: OSError) -> None:
        if not self._warned:
            logger.warning("latency cache %s cannot be %s: %s", self.folder, what, error.strerror or error)
        self._warned = True


class _Speeds:
    """What the reference network takes on the devices of this process, in ms: of its own measurements, or asked for."""

    def __init__(self) -> None:
        self._took: dict[Key, tuple[Took, float]] = {}

    def learn(self, key: Key, latency: Latency) -> None:
        if latency.reference_ms:
            self._took[_speed_key(key)] = latency.reference_ms, time.monotonic()

    def now(self, key: Key, protocol: LatencyProtocol) -> Took:
        """As of the last `STANDS_S` seconds; measured where nothing was since."""
        took, at = self._took.get(_speed_key(key), ((0.0, 0.0), -math.inf))
        if time.monotonic() - at > STANDS_S:
            took = reference_now(protocol)
            self._took[_speed_key(key)] = took, time.monotonic()
        return took


_speeds = _Speeds()


@functools.cache
def _cache(folder: Path) -> LatencyCache:
    return LatencyCache(folder)


def _key(digest: str, num_classes: int, protocol: LatencyProtocol) -> Key:
    cores = _cores(protocol)
    versions = tuple(sorted(software(protocol).items()))
    name = device_name(protocol.device)
    return Key(
        digest, num_classes, _on_any(protocol), name, cores, versions, tuple(sorted(conditions(protocol).items()))
    )


def _cores(protocol: LatencyProtocol) -> int:
    return len(os.sched_getaffinity(0)) if protocol.device == "cpu" else 0


def _speed_key(key: Key) -> Key:
    """What the reference network's time depends on."""
    protocol = LatencyProtocol(key.protocol.device, threads=key.protocol.threads, estimator=key.protocol.estimator)
    return replace(key, digest="", num_classes=0, protocol=protocol)


def _on_any(protocol: LatencyProtocol) -> LatencyProtocol:
    """The protocol for any device of its kind: of two equal GPUs, what one takes the other takes."""
    return replace(protocol, device=protocol.device.partition(":")[0])


def _rank(latency: Latency) -> tuple[bool, bool, float, float]:
    """Sorts the surest first: those that are not noisy by age, the others by their intervals."""
    return latency.contended, latency.noisy, latency.width if latency.noisy else 0.0, -latency.measured


def _surest(latencies: Iterable[Latency]) -> Latency | None:
    return min(latencies, key=_rank, default=None)


def _doubt(kept: Iterable[Latency], now: Took | None) -> str:
    """Why none of the latencies that were kept counts; empty where there was none."""
    surest = _surest(kept)
    if surest is None or now is None:
        return ""
    then = f"took {_took_text(surest.reference_ms)} ms" if surest.reference_ms else "was not timed"
    return f"the reference network takes {_took_text(now)} ms now and {then} when this network was measured before"


def _took_text(took: Took) -> str:
    return "-".join(dict.fromkeys(f"{each:.3f}" for each in sorted(took)))


def _worth_keeping(latency: Latency) -> bool:
    numbers = (latency.ms, latency.median_ms, *latency.range_ms, latency.p10_ms, latency.p90_ms, latency.spread)
    return not latency.contended and all(map(math.isfinite, numbers))
