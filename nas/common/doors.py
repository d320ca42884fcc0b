"""Doors: what may be added to nas without an edit of it, by name. Tasks, families of spaces, runtimes, samplers, data readers.

A name is one of ours, one that an installed package brings (an entry point of the door's group), or `module:name` of the
user's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from nas.common.errors import InputError, NotHereError, did_you_mean
from nas.common.plugins import load_named
from nas.common.text import quoted

T = TypeVar("T")


@dataclass(frozen=True)
class Door(Generic[T]):
    """What can be had by name of one kind, `what` in a sentence; `own` says where ours are (`package.module:name`).

    `group` is that of entry points of other packages (`nas.tasks`), `kind` the class that what is found has to be an
    instance of, where it has to be. What is found is remembered by whoever asks.

        >>> Door("number", "nas.numbers", {"pi": "math:pi"}, float).get("pi")
        3.141592653589793
    """

    what: str
    group: str
    own: Mapping[str, str]
    kind: type | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Ours first, then those that installed packages bring, in the order of their names."""
        return (*self.own, *sorted(self._foreign().keys() - self.own.keys()))

    def get(self, name: str) -> T:
        """What the name means; raises `InputError` where it means nothing, cannot be loaded or is of another kind."""
        found = self._load(name)
        is_class = isinstance(found, type)  # which has all that an instance has, so that a protocol would take it
        if self.kind is not None and (is_class or not isinstance(found, self.kind)):
            is_a = f"the class {found.__name__}" if is_class else type(found).__name__
            needed = f"{self.kind.__module__}.{self.kind.__qualname__}"
            raise InputError(f"{self.what} {quoted(name)}: is {is_a}, and needs to be an instance of {needed}")
        return found

    def _load(self, name: str) -> Any:
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(module), attribute)
        if ":" in name:
            return load_named(self.what, name)
        foreign = self._foreign().get(name)
        if foreign is None:
            raise NotHereError(f"{self.unknown(name)}, or module:name of yours")
        try:
            return foreign.load()
        except Exception as error:  # importing another package may raise anything
            raise NotHereError(
                f"{self.what} {quoted(name)} of {_package(foreign)} could not be loaded: {type(error).__name__}: {error}"
            ) from error

    def check(self, name: str) -> None:
        """Raise `InputError` unless the name is known; nothing of ours or of another package is loaded."""
        if name not in self.names:
            self.get(name)

    def unknown(self, name: str) -> str:
        """A sentence on a name that means nothing."""
        return f"unknown {self.what} {quoted(name)}{did_you_mean(name, self.names)}: use one of {', '.join(self.names)}"

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def _package(point: EntryPoint) -> Any:
    return f"the package {point.dist.name}" if point.dist else "an installed package"
