"""The faults of a soak, drawn from its seed: which, and when; on whom they fall is drawn among the processes that are there."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from place import Place

STOP_S, FULL_S, SLOW_S = 60.0, 20.0, 30.0
HOUR_S = 3600
_MOST_GAP_S = 32.0
SHARES = {
    "worker killed": 8,
    "worker stopped": 4,
    "slow fsync": 4,
    "clock set": 2,
    "driver killed": 1,
    "disk full": 1,
}
"""How often each fault is in a deck, which is shuffled and dealt again and again."""
WORKERS = ("ray::ResourceTrainable", "ray::_Keeper")
"""What Ray calls the processes that evaluate candidates, and the one that keeps their weights."""


class Driver(Protocol):
    """What faults need of the soak."""

    place: Place

    def kill_driver(self) -> bool: ...
    def note(self, what: str, **more: object) -> None: ...


def drawn(rng: random.Random, seconds: float, missing: dict[str, str]) -> Iterator[tuple[float, str]]:
    """Seconds from the start and names of faults, for ever; one of each comes first."""
    kinds = [kind for kind in SHARES if kind not in missing]
    if not kinds:
        yield float("inf"), ""
    deck = rng.sample(kinds, len(kinds))
    at, gap_s = 0.0, min(_MOST_GAP_S, 0.6 * seconds / len(kinds))
    while True:
        for kind in deck:
            at += gap_s * rng.uniform(0.5, 1.5)
            yield at, kind
        deck = [kind for kind in kinds for _ in range(SHARES[kind])]
        rng.shuffle(deck)


class Faults:
    """Does what is drawn, and undoes it in its time."""

    def __init__(self, soak: Driver, rng: random.Random, seconds: float) -> None:
        self._soak, self._rng, self._seconds = soak, rng, seconds
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self.full_until = 0.0
        """When there was room on the disk again (of `time.monotonic`), infinite while there is none."""

    def work(self) -> None:
        """Undo what is over."""
        now = time.monotonic()
        due = [undo for at, undo in self._undo if at <= now]
        self._undo = [each for each in self._undo if each[0] > now]
        for undo in due:
            undo()

    def end(self) -> None:
        """Undo all."""
        due, self._undo = self._undo, []
        for _, undo in due:
            undo()
        self._soak.place.set_clock(0)

    def strike(self, kind: str) -> bool:
        """Let a fault happen now; whether it did, since there may be nobody whom it could hit."""
        return {
            "worker killed": self._kill_worker,
            "worker stopped": self._stop_worker,
            "slow fsync": self._slow_disk,
            "clock set": self._set_clock,
            "driver killed": self._soak.kill_driver,
            "disk full": self._fill_disk,
        }[kind]()

    def _in(self, seconds: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + seconds, undo))

    def _signal(self, fault: str, titles: tuple[str, ...], number: signal.Signals) -> int | None:
        """Send a signal to one of the processes of these titles; which, None where there is none."""
        found = sorted(each for each in self._soak.place.processes().items() if each[1].startswith(titles))
        if not found:
            return None
        process, title = self._rng.choice(found)
        with suppress(ProcessLookupError):
            os.kill(process, number)
        self._soak.note(fault, victim=title.strip("\0")[:40])
        return process

    def _kill_worker(self) -> bool:
        return self._signal("worker killed", WORKERS, signal.SIGKILL) is not None

    def _stop_worker(self) -> bool:
        victim, stop_s = self._signal("worker stopped", WORKERS[:1], signal.SIGSTOP), min(STOP_S, self._seconds / 6)
        if victim is not None:
            self._in(stop_s, lambda: self._go_on(victim))
        return victim is not None

    def _go_on(self, process: int) -> None:
        there = process in self._soak.place.processes()  # the number may be another process's by now
        if there:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self._soak.note("worker goes on", there=there)

    def _slow_disk(self) -> bool:
        delay_s, slow_s = round(self._rng.uniform(0.3, 3.0), 2), min(SLOW_S, self._seconds / 6)
        self._soak.place.set_fsync(delay_s)
        self._in(slow_s, lambda: self._soak.place.set_fsync(0.0))
        self._soak.note("slow fsync", each_s=delay_s, seconds=slow_s)
        return True

    def _set_clock(self) -> bool:
        ahead_s = self._rng.choice([each for each in (-HOUR_S, 0, HOUR_S) if each != self._soak.place.clock_s])
        self._soak.place.set_clock(ahead_s)
        self._soak.note("clock set", ahead_s=ahead_s)
        return True

    def _fill_disk(self) -> bool:
        self._soak.place.fill_disk()
        self.full_until = float("inf")
        self._in(FULL_S, self._free_disk)
        self._soak.note("disk full", seconds=FULL_S)
        return True

    def _free_disk(self) -> None:
        self._soak.place.free_disk()
        self.full_until = time.monotonic()
        self._soak.note("disk has room")
