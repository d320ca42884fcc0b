"""The images of a run by their hashes: what its candidates' weights have seen, for whoever inherits from them."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nas.common.errors import InputError
from nas.models.seen import Seen, together
from nas.runs.record import Start


@dataclass(frozen=True)
class RunImages:
    """Hashes (N,) of the training and the validation images, and of what the initial weights were trained on."""

    training: Seen
    validation: Seen
    inherited: Seen

    def seen(self, start: Start, with_validation: bool) -> Seen:
        """What weights were trained on that began so."""
        inherited = [] if start == "scratch" else [self.inherited]
        return together(self.training, *inherited, *([self.validation] if with_validation else []))

    def content(self) -> bytes:
        """The file that keeps them."""
        file = io.BytesIO()
        np.savez(file, **asdict(self))
        return file.getvalue()


def read_images(path: Path) -> RunImages | None:
    """What a file keeps, or None where there is none, as in runs of older versions; raises `InputError`."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = RunImages(**{name: file[name] for name in RunImages.__dataclass_fields__})
        if any(part.dtype != np.uint64 or part.ndim != 1 for part in vars(found).values()):
            raise ValueError("not lists of hashes")
    except Exception as error:  # numpy and zipfile raise nearly anything on damaged files
        raise InputError(f"{path}: does not hold the hashes of the run's images: {error}") from error
    return found
