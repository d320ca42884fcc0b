"""The licence of a data set, where a file at the top of its folder or archive tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

NOTICE_BYTES = 1 << 16
"""So much of such a file is read."""
_LICENCE_FILE = re.compile(r"(un)?licen[cs]e([._-].*)?|copying([._-].*)?", re.IGNORECASE)
_README_FILE = re.compile(r"readme([._-].*)?", re.IGNORECASE)
_SPDX = re.compile(r"SPDX-License-Identifier:\s*(.+)")
_STATED = re.compile(r"^\W*licen[cs]e\W*[:=](.+)$|^#+\s*licen[cs]e\W*\n\s*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_LONGEST = 120


def is_notice(file: PurePosixPath) -> bool:
    """Whether a file may tell the licence, by its place (in the folder, or in a single folder inside it) and its name."""
    return len(file.parts) <= 2 and any(kind.fullmatch(file.name) for kind in (_LICENCE_FILE, _README_FILE))


def licence_in(notices: Mapping[str, bytes], folder: str) -> str | None:
    """The file of `folder` (or of the top) that tells a licence, and its title: `LICENSE: MIT License`; None without one.

    `notices` are the beginnings of files by relative path.
    """
    here = [PurePosixPath(file) for file in sorted(notices) if file.rpartition("/")[0] in ("", folder)]
    for kind, find in ((_LICENCE_FILE, _title), (_README_FILE, _stated)):
        for file in here:
            if kind.fullmatch(file.name):
                text = notices[file.as_posix()].decode("utf-8-sig", "replace")
                found = _plain(find(text))
                if found:
                    return f"{file.name}: {found}"
    return None


def _title(text: str) -> str:
    if identifier := _SPDX.search(text):
        return identifier[1]
    lines = [line.strip() for line in text.splitlines() if line.strip(" \t#*=-_")]
    if len(lines) > 1 and lines[1].startswith("Version"):  # of the Apache licence and those of GNU
        return f"{lines[0]}, {lines[1]}"
    return lines[0] if lines else ""


def _stated(text: str) -> str:
    found = _STATED.search(text)
    return (found[1] or found[2]) if found else ""


def _plain(text: str) -> str:
    """In one short line without Markdown's marks and anything that a terminal obeys."""
    line = "".join(character for character in text if character.isprintable()).strip(" \t#*=-_`'\"")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…"
