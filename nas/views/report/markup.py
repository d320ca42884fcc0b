"""HTML that is safe by construction: whatever is not `Html` already is escaped when it is put into an element."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_VOID = {"br", "wbr", "img", "meta", "link", "input"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def join(parts: Iterable[object], between: object = "") -> Html:
    """The parts one after another, those that are not `Html` escaped."""
    return Html(_escaped(between).join(_escaped(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: str) -> Html:
    """An element; attribute names may end in `_` (class_), and inner underscores become hyphens."""
    words = [name, *(f'{key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())]
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    numeric: Sequence[str] = (),
    class_: str = "",
    stacks: bool = False,
) -> Html:
    """A table in a box that scrolls sideways; the columns named in `numeric` are aligned to the right.

    One that `stacks` becomes a list of cards on a narrow page, where each cell shows its column's name.
    """

    def cell(kind: str, name: str, value: object) -> Html:
        attributes = {"class": "number"} if name in numeric else {}
        if stacks and kind == "td":
            attributes["data-label"] = name
        return tag(kind, value, **attributes)

    def line(kind: str, values: Sequence[object]) -> Html:
        return tag("tr", *(cell(kind, name, value) for name, value in zip(head, values, strict=True)))

    body = tag("tbody", *(line("td", row) for row in rows))
    return tag(
        "div",
        tag("table", tag("thead", line("th", head)), body, class_=f"{class_} cards" if stacks else class_),
        class_="scroll",
    )


def facts(rows: Iterable[tuple[str, object]], class_: str = "facts") -> Html:
    """A list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), class_=class_)


def _escaped(part: object) -> str:
    return part if isinstance(part, Html) else escape(str(part))
