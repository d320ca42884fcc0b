"""supernet.yaml: how a supernet is trained, and what came of it. No torch layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, TypeAdapter

from nas.common.files import write_yaml
from nas.common.text import duration_text, plural
from nas.models.supernet import SupernetInfo, read_as
from nas.training.recipe import Recipe

REFERENCES = ("smallest", "backbone", "largest")
"""Networks of the space that are scored after each epoch."""


@dataclass(frozen=True)
class SupernetEpoch:
    """What an epoch gave: mean loss of the largest network, and the task's score on the validation split of the reference networks.

    In files the scores are called accuracy. `share` is how much of all planned steps was done by its end; older files lack it.
    """

    epoch: int
    train_loss: float
    scores: Annotated[
        Mapping[str, float],
        Field(validation_alias=AliasChoices("accuracy", "scores"), serialization_alias="accuracy"),
    ]
    seconds: float
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class SupernetFile(SupernetInfo):
    """All that supernet.yaml says.

    `random` is the candidates drawn for each step, `devices` the processes that share each batch.
    """

    recipe: Recipe
    device: str
    seed: int = 0
    random: int = 2
    devices: int = 1
    history: tuple[SupernetEpoch, ...] = ()


EPOCHS = TypeAdapter(tuple[SupernetEpoch, ...])
_FILE = TypeAdapter(SupernetFile)


def cut_short(file: SupernetFile) -> str | None:
    """How far the training came that its budget of time ended, in words; None where it took all of its steps."""
    if file.recipe.seconds is None or not file.history:
        return None
    last = file.history[-1]
    share = last.epoch / file.recipe.epochs if last.share is None else last.share
    if share >= 1:
        return None
    planned = f"{file.recipe.steps:,} steps" if file.recipe.steps else plural(file.recipe.epochs, "epoch")
    return (
        f"its time budget of {duration_text(file.recipe.seconds)} ended the training after {100 * share:.2g} % of "
        f"{planned}"
    )


def read_file(folder: Path) -> SupernetFile:
    """supernet.yaml of a folder; raises `InputError`."""
    return read_as(_FILE, folder)


def write_file(folder: Path, file: SupernetFile) -> None:
    """Write supernet.yaml; raises `InputError` where it cannot be written."""
    write_yaml(folder / "supernet.yaml", _FILE.dump_python(file, mode="json", by_alias=True))
