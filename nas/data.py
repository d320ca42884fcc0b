"""Data sets by name or folder, as uint8 arrays in three parts: training, validation, test.

A search is handed training and validation only (`ImageData.without_test`); the test part is for the end.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from nas.errors import InputError

logger = logging.getLogger(__name__)

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names that the folder of a part may have."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TEST_SHARE = 0.2
VALIDATION_IMAGES = 2_500
"""Aimed at where the data set brings no validation part: the standard error of 90 % is then 0.6 points.

Kept between a tenth and a quarter of what is left after the test part.
"""


@dataclass(frozen=True)
class Part:
    """Images (N, C, H, W) uint8 and labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set split in three; `mean` and `std` per channel of the training part, on a scale of 0 to 1.

    `mirror` says whether a mirrored image is still of its class (not so for digits).
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool
    split_seed: int

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])

    def without_test(self) -> ImageData:
        """The same without the test part: what a search may see."""
        return replace(self, test=None)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the content of training and validation parts."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(repr(part.images.shape).encode())
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        return digest.hexdigest()[:16]


def data_root() -> Path:
    """Where downloads go: `NAS_DATA`, or nas/data in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("NAS_DATA", cache / "nas" / "data"))


def load_data(name_or_path: str | Path, *, channels: int = 3, size: int = 32, split_seed: int = 0) -> ImageData:
    """A data set by name (`digits`, `cifar10`, …) or a folder of images sorted by class.

    Images get `channels` channels (1: luminance, 3: RGB). Those of a folder are resized so that the shorter side
    has `size` pixels and cropped at the centre; named sets keep their own size. A folder has either train/, val/
    (also valid/, validation/) and test/ with one folder a class in each, of which the last two may be missing, or
    the classes at once; what is missing is split off, stratified, by `split_seed`. Raises `InputError`.
    """
    if channels not in (1, 3):
        raise InputError(f"a search space with {channels} input channels: image data has 1 or 3")
    text = str(name_or_path)
    if text in _NAMED:
        return _NAMED[text](channels, split_seed)
    if Path(text).is_dir():
        return _folder(Path(text), channels, size, split_seed)
    raise InputError(f"unknown data set {text!r}: use one of {', '.join(_NAMED)}, or the path of a folder of images")


def _digits(channels: int, split_seed: int) -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    whole = Part(_with_channels(images, channels), digits.target.astype(np.int64))
    return _assemble("digits", [str(digit) for digit in range(10)], {"train": whole}, split_seed, mirror=False)


def _torchvision(name: str, dataset: str, mirror: bool) -> Callable[[int, int], ImageData]:
    def load(channels: int, split_seed: int) -> ImageData:
        from torchvision import datasets

        parts = {}
        classes: list[str] = []
        for part, is_train in (("train", True), ("test", False)):
            kwargs: dict[str, Any] = {"split": part} if dataset == "SVHN" else {"train": is_train}
            try:
                loaded = getattr(datasets, dataset)(str(data_root() / name), download=True, **kwargs)
            except Exception as error:  # torchvision raises whatever urllib, tarfile or its checks raise
                raise InputError(
                    f"data set {name} is not in {data_root() / name} and could not be downloaded: {error}"
                ) from error
            images = np.asarray(loaded.data)
            labels = np.asarray(loaded.labels if dataset == "SVHN" else loaded.targets, dtype=np.int64)
            if images.ndim == 3:
                images = images[:, None]
            elif dataset != "SVHN":
                images = images.transpose(0, 3, 1, 2)
            parts[part] = Part(_with_channels(images, channels), labels)
            classes = [str(c) for c in getattr(loaded, "classes", range(int(labels.max()) + 1))]
        return _assemble(name, classes, parts, split_seed, mirror)

    return load


_NAMED: dict[str, Callable[[int, int], ImageData]] = {
    "digits": _digits,
    "cifar10": _torchvision("cifar10", "CIFAR10", mirror=True),
    "cifar100": _torchvision("cifar100", "CIFAR100", mirror=True),
    "fashion_mnist": _torchvision("fashion_mnist", "FashionMNIST", mirror=True),
    "svhn": _torchvision("svhn", "SVHN", mirror=False),
}


def _folder(path: Path, channels: int, size: int, split_seed: int) -> ImageData:
    roots = {"train": path}
    if (path / "train").is_dir():
        roots = {part: path / name for name, part in _PARTS.items() if (path / name).is_dir()}
    classes = _class_folders(roots["train"])
    if len(classes) < 2:
        found = "none" if not classes else f"only {classes[0]!r}"
        raise InputError(f"{roots['train']}: needs one folder a class, at least two; found {found}")
    parts = {}
    for part, root in roots.items():
        found_here = _class_folders(root)
        if part == "test" and not found_here:
            logger.warning("%s: holds no folders by class; a test part is split off the training images", root)
            continue
        unknown = sorted(set(found_here) - set(classes))
        if unknown:
            raise InputError(f"{root / unknown[0]}: a class that {roots['train']} does not have")
        images, labels = [], []
        for label, name in enumerate(classes):
            files = sorted(p for p in (root / name).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise InputError(f"{root / name}: no images ({', '.join(IMAGE_SUFFIXES)})")
            images += [_read_image(file, channels, size) for file in files]
            labels += [label] * len(files)
        parts[part] = Part(np.stack(images), np.asarray(labels, dtype=np.int64))
    return _assemble(str(path), classes, parts, split_seed, mirror=True)


def _class_folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_image(file: Path, channels: int, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable image: {error}") from error
    scale = size / min(image.size)
    if scale != 1:
        image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as grey (ITU-R 601 luminance) or RGB."""
    have = images.shape[1]
    if have == channels:
        return np.ascontiguousarray(images)
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images, np.array([0.299, 0.587, 0.114]), axes=(1, 0))
    return np.round(grey).astype(np.uint8)[:, None]


def _assemble(name: str, classes: list[str], parts: dict[str, Part], split_seed: int, mirror: bool) -> ImageData:
    train = parts["train"]
    try:
        if "test" not in parts:
            train, parts["test"] = _split(train, TEST_SHARE, split_seed)
        if "val" not in parts:
            share = min(0.25, max(0.1, VALIDATION_IMAGES / len(train)))
            train, parts["val"] = _split(train, share, split_seed)
    except ValueError as error:
        raise InputError(f"data set {name}: too few images of a class to split off a part: {error}") from error
    scaled = train.images.astype(np.float32) / 255 if len(train) < 20_000 else train.images[:20_000] / np.float32(255)
    mean = scaled.mean(axis=(0, 2, 3))
    std = np.maximum(scaled.std(axis=(0, 2, 3)), 1e-3)
    return ImageData(
        name=name,
        classes=tuple(classes),
        train=train,
        validation=parts["val"],
        test=parts["test"],
        mean=tuple(round(float(m), 6) for m in mean),
        std=tuple(round(float(s), 6) for s in std),
        mirror=mirror,
        split_seed=split_seed,
    )


def _split(part: Part, share: float, seed: int) -> tuple[Part, Part]:
    """Split off a stratified share: (rest, share)."""
    rest, split = train_test_split(np.arange(len(part)), test_size=share, random_state=seed, stratify=part.labels)
    rest, split = np.sort(rest), np.sort(split)
    return Part(part.images[rest], part.labels[rest]), Part(part.images[split], part.labels[split])
