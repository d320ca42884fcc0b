"""The images that networks train on: in the channels, size and normalisation that a space and its initial weights ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas.common.errors import InputError
from nas.data.image_data import ImageData
from nas.models.backbones import check_fits, load_source
from nas.models.sources import SCRATCH, SUPERNET
from nas.models.supernet import read_info
from nas.spaces.mobile.space import SearchSpace
from nas.tasks.base import task_of


def normalised_for(data: ImageData, init: str) -> ImageData:
    """The data with the normalisation that the inherited weights were trained with."""
    if init == SCRATCH:
        return data
    source = load_source(init)
    return with_normalisation(data, source.mean, source.std)


def with_normalisation(data: ImageData, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageData:
    """The data with this mean and deviation a channel; their averages where it has another number of channels."""
    if data.channels != len(mean):  # grey images into weights of three channels, summed
        mean, std = (sum(mean) / len(mean),) * data.channels, (sum(std) / len(std),) * data.channels
    return replace(data, mean=mean, std=std)


def check_unseen(init: str, data: str, split_seed: int) -> None:
    """Raise `InputError` where a supernet was trained on another split of the same data."""
    if not init.startswith(SUPERNET):
        return
    theirs = read_info(Path(init.removeprefix(SUPERNET)))
    if theirs.data == data and theirs.split_seed != split_seed:
        raise InputError(
            f"--split-seed {split_seed}: the supernet {init.removeprefix(SUPERNET)} was trained with --split-seed "
            f"{theirs.split_seed}, so that it has seen images of this validation part; use {theirs.split_seed}"
        )


def init_fingerprint(init: str) -> str | None:
    """What tells the initial weights from others of that name; None for random ones."""
    return None if init == SCRATCH else load_source(init).fingerprint()


def load_images(space: SearchSpace, data: str, split_seed: int, init: str, task: str = "classification") -> ImageData:
    """The task's data set in the channels, size and normalisation that the space and the initial weights ask for.

    Raises `InputError` where the weights do not fit, or are those of a supernet that has seen the validation part.
    """
    check_fits(init, space)
    check_unseen(init, data, split_seed)
    channels, size = space.input.channels, max(space.input.size)
    loaded = task_of(task).read(data, channels=channels, size=size, split_seed=split_seed)
    return normalised_for(replace(loaded, task=task), init)
