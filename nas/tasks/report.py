"""How a network does on a whole split of the data, and the plain tables of it that a page and a terminal lay out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class Change:
    """A value now, and as it was before a training where that is known; None is a value that is not there."""

    before: float | None
    after: float | None


Cell: TypeAlias = str | int | float | tuple[str, str] | Change | None
Kind: TypeAlias = Literal["text", "pair", "share", "number", "count"]


def numbers_text(found: Any, most: int = 4) -> str:
    """The first numbers of a row, or the number that it is."""
    values = [found] if isinstance(found, int | float) else found.flatten().tolist()
    return " ".join(f"{value:.4g}" for value in values[:most]) + (" …" if len(values) > most else "")


@dataclass(frozen=True)
class Column:
    """A column: texts, pairs of texts (a → b), shares of 1, numbers, or counts; shares and numbers may be a `Change`."""

    name: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Rows of cells as their columns say; the last `totals` of them sum up the others."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    totals: int = 0


@dataclass(frozen=True)
class Matrix:
    """How many of what is truly `names[i]` was taken for `names[j]`: `counts[i][j]`."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Example:
    """An image of the validation split, by its number there: its target and what a network found, in words, and the loss."""

    image: int
    target: str
    found: str
    loss: float


@dataclass(frozen=True)
class ScoreReport:
    """The task's own score of so many images, all that it has, and the same by class where it has classes."""

    images: int
    score: float
    scores: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def tables(self, before: ScoreReport | None) -> Sequence[Table | Matrix]:
        """What to show of it, beside what it was `before` a training."""
        earlier = before.scores if before else {}
        scores = tuple((name, Change(earlier.get(name), value)) for name, value in self.scores.items())
        found = [Table((Column("score"), Column("value", "number")), scores)]
        if self.by_class:
            names = tuple(dict.fromkeys(name for each in self.by_class.values() for name in each))
            rows = tuple((kind, *(each.get(name) for name in names)) for kind, each in self.by_class.items())
            found.append(Table((Column("class"), *(Column(name, "number") for name in names)), rows))
        return found
