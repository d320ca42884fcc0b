"""Images where the training runs: on the device where they fit, read in batches by worker processes where not."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from nas.common.patience import hung, read_timeout_s
from nas.data.sets import ImageData, Split

CALIBRATION_POSITIONS = 512 * 64**2
"""Pixels of the calibration images in all: 512 images at 64x64."""
_SHARE_OF_FREE = 0.5
"""Of the GPU's free memory: the rest is for the network and for a trial beside this one."""

Batch = tuple[torch.Tensor, Any]


class DevicePart:
    """One part of a data set: targets (N, ...) on the device, images (N, C, H, W) uint8 there too or left where they are."""

    def __init__(self, part: Split, device: torch.device, resident: bool) -> None:
        self.part = part
        self.labels = torch.from_numpy(part.labels.copy()).to(device)
        self.device = device
        self.resident = resident
        self._images = _on_device(part, device) if resident else None

    def __len__(self) -> int:
        return len(self.part)

    def batches(self, order: torch.Tensor, size: int) -> Iterator[Batch]:
        """Images (size, C, H, W) uint8 and targets in the order given by rows (M,) on the CPU; the last may be smaller."""
        rows = list(order.split(size))
        if self._images is not None:
            for batch in rows:
                index = batch.to(self.device)
                yield self._images[index], self.labels[index]
            return
        workers = min(4, len(os.sched_getaffinity(0)), len(rows))
        loader = DataLoader(
            _Rows(self.part, rows),
            batch_size=None,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            timeout=(read_timeout_s() or 0.0) if workers else 0.0,
        )
        for batch, images in zip(rows, self._in_time(iter(loader)), strict=True):
            yield images.to(self.device, non_blocking=True), self.labels[batch.to(self.device)]

    def _in_time(self, batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """What a loader reads; raises `InputError` where it waited as long as a read may take."""
        limit = read_timeout_s()
        while True:
            began = time.monotonic()
            try:
                images = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:  # of a worker's own errors too
                if limit is None or time.monotonic() - began < limit:
                    raise
                raise hung(getattr(self.part.images, "filename", "images of a batch")) from error
            yield images

    def in_order(self, size: int) -> Iterator[Batch]:
        """All of it, front to back."""
        return self.batches(torch.arange(len(self)), size)


class _Rows(Dataset[torch.Tensor]):
    """What a worker process reads: the images of one batch."""

    def __init__(self, part: Split, rows: list[torch.Tensor]) -> None:
        self._part = part
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._part.take(self._rows[index].numpy()))


class DeviceData:
    """The parts of a data set on a device, and the way from uint8 to what a network reads.

    `resident` says whether the images lie on the device; by default where they fit: in half of a GPU's free memory,
    and on the CPU when they are not memory-mapped.
    """

    def __init__(self, data: ImageData, device: str, *, resident: bool | None = None) -> None:
        self.data = data
        self.device = torch.device(device)
        resident = _fits(data, self.device) if resident is None else resident
        self.train = DevicePart(data.train, self.device, resident)
        self.validation = DevicePart(data.validation, self.device, resident)
        self.test = None if data.test is None else DevicePart(data.test, self.device, resident)
        self.mean, self.std = self._by_channel(data.mean), self._by_channel(data.std)

    def normalised_as(self, data: ImageData) -> DeviceData:
        """The same images with the mean and deviation of `data`, which holds them too; nothing is copied."""
        other = copy.copy(self)
        other.data = data
        other.mean, other.std = self._by_channel(data.mean), self._by_channel(data.std)
        return other

    def _by_channel(self, values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, device=self.device).view(1, -1, 1, 1)

    def calibration_batches(self, side: int) -> list[torch.Tensor]:
        """A fixed, mixed subset of the training split, prepared: for batch norm statistics and least squares.

        512 images up to 64x64 pixels, fewer of larger ones (at least 64), so that memory stays bounded.
        """
        count = max(64, min(512, CALIBRATION_POSITIONS // side**2))
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))[:count]
        return [self.prepare(images, side) for images, _ in self.train.batches(order, 128)]

    def prepare(self, images: torch.Tensor, side: int) -> torch.Tensor:
        """uint8 (N, C, H, W) to normalised float32 (N, C, side, side) in channels_last."""
        return prepared(images, side, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Floats (N, C, H, W) on a scale of 0 to 1 to the mean and deviation of the data, in channels_last."""
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def prepared(images: torch.Tensor, side: int, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """uint8 (N, C, H, W) to what a network reads, float32 (N, C, side, side): scaled to 0 to 1, resized, normalised."""
    return (resize(images.float().div_(255), side) - mean) / std


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Floats (N, C, H, W) to (N, C, side, side)."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _on_device(part: Split, device: torch.device) -> torch.Tensor:
    images = torch.empty((len(part), *part.images.shape[1:]), dtype=torch.uint8, device=device)
    start = 0
    for chunk in part.chunks():
        images[start : start + len(chunk)] = torch.from_numpy(chunk)
        start += len(chunk)
    return images


def _fits(data: ImageData, device: torch.device) -> bool:
    parts = [part for part in (data.train, data.validation, data.test) if part is not None]
    if device.type == "cpu":
        return not any(isinstance(part.images, np.memmap) for part in parts)
    free, _ = torch.cuda.mem_get_info(device)
    per_image = data.train.images[0].nbytes
    return sum(len(part) for part in parts) * per_image < _SHARE_OF_FREE * free
