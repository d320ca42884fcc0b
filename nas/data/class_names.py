"""Names of classes, which systems spell in several ways that look alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def normal(name: str) -> str:
    """A class's name as it is recorded: in Unicode's normal form C."""
    return unicodedata.normalize("NFC", name)


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order; older records hold names as their folders spelt them."""
    return [*map(normal, one)] == [*map(normal, other)]
