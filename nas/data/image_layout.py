"""Parts and classes in what a folder or archive of images holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.common.errors import InputError
from nas.common.text import listed
from nas.data.class_names import normal
from nas.data.image_files import Listing
from nas.data.image_leftovers import kinds_text, left_over
from nas.data.licence import licence_in
from nas.data.split_names import SPLIT_NAMES, SPLIT_WORDS, Named, assigned, plain_split, says_nothing, split_names

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
        self._below: dict[str, dict[str, list[str]]] = {}

    def inside(self, folder: str) -> list[str]:
        """The names of the folders that lie in one, sorted."""
        return self._inside.get(folder, [])

    def holds_images(self, folder: str) -> bool:
        """Whether images lie in it, folders inside it apart."""
        return folder in self.listing.images_in

    def is_class(self, folder: str) -> bool:
        """Whether images lie in it and no folders."""
        return self.holds_images(folder) and not self.inside(folder)

    def below(self, folder: str) -> dict[str, list[str]]:
        """The sorted images at any depth below each folder that lies in one, by its name."""
        if folder not in self._below:
            found: dict[str, list[str]] = {}
            start = _join(folder, "")
            for inside, files in self.listing.images_in.items():
                if inside.startswith(start) and inside != folder:
                    found.setdefault(inside.removeprefix(start).partition("/")[0], []).extend(files)
            self._below[folder] = {name: sorted(files) for name, files in found.items()}
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
        while len(inside := self.inside(folder)) == 1 and inside[0] not in SPLIT_NAMES:
            if not self.inside(_join(folder, inside[0])) or plain_split(inside[0]) in ("val", "test"):
                break
            folder = _join(folder, inside[0])
        return folder

    def within(self, folder: str) -> str:
        """The folder that holds a part's classes: itself, or one inside it that says no more, as in train/train/."""
        while len(inside := self.inside(folder)) == 1 and not self.holds_images(folder):
            deeper = _join(folder, inside[0])
            outer = folder.rpartition("/")[2]
            same = inside[0].casefold() == outer.casefold() or None is not plain_split(inside[0]) == plain_split(outer)
            if not (same or says_nothing(inside[0])):
                break
            folder = deeper
        return folder


def _part_folders(tree: _Tree, root: str) -> tuple[dict[str, str], list[str]]:
    """The folder of each part, of "train" alone where the classes lie in `root` at once; and what was guessed."""
    inside = tree.inside(root)
    like_splits = split_names(inside)
    within = {name: tree.within(_join(root, name)) for name in inside}
    chosen = _chosen(tree, root, within, like_splits)
    if "train" not in chosen:
        _check_classes(tree, root, within, like_splits)
        as_classes = [f"{name}/" for name in inside if name in like_splits]
        said = f"{listed(as_classes, 3)}: taken as {'classes' if as_classes[1:] else 'a class'}, like the folders beside it"
        return {"train": root}, [said] if as_classes else []
    train = set(tree.classes(within[chosen["train"]]))
    parts = {
        part: name
        for part, name in chosen.items()
        if like_splits[name].rank < 2 or set(tree.classes(within[name])) == train
    }
    guessed = [
        f"{name}/ is taken as the {SPLIT_WORDS[part]} split" for part, name in parts.items() if like_splits[name].rank
    ]
    return {part: within[name] for part, name in parts.items()}, [", ".join(guessed)] if guessed else []


def _chosen(tree: _Tree, root: str, within: Mapping[str, str], like_splits: Mapping[str, Named]) -> dict[str, str]:
    """The name of each part's folder, by part; none where the folders are classes.

    `within` has the folder that holds the classes of each, were it a part. Raises `InputError` where names do not say it.
    """
    named = {
        name: found
        for name, found in like_splits.items()
        if found.rank == 0 or len(tree.inside(within[name])) > 1 or len(like_splits) == len(within)
    }
    try:
        chosen = assigned(named)
    except ValueError as error:
        first, second = error.args
        raise InputError(f"{tree.path / root}: has both {first}/ and {second}/, which name the same part") from error
    if "train" not in chosen:
        if named and len(named) == len(within):
            raise InputError(f"{tree.path / root}: has {', '.join(f'{name}/' for name in named)} but no train/")
        return {}
    train = chosen["train"]
    others = [name for name in within if name not in like_splits]
    if tree.is_class(_join(root, train)) and any(tree.holds_images(_join(root, name)) for name in others):
        return {}  # of vehicles, say
    classes = set(tree.classes(within[train]))
    alike = [name for name in others if set(tree.classes(within[name])) == classes]
    if alike and named[train].rank:
        _refuse_alike(tree, root, [train, *alike], classes)
    return {part: chosen[part] for part in SPLIT_WORDS if part in chosen}


def _check_classes(tree: _Tree, root: str, within: Mapping[str, str], like_splits: Mapping[str, Named]) -> None:
    """Raise `InputError` where the folders in `root` look like splits of the data and not like classes."""
    classes = tree.classes(root)
    for name in like_splits:
        both = set(tree.classes(within[name])) & (classes.keys() - {normal(name)})
        if both:
            raise InputError(
                f"{tree.path / root / name}: named like a split of the data, and holds folders of classes that lie beside it "
                f"({listed(sorted(both), 3)}): move the latter into {tree.path / root / 'train'}, or rename {name}/"
            )
    names, common = _alike(tree, root)
    if common and not all(name.casefold() in _KINDS for name in common):
        _refuse_alike(tree, root, names, common)
    for name, folder in within.items():
        parts = [inside for inside in tree.inside(folder) if plain_split(inside)]
        if any(
            plain_split(part) == "train" and len(tree.inside(tree.within(_join(folder, part)))) > 1 for part in parts
        ):
            held = listed([f"{part}/" for part in parts], 3)
            raise InputError(
                f"{tree.path / root}: {name}/ holds parts of data ({held}), and other folders lie beside it: give "
                f"{tree.path / folder} alone, or, if {name} is a class, move what lies here into {tree.path / root / 'train'}"
            )


def _alike(tree: _Tree, folder: str) -> tuple[list[str], set[str]]:
    """The folders in one that hold the same two or more folders and no images, and these; none where they are few."""
    held = {}
    for name in tree.inside(folder):
        inside = tree.within(_join(folder, name))
        if len(tree.inside(inside)) > 1 and not tree.holds_images(inside):
            held[name] = set(tree.classes(inside))
    if len(held) < 2 or 2 * len(held) < len(tree.inside(folder)):
        return [], set()
    common = set.intersection(*held.values())
    is_most = len(common) > 1 and 2 * len(common) >= len(set.union(*held.values()))
    return (list(held), common) if is_most else ([], set())


def _refuse_alike(tree: _Tree, root: str, names: Sequence[str], common: Collection[str]) -> None:
    here = tree.path / root
    said = f"{here}: {listed([f'{name}/' for name in names], 4)} hold the same folders ({listed(sorted(common), 4)})"
    if len(split_names(sorted(common))) == len(common):
        raise InputError(
            f"{said}, which look like splits of the data: give one of them alone, or, if they are classes, move what they hold "
            f"to {here / 'train'}/CLASS, {here / 'test'}/CLASS and so on"
        )
    raise InputError(
        f"{said}, and so look like splits of the data: name them train/, val/ and test/, or give one of them alone; if they "
        f"are classes, put them into {here / 'train'}"
    )


def _alike_remark(tree: _Tree, folder: str) -> list[str]:
    names, common = _alike(tree, folder)
    if not common:
        return _nested_remark(tree, folder)
    held = listed([f"{name}/" for name in sorted(common)], 4)
    who = "each class" if len(names) == len(tree.inside(folder)) else f"each of {listed(names, 4)}"
    return [f"{who} holds {held}: the images of all of these count as the class's"]


def _nested_remark(tree: _Tree, folder: str) -> list[str]:
    """What is said where classes hold folders and no images of their own, as parts do that have not all classes."""
    within = {name: tree.within(_join(folder, name)) for name in tree.inside(folder)}
    names = [name for name, deep in within.items() if len(tree.inside(deep)) > 1 and not tree.holds_images(deep)]
    if not names:
        return []
    held = sorted({f"{inside}/" for name in names for inside in tree.inside(within[name])})
    hold = "hold" if len(names) > 1 else "holds"
    return [f"{listed(names, 4)} {hold} folders ({listed(held, 4)}): the images of all of these count as the class's"]
