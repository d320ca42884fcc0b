"""Output where the encoding of a terminal, a pipe or a file lacks a sign: plain ones take its place."""

from __future__ import annotations

import codecs
import io
import sys

_ERRORS = "nas.plain"
_PLAIN = {
    "±": "+-", "×": "x", "÷": "/", "−": "-", "–": "-", "—": "-", "·": "*", "…": "...", "→": "->", "←": "<-", "↑": "^", "↓": "v",
    "≤": "<=", "≥": ">=", "≈": "~", "µ": "u", "μ": "u", "τ": "tau", "ρ": "rho", "√": "sqrt", "°": " degrees ", "’": "'",
    "“": '"', "”": '"', "█": "#", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip


def print_what_fits() -> None:
    """From now on what this process prints never fails for a sign that the encoding lacks: `+-` for ±, `?` for most others."""
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end
