"""Parts and classes in what a folder or archive of images holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.class_names import normal
from nas.data_licence import licence_in
from nas.errors import InputError
from nas.image_files import Listing
from nas.image_leftovers import kinds_text, left_over
from nas.part_names import PART_NAMES, PART_WORDS, Named, assigned, part_names, says_nothing
from nas.wording import listed

SUFFIXES = ".jpg, .png, .webp or another that Pillow decodes"
_KINDS = frozenset(("image", "images", "mask", "masks", "label", "labels", "annotations", "rgb", "depth", "raw"))
"""Folders, in lower case, of which each class may have its own: where classes all hold these, they are classes."""


@dataclass(frozen=True)
class Layout:
    """Classes in the order of their labels, and by part (train, val, test) each image's relative path and label.

    `remarks` are sentences on what was guessed and on what is left out; `licence` is the file that tells the licence,
    and its title.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[tuple[str, int]]]
    remarks: tuple[str, ...] = ()
    licence: str | None = None


def find_layout(path: Path, listing: Listing) -> Layout:
    """Parts and classes of what `path` holds; images count at any depth below their class's folder.

    A test folder without classes is left out. Raises `InputError`, which names the folder that is not as it must be.
    """
    if not listing.files:
        raise InputError(f"{path}: holds no images ({SUFFIXES}){_beside(listing.others)}")
    for name in listing.files:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: {name!a}: the name of a folder or file is not UTF-8") from error
    tree = _Tree(path, listing)
    root = tree.unwrapped()
    folders, remarks = _part_folders(tree, root)
    train = tree.classes(folders["train"])
    if len(train) < 2:
        found = "none" if not train else f"only {next(iter(train))!r}"
        raise InputError(f"{path / folders['train']}: needs one folder a class, at least two; found {found}")
    parts, without_classes = {}, []
    for part, folder in folders.items():
        classes = tree.classes(folder)
        if part == "test" and not classes:
            without_classes.append(folder)
            continue
        _check_same_classes(path, folders["train"], train, folder, classes)
        parts[part] = [
            (file, label) for label, name in enumerate(train) for file in _images_of(tree, folder, classes[name])
        ]
    class_folders = {_join(folders[part], name) for part in parts for name in tree.classes(folders[part]).values()}
    remarks += _alike_remark(tree, folders["train"])
    remarks += left_over(listing, class_folders, without_classes)
    return Layout(tuple(train), parts, tuple(remarks), licence_in(listing.notices, root))


def _check_same_classes(
    path: Path, train_folder: str, train: Mapping[str, str], folder: str, classes: Mapping[str, str]
) -> None:
    unknown, missing = sorted(classes.keys() - train.keys()), sorted(train.keys() - classes.keys())
    if unknown:
        raise InputError(f"{path / folder / classes[unknown[0]]}: a class that {path / train_folder} does not have")
    if missing:
        raise InputError(f"{path / folder}: class {missing[0]!r} of {path / train_folder} is missing here")


def _images_of(tree: _Tree, folder: str, name: str) -> list[str]:
    inside = _join(folder, name)
    if not tree.below(folder).get(name):
        others = [file for file in tree.listing.others if file.startswith(f"{inside}/")]
        raise InputError(f"{tree.path / inside}: no images ({SUFFIXES}){_beside(others)}")
    return tree.below(folder)[name]


def _beside(others: Sequence[str]) -> str:
    return f"; what it holds: {kinds_text(others)}" if others else ""


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class _Tree:
    """The folders of a listing; each is given by its relative path, the top by the empty string."""

    def __init__(self, path: Path, listing: Listing) -> None:
        self.path, self.listing = path, listing
        self._inside: dict[str, list[str]] = {}
        for folder in sorted(listing.folders):
            parent, _, name = folder.rpartition("/")
            self._inside.setdefault(parent, []).append(name)
        self._with_images = {file.rpartition("/")[0] for file in listing.files}
        self._files = sorted(listing.files)
        self._below: dict[str, dict[str, list[str]]] = {}

    def inside(self, folder: str) -> list[str]:
        """The names of the folders that lie in one, sorted."""
        return self._inside.get(folder, [])

    def holds_images(self, folder: str) -> bool:
        """Whether images lie in it, folders inside it apart."""
        return folder in self._with_images

    def below(self, folder: str) -> dict[str, list[str]]:
        """The sorted images at any depth below each folder that lies in one, by its name."""
        if folder not in self._below:
            found: dict[str, list[str]] = {}
            start = _join(folder, "")
            for file in self._files:
                name, slash, _ = file.removeprefix(start).partition("/")
                if file.startswith(start) and slash:
                    found.setdefault(name, []).append(file)
            self._below[folder] = found
        return self._below[folder]

    def classes(self, folder: str) -> dict[str, str]:
        """The folders inside one by their names as classes, in the order of their names on disk.

        Raises `InputError` where two of them are the same name to a reader.
        """
        found: dict[str, str] = {}
        for name in self.inside(folder):
            if found.setdefault(normal(name), name) != name:
                raise InputError(
                    f"{self.path / folder}: two folders are named {normal(name)!r} and differ in Unicode normalisation only "
                    f"({found[normal(name)]!a} and {name!a}): put their images into one"
                )
        return found

    def unwrapped(self) -> str:
        """The folder that holds parts or classes: the top, or inside folders around everything."""
        folder = ""
        while len(inside := self.inside(folder)) == 1 and inside[0] not in PART_NAMES:
            if not self.inside(_join(folder, inside[0])):
                break
            folder = _join(folder, inside[0])
        return folder

    def within(self, folder: str) -> str:
        """The folder that holds a part's classes: itself, or one inside it that says no more, as in train/train/."""
        while len(inside := self.inside(folder)) == 1 and not self.holds_images(folder):
            deeper = _join(folder, inside[0])
            same = inside[0].casefold() == folder.rpartition("/")[2].casefold()
            if not (same or says_nothing(inside[0])):
                break
            folder = deeper
        return folder


def _part_folders(tree: _Tree, root: str) -> tuple[dict[str, str], list[str]]:
    """The folder of each part, of "train" alone where the classes lie in `root` at once; and what was guessed."""
    inside = tree.inside(root)
    like_parts = part_names(inside)
    within = {name: tree.within(_join(root, name)) for name in inside}
    named = {
        name: found
        for name, found in like_parts.items()
        if found.rank == 0 or len(tree.inside(within[name])) > 1 or len(like_parts) == len(inside)
    }
    try:
        chosen = assigned(named)
    except ValueError as error:
        first, second = error.args
        raise InputError(f"{tree.path / root}: has both {first}/ and {second}/, which name the same part") from error
    if "train" in chosen and _is_class(tree, root, chosen["train"], like_parts):
        chosen = {}
    if "train" not in chosen:
        if named and len(named) == len(inside):
            raise InputError(f"{tree.path / root}: has {', '.join(f'{name}/' for name in named)} but no train/")
        _check_classes(tree, root, like_parts)
        as_classes = [f"{name}/" for name in inside if name in like_parts]
        said = f"{listed(as_classes, 3)}: taken as {'classes' if as_classes[1:] else 'a class'}, like the folders beside it"
        return {"train": root}, [said] if as_classes else []
    classes = set(tree.classes(within[chosen["train"]]))
    if like_parts[chosen["train"]].rank > 0:
        alike = [name for name in inside if name not in named and set(tree.classes(within[name])) == classes]
        if alike:
            _refuse_alike(tree, root, [chosen["train"], *alike], classes)
    chosen = {
        part: chosen[part]
        for part in PART_WORDS
        if part in chosen and (named[chosen[part]].rank < 2 or set(tree.classes(within[chosen[part]])) == classes)
    }
    guessed = [(f"{name}/", PART_WORDS[part]) for part, name in chosen.items() if named[name].rank > 0]
    remarks = [", ".join(f"{folder} is taken as the {part} part" for folder, part in guessed)] if guessed else []
    return {part: within[name] for part, name in chosen.items()}, remarks


def _is_class(tree: _Tree, root: str, name: str, like_parts: Collection[str]) -> bool:
    """Whether a folder named train is a class (of vehicles, say): it holds images and no folders, as do those beside it."""
    others = [_join(root, other) for other in tree.inside(root) if other not in like_parts]
    folder = _join(root, name)
    return tree.holds_images(folder) and not tree.inside(folder) and any(map(tree.holds_images, others))


def _check_classes(tree: _Tree, root: str, like_parts: Mapping[str, Named]) -> None:
    """Raise `InputError` where the folders in `root` look like parts of the data and not like classes."""
    classes = tree.classes(root)
    for name in like_parts:
        both = set(tree.classes(tree.within(_join(root, name)))) & (classes.keys() - {normal(name)})
        if both:
            raise InputError(
                f"{tree.path / root / name}: named like a part of the data, and holds folders of classes that lie beside it "
                f"({listed(sorted(both), 3)}): move the latter into {tree.path / root / 'train'}, or rename {name}/"
            )
    common = _held_by_all(tree, root)
    if common and not all(name.casefold() in _KINDS for name in common):
        _refuse_alike(tree, root, list(classes.values()), common)


def _held_by_all(tree: _Tree, folder: str) -> set[str]:
    """The folders that all folders in one hold, where these are two or more and most of what they hold."""
    inside = [tree.within(_join(folder, name)) for name in tree.inside(folder)]
    held = [set(tree.classes(one)) for one in inside]
    if len(held) < 2 or all(map(tree.holds_images, inside)):
        return set()
    common = set.intersection(*held)
    return common if len(common) > 1 and 2 * len(common) >= len(set.union(*held)) else set()


def _refuse_alike(tree: _Tree, root: str, names: Sequence[str], common: Collection[str]) -> None:
    raise InputError(
        f"{tree.path / root}: {listed([f'{name}/' for name in names], 4)} hold the same folders ({listed(sorted(common), 4)}), "
        "and so look like parts of the data: name them train/, val/ and test/, or give one of them alone; if they are "
        f"classes, put them into {tree.path / root / 'train'}"
    )


def _alike_remark(tree: _Tree, folder: str) -> list[str]:
    common = _held_by_all(tree, folder)
    if not common:
        return []
    held = listed([f"{name}/" for name in sorted(common)], 4)
    return [f"each class holds {held}: the images of all of these count as the class's"]
