"""A run directory copied behind, to an object store or any other file system that pyarrow or fsspec reaches.

A thread of the driver copies what changed. The search never waits for it: a replica that does not answer is a warning.
What refers to something is noted before it and copied after it (study, records, weights), so that a replica at any
instant can be resumed: it may be behind, but its study knows no trial that its records lack. Of files that only grow the whole
lines that are new are copied, as parts (`nas.runs.parts`), and all in one at the end; records that lost something are never
copied over what is there. A marker names the driver that copies, so that no two write to one replica.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nas.common.errors import InputError, arg
from nas.common.redact import has_password, without_password
from nas.common.text import cut, listed, plural, printable, quoted, resume_line, time_text
from nas.runs.copied import Stamp, content_of, is_records, noted_files
from nas.runs.layout import (
    CHECKPOINT,
    GROWING,
    PARTS,
    RUN_FILE,
    START,
    STATE,
    STOP,
    STUDY,
    TRIALS,
    WEIGHTS,
    is_kept,
    part_of,
    stays_below,
)
from nas.runs.links import linked_names
from nas.runs.parts import Parts, end_of, joined, next_step
from nas.runs.remote_folder import MARKER, Marker, RemoteFolder
from nas.runs.store import RunDirectory, open_run
from nas.runs.takeover import broken, check_empty, check_takeover, held_by, names_text

EVERY_S = 30.0
"""Seconds between two copies of what changed."""
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
    check_empty(uri, names)
    _probe(arg("replica"), uri, remote)


def check_replica(run: RunDirectory) -> None:
    """Raise `InputError` unless a run that goes on can go on copying to its replica."""
    uri = run.settings.replica
    if uri is None:
        return
    try:
        remote = _reached(arg("replica"), uri)
        _answer(arg("replica"), uri, lambda: check_takeover(remote, run, EVERY_S))
        _probe(arg("replica"), uri, remote)
    except InputError as error:
        raise InputError(f"{error.marked} (or copy no more: {arg('replica')} {OFF} beside {arg('resume')})") from error


def fetch_run(uri: str, out: Path, goes_on_there: bool = False) -> None:
    """Copy the run of a replica into a new folder, whole or not at all; `goes_on_there` where it is to be copied back.

    Raises `InputError` when no run is there, a driver elsewhere goes on with it, or records there cannot be gone on with.
    """
    remote = _reached(arg("resume"), uri)
    every = _answer(arg("resume"), uri, remote.names)
    if outside := [name for name in every if not stays_below(name)]:
        raise InputError(f"{arg('resume')} {uri}: {quoted(outside[0])} there is no name that a run gives a file")
    names = remote.names_unlinked()
    kept = list(filter(is_kept, names))
    if RUN_FILE not in kept or TRIALS not in kept:
        raise InputError(f"{arg('resume')} {uri}: no run is there (no run.yaml and trials.jsonl)")
    marker = _answer(arg("resume"), uri, remote.marker)
    if marker is not None and marker.wait_s:
        raise InputError(f"{arg('resume')} {uri}: {held_by(marker)}")
    if marker is not None and marker.is_ahead and not marker.closed:
        logger.warning(
            "%s: was last copied to at %s, by a clock that is wrong; its search is taken for dead",
            uri,
            time_text(marker.copied),
        )
    if out.exists():
        raise InputError(f"{arg('out')} {out}: exists already; give another {arg('out')}, or {arg('resume')} {out}")
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        for name in sorted(kept, key=lambda name: name not in GROWING):  # which may be refused
            content = _joined(remote, uri, name, names, goes_on_there) if name in GROWING else remote.read(name)
            if content is not None:
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
        if (now := remote.marker()) is not None and now != marker:
            raise InputError(f"{arg('resume')} {uri}: {held_by(now)}")
        (partial / WEIGHTS).mkdir(exist_ok=True)
        open_run(partial)
        partial.rename(out)
        known = {name for name in names if name in (MARKER, STATE) or part_of(name) or _is_passing(Path(name))}
        others = set(every) - set(kept) - known
        if others:
            logger.warning("%s: left out what is no part of a run: %s", uri, listed(names_text(others), 5))
    except InputError:
        raise
    except Exception as error:  # file systems of fsspec's raise their own
        raise InputError(f"{arg('resume')} {uri}: cannot be copied to {out}: {_short(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _joined(remote: RemoteFolder, uri: str, name: str, names: Sequence[str], goes_on_there: bool) -> bytes:
    """A file that grows, as far as a replica has it. Where parts of it are missing a warning says so; raises `InputError` where
    records are to go on there all the same.
    """
    found = joined(name, names, remote.read)
    if found.beyond and goes_on_there and is_records(name):
        raise InputError(
            f"{arg('resume')} {uri}: {broken(found)}, so that nothing more can be copied there; go on from byte "
            f"{len(found.content)} of {name} with {arg('replica')} {OFF}, or {arg('replica')} and an empty prefix"
        )
    if found.beyond:
        logger.warning("%s: %s; taken up to byte %d", remote.root, broken(found), len(found.content))
    return found.content


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
    if failures and isinstance(failures[0], UnicodeDecodeError):
        raise InputError(f"{flag} {uri}: {_short(failures[0])}; rename or delete that file")
    why = _short(failures[0]) if failures else f"no answer within {PATIENCE_S:g} s"
    raise InputError(f"{flag} {uri}: cannot be used: {why}; {_ALLOWED}")


def _short(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):  # pyarrow's, of a path
        return f"the name {cut(repr(error.object), 300)} there is not in UTF-8"
    return printable(" ".join(str(error).split())[:300]) or type(error).__name__


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


class _Copier(threading.Thread):
    """Copies what changed in a run directory, again and again. Knows what of it the replica has."""

    def __init__(self, run: RunDirectory, uri: str) -> None:
        super().__init__(name="replica", daemon=True)
        self._run, self._uri = run, uri
        self._remote: RemoteFolder | None = None
        self._marked: Marker | None = None  # what this driver last wrote there
        self._copied: dict[str, Stamp] = {}
        self._held: dict[str, Parts] = {}  # of files that grow
        self._spare: set[str] = set()  # parts that are of no more use
        self._writes = 0
        self._given_up = False
        self._end = threading.Event()

    def run(self) -> None:
        """Until told to end, or until the replica is found to be somebody else's."""
        last, wait_s, failing = False, 0.0, False
        while not last:
            last, wait_s = self._end.wait(wait_s), EVERY_S
            try:
                self._copy()
                if last:
                    self._join_parts()
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

    def _copy(self) -> None:
        """Copy what changed, and then delete what is of no more use: weights that are gone, parts that others took in.

        Raises `InputError` when another driver copies, or records lost something.
        """
        self._remote = self._remote or RemoteFolder.at(self._uri)
        self._hold(self._remote)
        kept = {path.name for path in (self._run.path / WEIGHTS).glob("*")}  # by the records noted next, or older
        noted = noted_files(self._run.path)
        for name in self._held.keys() - noted.keys():
            self._lost(name)
        for name, stamp in reversed(noted.items()):
            if self._copied.get(name) == stamp:
                continue
            try:
                if name in GROWING:
                    self._add_to(name, stamp[0])
                else:
                    content, stamp = content_of(self._run.path / name)
                    self._write(name, content)
            except FileNotFoundError:
                self._lost(name)
                continue
            self._copied[name] = stamp
        self._mark()
        self._remove(self._spare)
        gone = {name for name in self._copied.keys() - noted.keys() if name.startswith(f"{WEIGHTS}/")}
        self._remove(name for name in gone if Path(name).name not in kept)

    def _add_to(self, name: str, size: int, whole: bool = False) -> None:
        """Copy what a file of so many bytes has come to hold: all of it in one if `whole`, or where it was replaced."""
        step = next_step(self._run.path / name, self._held.get(name, ()), size, whole)
        if step is None:
            self._lost(name)
            step = next_step(self._run.path / name, (), size)
        if step is None or step.content is None:
            return
        file = step.part.file(name)
        if file != name:
            self._spare.add(file)  # until it is known to have arrived
        self._write(file, step.content)
        self._spare.discard(file)
        self._spare.update(taken.file(name) for taken in step.taken_in)
        self._held[name] = (*step.kept, step.part)

    def _join_parts(self) -> None:
        """Have each file that grows in one, so that the replica is a run directory; the trials' before the study that knows them."""
        for name in sorted(self._held, key=is_records, reverse=True):
            self._add_to(name, end_of(self._held[name]), whole=True)
        self._remove(self._spare)
        assert self._remote is not None
        self._remote.remove_empty(PARTS)

    def _write(self, name: str, content: bytes) -> None:
        assert self._remote is not None
        self._remote.write(name, content)
        self._writes += 1
        if self._marked is None or time.time() > self._marked.copied + EVERY_S:
            self._hold(self._remote)

    def _remove(self, names: Iterable[str]) -> None:
        assert self._remote is not None
        for name in list(names):
            self._remote.delete(name)
            self._copied.pop(name, None)
            self._spare.discard(name)

    def _hold(self, remote: RemoteFolder) -> None:
        """Mark the folder as this driver's; raises `InputError` when it is another's."""
        marker = remote.marker()
        if marker is None or self._marked is None:
            found = check_takeover(remote, self._run, EVERY_S)
            self._held = {name: there.parts for name, there in found.items() if there.parts}
            self._spare = {file for there in found.values() for file in there.spare}
            # Of what is there, weights and parts alone are ever deleted.
            weights = [name for name in remote.names_unlinked() if name.startswith(f"{WEIGHTS}/")]
            self._copied = dict.fromkeys(weights, (-1, -1))
            self._forget_parts(STUDY)
        elif not marker.is_driver(self._marked):
            raise InputError(
                f"the replica {self._uri} was taken over: {cut(printable(marker.host))} (process {marker.pid}) copies to it"
            )
        self._mark()

    def _lost(self, name: str) -> None:
        """A file no longer holds what the replica has of it: raises `InputError` for records; the study was made again from them."""
        if not self._held.get(name):
            return
        if is_records(name):
            raise InputError(
                f"{self._run.path / name}: no longer holds the {end_of(self._held[name])} bytes that the replica {self._uri} has "
                "of it; that keeps them"
            )
        self._forget_parts(name)

    def _forget_parts(self, name: str) -> None:
        """Have no parts go on from what a file holds next."""
        assert self._remote is not None
        self._held.pop(name, None)
        there = self._remote.names_unlinked()
        self._remove(file for file in there if (part := part_of(file)) is not None and part.name == name)

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
