"""Whose code may run: what a file of somebody else's names as `module:name` is not loaded unasked.

Whoever reads such a file says so here, and whose it is, before anything that it names is loaded. Of one's own file the names are taken, of any other
none: they are asked about, or refused. So are families of networks that records or exported folders name beside those. Names on the
command line, or loaded before such a file was read, are the user's own. Places that such a file would have written to are
asked about likewise. Whose a file is whoever knows its kind decides: a run is one's
own where this user's list has it (`nas.runs.run_file`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.common.errors import NotHereError
from nas.common.jsonl import append_line
from nas.common.text import printable, quoted
from nas.common.user_cache import user_cache
from nas.common.yaml_file import each_value

VARIABLE = "NAS_TRUST"
"""Set to 1, nothing is asked: what files name is loaded, and written to, whosever they are."""
FAMILY = "family of networks"
_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")


@dataclass(frozen=True)
class _Foreign:
    """A file of somebody else's: the names in it, and the mark by which the user's list would know it, where it has one."""

    names: frozenset[str]
    mark: str | None


_foreign: dict[str, _Foreign] = {}
"""By a sentence's beginning that says what they are."""
_opened: dict[str, None] = {}
"""What was read, each once, in that order: a page opens a run again and again."""
_accepted: set[str] = set()
_asked: Callable[[str], bool] | None = None


def ask_by(ask: Callable[[str], bool]) -> None:
    """Have somebody asked, rather than refuse: `ask` gets a sentence, and says whether the module may run."""
    global _asked
    _asked = ask


def names_in(data: Any) -> frozenset[str]:
    """All `module:name`s among the values of plain data."""
    return frozenset(filter(_NAME.fullmatch, _texts(data)))


def may_name(data: Any) -> bool:
    """Whether a value of plain data might load a module: more than are names, since what only begins like one may do so too."""
    return any(":" in text for text in _texts(data))


def note_file(what: str, file: Path, data: Any, whose: str | None, mark: str | None = None) -> None:
    """`what` lies in a file is read, plain data whose modules may have to be loaded; `whose` it is where it is not this user's.

    Where somebody is asked about its names and agrees to all, the user's list has its `mark` from then on.
    """
    if _trusts_all():
        return
    if whose is None:
        _accepted.update(names_in(data))
    else:
        _foreign[f"{file} ({whose}) is not {what} of yours"] = _Foreign(names_in(data), mark)


def note_opened(path: Path) -> None:
    """Something is read whose records, or whose architecture, may name a family of networks."""
    if not _trusts_all():
        _opened[str(path)] = None


def check_module(what: str, name: str) -> None:
    """Raise `InputError` where `module:name` may have been named by a file of somebody else's, and nobody says that it may run."""
    where = _foreign or (_opened if what == FAMILY else {})
    if not where or _trusts_all() or name in _accepted or _is_given(name):
        _accepted.add(name)
        return
    why = ", and this" if _foreign else " may name it, which"
    sentence = f"{what} {quoted(name)}: {next(reversed(where))}{why} would run code"
    if _asked is None or not _asked(f"{sentence}. Run it?"):
        raise NotHereError(f"{sentence}; look at that module, then set {VARIABLE}=1")
    _accepted.add(name)
    for foreign in _foreign.values():
        if foreign.mark and foreign.names <= _accepted:
            note_own(foreign.mark)


def check_place(what: str, place: str, source: str, mark: str, instead: str) -> None:
    """Raise `InputError` where a file of somebody else's, the `source`, says where to write, and nobody says that it may.

    Once that was agreed to the user's list has its `mark`; `instead` says what else would do.
    """
    if _trusts_all() or is_own(mark):
        return
    sentence = f"{what} {printable(place)}: {source}, and this would be written to"
    if _asked is None or not _asked(f"{sentence}. Write there?"):
        raise NotHereError(f"{sentence}; look at that place, then set {VARIABLE}=1, or {instead}")
    note_own(mark)


# ---------------------------------------------------------------- whose


def other_owner(*paths: Path, root_too: bool = False) -> str | None:
    """Whose the first of some files is that is not this user's (nor, if `root_too`, root's), in words; None where all are."""
    ours = {os.getuid(), 0} if root_too else {os.getuid()}
    owners = (path.lstat().st_uid for path in paths)
    return next((f"of user {owner}" for owner in owners if owner not in ours), None)


def note_own(mark: str) -> None:
    """Have the user's list know a mark from now on; where there is no home nothing is remembered."""
    if not _trusts_all() and not is_own(mark):
        with suppress(OSError, RuntimeError):
            file = _own_list()
            file.parent.mkdir(parents=True, exist_ok=True)
            append_line(file, mark)


def is_own(mark: str) -> bool | None:
    """Whether the user's list has a mark; None where there is no place for a list."""
    try:
        file = _own_list()
        if not file.exists():
            there = next(folder for folder in file.parents if folder.exists())
            return False if there.is_dir() and os.access(there, os.W_OK) else None
        return mark in file.read_text(encoding="ascii").split()
    except (OSError, RuntimeError, ValueError):
        return None


def _own_list() -> Path:
    return user_cache() / "own-runs"


def _is_given(name: str) -> bool:
    """Whether the command line has it as the value of an option, or as a part of one; a folder may be called so too."""
    values = (argument for argument in sys.argv[1:] if not os.path.lexists(argument))
    return any(name in (part, part.removeprefix("mode:")) for value in values for part in re.split("[=,]", value))


def _texts(data: Any) -> Iterator[str]:
    return (value for _, value in each_value(data) if isinstance(value, str))


def _trusts_all() -> bool:
    return os.environ.get(VARIABLE) == "1"
