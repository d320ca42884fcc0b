"""What every task has to keep: epochs in files, and where augmentation moved what lies within images."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from nas.common.jsonl import json_line
from nas.tasks.motion import Motion
from nas.training.augment import resized_crop, shift_and_hflip
from nas.training.history import EpochMetrics

EPOCH = TypeAdapter(EpochMetrics)
OLD = (
    '{"epoch":2,"train_loss":1.5,"validation_loss":1.25,"score":0.5,"accuracy":0.75,"images_per_s":100.0,"seconds":2.5,'
    '"top5":1.0,"macro_f1":0.5,"balanced_accuracy":null,"learning_rate":0.001}'
)


def test_epochs_of_before_the_tasks_are_read_and_new_ones_are_written_as_they_were() -> None:
    read = EPOCH.validate_json(OLD)
    assert read == EpochMetrics(
        2, 1.5, 1.25, 0.5, {"accuracy": 0.75, "top5": 1.0, "macro_f1": 0.5}, 100.0, 2.5, learning_rate=0.001
    )
    assert json.loads(json_line(read)) == {k: v for k, v in json.loads(OLD).items() if v is not None}
    assert EPOCH.validate_json(json_line(read)) == read


def test_a_motion_says_where_each_place_of_an_augmented_image_comes_from() -> None:
    images = torch.rand(64, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    motion = Motion(images)
    moved = resized_crop(shift_and_hflip(images, 0.25, True, generator, motion), 0.5, generator, motion)
    grid = F.affine_grid(motion.affine, list(images.shape), align_corners=False)
    followed = F.grid_sample(images, grid, align_corners=False)
    inside = (grid.abs() < 1 - 2 / 24).all(-1)  # what was not padded
    assert inside.float().mean() > 0.5
    close = (moved - followed).abs().amax(1) < 1e-4
    assert close[inside].float().mean() > 0.97  # but for reflections at the border of the shifted image
    assert not (images - followed).abs().amax(1)[inside].max() < 0.1
