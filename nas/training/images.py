"""The images that networks train on: in the channels, size and normalisation that a space and its initial weights ask for."""

from __future__ import annotations

import logging
from dataclasses import replace

from nas.common.errors import about
from nas.common.text import printable
from nas.data.distinct import distinct_splits
from nas.data.image_data import ImageData
from nas.data.near_copies import near_remarks
from nas.models.weights import Weights, load_weights
from nas.spaces.base import Space
from nas.tasks.base import DEFAULT, task_of
from nas.training.unseen import check_none_seen, check_unseen, scoring, seen_remarks

logger = logging.getLogger(__name__)


def normalised_for(data: ImageData, weights: Weights) -> ImageData:
    """The data with the normalisation that the inherited weights were trained with, if any."""
    if weights.mean is None or weights.std is None:
        return data
    return with_normalisation(data, weights.mean, weights.std)


def with_normalisation(data: ImageData, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageData:
    """The data with this mean and deviation a channel; their averages where it has another number of channels."""
    if data.channels != len(mean):  # grey images into weights of three channels, summed
        mean, std = (sum(mean) / len(mean),) * data.channels, (sum(std) / len(std),) * data.channels
    return replace(data, mean=mean, std=std)


def load_images(
    space: Space,
    data: str,
    split_seed: int,
    init: str,
    task: str = DEFAULT,
    *,
    distinct: bool = True,
    allow_seen: bool = False,
) -> ImageData:
    """The task's data set in the channels, size and normalisation that the space and the initial weights ask for.

    With `distinct` each image is in one split only (`nas.data.distinct`), and near copies are counted, as what began before that was known does not ask for.
    Raises `InputError` where the weights do not fit, or were trained on validation or test images of the data; with
    `allow_seen` that is only said.
    """
    with about("init"):
        weights = load_weights(init)
        weights.check_fits(space)
    if not allow_seen:
        check_unseen(init, data, split_seed)
    channels, size = space.input_channels, max(space.input_sizes)
    with about("task"):
        read = task_of(task).read
    with about("data"):
        loaded = read(data, channels=channels, size=size, split_seed=split_seed).with_hashes()
        images = distinct_splits(loaded) if distinct else loaded
    near = near_remarks(images) if distinct else ()
    if not allow_seen:
        check_none_seen(init, scoring(images), images.name)
    images = replace(images, remarks=(*images.remarks, *near, *seen_remarks(init, images)))
    for remark in images.remarks[len(loaded.remarks) :]:
        logger.warning("%s: %s", printable(images.name), remark)
    return normalised_for(replace(images, task=task), weights)
