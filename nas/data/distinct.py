"""Each image in one split only: what is trained on must not score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nas.common.errors import InputError
from nas.common.text import plural, printable
from nas.data.image_data import ImageData, Split


def distinct_splits(data: ImageData) -> ImageData:
    """The data without training images that are validation or test images too, by their hashes; `remarks` count them.

    The test split keeps all of its images. The validation split loses those of the test split where it was split off here;
    one that was given stays as it is. Raises `InputError` where a class is left without training images, or a split without any.
    """
    if data.test is None:
        validation, remarks = data.validation, list[str]()
    else:
        validation, remarks = _validation(data, data.test)
    train, more = _training(data, validation)
    if not (remarks or more):
        return data
    return replace(data, train=train, validation=validation, remarks=(*data.remarks, *remarks, *more))


def _validation(data: ImageData, test: Split) -> tuple[Split, list[str]]:
    part = data.validation
    shared = np.isin(part.image_hashes, test.image_hashes)
    count, of = int(shared.sum()), plural(len(part), "validation image")
    if not count:
        return part, []
    said = f"{count:,} of {of} {_are(count)} test images too"
    if "validation" not in data.split_off:
        return part, [f"{said}; both splits were given, and are left as they are"]
    if count == len(part):
        raise InputError(f"data set {printable(data.name)}: {said}: no other is left to score by")
    return part.subset(np.flatnonzero(~shared)), [f"{said}, and left out of validation"]


def _training(data: ImageData, validation: Split) -> tuple[Split, list[str]]:
    part, hashes = data.train, data.train.image_hashes
    in_validation = np.isin(hashes, validation.image_hashes)
    in_test = np.isin(hashes, data.test.image_hashes) if data.test is not None else np.zeros_like(in_validation)
    kept = np.flatnonzero(~(in_validation | in_test))
    remarks = []
    if count := len(part) - len(kept):
        others = [("validation", in_validation), ("test", in_test)]
        told = " and ".join(f"{int(shared.sum()):,} {name}" for name, shared in others if shared.any())
        remarks.append(
            f"{count:,} of {plural(len(part), 'training image')} {_are(count)} left out, as the same images score here: "
            f"{told} images"
        )
        _check_left(data, part.labels[kept])
        part, hashes = part.subset(kept), hashes[kept]
    if twice := len(hashes) - len(np.unique(hashes)):
        remarks.append(f"{twice:,} of {plural(len(hashes), 'training image')} {_are(twice)} there more than once")
    return part, remarks


def _check_left(data: ImageData, labels: np.ndarray) -> None:
    """Raise `InputError` where a class has lost all of its training images, or nothing is left."""
    lost = sorted(set(range(len(data.classes))) - set(np.unique(labels).tolist())) if data.classes else []
    if lost or not len(labels):
        of = f" of class {data.classes[lost[0]]!r}" if lost else ""
        raise InputError(
            f"data set {printable(data.name)}: every training image{of} is a validation or test image too, which would score "
            "what was learnt by heart; give each image to one split"
        )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
