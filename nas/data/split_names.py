"""Which part of a data set the name of a folder says that it holds: `train`, `Testing`, `seg_pred`, `validation_set`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names that a part may have as they are."""
SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
"""What the parts are called in sentences."""
_WORDS = {**SPLIT_NAMES, "training": "train", "testing": "test"}
_OTHER_WORDS = {
    "dev": ("val",),
    "development": ("val",),
    "eval": ("test", "val"),
    "evaluation": ("test", "val"),
    "holdout": ("test", "val"),
}
"""Words that mean one part to some and another to others, and the parts that they may be, the likelier first."""
_EMPTY = frozenset(
    [
        "set",
        "data",
        "dataset",
        "split",
        "part",
        "subset",
        "folder",
        "seg",
        "cls",
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
        "samples",
    ]
)
"""Words beside the part's own that say nothing."""


@dataclass(frozen=True)
class Named:
    """A folder whose name may be that of a part: of which, the likelier first, and how plainly (0: as it is)."""

    parts: tuple[str, ...]
    rank: int


def split_names(names: Sequence[str]) -> dict[str, Named]:
    """Those of the folders' names that say which part they hold.

    A word that all of these share says nothing either: `pets_train` and `pets_test` are `train` and `test`.
    """
    words = {name: _words(name) for name in names}
    like_splits = {name: found for name, found in words.items() if any(map(_is_split, found))}
    shared = (
        {word for word in set.intersection(*map(set, like_splits.values())) if not _is_split(word)}
        if (len(like_splits) > 1)
        else set()
    )
    named = {}
    for name, found in like_splits.items():
        own = [word for word in found if word not in _EMPTY | shared]
        if name in SPLIT_NAMES:
            named[name] = Named((SPLIT_NAMES[name],), 0)
        elif len(own) == 1 and own[0] in _WORDS:
            named[name] = Named((_WORDS[own[0]],), 1)
        elif len(own) == 1 and own[0] in _OTHER_WORDS:
            named[name] = Named(_OTHER_WORDS[own[0]], 2)
    return named


def plain_split(name: str) -> str | None:
    """The part that a folder's name says plainly, whatever lies beside it: that of `Training` and `test_set`."""
    found = split_names([name]).get(name)
    return found.parts[0] if found is not None and found.rank < 2 else None


def assigned(named: Mapping[str, Named]) -> dict[str, str]:
    """The name of each part's folder, by part; the plainest name wins.

    Raises `ValueError` with the two names where they are equally plain.
    """
    folders: dict[str, str] = {}
    for part in SPLIT_WORDS:
        plain = sorted((found.rank, name) for name, found in named.items() if found.rank < 2 and part in found.parts)
        if len(plain) > 1 and plain[0][0] == plain[1][0]:
            raise ValueError(plain[0][1], plain[1][1])
        if plain:
            folders[part] = plain[0][1]
    for name, found in sorted(named.items()):
        free = [part for part in found.parts if part not in folders]
        if found.rank == 2 and free:
            folders[free[0]] = name
    return folders


def says_nothing(name: str) -> bool:
    """Whether a folder's name has no word of its own: `images`, `data`."""
    words = _words(name)
    return bool(words) and all(word in _EMPTY for word in words)


def _is_split(word: str) -> bool:
    return word in _WORDS or word in _OTHER_WORDS


def _words(name: str) -> list[str]:
    """The words of a name in lower case: `seg_trainSet` is seg, train and set; `trainset` is train and set."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    return [part for word in words for part in _taken_apart(word)]


def _taken_apart(word: str) -> list[str]:
    if _is_split(word):
        return [word]
    ends = [end for end in _EMPTY if _is_split(word.removesuffix(end))]
    return [word.removesuffix(ends[0]), ends[0]] if ends else [word]
