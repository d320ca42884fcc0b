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

from nas.common.errors import InputError, did_you_mean
from nas.common.plugins import load_object

T = TypeVar("T")


@dataclass(frozen=True)
class Door(Generic[T]):
    """What can be had by name of one kind, `what` in a sentence; `own` says where ours are (`package.module:name`).

    `group` is that of entry points of other packages (`nas.tasks`). What is found is made once and remembered by whoever asks.

        >>> Door("sampler", "nas.samplers", {"path": "pathlib:Path"}).get("path").__name__
        'Path'
    """

    what: str
    group: str
    own: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Ours first, then those that installed packages bring, in the order of their names."""
        return (*self.own, *sorted(self._foreign().keys() - self.own.keys()))

    def get(self, name: str) -> T:
        """What the name means; raises `InputError` where it means nothing or cannot be loaded."""
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            found: T = getattr(import_module(module), attribute)
            return found
        if ":" in name:
            return load_object(self.what, name)
        foreign = self._foreign().get(name)
        if foreign is None:
            raise InputError(f"{self.unknown(name)}, or module:name of yours")
        try:
            return foreign.load()
        except Exception as error:  # importing another package may raise anything
            raise InputError(
                f"{self.what} {name!r} of {_package(foreign)} could not be loaded: {type(error).__name__}: {error}"
            ) from error

    def check(self, name: str) -> None:
        """Raise `InputError` unless the name is known; nothing of ours or of another package is loaded."""
        if name not in self.names:
            self.get(name)

    def unknown(self, name: str) -> str:
        """A sentence on a name that means nothing."""
        return f"unknown {self.what} {name!r}{did_you_mean(name, self.names)}: use one of {', '.join(self.names)}"

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def _package(point: EntryPoint) -> Any:
    return f"the package {point.dist.name}" if point.dist else "an installed package"
