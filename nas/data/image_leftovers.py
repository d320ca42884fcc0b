"""What a folder or archive of images holds and no part takes, counted and named in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from nas.common.text import listed, plural, printable
from nas.data.image_files import Listing

_SHOWN = 4


def left_over(listing: Listing, class_folders: Collection[str], tests: Collection[str] = ()) -> list[str]:
    """Sentences on the files in class folders that are no images by their names, and the images outside of these.

    Folders are given by relative path. `tests` are test folders without folders by class.
    """
    leading = {parent.as_posix() for folder in class_folders for parent in PurePosixPath(folder).parents}
    places: dict[str, str | None] = {}

    def place(folder: str) -> str | None:
        """The class folder that one lies in, or else the outermost folder that holds no classes, if there is one."""
        if folder not in places:
            inside = PurePosixPath(folder)
            around = [parent.as_posix() for parent in (*reversed(inside.parents), inside)]
            places[folder] = next((one for one in around if one not in leading), None)
        return places[folder]

    unused: dict[str, Counter[str]] = {found: Counter() for one in sorted(listing.folders) if (found := place(one))}
    stray: list[str] = []
    for folder, files in listing.images_in.items():
        where = place(folder or ".")
        if where is None:
            stray += files
        else:
            unused[where]["images"] += len(files)
    odd = []
    for file in listing.others:
        where = place(file.rpartition("/")[0] or ".")
        if where in class_folders:
            odd.append(file)
        elif where is not None:
            unused[where]["others"] += 1
    remarks = []
    for folder in tests:
        images = plural(unused.pop(place(folder) or folder)["images"], "image")
        remarks.append(f"{printable(folder)}/ has no folders by class: {images} left out, and a test split is drawn")
    if odd:
        remarks.append(
            f"{plural(len(odd), 'file')} in class folders left out, not images by name: {kinds_text(odd)} (first: "
            f"{printable(odd[0])})"
        )
    if stray:
        remarks.append(
            f"{plural(len(stray), 'image')} outside of class folders left out (first: {printable(min(stray))})"
        )
    passed = [f"{printable(folder)}/ ({_held(held)})" for folder, held in unused.items() if folder not in class_folders]
    if passed:
        remarks.append(f"{plural(len(passed), 'folder')} used by nothing: {listed(passed, _SHOWN)}")
    return remarks


def kinds_text(files: Sequence[str]) -> str:
    """How many files of which suffix: `18 .npy, 10 without suffix`."""
    kinds = Counter(PurePosixPath(file).suffix.lower() or "without suffix" for file in files)
    return listed([f"{count:,} {printable(kind)}" for kind, count in kinds.most_common()], _SHOWN)


def _held(held: Counter[str]) -> str:
    images = plural(held["images"], "image") if held["images"] else "no images"
    return f"{images}, {plural(held['others'], 'other file')}" if held["others"] else images
