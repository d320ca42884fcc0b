"""Data sets by name, folder, archive or function, as uint8 arrays in three parts: training, validation, test."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.common.errors import InputError, did_you_mean
from nas.common.patience import patiently
from nas.common.plugins import code_folder, load_function, searched_last
from nas.common.scratch import scratch_until_exit
from nas.common.text import classes_text, listed, plural, printable, quoted
from nas.common.user_cache import cache_folder
from nas.data.archives import ARCHIVE_SUFFIXES
from nas.data.cache import load_decoded
from nas.data.function import DATA_SETS, read_function
from nas.data.image_data import ImageData, Split
from nas.data.image_decoding import FileSizes
from nas.data.image_hashes import array_hashes

__all__ = ["ImageData", "Split", "check_data_name", "data_line", "data_root", "load_data"]

logger = logging.getLogger(__name__)

TEST_SHARE = 0.2
VALIDATION_IMAGES = 2_500
"""Aimed at where the data set brings no validation split: the standard error of 90 % is then 0.6 points.

Kept between a tenth and a quarter of what is left after the test split.
"""
STATISTICS_IMAGES = 20_000
"""Training images, evenly spaced, of which mean and standard deviation are taken at most."""


def data_root() -> Path:
    """Where downloads and decoded images go: `NAS_DATA`, or nas/data in the user's cache, or away with this process."""
    return cache_folder("data", "NAS_DATA") or scratch_until_exit()


def load_data(name_or_path: str | Path, *, channels: int = 3, size: int = 32, split_seed: int = 0) -> ImageData:
    """A data set by name (`digits`, `cifar10`, …), a folder or archive of images sorted by class, or `module:function`.

    Images get `channels` channels (1: luminance, 3: RGB). Those of a folder are read as viewers show them (turned by their
    EXIF orientation, on white where they are transparent), resized so that the shorter side has `size` pixels and cropped
    at the centre; named sets keep their own size. A folder, or a tar or zip archive of one, has either train/, val/ (also
    valid/, validation/) and test/ with one folder a class in each, of which the last two may be missing, or the classes
    at once; what is missing is split off, stratified, by `split_seed`. Other names of parts (Training/, dev/) are taken
    where they are plain, and said. A few unreadable files are left out. What is decoded is kept below `data_root()` for
    the next time.

    A function is called without arguments and returns an `ImageData`, or a dataset to be split, or datasets by part.
    A dataset has `__len__` and `__getitem__`, which gives an image (PIL, uint8 array (H, W) or (H, W, C), uint8 tensor
    (C, H, W)) and a label from 0 on; it may have `classes`, their names.

    Logs what was found (`data_line`) as information, and what was guessed or left out as warnings. Raises `InputError`.
    """
    if channels not in (1, 3):
        raise InputError(f"a search space with {channels} input channels: image data has 1 or 3")
    data = _loaded(str(name_or_path), channels, size, split_seed)
    _check_varied(data)
    logger.info("%s", data_line(data))
    if data.corrupt:
        total = sum(len(part) for part in (data.train, data.validation, data.test) if part) + len(data.corrupt)
        logger.warning(
            "%s: %d of %d images are not readable and left out: %s",
            data.name, len(data.corrupt), total, listed([*map(printable, data.corrupt)], 3),
        )  # fmt: skip
    for remark in data.remarks:
        logger.warning("%s: %s", data.name, remark)
    return data


def data_line(data: ImageData) -> str:
    """What a data set holds, in one line: classes, images by part, their sizes in the files and here."""
    counts = [f"{len(data.train):,} training"]
    for name, part in (("validation", data.validation), ("test", data.test)):
        if part is not None:
            counts.append(f"{len(part):,} {name}" + (" (split off)" if name in data.split_off else ""))
    return (
        f"Data: {printable(data.name)}: {classes_text(data.classes)}; {', '.join(counts)} images; {_before(data)}"
        f"{_by(data.image_size)} px, {'grey' if data.channels == 1 else 'RGB'}"
    )


def _before(data: ImageData) -> str:
    """The sizes of the files, where they were resized."""
    sizes = data.sizes
    if sizes is None:
        return "sizes of the files not known → "
    if sizes.smallest != sizes.largest:
        return f"{_by(sizes.smallest)} to {_by(sizes.largest)} px (median {_by(sizes.median)}) → "
    return f"{_by(sizes.median)} px → " if sizes.median != data.image_size else ""


def _by(size: tuple[int, int]) -> str:
    """A height and width as width × height."""
    return f"{size[1]}×{size[0]}"


def _loaded(text: str, channels: int, size: int, split_seed: int) -> ImageData:
    if text in NAMED:
        return NAMED[text](channels, split_seed)
    if os.path.exists(text):  # Path.exists raises on a text too long for a name
        return _files(Path(text), channels, size, split_seed)
    if _is_function(text) or text in DATA_SETS.names:
        with searched_last(code_folder()):  # a dataset may import more with each item
            return _from_function(text, channels, size, split_seed)
    raise _unknown(text)


def check_data_name(name: str) -> None:
    """Raise `InputError` unless it is a data set by name, a path that is there, or a function that can be imported."""
    if name in NAMED or os.path.exists(name):
        return
    if _is_function(name):
        load_function("data", name)
    elif name not in DATA_SETS.names:
        raise _unknown(name)


def _is_function(text: str) -> bool:
    return ":" in text and not PureWindowsPath(text).drive and "/" not in text


def _unknown(text: str) -> InputError:
    names = [*NAMED, *DATA_SETS.names]
    return InputError(
        f"unknown data set {quoted(text)}{did_you_mean(text, names)}: use one of {', '.join(names)}, the path of a folder "
        "or archive of images "
        f"({', '.join(ARCHIVE_SUFFIXES)}), or module:function"
    )


def _check_varied(data: ImageData) -> None:
    """Raise `InputError` where all training images are of one colour."""
    chunks = data.train.chunks()
    first = next(chunks)
    colour = first[:1, :, :1, :1]
    if (first == colour).all() and all((images == colour).all() for images in chunks):
        value = ", ".join(map(str, colour.ravel().tolist()))
        raise InputError(
            f"data set {data.name}: every pixel of its {plural(len(data.train), 'training image')} has the value {value}, "
            "so that there is nothing to tell classes apart by"
        )


def _digits(channels: int, split_seed: int) -> ImageData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    whole = Split(_with_channels(images, channels), digits.target.astype(np.int64), hashes=array_hashes(images))
    return _assemble("digits", [str(digit) for digit in range(10)], {"train": whole}, split_seed, hflip=False)


def _torchvision(name: str, dataset: str, hflip: bool) -> Callable[[int, int], ImageData]:
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
            parts[part] = Split(_with_channels(images, channels), labels, hashes=array_hashes(images))
            classes = [str(c) for c in getattr(loaded, "classes", range(int(labels.max()) + 1))]
        return _assemble(name, classes, parts, split_seed, hflip)

    return load


NAMED: dict[str, Callable[[int, int], ImageData]] = {
    "digits": _digits,
    "cifar10": _torchvision("cifar10", "CIFAR10", hflip=True),
    "cifar100": _torchvision("cifar100", "CIFAR100", hflip=True),
    "fashion_mnist": _torchvision("fashion_mnist", "FashionMNIST", hflip=True),
    "svhn": _torchvision("svhn", "SVHN", hflip=False),
}
"""Those that are had by name, and `nas.data.look` knows; each is loaded with so many channels and a seed of the split."""


def _files(path: Path, channels: int, size: int, split_seed: int) -> ImageData:
    root = data_root()
    decoded = patiently(lambda: load_decoded(path, channels, size, root / "decoded"))
    parts = {}
    for part, images in decoded.images.items():
        labels = decoded.labels[part]
        readable = np.flatnonzero(labels >= 0)
        parts[part] = Split(images, labels, hashes=decoded.hashes[part])
        if len(readable) < len(labels):
            parts[part] = parts[part].subset(readable)
    data = _assemble(str(path), decoded.classes, parts, split_seed, hflip=True, sizes=decoded.sizes)
    remarks = (*decoded.remarks, *data.remarks)
    return replace(data, corrupt=decoded.corrupt, remarks=remarks, licence=decoded.licence)


def _from_function(name: str, channels: int, size: int, split_seed: int) -> ImageData:
    made = read_function(name, channels, size)
    if isinstance(made, ImageData):
        return made
    return _assemble(name, made.classes, made.parts, split_seed, hflip=True, sizes=made.sizes)


def _with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as grey (ITU-R 601 luminance) or RGB."""
    have = images.shape[1]
    if have == channels:
        return np.ascontiguousarray(images)
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images, np.array([0.299, 0.587, 0.114]), axes=(1, 0))
    return np.round(grey).astype(np.uint8)[:, None]


def _assemble(
    name: str,
    classes: Sequence[str],
    parts: dict[str, Split],
    split_seed: int,
    hflip: bool,
    sizes: FileSizes | None = None,
) -> ImageData:
    """Parts with what is missing split off the training images; their own size is that of the images by default."""
    train, validation, test = parts["train"], parts.get("val"), parts.get("test")
    if test is None:
        train, test = _split(name, classes, train, "test", TEST_SHARE, split_seed)
    if validation is None:
        share = min(0.25, max(0.1, VALIDATION_IMAGES / len(train)))
        train, validation = _split(name, classes, train, "validation", share, split_seed)
    absent = sorted(set(range(len(classes))) - set(np.unique(validation.labels).tolist()))
    remarks = [f"no validation image of class {classes[absent[0]]!r}: its score says nothing of it"] if absent else []
    mean, std = _statistics(train)
    height, width = train.images.shape[2:]
    return ImageData(
        name=name,
        classes=tuple(classes),
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        hflip=hflip,
        split_seed=split_seed,
        remarks=tuple(remarks),
        split_off=tuple(part for part, key in (("validation", "val"), ("test", "test")) if key not in parts),
        sizes=sizes or FileSizes.of([(int(height), int(width))]),
    )


def _split(name: str, classes: Sequence[str], part: Split, wanted: str, share: float, seed: int) -> tuple[Split, Split]:
    """Split off a stratified share: (rest, share)."""
    from sklearn.model_selection import train_test_split  # slow to import, and workers split nothing

    try:
        rest, split = train_test_split(np.arange(len(part)), test_size=share, random_state=seed, stratify=part.labels)
    except ValueError as error:
        counts = np.bincount(part.labels, minlength=len(classes))
        fewest = int(counts.argmin())
        raise InputError(
            f"data set {name}: too few images for a {wanted} split: {len(part)} of {len(classes)} classes, "
            f"{counts[fewest]} of class {classes[fewest]!r}; give more, or a {wanted} split of its own"
        ) from error
    return part.subset(np.sort(rest)), part.subset(np.sort(split))


def _statistics(part: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel on a scale of 0 to 1, of evenly spaced images."""
    count = min(len(part), STATISTICS_IMAGES)
    channels = part.images.shape[1]
    frequency = np.zeros((channels, 256), dtype=np.float64)
    for images in part.chunks(np.arange(count) * len(part) // count):
        for channel in range(channels):
            frequency[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = frequency / frequency.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    std = std.clip(min=1e-3)  # one channel may be constant
    return tuple(round(float(m), 6) for m in mean), tuple(round(float(s), 6) for s in std)
