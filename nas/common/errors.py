"""The kinds of error that the project raises on purpose, and the word that was meant where one is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_MARK = "\u2060"
"""Around the name of an argument in a message: it has no width and no meaning where it is shown after all."""
_MARKED = re.compile(rf"{_MARK}([\w.=]+){_MARK}")


def arg(name: str) -> str:
    """An argument, or one with a value, named in a message or note: whoever prints that calls it as it was given.

    >>> str(InputError(f"{arg('max_macs')} 0: must be above 0"))
    'max_macs 0: must be above 0'
    >>> InputError(f"{arg('max_macs')} 0: must be above 0").named(lambda name: f"--{name.replace('_', '-')}")
    '--max-macs 0: must be above 0'
    """
    return f"{_MARK}{name}{_MARK}"


def named(text: str, called: Callable[[str], str] = str) -> str:
    """A text with its arguments called what `called` gives for their names, by default as in Python.

    >>> named(f"more {arg('epochs')}"), named(f"more {arg('epochs')}", lambda name: f"--{name}")
    ('more epochs', 'more --epochs')
    """
    return _MARKED.sub(lambda found: called(found[1]), text)


class _NamingError(Exception):
    """Its message speaks of arguments of the function that raises it, or of the settings, by `arg`."""

    @property
    def marked(self) -> str:
        """The message with its arguments marked, for a message around it."""
        return super().__str__()

    def named(self, called: Callable[[str], str] = str) -> str:
        """The message, each argument called what `called` gives for its name."""
        return named(self.marked, called)

    def __str__(self) -> str:
        return self.named()


class InputError(_NamingError, ValueError):
    """Something the user gave is not usable; the message is a sentence fit to print, or several, a line each (exit code 2)."""


class NotHereError(InputError):
    """What a name of somebody else's means is not to be had here: it is not installed, does not load, or may not run."""


@contextmanager
def about(argument: str) -> Iterator[None]:
    """Errors raised meanwhile say which argument they are about, unless they begin with one.

    >>> with about("data"):
    ...     raise InputError("unknown data set 'digit'")
    Traceback (most recent call last):
    nas.common.errors.InputError: data: unknown data set 'digit'
    """
    try:
        yield
    except InputError as error:
        if error.marked.startswith(_MARK):
            raise
        raise type(error)(f"{arg(argument)}: {error.marked}") from error


class TakenOverError(InputError):
    """Another driver goes on with the run of this one, which may change nothing of it any more."""


class CandidateError(RuntimeError):
    """One candidate cannot be trained or measured; it becomes a failed trial with this reason."""


class OutOfTimeError(RuntimeError):
    """The time that a training may take is over, in the middle of it; what it gave until then is kept."""


class LostError(RuntimeError):
    """What a trial needs is gone (a process, a node), by no fault of the candidate; the trial is lost and tried again."""


class NoSpaceError(LostError):
    """The disk of the run directory is full, so that whatever is trained next would be lost as well."""


class WrongNodeError(LostError):
    """A worker started on a `node` whose device is another model than the search's; its trial is handed to another one."""

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message, node)
        self.message, self.node = message, node

    def __str__(self) -> str:
        return self.message


class ExportError(_NamingError, RuntimeError):
    """What was exported is not right, or cannot be had here; nothing of it is left behind (exit code 1)."""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that is nearest to an unknown one, whatever its case; None where none is near."""
    spelled = {each.lower(): each for each in known}
    found = difflib.get_close_matches(str(word).lower(), spelled, 1)
    return spelled[found[0]] if found else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The known word that is nearest to an unknown one, in parentheses behind a space; nothing where none is near."""
    near = nearest(word, known)
    return f" (did you mean {near!r}?)" if near else ""
