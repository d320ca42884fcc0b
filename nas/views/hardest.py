"""What a full training found hardest, with pictures that a page can hold."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from nas.common.errors import InputError
from nas.runs.record import TrainingRecord
from nas.tasks.examples import pictures
from nas.tasks.report import Example

HARDEST = "Validation images that it found hardest"
KEY = "Target → what the network found, the greatest loss first. These are the data's own images: mind with whom you share them."


def with_pictures(record: TrainingRecord, sheet: bytes) -> Sequence[tuple[Example, str]]:
    """Each image and the address of its picture; raises `InputError` where the pictures cannot be read."""
    try:
        found = pictures(sheet)
    except (OSError, ValueError) as error:
        raise InputError(f"the pictures cannot be read: {error}") from error
    return [
        (example, f"data:image/png;base64,{base64.b64encode(picture).decode()}")
        for example, picture in zip(record.hardest, found, strict=False)
    ]
