"""How near copies are told: how many of some images look like others, and how many copies of these, made here, are found.

python benchmarks/near_copies.py OF OTHERS --size 32     # two folders of images, with any folders in them
python benchmarks/near_copies.py digits --size 32        # a test split against the training images of a set by name
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.image_data import Split
from nas.data.image_files import image_suffixes
from nas.data.near_copies import near_copies, thumbnails
from nas.data.pixels import covering
from nas.data.sets import load_data

Pixels = NDArray[np.uint8]
COPIED = 1_000


def in_folder(folder: Path) -> list[Image.Image]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in image_suffixes())
    return [Image.open(file).convert("RGB") for file in files]


def of_set(name: str) -> tuple[list[Image.Image], list[Image.Image]]:
    data = load_data(name, channels=3)
    assert data.test is not None
    train, test = (
        [Image.fromarray(each.transpose(1, 2, 0)) for each in part.images] for part in (data.train, data.test)
    )
    return train, test


def looks(images: list[Image.Image], size: int) -> Pixels:
    pixels = np.stack([covering(each, 3, (size, size)) for each in images])
    return thumbnails(Split(pixels, np.zeros(len(pixels), dtype=np.int64)))


def saved(image: Image.Image, quality: int) -> Image.Image:
    content = BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def resized(image: Image.Image, by: float) -> Image.Image:
    return image.resize(tuple(max(1, int(side * by)) for side in image.size), Image.Resampling.BICUBIC)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("of")
    parser.add_argument("others", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=32)
    given = parser.parse_args()
    train, test = (in_folder(Path(given.of)), in_folder(given.others)) if given.others else of_set(given.of)
    theirs, ours = looks(train, given.size), looks(test, given.size)
    began = time.process_time()
    found = near_copies(ours, theirs)
    took = time.process_time() - began
    print(
        f"{given.size} px: {found.sum()} of {len(ours)} look like one of {len(theirs)}; compared in {took:.2f} s of CPU"
    )
    some = test[:COPIED]
    ways = {f"JPEG of quality {quality}": [saved(each, quality) for each in some] for quality in (75, 50)}
    ways |= {f"resized to {by:g}": [resized(each, by) for each in some] for by in (0.75, 0.5, 2)}
    for way, copies in ways.items():
        share = near_copies(looks(copies, given.size), ours[: len(some)]).mean()
        print(f"  {way}: {100 * share:.1f} % of {len(some)} found")


if __name__ == "__main__":
    main()
