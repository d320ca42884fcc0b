"""What images weights were trained on: the hashes of these (`nas.data.image_hashes`), sorted, in a file beside the weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.common.errors import InputError
from nas.common.files import write_atomically
from nas.models.weights import source_of
from nas.spaces.graph.folder import is_space_folder

FILE = "seen_images.npy"
Seen = NDArray[np.uint64]
UNKNOWN = np.zeros(1, np.uint64)
"""Stands among the hashes for images of which nobody knows which they are; no image in a split has it for its own."""


def seen_by(init: str) -> Seen:
    """What the weights of a word have seen: of a folder of an older version `UNKNOWN`, of backbones by name none of ours.

    Raises `InputError` for a file that is not right.
    """
    folder = source_of(init).folder
    path = folder and folder / FILE
    if path is None:
        return np.empty(0, np.uint64)
    if not path.is_file():
        return UNKNOWN
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint64 or found.ndim != 1:
            raise ValueError("not a list of hashes")
    except Exception as error:  # numpy raises nearly anything on damaged files
        raise InputError(f"{path}: does not hold what images the weights were trained on: {error}") from error
    return found


def together(*parts: Seen) -> Seen:
    """All images of some sets, each once and sorted."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))


def unknown_text(init: str) -> str | None:
    """What is not known of what weights have seen, in a sentence; None where all of it is known."""
    seen, title = seen_by(init), source_of(init).title
    if not np.isin(UNKNOWN, seen).all():
        return None
    if len(seen) == 1:
        return f"what images {title} was trained on is not known, since {_reason(init)}"
    return f"not all images that {title} was trained on are known, since an older version made what it began with"


def _reason(init: str) -> str:
    return "nothing there says it" if is_space_folder(Path(init)) else "an older version made it"


def write_seen(folder: Path, seen: Seen) -> None:
    """Say beside weights what they were trained on; raises `OSError`."""
    content = io.BytesIO()
    np.save(content, seen, allow_pickle=False)
    write_atomically(folder / FILE, content.getvalue())
