"""Whose code may run: what a run of somebody else's names as `module:name` is not loaded unasked.

A run is one's own where this user started it on this host, or where the user's cache knows that it was started by them (another node with the
same home). Names that stand on the command line, or were loaded before such a run was opened, are the user's own.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nas.common.errors import InputError
from nas.common.jsonl import append_line
from nas.common.user_cache import user_cache

VARIABLE = "NAS_TRUST"
"""Set to 1, nothing is asked: what runs name is loaded, whoever started them."""
_foreign: list[str] = []
_accepted: set[str] = set()
_asked: Callable[[str], bool] | None = None


def ask_by(ask: Callable[[str], bool]) -> None:
    """Have somebody asked, rather than refuse: `ask` gets a sentence, and says whether the module may run."""
    global _asked
    _asked = ask


def note_own(created: float, host: str) -> None:
    """Remember that this user started a run; where there is no home nothing is remembered."""
    if not _trusts_all():
        with suppress(OSError, RuntimeError):
            file = _own_runs()
            file.parent.mkdir(parents=True, exist_ok=True)
            append_line(file, _mark(created, host))


def note_opened(path: Path, created: object, host: object) -> None:
    """A run is read whose modules may have to be loaded; `created` and `host` are what its run.yaml says."""
    if _trusts_all():
        return
    owner, here = path.stat().st_uid, socket.gethostname()
    if owner == os.getuid() and host == here:
        return
    with suppress(OSError, RuntimeError):
        if _mark(created, host) in _own_runs().read_text(encoding="ascii").split():
            return
    whose = f"of user {owner}" if owner != os.getuid() else f"started on {str(host)[:60]!a}"
    _foreign.append(f"{path} ({whose})")


def check_module(what: str, name: str) -> None:
    """Raise `InputError` where `module:name` may have been named by a run of somebody else's, and nobody says that it may run."""
    if not _foreign or _trusts_all() or name in _accepted or any(name in argument for argument in sys.argv[1:]):
        _accepted.add(name)
        return
    sentence = f"{what} {name!r}: {_foreign[-1]} is not a run of yours, and this would run code that it names"
    if _asked is None or not _asked(f"{sentence}. Run it?"):
        raise InputError(f"{sentence}; look at that module, then set {VARIABLE}=1")
    _accepted.add(name)


def _trusts_all() -> bool:
    return os.environ.get(VARIABLE) == "1"


def _own_runs() -> Path:
    return user_cache() / "own-runs"


def _mark(created: object, host: object) -> str:
    return hashlib.sha256(f"{created!r} {host!r}".encode()).hexdigest()[:32]
