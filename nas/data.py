"""Data sets by name, folder, archive or function, as uint8 arrays in three parts: training, validation, test.

A search is handed training and validation only (`ImageData.without_test`); the test part is for the end.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import operator
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data_cache import load_decoded, open_map
from nas.errors import InputError, did_you_mean
from nas.image_files import ARCHIVE_SUFFIXES, PART_NAMES
from nas.pixels import to_pixels
from nas.plugin import load_function

logger = logging.getLogger(__name__)

TEST_SHARE = 0.2
VALIDATION_IMAGES = 2_500
"""Aimed at where the data set brings no validation part: the standard error of 90 % is then 0.6 points.

Kept between a tenth and a quarter of what is left after the test part.
"""
STATISTICS_IMAGES = 20_000
"""Training images, evenly spaced, of which mean and standard deviation are taken at most."""
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Part:
    """Images (N, C, H, W) uint8 and labels (N,) int64.

    With `rows` (N,), the part is these rows of `images`, which then may hold others too: so a part of a memory map
    is split without reading it. `take` reads images of any part. A part of a whole memory map is pickled as the
    map's path, for other processes of this machine.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.images if self.rows is None else self.rows):
            raise ValueError(f"{len(self.labels)} labels do not fit the part's images")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images with these numbers, each below `len(part)`."""
        return np.asarray(self.images[numbers if self.rows is None else self.rows[numbers]])

    def subset(self, numbers: NDArray[np.int64]) -> Part:
        """The part of the images with these numbers: a copy in memory, or other rows of the same memory map."""
        if isinstance(self.images, np.memmap):
            rows = numbers if self.rows is None else self.rows[numbers]
            return Part(self.images, self.labels[numbers], rows)
        return Part(self.take(numbers), self.labels[numbers])

    def chunks(self, numbers: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.uint8]]:
        """The images, or those with these numbers, in order and a few megabytes at a time."""
        numbers = np.arange(len(self)) if numbers is None else numbers
        step = max(1, _CHUNK_BYTES // self.images[0].nbytes)
        for start in range(0, len(numbers), step):
            yield self.take(numbers[start : start + step])

    def __getstate__(self) -> dict[str, Any]:
        # A slice of a map is a memmap too, but its base is that map.
        if isinstance(self.images, np.memmap) and isinstance(self.images.base, mmap.mmap):
            return {**self.__dict__, "images": Path(str(self.images.filename))}
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["images"], Path):
            try:
                state = {**state, "images": open_map(state["images"])}
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{state['images']}: the decoded images cannot be read on this machine: let NAS_DATA name a "
                    f"directory that all workers see: {error}"
                ) from error
        self.__dict__.update(state)


@dataclass(frozen=True)
class ImageData:
    """A data set split in three; `mean` and `std` per channel of the training part, on a scale of 0 to 1.

    `mirror` says whether a mirrored image is still of its class (not so for digits). `corrupt` names the files that
    could not be read and are left out.
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
    corrupt: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image."""
        height, width = self.train.images.shape[2:]
        return int(height), int(width)

    def without_test(self) -> ImageData:
        """The same without the test part: what a search may see."""
        return replace(self, test=None)

    def with_validation(self) -> ImageData:
        """The same with the validation images among the training images, for a training that is not scored by them."""
        return replace(self, train=_joined(self.train, self.validation))

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the content of training and validation parts."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(repr((len(part), *part.images.shape[1:])).encode())
            for images in part.chunks():
                digest.update(np.ascontiguousarray(images).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        return digest.hexdigest()[:16]


def _joined(first: Part, second: Part) -> Part:
    """Two parts as one: other rows of the same memory map, or a copy; of two maps a copy on disk, gone with the process."""
    labels = np.concatenate([first.labels, second.labels])
    if isinstance(first.images, np.memmap) and first.images is second.images:
        both = [np.arange(len(part)) if part.rows is None else part.rows for part in (first, second)]
        return Part(first.images, labels, np.concatenate(both))
    shape = (len(labels), *first.images.shape[1:])
    if isinstance(first.images, np.memmap):
        with tempfile.TemporaryFile() as file:
            images: NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
    else:
        images = np.empty(shape, dtype=np.uint8)
    start = 0
    for part in (first, second):
        for chunk in part.chunks():
            images[start : start + len(chunk)] = chunk
            start += len(chunk)
    return Part(images, labels)


def data_root() -> Path:
    """Where downloads and decoded images go: `NAS_DATA`, or nas/data in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("NAS_DATA", cache / "nas" / "data"))


def load_data(name_or_path: str | Path, *, channels: int = 3, size: int = 32, split_seed: int = 0) -> ImageData:
    """A data set by name (`digits`, `cifar10`, …), a folder or archive of images sorted by class, or `module:function`.

    Images get `channels` channels (1: luminance, 3: RGB). Those of a folder are resized so that the shorter side
    has `size` pixels and cropped at the centre; named sets keep their own size. A folder, or a tar or zip archive of
    one, has either train/, val/ (also valid/, validation/) and test/ with one folder a class in each, of which the
    last two may be missing, or the classes at once; what is missing is split off, stratified, by `split_seed`. A few
    unreadable files are left out. What is decoded is kept below `data_root()` for the next time.

    A function is called without arguments and returns an `ImageData`, or a dataset to be split, or datasets by part.
    A dataset has `__len__` and `__getitem__`, which gives an image (PIL, uint8 array (H, W) or (H, W, C), uint8 tensor
    (C, H, W)) and a label from 0 on; it may have `classes`, their names. Raises `InputError`.
    """
    if channels not in (1, 3):
        raise InputError(f"a search space with {channels} input channels: image data has 1 or 3")
    text = str(name_or_path)
    if text in _NAMED:
        return _NAMED[text](channels, split_seed)
    if os.path.exists(text):  # Path.exists raises on a text too long for a name
        return _files(Path(text), channels, size, split_seed)
    if _is_function(text):
        return _from_function(text, channels, size, split_seed)
    raise _unknown(text)


def check_data_name(name: str) -> None:
    """Raise `InputError` unless it is a data set by name, a path that is there, or a function that can be imported."""
    if name in _NAMED or os.path.exists(name):
        return
    if not _is_function(name):
        raise _unknown(name)
    load_function("data", name)


def _is_function(text: str) -> bool:
    return ":" in text and not PureWindowsPath(text).drive and "/" not in text


def _unknown(text: str) -> InputError:
    return InputError(
        f"unknown data set {text!r}{did_you_mean(text, _NAMED)}: use one of {', '.join(_NAMED)}, the path of a folder "
        "or archive of images "
        f"({', '.join(ARCHIVE_SUFFIXES)}), or module:function"
    )


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


def _files(path: Path, channels: int, size: int, split_seed: int) -> ImageData:
    decoded = load_decoded(path, channels, size, data_root() / "decoded")
    if decoded.corrupt:
        total = sum(map(len, decoded.labels.values()))
        first = ", ".join(decoded.corrupt[:3]) + (", …" if len(decoded.corrupt) > 3 else "")
        unreadable = len(decoded.corrupt)
        logger.warning("%s: %d of %d images are not readable and left out: %s", path, unreadable, total, first)
    parts = {}
    for part, images in decoded.images.items():
        labels = decoded.labels[part]
        readable = np.flatnonzero(labels >= 0)
        parts[part] = Part(images, labels)
        if len(readable) < len(labels):
            parts[part] = parts[part].subset(readable)
    data = _assemble(str(path), decoded.classes, parts, split_seed, mirror=True)
    return replace(data, corrupt=decoded.corrupt)


def _from_function(name: str, channels: int, size: int, split_seed: int) -> ImageData:
    made = _call(name)
    if isinstance(made, ImageData):
        return _checked(f"data {name!r}", made, channels)
    datasets = dict(made) if isinstance(made, Mapping) else {"train": made}
    unknown = [part for part in datasets if part not in PART_NAMES]
    if unknown:
        raise InputError(f"data {name!r} returned a part {unknown[0]!r}: use {', '.join(PART_NAMES)}")
    if "train" not in datasets:
        raise InputError(f"data {name!r} returned no part 'train', only {', '.join(datasets) or 'an empty mapping'}")
    if len({PART_NAMES[part] for part in datasets}) < len(datasets):
        raise InputError(f"data {name!r} returned the validation part twice: {', '.join(datasets)}")
    parts = {
        PART_NAMES[part]: _part(f"data {name!r}, {part}", items, channels, size) for part, items in datasets.items()
    }
    present = np.unique(parts["train"].labels)
    named = getattr(datasets["train"], "classes", None)
    classes = [str(c) for c in (named if isinstance(named, Sequence | np.ndarray) else present)]
    for part, loaded in parts.items():
        wrong = np.setdiff1d(loaded.labels, np.arange(len(classes)))
        if len(wrong):
            allowed = f"0 to {len(classes) - 1}, for {len(classes)} classes"
            raise InputError(f"data {name!r}, {part}: has the label {wrong[0]}: labels must be {allowed}")
    if len(classes) < 2 or len(present) < len(classes):
        raise InputError(
            f"data {name!r}, train: has images of {len(present)} of {len(classes)} classes, and needs all of at least two"
        )
    return _assemble(name, classes, parts, split_seed, mirror=True)


def _checked(where: str, data: ImageData, channels: int) -> ImageData:
    """What a plug-in made, when a training can use it; raises `InputError`."""
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        if part is None:
            continue
        if part.images.dtype != np.uint8 or part.images.ndim != 4 or not len(part):
            raise InputError(
                f"{where}, {name}: images must be uint8 of shape (N, C, H, W), N at least 1; "
                f"these are {part.images.dtype} of shape {part.images.shape}"
            )
        if part.images.shape[1] != channels:
            raise InputError(
                f"{where}, {name}: has images of {part.images.shape[1]} channels, and the space takes {channels}"
            )
        wrong = np.setdiff1d(part.labels, np.arange(len(data.classes)))
        if len(wrong):
            raise InputError(f"{where}, {name}: has the label {wrong[0]}: labels must be 0 to {len(data.classes) - 1}")
    return data


def _call(name: str) -> Any:
    """What the function `module:function` returns."""
    function = load_function("data", name)
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise InputError(f"data {name!r} raised {type(error).__name__}: {error}") from error


def _part(where: str, dataset: Any, channels: int, size: int) -> Part:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or isinstance(dataset, str | bytes):
        raise InputError(f"{where}: is {type(dataset).__name__}, not a dataset with __len__ and __getitem__")
    try:
        count = len(dataset)
    except Exception as error:  # the user's code
        raise InputError(f"{where}: its length raised {type(error).__name__}: {error}") from error
    if not count:
        raise InputError(f"{where}: holds no images")
    images = np.zeros((count, channels, size, size), dtype=np.uint8)
    labels = np.zeros(count, dtype=np.int64)
    for number in range(count):
        here = f"{where}: item {number}"
        try:
            item = dataset[number]
        except Exception as error:  # the user's code
            raise InputError(f"{here} raised {type(error).__name__}: {error}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{here} is {type(item).__name__}, not an image and a label")
        try:
            labels[number] = operator.index(item[1])
        except (TypeError, OverflowError) as error:
            raise InputError(f"{here} has the label {item[1]!r}, not an int") from error
        try:
            images[number] = to_pixels(_as_pil(item[0]), channels, (size, size))
        except Exception as error:  # PIL reads a file only now, and raises nearly anything
            raise InputError(f"{here}: {error}") from error
    return Part(images, labels)


def _as_pil(image: Any) -> Any:
    """A dataset's image as a PIL image; raises `ValueError` when it is none of those allowed."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        import torch

        if not isinstance(image, torch.Tensor):
            raise ValueError(f"the image is {type(image).__name__}: return a PIL image, or a uint8 array or tensor")
        image = image.permute(1, 2, 0).cpu().numpy() if image.ndim == 3 else image.cpu().numpy()
    if image.dtype != np.uint8:
        raise ValueError(f"the image is of {image.dtype}: return PIL images or uint8, before any normalisation")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise ValueError("the image's shape is none of (H, W) and (H, W, C), or of a tensor (C, H, W)")
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Images (N, C, H, W) as grey (ITU-R 601 luminance) or RGB."""
    have = images.shape[1]
    if have == channels:
        return np.ascontiguousarray(images)
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images, np.array([0.299, 0.587, 0.114]), axes=(1, 0))
    return np.round(grey).astype(np.uint8)[:, None]


def _assemble(name: str, classes: Sequence[str], parts: dict[str, Part], split_seed: int, mirror: bool) -> ImageData:
    train, validation, test = parts["train"], parts.get("val"), parts.get("test")
    if test is None:
        train, test = _split(name, classes, train, "test", TEST_SHARE, split_seed)
    if validation is None:
        share = min(0.25, max(0.1, VALIDATION_IMAGES / len(train)))
        train, validation = _split(name, classes, train, "validation", share, split_seed)
    absent = sorted(set(range(len(classes))) - set(np.unique(validation.labels).tolist()))
    if absent:
        logger.warning("%s: no validation image of class %r: its score says nothing of it", name, classes[absent[0]])
    mean, std = _statistics(train)
    return ImageData(
        name=name,
        classes=tuple(classes),
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        mirror=mirror,
        split_seed=split_seed,
    )


def _split(name: str, classes: Sequence[str], part: Part, wanted: str, share: float, seed: int) -> tuple[Part, Part]:
    """Split off a stratified share: (rest, share)."""
    from sklearn.model_selection import train_test_split  # slow to import, and workers split nothing

    try:
        rest, split = train_test_split(np.arange(len(part)), test_size=share, random_state=seed, stratify=part.labels)
    except ValueError as error:
        counts = np.bincount(part.labels, minlength=len(classes))
        fewest = int(counts.argmin())
        raise InputError(
            f"data set {name}: too few images to split off a {wanted} part: {len(part)} of {len(classes)} classes, "
            f"{counts[fewest]} of class {classes[fewest]!r}; give more, or a {wanted} part of its own"
        ) from error
    return part.subset(np.sort(rest)), part.subset(np.sort(split))


def _statistics(part: Part) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1)).clip(min=1e-3)
    return tuple(round(float(m), 6) for m in mean), tuple(round(float(s), 6) for s in std)
