"""What a full training goes on from that was stopped or killed: a file in its run, written anew after epochs."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

from nas.common.errors import InputError
from nas.runs.record import AnyReport
from nas.training.history import EpochMetrics
from nas.training.loop import TrainingState


@dataclass(frozen=True)
class Checkpoint:
    """A training that `started` then and took `seconds` so far, up to some epoch: its `history`, and the `state` to go on from.

    `fresh` parts of the network inherited no weights; `before` is what the test split gave before it.
    """

    started: float
    seconds: float
    fresh: tuple[str, ...]
    before: AnyReport | None
    history: tuple[EpochMetrics, ...]
    state: TrainingState

    def content(self) -> bytes:
        """That of its file."""
        content = {
            "started": self.started,
            "seconds": self.seconds,
            "fresh": self.fresh,
            "before": asdict(self.before) if self.before else None,
            "history": [epoch.as_json() for epoch in self.history],
            "state": dict(self.state),
        }
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()


_CHECKPOINT = TypeAdapter(Checkpoint)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What a training left that did not end, or None; raises `InputError` when it cannot be read."""
    if not path.is_file():
        return None
    try:
        return _CHECKPOINT.validate_python(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises whatever unpickling, zip files and its own checks raise
        raise InputError(
            f"{path}: cannot be read, so that the training cannot go on; delete it to begin again"
        ) from error
