"""Arguments of a wrong kind, as a text where a space is meant, refused where users call us rather than far within."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from nas.common.errors import InputError, arg
from nas.common.text import quoted

P = ParamSpec("P")
T = TypeVar("T")

StrPath = str | PathLike[str]
"""The place of a file or folder, as users give it."""

_NUMBERS: dict[Any, Any] = {int: Integral, float: Real}
"""Those of NumPy are taken too."""
_PLAIN = (str, bytes, int, float, PathLike, type(None))


def checks_kinds(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises `InputError` for an argument of another kind than its annotation says."""
    signature = inspect.signature(function)
    hints = functools.cache(lambda: get_type_hints(function))

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        _check(signature.bind(*args, **kwargs).arguments, hints())
        return function(*args, **kwargs)

    return checked


def check_fields(given: object) -> None:
    """Raise `InputError` where a field of a dataclass is of another kind than its annotation says."""
    kind: Any = type(given)
    _check(vars(given), _fields(kind))


_fields = functools.cache(get_type_hints)


def _check(values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise InputError(
                f"{arg(name)} {quoted(value)}: is of the kind {type(value).__name__}, and needs to be {_words(hints[name])}"
            )


def _fits(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if not isinstance(kind, type):  # a literal, say, of which others speak
        return True
    if issubclass(kind, Sequence) and kind is not str:  # a tuple may be given as a list
        return isinstance(value, Sequence) and not isinstance(value, str)
    try:
        return isinstance(value, _NUMBERS.get(kind, kind))
    except TypeError:  # a protocol that cannot be asked
        return not isinstance(value, _PLAIN)


def _words(hint: Any) -> str:
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_words, get_args(hint))))
    if kind is Literal:
        return ", ".join(map(repr, get_args(hint)))
    return {type(None): "None"}.get(kind, getattr(kind, "__name__", str(kind)))
