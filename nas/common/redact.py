"""Passwords in URLs: they belong in the environment or a file of the client's own, and are never kept by a run."""

from __future__ import annotations

import re

_IN_AUTHORITY = re.compile(r"(?<=://)([^:/@?]*):[^@]*(?=@)")
_IN_QUERY = re.compile(r"(?<=[?&])(?:\w*password|\w*secret\w*|\w*token|\w*_key|passwd|pwd|odbc_connect)=[^&]*&?", re.I)


def without_password(text: str) -> str:
    """A URL, or a text with one in it, without the passwords in its authority and query."""
    shorter = _IN_QUERY.sub("", _IN_AUTHORITY.sub(r"\1", text))
    return shorter.rstrip("?&") if shorter != text else text


def has_password(url: str) -> bool:
    """Whether a URL holds a password."""
    return without_password(url) != url
