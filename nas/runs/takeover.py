"""Whether a run may be copied to a folder: it is empty, or holds this run, no more of it, and nobody else copies to it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from nas.common.errors import InputError, arg
from nas.common.text import cut, printable
from nas.runs.copied import is_records
from nas.runs.layout import GROWING
from nas.runs.parts import Joined, joined
from nas.runs.remote_folder import Marker, RemoteFolder
from nas.runs.store import RunDirectory


def check_takeover(remote: RemoteFolder, run: RunDirectory, every_s: float) -> dict[str, Joined]:
    """The records that it holds, by file; raises `InputError` unless the folder is empty, or holds this run, no more of it,
    and nobody else copies to it.
    """
    marker, mine, uri = remote.marker(), Marker.of(run, every_s), run.settings.replica
    if marker is None:
        check_empty(uri, remote.names())
        return {}
    if (marker.created, marker.started_on) != (mine.created, mine.started_on):
        raise InputError(
            f"{arg('replica')} {uri}: another run is there, started on {cut(printable(marker.started_on))}; give another prefix"
        )
    # Whoever holds the lock of the run directory knows that no other driver on this host goes on with it.
    if marker.wait_s and (marker.host, marker.folder) != (mine.host, mine.folder):
        raise InputError(f"{arg('replica')} {uri}: {held_by(marker)}")
    names = remote.names_unlinked()
    found = {name: joined(name, names, remote.read) for name in sorted(GROWING) if is_records(name)}
    for name, there in found.items():
        here = run.path / name
        if there.beyond:
            raise InputError(f"{arg('replica')} {uri}: {broken(there)}; give another prefix")
        if not (here.read_bytes() if here.is_file() else b"").startswith(there.content):
            raise InputError(
                f"{arg('replica')} {uri}: its {name} has lines that {run.path} lacks, since the run went on elsewhere; "
                f"go on from there with {arg('resume')} {uri}"
            )
    return found


def check_empty(uri: str | None, names: Sequence[str]) -> None:
    """Raise `InputError` where files are there, but no run."""
    if names:
        raise InputError(
            f"{arg('replica')} {uri}: files are there that no search copied ({names_text(names)[0]}); give an empty prefix"
        )


def names_text(names: Iterable[str]) -> list[str]:
    """Names of files that lie there, which anybody may have chosen, to be shown."""
    return [cut(printable(name)) for name in sorted(names)]


def held_by(marker: Marker) -> str:
    """Who copies to it, and how long it has to be waited for."""
    ago = max(0.0, time.time() - marker.copied)
    return (
        f"{cut(printable(marker.host))} (process {marker.pid}, {cut(printable(marker.folder), 300)}) is searching on this run and copied to the replica "
        f"{ago:.0f} s ago; if that search is dead, try again in {marker.wait_s + 1:.0f} s"
    )


def broken(found: Joined) -> str:
    """What is wrong with a file that grows where parts of it cannot be joined."""
    return f"{min(found.beyond)} there was cut, or what comes before it is missing"
