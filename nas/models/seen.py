"""What images weights were trained on: the hashes of these (`nas.data.image_hashes`), sorted, in a file beside the weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.common.errors import InputError
from nas.common.files import write_atomically
from nas.models.weights import source_of

FILE = "seen_images.npy"
Seen = NDArray[np.uint64]


def seen_by(init: str) -> Seen | None:
    """What the weights of a word have seen; None where it is not known, as of backbones and of folders of older versions.

    Of what such weights began with nothing is among it. Raises `InputError` for a file that is not right.
    """
    folder = source_of(init).folder
    path = folder and folder / FILE
    if path is None or not path.is_file():
        return None
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint64 or found.ndim != 1:
            raise ValueError("not a list of hashes")
    except Exception as error:  # numpy raises nearly anything on damaged files
        raise InputError(f"{path}: does not hold what images the weights were trained on: {error}") from error
    return found


def together(*parts: Seen | None) -> Seen:
    """All images of some sets, each once and sorted; of one that is not known there are none."""
    known = [part for part in parts if part is not None]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *known]))


def write_seen(folder: Path, seen: Seen) -> None:
    """Say beside weights what they were trained on; raises `OSError`."""
    content = io.BytesIO()
    np.save(content, seen, allow_pickle=False)
    write_atomically(folder / FILE, content.getvalue())
