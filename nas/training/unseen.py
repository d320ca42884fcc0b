"""Weights that are inherited must not have been trained on images that score here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nas.common.errors import InputError, arg
from nas.common.text import plural, printable
from nas.data.image_data import ImageData
from nas.data.image_hashes import Hashes
from nas.models.seen import seen_by, unknown_text
from nas.models.weights import source_of


def check_unseen(init: str, data: str, split_seed: int) -> None:
    """Raise `InputError` where a supernet was trained on another split of the same data."""
    source = source_of(init)
    theirs = source.trained_on()
    if theirs is not None and theirs.data == data and theirs.split_seed != split_seed:
        raise InputError(
            f"{arg('split_seed')} {split_seed}: {source.title} was trained with {arg('split_seed')} {theirs.split_seed}, so "
            f"that it has seen images of this validation split; use {theirs.split_seed}"
        )


def scoring(data: ImageData) -> dict[str, Hashes]:
    """The hashes of the images that score, by split."""
    parts = {"validation": data.validation, "test": data.test}
    return {name: part.image_hashes for name, part in parts.items() if part is not None}


def seen_text(init: str, parts: Mapping[str, Hashes], data: str) -> str | None:
    """How many images of each split of the data the weights are known to be trained on, in a sentence; None of none."""
    seen = seen_by(init)
    counts = {name: int(np.isin(hashes, seen).sum()) for name, hashes in parts.items()}
    told = [f"{counts[name]:,} of {plural(len(parts[name]), f'{name} image')}" for name in parts if counts[name]]
    if not told:
        return None
    were = "was a training image" if sum(counts.values()) == 1 else "were training images"
    return f"{' and '.join(told)} of {printable(data)} {were} of {source_of(init).title}"


def check_none_seen(init: str, parts: Mapping[str, Hashes], data: str) -> None:
    """Raise `InputError` where the weights were trained on some of the images that score."""
    if text := seen_text(init, parts, data):
        raise InputError(
            f"{arg('init')} {init}: {text}, so that scores would be of images known by heart; use other weights, or those of a "
            f"training on this split, or allow it with {arg('allow_seen_images')}"
        )


def seen_remarks(init: str, data: ImageData) -> tuple[str, ...]:
    """What is to be said of the weights: that they have seen images that score, that what they saw is not known."""
    text = seen_text(init, scoring(data), data.name)
    return tuple(filter(None, (text and f"{text}, as was allowed", unknown_text(init))))
