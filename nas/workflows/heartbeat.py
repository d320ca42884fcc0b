"""The heartbeat of a search: its driver tells the run directory every few seconds what it does, and hears of `nas stop`."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from nas.common.errors import InputError, TakenOverError
from nas.common.text import plural
from nas.runs.state import BEAT_S, DriverState, RunningTrial
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.training.history import EpochMetrics

STOPPED = "stopped by nas stop"

logger = logging.getLogger(__name__)


class Heartbeat:
    """A context in which a thread of its own writes the state of a search; at its end the state says why it ended.

    `address` is the Ray cluster's; `places` gives where trials run, by number, as far as it is known; `began` is when the
    command started (of `time.monotonic`), by default now. What the thread reads of the search are copies. A state that cannot be
    written is one warning, and never an error of the search.
    """

    def __init__(
        self,
        confirmer: Confirmer,
        address: str | None = None,
        places: Callable[[], Mapping[int, str]] = dict,
        began: float | None = None,
    ) -> None:
        self._confirmer = confirmer
        self._run = confirmer.run
        self._places = places
        self._here = socket.gethostname()
        self._epochs: dict[tuple[int, float], EpochMetrics] = {}
        self._began = time.monotonic() if began is None else began
        now, before = time.time(), None
        with suppress(
            InputError
        ):  # who takes the directory has warned of it; this one writes it again, or warns itself
            before = self._run.read_state()
        self._state = DriverState(
            now,
            now - (time.monotonic() - self._began),
            self._here,
            os.getpid(),
            address,
            self._run.settings.resources,
            before_s=before.seconds if before else 0.0,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, name="heartbeat", daemon=True)
        self._warned = False

    @property
    def seconds(self) -> float:
        """How long the search took until its state was last told, in wall seconds, with those on the directory before it."""
        return self._state.seconds

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""
        self._epochs[candidate.key] = metrics

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        ending, resumable = self._confirmer.ending, self._confirmer.resumable
        if isinstance(error, KeyboardInterrupt):
            ending, resumable = f"{ending}, then at once", True
        elif error is not None:
            ending, resumable = " ".join(f"an error in the search: {error}".split())[:300], True
        self._state = replace(self._now(), ended=time.time(), ending=ending, resumable=resumable, stopping=None)
        with suppress(TakenOverError):
            self._write(self._state)
            with suppress(OSError):
                self._run.remove_stop_request()

    def _beats(self) -> None:
        while not self._over.is_set():
            try:
                asked = self._run.stop_requested
                if asked:
                    self._confirmer.stop(STOPPED)
                self._write(self._now())
                if asked:  # afterwards, so that nobody reads in between that it simply runs
                    self._run.remove_stop_request()
            except TakenOverError as error:
                self._confirmer.stop(str(error))
                return
            except Exception as error:  # nothing else here may end a search
                self._warn(error)
            self._over.wait(BEAT_S)

    def _now(self) -> DriverState:
        stopping = self._confirmer.stopping
        spent_s = time.monotonic() - self._began
        running = tuple(self._running())
        return replace(self._state, written=time.time(), spent_s=spent_s, running=running, stopping=stopping)

    def _running(self) -> list[RunningTrial]:
        running, places = list(self._confirmer.running.values()), self._places()
        # Ray of the driver's own machine has no other host.
        elsewhere = "" if self._state.address else self._here
        told = []
        for candidate in running:
            metrics, text = (
                self._epochs.get(candidate.key),
                str(candidate.architecture.canonical),
            )
            if candidate.in_turn:
                text = f"{plural(len(candidate.in_turn.networks), 'network')} near the front, measured in turn"
            told.append(
                RunningTrial(
                    number=candidate.number,
                    text=text,
                    started=candidate.started,
                    epochs=0 if candidate.in_turn else candidate.settings.recipe.epochs,
                    epoch=metrics.epoch if metrics else 0,
                    score=metrics.score if metrics else None,
                    again=self._confirmer.is_again(candidate),
                    worker=places.get(candidate.number, elsewhere),
                )
            )
        return told

    def _write(self, state: DriverState) -> None:
        try:
            self._run.write_state(state)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            with suppress(Exception):
                logger.warning("nas status will not know what runs: %s: %s", type(error).__name__, error)
