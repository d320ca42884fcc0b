"""A run directory copied behind, to an object store or any other file system that pyarrow or fsspec reaches.

A thread of the driver copies what changed. The search never waits for it: a replica that does not answer is a warning.
What refers to something is noted before it and copied after it (study, records, weights), so that a replica at any
instant can be resumed: it may be behind, but its study knows no trial that its records lack. Files that only grow are
cut behind their last whole line, and all copied together, the less often the larger they are, since object stores cannot
append; records that lost something are never copied over what is there. A marker names the driver that copies, so that no two write to one replica.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nas.common.errors import InputError, arg
from nas.common.redact import has_password, without_password
from nas.common.text import listed, plural, resume_line
from nas.runs.copied import Held, Stamp, content_of, grows, is_records, noted_files
from nas.runs.layout import (
    CHECKPOINT,
    RUN_FILE,
    START,
    STATE,
    STOP,
    TRIALS,
    WEIGHTS,
    is_kept,
    stays_below,
)
from nas.runs.links import linked_names
from nas.runs.remote_folder import MARKER, Marker, RemoteFolder
from nas.runs.store import RunDirectory, open_run

EVERY_S = 30.0
"""Seconds between two copies of what changed."""
BYTES_PER_S = 100_000
"""Of files that grow, copied whole each time: about as much is sent on average, until `LATEST_S` is the shorter interval."""
LATEST_S = 600.0
"""Seconds at most between two copies of files that grow."""
PATIENCE_S = 60.0
"""Seconds that a replica has to answer: before a search, and at its end for each file."""
OFF = "off"
"""In place of a URI, for a run that is resumed: copy no more."""
_ALLOWED = "it takes the URI of a folder that can be written to: s3://bucket/prefix, gs://bucket/prefix, file:///folder"

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


# ---------------------------------------------------------------- before a search


def is_uri(text: str) -> bool:
    """Whether a text names a replica rather than a folder."""
    return "://" in text


def check_new_replica(uri: str, out: Path) -> None:
    """Raise `InputError` unless a URI names an empty folder that can be written to, outside the run directory `out`."""
    remote = _reached(arg("replica"), uri)
    if remote.filesystem.type_name == "local" and Path(remote.root).resolve().is_relative_to(out.resolve()):
        raise InputError(f"{arg('replica')} {uri}: lies in the run directory {out}; {_ALLOWED}")
    names = _answer(arg("replica"), uri, remote.names)
    if MARKER in names or RUN_FILE in names:
        raise InputError(
            f"{arg('replica')} {uri}: a run is there already; give another prefix, or {arg('resume')} {uri}"
        )
    _check_empty(uri, names)
    _probe(arg("replica"), uri, remote)


def check_replica(run: RunDirectory) -> None:
    """Raise `InputError` unless a run that goes on can go on copying to its replica."""
    uri = run.settings.replica
    if uri is None:
        return
    try:
        remote = _reached(arg("replica"), uri)
        _answer(arg("replica"), uri, lambda: _check_takeover(remote, run))
        _probe(arg("replica"), uri, remote)
    except InputError as error:
        raise InputError(f"{error.marked} (or copy no more: {arg('replica')} {OFF} beside {arg('resume')})") from error


def fetch_run(uri: str, out: Path) -> None:
    """Copy the run of a replica into a new folder, whole or not at all.

    Raises `InputError` when no run is there, or a driver elsewhere goes on with it.
    """
    remote = _reached(arg("resume"), uri)
    names = _answer(arg("resume"), uri, remote.names)
    if outside := [name for name in names if not stays_below(name)]:
        raise InputError(f"{arg('resume')} {uri}: {outside[0]!r} there is no name that a run gives a file")
    linked = set(filter(remote.is_linked, names))
    kept = [name for name in names if is_kept(name) and name not in linked]
    if RUN_FILE not in kept or TRIALS not in kept:
        raise InputError(f"{arg('resume')} {uri}: no run is there (no run.yaml and trials.jsonl)")
    marker = _answer(arg("resume"), uri, remote.marker)
    if marker is not None and marker.wait_s:
        raise InputError(f"{arg('resume')} {uri}: {_held_by(marker)}")
    if out.exists():
        raise InputError(f"{arg('out')} {out}: exists already; give another {arg('out')}, or {arg('resume')} {out}")
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        for name in kept:
            content = remote.read(name)
            if content is not None:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
        (partial / WEIGHTS).mkdir(exist_ok=True)
        open_run(partial)
        partial.rename(out)
        known = {name for name in names if name in (MARKER, STATE) or _is_passing(Path(name))}
        others = set(names) - set(kept) - known
        if others:
            logger.warning("%s: left out what is no part of a run: %s", uri, listed(sorted(others), 5))
    except InputError:
        raise
    except Exception as error:  # file systems of fsspec's raise their own
        raise InputError(f"{arg('resume')} {uri}: cannot be copied to {out}: {_short(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reached(flag: str, uri: str) -> RemoteFolder:
    if has_password(uri):
        raise InputError(
            f"{flag} {without_password(uri)}: a password in the URI, or a parameter that may be secret, would be written to "
            "run.yaml; put it in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
            "AZURE_STORAGE_SAS_TOKEN)"
        )
    return _answer(flag, uri, lambda: RemoteFolder.at(uri))


def _probe(flag: str, uri: str, remote: RemoteFolder) -> None:
    """Raise `InputError` unless a file can be written and deleted."""
    name = f".probe-{socket.gethostname()}-{os.getpid()}"

    def probe() -> None:
        remote.write(name, b"nas")
        remote.delete(name)

    _answer(flag, uri, probe)


def _answer(flag: str, uri: str, ask: Callable[[], _T]) -> _T:
    """What a replica answers, within `PATIENCE_S`; raises `InputError` when it fails or says nothing."""
    answers: list[_T] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # pyarrow's, the store's own, or those of a file system of fsspec's
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if answers:
        return answers[0]
    if failures and isinstance(failures[0], InputError):
        raise failures[0]
    why = _short(failures[0]) if failures else f"no answer within {PATIENCE_S:g} s"
    raise InputError(f"{flag} {uri}: cannot be used: {why}; {_ALLOWED}")


def _check_takeover(remote: RemoteFolder, run: RunDirectory) -> dict[str, bytes]:
    """The records that it holds, by file; raises `InputError` unless the folder is empty, or holds this run, no more of it,
    and nobody else copies to it.
    """
    marker, mine, uri = remote.marker(), Marker.of(run, EVERY_S), run.settings.replica
    if marker is None:
        _check_empty(uri, remote.names())
        return {}
    if (marker.created, marker.started_on) != (mine.created, mine.started_on):
        raise InputError(
            f"{arg('replica')} {uri}: another run is there, started on {marker.started_on}; give another prefix"
        )
    # Whoever holds the lock of the run directory knows that no other driver on this host goes on with it.
    if marker.wait_s and (marker.host, marker.folder) != (mine.host, mine.folder):
        raise InputError(f"{arg('replica')} {uri}: {_held_by(marker)}")
    found = {name: remote.read(name) or b"" for name in remote.names() if is_records(name)}
    for name, content in found.items():
        here = run.path / name
        if not (here.read_bytes() if here.is_file() else b"").startswith(content):
            raise InputError(
                f"{arg('replica')} {uri}: its {name} has lines that {run.path} lacks, since the run went on elsewhere; "
                f"go on from there with {arg('resume')} {uri}"
            )
    return found


def _check_empty(uri: str | None, names: list[str]) -> None:
    if names:
        raise InputError(
            f"{arg('replica')} {uri}: files are there that no search copied ({names[0]}); give an empty prefix"
        )


def _held_by(marker: Marker) -> str:
    ago = max(0.0, time.time() - marker.copied)
    return (
        f"{marker.host} (process {marker.pid}, {marker.folder}) is searching on this run and copied to the replica "
        f"{ago:.0f} s ago; if that search is dead, try again in {marker.wait_s + 1:.0f} s"
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ---------------------------------------------------------------- during a search


@contextmanager
def replicated(run: RunDirectory) -> Iterator[None]:
    """Copy a run meanwhile, if its settings name a replica, and once more at the end; to be entered under its lock."""
    if run.settings.replica is None:
        yield
        return
    if links := linked_names(run.path):
        logger.warning("%s: the replica is given no links: %s", run.path, listed(links, 5))
    copier = _Copier(run, run.settings.replica)
    copier.start()
    try:
        yield
    finally:
        copier.finish()


def interval_s(grown: int) -> float:
    """Seconds between two copies of files that grow, of so many bytes together."""
    return min(LATEST_S, max(EVERY_S, grown / BYTES_PER_S))


class _Copier(threading.Thread):
    """Copies what changed in a run directory, again and again. Knows what of it the replica has."""

    def __init__(self, run: RunDirectory, uri: str) -> None:
        super().__init__(name="replica", daemon=True)
        self._run, self._uri = run, uri
        self._remote: RemoteFolder | None = None
        self._marked: Marker | None = None  # what this driver last wrote there
        self._copied: dict[str, Stamp] = {}
        self._held: dict[str, Held] = {}  # of records
        self._next = 0.0  # when files that grow are copied again, by the monotonic clock
        self._writes = 0
        self._given_up = False
        self._end = threading.Event()

    def run(self) -> None:
        """Until told to end, or until the replica is found to be somebody else's."""
        last, wait_s, failing = False, 0.0, False
        while not last:
            last, wait_s = self._end.wait(wait_s), EVERY_S
            try:
                self._copy(last)
                if last:
                    self._mark(closed=True)
            except InputError as error:
                logger.warning("%s (nothing more is copied)", error)
                self._given_up = True
                return
            except Exception as error:  # pyarrow's, the store's own, or those of a file system of fsspec's
                if not failing:
                    logger.warning("the replica %s fails and is tried again: %s", self._uri, _short(error))
                failing = True
            else:
                if failing:
                    logger.warning("the replica %s answers again", self._uri)
                failing = False

    def finish(self) -> None:
        """Copy what is left, waiting as long as files arrive, and say what the replica lacks then."""
        self._end.set()
        before = -1
        while self.is_alive() and before != self._writes:
            before = self._writes
            self.join(PATIENCE_S)
        lacking = [name for name, stamp in noted_files(self._run.path).items() if self._copied.get(name) != stamp]
        if lacking and not self._given_up:
            path = self._run.path
            logger.warning(
                "the replica %s lacks what %s came to hold last (%s); %s copies it from %s",
                self._uri, plural(len(lacking), "file"), listed(lacking, 5), resume_line(path), path,
            )  # fmt: skip

    def _copy(self, last: bool = False) -> None:
        """Copy what changed, files that grow only where it is time, or the `last`, and then delete the weights that are gone.

        Raises `InputError` when another driver copies, or records lost something.
        """
        self._remote = self._remote or RemoteFolder.at(self._uri)
        self._hold(self._remote)
        whole = last or time.monotonic() >= self._next
        kept = {path.name for path in (self._run.path / WEIGHTS).glob("*")}  # by the records noted next, or older
        noted = noted_files(self._run.path)
        if gone := self._held.keys() - noted.keys():
            raise self._lost(min(gone))
        for name, stamp in reversed(noted.items()):
            if self._copied.get(name) == stamp or (grows(name) and not whole):
                continue
            try:
                content, stamp = content_of(self._run.path / name, stamp)
            except FileNotFoundError:
                if name in self._held:
                    raise self._lost(name) from None
                continue
            if name in self._held and not self._held[name].is_start_of(content):
                raise self._lost(name)
            self._remote.write(name, content)
            self._copied[name] = stamp
            if is_records(name):
                self._held[name] = Held.of(content)
            self._writes += 1
            if self._marked is None or time.time() > self._marked.copied + EVERY_S:
                self._hold(self._remote)
        self._mark()
        if not whole:  # the records there may still name weights that are gone here
            return
        grown = sum(size for name, (size, _) in noted.items() if grows(name))
        self._next = time.monotonic() + interval_s(grown)
        for name in list(self._copied):
            if name.startswith(f"{WEIGHTS}/") and name not in noted and Path(name).name not in kept:
                self._remote.delete(name)
                del self._copied[name]

    def _hold(self, remote: RemoteFolder) -> None:
        """Mark the folder as this driver's; raises `InputError` when it is another's."""
        marker = remote.marker()
        if marker is None or self._marked is None:
            found = _check_takeover(remote, self._run)
            self._held = {name: Held.of(content) for name, content in found.items()}
            # Of what is there, weights alone are ever deleted.
            there = [name for name in remote.names() if name.startswith(f"{WEIGHTS}/") and not remote.is_linked(name)]
            self._copied = dict.fromkeys(there, (-1, -1))
        elif not marker.is_driver(self._marked):
            raise InputError(
                f"the replica {self._uri} was taken over: {marker.host} (process {marker.pid}) copies to it"
            )
        self._mark()

    def _lost(self, name: str) -> InputError:
        held = self._held[name].size
        return InputError(
            f"{self._run.path / name}: no longer holds the {held} bytes that the replica {self._uri} has of it; that keeps them"
        )

    def _mark(self, closed: bool = False) -> None:
        assert self._remote is not None
        marker = replace(Marker.of(self._run, EVERY_S), closed=closed)
        self._remote.mark(marker)
        self._marked = marker


def _is_passing(path: Path) -> bool:
    """Whether a file is a lock, a request to stop, or a temporary one (Optuna locks by a link called study.journal.lock).

    So is what a training keeps until its end: large, and its checkpoint written again and again.
    """
    return path.name.startswith(".") or path.name == STOP or ".lock" in path.name or path.suffix in (CHECKPOINT, START)
