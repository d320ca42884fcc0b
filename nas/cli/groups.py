"""Options that belong together, as one value: the fields of a frozen dataclass are declared as parameters of a command are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it, by its signature (PEP 362): the fields of a dataclass in the place of each group.

    The order of options is that of parameters and, within a group, of fields. A group may hold groups.
    """

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        command(**_arguments(command, given))

    flat.__signature__ = inspect.Signature(_parameters(command))  # type: ignore[attr-defined]
    return flat


def _parameters(owner: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a command or of a group, flat."""
    found: list[inspect.Parameter] = []
    for name, kind in _kinds(owner).items():
        own = inspect.signature(owner).parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        found += _parameters(kind) if _is_group(kind) else [own]
    return found


def _arguments(owner: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a command or a group takes, of the flat arguments."""
    return {
        name: kind(**_arguments(kind, given)) if _is_group(kind) else given[name]
        for name, kind in _kinds(owner).items()
    }


def _is_group(kind: Any) -> bool:
    return is_dataclass(kind)


def _kinds(owner: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(owner, include_extras=True)
    return {name: hints[name] for name in inspect.signature(owner).parameters}
