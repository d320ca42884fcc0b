"""The two kinds of error that the project raises on purpose."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is not usable; the message is one sentence fit to print (exit code 2)."""


class CandidateError(RuntimeError):
    """One candidate cannot be trained or measured; it becomes a failed trial with this reason."""
