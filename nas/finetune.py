"""The fine-tune: one loop for the brief training of a search and for the full one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from nas.data import ImageData, Part
from nas.device_lease import DeviceLease
from nas.errors import CandidateError
from nas.metrics import Metric, score
from nas.record import EpochMetrics
from nas.settings import Recipe

BURST_S = 0.05
"""Seconds of work under one shared lease; with one step, where that is longer, what a measurement may wait."""
CALIBRATION_IMAGES = 512


class DeviceData:
    """Training and validation parts on the device as uint8, normalised and augmented in batches there."""

    def __init__(self, data: ImageData, device: str) -> None:
        self.data = data
        self.device = torch.device(device)
        self.train_images, self.train_labels = self._put(data.train)
        self.validation_images, self.validation_labels = self._put(data.validation)
        self.mean = torch.tensor(data.mean, device=self.device).view(1, -1, 1, 1)
        self.std = torch.tensor(data.std, device=self.device).view(1, -1, 1, 1)

    def _put(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        # copy(): arrays from Ray's object store are read-only, which torch does not know.
        return (
            torch.from_numpy(part.images.copy()).to(self.device),
            torch.from_numpy(part.labels.copy()).to(self.device),
        )

    def calibration_batches(self, side: int) -> Iterator[torch.Tensor]:
        """A fixed, mixed subset of the training part for batch norm statistics: `CALIBRATION_IMAGES` at most."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(0))
        for batch in order[:CALIBRATION_IMAGES].split(128):
            yield self.prepare(self.train_images[batch.to(self.device)], side)

    def prepare(self, images: torch.Tensor, side: int) -> torch.Tensor:
        """uint8 (N, C, H, W) to normalised float32 (N, C, side, side) in channels_last."""
        x = images.float().div_(255)
        if x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        return x.sub_(self.mean).div_(self.std).contiguous(memory_format=torch.channels_last)


def finetune(
    model: nn.Module,
    data: DeviceData,
    side: int,
    recipe: Recipe,
    metric: Metric,
    *,
    seed: int,
    lease: DeviceLease | None = None,
) -> Iterator[EpochMetrics]:
    """Train a model in place on images of `side` pixels, one epoch a step of the iterator; the last epoch's metrics are the result.

    The last and not the best epoch, since picking the best of noisy scores flatters. Raises `CandidateError`
    when the loss is not finite.
    """
    device = data.device
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws the same
    model.to(device).to(memory_format=torch.channels_last)
    count = len(data.train_labels)
    batch_size = min(recipe.batch_size, count)
    steps = max(1, count // batch_size)  # the odd rest of an epoch is left out, another one each time
    optimizer = torch.optim.AdamW(_parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate)
    total = recipe.epochs * steps + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=total,
        pct_start=min(1.0, max(0.25, 2 / total)),  # torch divides by zero in a warm-up of a single step
    )
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        model.train()
        order = torch.randperm(count, generator=generator).to(device)
        losses = torch.zeros((), device=device)
        bursts = Bursts(lease, device)
        for step in range(steps):
            with bursts:
                batch = order[step * batch_size : (step + 1) * batch_size]
                images = data.prepare(_augment(data, data.train_images[batch], recipe.crop_share, generator), side)
                loss = F.cross_entropy(model(images), data.train_labels[batch], label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                losses += loss.detach()
        bursts.close()
        train_seconds = time.perf_counter() - start
        train_loss = losses.item() / steps
        if not math.isfinite(train_loss):
            raise CandidateError(f"the training loss became {train_loss} in epoch {epoch}")
        predictions, validation_loss = predict(
            model, data, side, data.validation_images, data.validation_labels, lease=lease
        )
        labels = data.data.validation.labels
        yield EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=validation_loss,
            score=score(metric, labels, predictions),
            accuracy=float((predictions == labels).mean()),
            images_per_s=steps * batch_size / train_seconds,
            seconds=time.perf_counter() - start,
        )


@torch.inference_mode()
def predict(
    model: nn.Module,
    data: DeviceData,
    side: int,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    batch_size: int = 256,
    lease: DeviceLease | None = None,
) -> tuple[NDArray[np.int64], float]:
    """Predicted classes (N,) and mean cross-entropy of uint8 images (N, C, H, W) on the data's device.

    Raises `CandidateError` when the logits are not finite.
    """
    model.eval()
    bursts = Bursts(lease, data.device)
    logits = []
    for start in range(0, len(images), batch_size):
        with bursts:
            logits.append(model(data.prepare(images[start : start + batch_size], side)).float())
    bursts.close()
    scores = torch.cat(logits)
    if not torch.isfinite(scores).all():
        raise CandidateError("the network's outputs are not finite numbers")
    return scores.argmax(1).cpu().numpy(), F.cross_entropy(scores, labels).item()


class Bursts:
    """Work under the shared lease in bursts of about `BURST_S`: enter once a step; `close` after the last one.

    Taking the lease anew for each step would cost more than a small network's step.
    """

    def __init__(self, lease: DeviceLease | None, device: torch.device) -> None:
        self._lease = lease
        self._cuda = device.type == "cuda"
        self._held: AbstractContextManager[None] | None = None
        self._until = 0.0

    def __enter__(self) -> None:
        if self._lease is not None and self._held is None:
            self._held = self._lease.shared()
            self._held.__enter__()
            self._until = time.perf_counter() + BURST_S

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None or time.perf_counter() > self._until:
            self.close()

    def close(self) -> None:
        """Give the lease back, once the device has done what was queued."""
        if self._lease is not None and self._held is not None:
            if self._cuda:
                torch.cuda.synchronize()
            self._held.__exit__(None, None, None)
            self._held = None


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def _augment(data: DeviceData, images: torch.Tensor, pad_share: float, generator: torch.Generator) -> torch.Tensor:
    """A random crop of each padded image, and a mirror image of every other where the data allows it."""
    count, _, height, width = images.shape
    pad = round(pad_share * height)
    if pad:
        padded = F.pad(images, (pad, pad, pad, pad))
        shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator).to(images.device)
        rows = shift[0] + torch.arange(height, device=images.device)
        columns = shift[1] + torch.arange(width, device=images.device)
        index = torch.arange(count, device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if data.data.mirror:
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(images.device).view(-1, 1, 1, 1)
        images = torch.where(mirrored, images.flip(3), images)
    return images
