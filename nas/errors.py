"""The kinds of error that the project raises on purpose."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is not usable; the message is one sentence fit to print (exit code 2)."""


class CandidateError(RuntimeError):
    """One candidate cannot be trained or measured; it becomes a failed trial with this reason."""


class LostError(RuntimeError):
    """What a trial needs is gone (a process, a node), by no fault of the candidate; the trial is lost and tried again."""


class WrongNodeError(LostError):
    """A worker started on a node whose device is another model than the search's; its trial is handed to another one."""


class ExportError(RuntimeError):
    """What was exported is not right, or cannot be had here; nothing of it is left behind (exit code 1)."""
