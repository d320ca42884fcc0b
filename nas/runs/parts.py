"""How a replica holds a file that only grows, since object stores cannot append: the file up to some line, and parts that go on from there.

Each copy adds a part, of the whole lines that are new. It takes in the first part that would be no longer than all that is behind it,
and with it all behind, the file itself being the first: so each part is longer than all behind it together, their number is at most the
binary logarithm of the bytes, and no byte is sent more often than that. What a part took in is deleted once it is there: a driver that died between
leaves parts that lie within others, which say nothing new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from nas.runs.layout import part_file, part_of


@dataclass(frozen=True)
class Part:
    """The bytes of a file from `start` up to `end`, and their digest; those from byte 0 on are the file itself."""

    start: int
    end: int
    digest: bytes

    @classmethod
    def of(cls, start: int, content: bytes) -> Part:
        """What a content is that begins at byte `start` of the file."""
        return cls(start, start + len(content), hashlib.sha256(content).digest())

    def file(self, name: str) -> str:
        """Where it lies in the replica, of the file of that name."""
        return part_file(name, self.start, self.end) if self.start else name

    def is_in(self, content: bytes, start: int) -> bool:
        """Whether a content that begins at byte `start` of the file, no later than this, has these bytes."""
        return Part.of(self.start, content[self.start - start : self.end - start]) == self


Parts = tuple[Part, ...]
"""Of a file, each beginning where the one before ends, the first at byte 0."""


def end_of(parts: Parts) -> int:
    """How many bytes of the file they hold together."""
    return parts[-1].end if parts else 0


def staying(parts: Parts, end: int) -> Parts:
    """Those that a part up to byte `end` does not take in: the first ones, as far as each is longer than all behind it."""
    return tuple(takewhile(lambda part: part.end - part.start > end - part.end, parts))


@dataclass(frozen=True)
class Step:
    """What one copy changes: of what is `held`, some `kept` parts stay, and a `content` comes behind them, if there is any news."""

    held: Parts
    kept: Parts
    content: bytes | None

    @cached_property
    def part(self) -> Part:
        """What the content is."""
        return Part.of(end_of(self.kept), self.content or b"")

    @property
    def taken_in(self) -> Parts:
        """Parts that are of no more use once the new one is there; the file itself is never one, as it is replaced."""
        return tuple(part for part in self.held[len(self.kept) :] if part.start)


def next_step(path: Path, held: Parts, size: int, whole: bool = False) -> Step | None:
    """What is to be copied of the whole lines among the first `size` bytes of a file; None where it lost something.

    `whole`: the file itself is to hold all. That the last part, and those that are taken in, are still in the file is looked at.
    Raises `OSError`.
    """
    known = end_of(held)
    with path.open("rb") as file:
        file.seek(known)
        news = file.read(max(0, size - known))
        end = known + news.rfind(b"\n") + 1
        kept = () if whole else staying(held, end)
        looked_at = held[min(len(kept), max(0, len(held) - 1)) :]
        start = looked_at[0].start if looked_at else 0
        file.seek(start)
        content = file.read(end - start)
    if len(content) < end - start or not all(part.is_in(content, start) for part in looked_at):
        return None
    if end == known and held and not (whole and len(held) > 1):
        return Step(held, held, None)
    return Step(held, kept, content[end_of(kept) - start :])


@dataclass(frozen=True)
class Joined:
    """A file as a replica holds it: its `content`, the parts that this is made of, the names of `spare` ones, which lie within
    it, and of those `beyond` it, which cannot be joined since something before them is missing or one of them was cut.
    """

    content: bytes
    parts: Parts
    spare: tuple[str, ...]
    beyond: tuple[str, ...]


def joined(name: str, names: Iterable[str], read: Callable[[str], bytes | None]) -> Joined:
    """The file of that name, from the `names` that lie in the replica, of which `read` gives the content, or None once one is gone.

    Where one is missing or cut it ends before that: it may be behind, but holds nothing that does not follow.
    """
    head = read(name)
    contents = [] if head is None else [head]
    parts: Parts = () if head is None else (Part.of(0, head),)
    found = [
        (part.start, -part.end, file) for file in names if (part := part_of(file)) is not None and part.name == name
    ]
    used = set()
    for start, end, file in sorted(found):  # of those that begin alike the longest first: it took the others in
        if start == end_of(parts) > 0 and (content := read(file)) is not None and len(content) == -end - start:
            contents.append(content)
            parts += (Part.of(start, content),)
            used.add(file)
    left = [(-end, file) for _, end, file in found if file not in used]
    spare = tuple(file for end, file in left if end <= end_of(parts))
    return Joined(b"".join(contents), parts, spare, tuple(file for end, file in left if end > end_of(parts)))
