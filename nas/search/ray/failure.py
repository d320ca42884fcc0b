"""What is known of a trial of Tune's that gave no answer."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial


@dataclass(frozen=True)
class Failure:
    """A trial that gave no answer: what its worker raised, if it did, in words too."""

    cause: BaseException | None
    text: str


UNKNOWN = Failure(None, "no reason given")


def failure_of(trial: Trial) -> Failure:
    """That of a trial which Tune says has failed."""
    return Failure(_cause_of(trial), _text_of(trial))


def _cause_of(trial: Trial) -> BaseException | None:
    """What a trial's worker raised; None where it died instead, or what it raised is not to be had here."""
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # there is no such file, or what is in it needs a module that is not here
        return None
    return error.cause if isinstance(error, RayTaskError) else None


def _text_of(trial: Trial) -> str:
    """The last line that Ray tells of a trial's error, the traceback and details of the process left out."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").split("\n")
    except (OSError, TypeError):
        lines = []
    told = [line.strip() for line in lines if line.strip() and not line.startswith("\t")]
    return told[-1][:300] if told else UNKNOWN.text
