"""Whose code may run: what a run of somebody else's names as `module:name` is not loaded unasked.

A run is one's own where all of it belongs to this user, and they started it on this host or their cache knows that they did elsewhere (another node with the
same home). Of one's own run the names in its run.yaml are taken, of any other none: they are asked about, or refused. So are families of networks that
records or exported folders name beside those. Names on the command line, or loaded before a run was opened, are the user's own. A run.yaml
that was forged with this host's name and copied by this user is not told apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.common.errors import InputError
from nas.common.jsonl import append_line
from nas.common.user_cache import user_cache

VARIABLE = "NAS_TRUST"
"""Set to 1, nothing is asked: what runs name is loaded, whoever started them."""
FAMILY = "family of networks"
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_foreign: dict[str, None] = {}
_opened: dict[str, None] = {}
"""What was read, each once, in that order: a page opens a run again and again."""
_accepted: set[str] = set()
_asked: Callable[[str], bool] | None = None


def ask_by(ask: Callable[[str], bool]) -> None:
    """Have somebody asked, rather than refuse: `ask` gets a sentence, and says whether the module may run."""
    global _asked
    _asked = ask


def note_own(data: Any) -> None:
    """Remember that this user started a run, given what its run.yaml holds; where there is no home nothing is remembered."""
    if not _trusts_all():
        with suppress(OSError, RuntimeError):
            file = _own_runs()
            file.parent.mkdir(parents=True, exist_ok=True)
            append_line(file, _mark(data))


def note_opened(file: Path, data: Any) -> None:
    """A run is read, whose modules may have to be loaded: its run.yaml, and what that holds."""
    if _trusts_all():
        return
    _opened[str(file.parent)] = None
    whose = _whose(file, data)
    if whose is None:
        _accepted.update(_names(data))
    else:
        _foreign[f"{file} ({whose})"] = None


def note_exported(folder: Path) -> None:
    """An exported folder is read, whose architecture may name a family of networks."""
    if not _trusts_all():
        _opened[str(folder)] = None


def check_module(what: str, name: str) -> None:
    """Raise `InputError` where `module:name` may have been named by a run of somebody else's, and nobody says that it may run."""
    where = _foreign or (_opened if what == FAMILY else {})
    if not where or _trusts_all() or name in _accepted or _is_given(name):
        _accepted.add(name)
        return
    why = "is not a run of yours, and this" if _foreign else "may name it, which"
    sentence = f"{what} {name!r}: {next(reversed(where))} {why} would run code"
    if _asked is None or not _asked(f"{sentence}. Run it?"):
        raise InputError(f"{sentence}; look at that module, then set {VARIABLE}=1")
    _accepted.add(name)


def _whose(file: Path, data: Any) -> str | None:
    """Whose run it is where it is not this user's."""
    for path in (file.parent, *sorted(file.parent.glob("*.jsonl")), file):
        owner = path.lstat().st_uid
        if owner != os.getuid():
            return f"of user {owner}"
    provenance = _provenance(data)
    host = provenance.get("host")
    if host == socket.gethostname():
        return None
    with suppress(OSError, RuntimeError):
        if _mark(data) in _own_runs().read_text(encoding="ascii").split():
            return None
    return f"started on {str(host)[:60]!a}"


def _is_given(name: str) -> bool:
    """Whether the command line has it as the value of an option, or as a part of one; a folder may be called so too."""
    values = (argument for argument in sys.argv[1:] if not os.path.lexists(argument))
    return any(name in (part, part.removeprefix("mode:")) for value in values for part in re.split("[=,]", value))


def _provenance(data: Any) -> dict[str, Any]:
    found = data.get("provenance") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _names(data: Any) -> set[str]:
    """All `module:name`s in the settings of a run.yaml."""
    return set(_texts(data.get("settings"))) if isinstance(data, dict) else set()


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _texts(value)
    elif isinstance(data, str) and _NAME.fullmatch(data):
        yield data


def _trusts_all() -> bool:
    return os.environ.get(VARIABLE) == "1"


def _own_runs() -> Path:
    return user_cache() / "own-runs"


def _mark(data: Any) -> str:
    """Of a run and the modules that it names."""
    provenance = _provenance(data)
    told = [provenance.get("created"), provenance.get("host"), sorted(_names(data))]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:32]
