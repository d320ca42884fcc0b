"""The fine-tune: one loop for the proxy training of a search and for the full one."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.hooks import RemovableHandle

from nas.common.errors import CandidateError, InputError, OutOfTimeError
from nas.data.image_data import ImageData, Split
from nas.latency.lease import Bursts, DeviceLease
from nas.models.freezing import Freezing
from nas.tasks.base import Loss, Score, Task, task_of
from nas.tasks.motion import Motion
from nas.training.allocator import reused_memory
from nas.training.augment import change_colour, cutout, mix, resized_crop, shift_and_hflip
from nas.training.device_data import DeviceData, DevicePart, resize
from nas.training.history import EpochMetrics
from nas.training.length import Length, Spent
from nas.training.memory import lean_activations
from nas.training.optim import Stepper, learning_rate_at, mean_loss
from nas.training.recipe import Recipe

TrainingState = Mapping[str, Any]
"""All that a training goes on from after an epoch: tensors and plain values, which torch loads with `weights_only`."""

_NOT_SCORED: dict[str, Any] = {"score": math.nan, "validation_loss": math.nan}


def finetune(
    model: nn.Module,
    data: DeviceData,
    side: int,
    recipe: Recipe,
    metric: Score | None,
    *,
    seed: int,
    lease: DeviceLease | None = None,
    resume: TrainingState | None = None,
    keep: Callable[[EpochMetrics, TrainingState], None] | None = None,
    until: float | None = None,
    scored: Callable[[Predicted], None] = lambda predicted: None,
) -> Iterator[EpochMetrics]:
    """Train a model in place on images of `side` pixels, an epoch a step of the iterator; the last one's metrics count.

    With a recipe of 0 epochs the model is scored as it is, as epoch 0, and no optimiser is made.
    The task is that of the data, and the metric a score of it. Without a metric the validation split is not looked at: its loss and scores are NaN, and there is no patience.
    `keep` is told of each epoch but the last with the state after it, to be saved before the next one changes it; given
    to `resume`, it lets the same call go on behind that epoch as if nothing had happened, to the bit on a CPU.
    `scored` is told what each epoch's network says of the validation split, where that is looked at.
    Raises `CandidateError` when the loss is not finite, and `OutOfTimeError` before a step that would begin after `until`
    (UTC seconds since the epoch).
    """
    model.to(data.device).to(memory_format=torch.channels_last)
    if recipe.epochs == 0:
        start = time.perf_counter()
        scores = _NOT_SCORED if metric is None else _scores(model, data, side, metric, lease, scored)
        yield EpochMetrics(0, None, images_per_s=0.0, seconds=time.perf_counter() - start, **scores)
        return
    begun, best, best_epoch = 0, -math.inf, 0
    sign = 1 if metric is None or metric.direction == "maximize" else -1
    with reused_memory(data.device), _Training(model, data, side, recipe, seed, lease) as training:
        if resume is not None:
            training.restore(resume)
            begun, best, best_epoch = resume["epoch"], resume["best"], resume["best_epoch"]
        for epoch in range(begun + 1, recipe.epochs + 1):
            start = time.perf_counter()
            train_loss = training.epoch(until)
            if not math.isfinite(train_loss):
                raise CandidateError(f"the training loss became {train_loss} in epoch {epoch}")
            scores = _NOT_SCORED if metric is None else _scores(training.scored, data, side, metric, lease, scored)
            if sign * scores["score"] > best:
                best, best_epoch = sign * scores["score"], epoch
            impatient = metric is not None and recipe.patience and epoch - best_epoch >= recipe.patience
            over = training.progress >= 1 or bool(impatient)
            if over:
                training.finish()
            metrics = EpochMetrics(
                epoch=epoch,
                train_loss=train_loss,
                images_per_s=training.images_per_s,
                seconds=time.perf_counter() - start,
                learning_rate=training.stepper.rate,
                **scores,
            )
            if keep is not None and not over:
                keep(metrics, {**training.state(), "epoch": epoch, "best": best, "best_epoch": best_epoch})
            yield metrics
            if over:
                return


def _scores(
    model: nn.Module,
    data: DeviceData,
    side: int,
    metric: Score,
    lease: DeviceLease | None,
    scored: Callable[[Predicted], None],
) -> dict[str, Any]:
    """What a model gets on the validation split."""
    task, targets = task_of(data.data.task), data.data.validation.labels
    predicted = predict(model, data, data.validation, side, lease=lease)
    scored(predicted)
    return {
        "scores": task.scores(predicted.raw, predicted.predictions, targets),
        "validation_loss": predicted.loss,
        "score": metric(targets, predicted.predictions),
    }


class _Training:
    """A model in training: optimiser, frozen parts, averaged weights, and how much of the budget is spent."""

    def __init__(
        self, model: nn.Module, data: DeviceData, side: int, recipe: Recipe, seed: int, lease: DeviceLease | None
    ) -> None:
        self._model, self._data, self._side, self._recipe, self._lease = model, data, side, recipe, lease
        self._generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws the same
        self._length = Length.of(recipe, len(data.train))
        self._spent = Spent(self._length)
        self._task = task_of(data.data.task)
        self._loss = self._task.loss(data.train.labels, data.data.classes, recipe.label_smoothing)
        self._weights = _balanced_weights(self._task, self._loss, data.train) if recipe.balance != "none" else None
        self._average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
        self._freezing = Freezing(model, recipe.trainable)
        self._dropout = _dropout_before_classifier(model, recipe.dropout, self._generator)
        self._plain_activations = (lambda: None) if recipe.compile else lean_activations(model)
        self.stepper = Stepper(model, recipe, data.device)
        self.images_per_s = 0.0

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return self._spent.share

    @property
    def scored(self) -> nn.Module:
        """The network whose score counts: the averaged one where there is one."""
        return self._average or self._model

    def epoch(self, until: float | None = None) -> float:
        """Train for an epoch, or until the budget is spent; the mean loss. Raises `OutOfTimeError`."""
        recipe, length, spent = self._recipe, self._length, self._spent
        before = spent.seconds
        sampled = self._weights if recipe.balance == "sampling" else None
        order = _order(self._data.train, sampled, self._generator)
        order = order[: length.steps_an_epoch * length.batch_size]  # another rest is left out each time
        losses, steps, start = torch.zeros((), device=self._data.device), 0, time.perf_counter()
        bursts = Bursts(self._lease, self._data.device)
        for images, targets in self._data.train.batches(order, length.batch_size):
            if until is not None and time.monotonic() >= until:
                bursts.close()
                raise OutOfTimeError
            with bursts:
                losses += self._step(images, targets)
            steps += 1
            if not self._data.train.resident:
                bursts.close()  # the next batch may have to be waited for
            spent.seconds = before + time.perf_counter() - start - bursts.waited_s
            if self.progress >= 1:
                break
        bursts.close()
        seconds = time.perf_counter() - start - bursts.waited_s
        spent.seconds = before + seconds
        self.images_per_s = steps * length.batch_size / seconds
        return losses.item() / steps

    def _step(self, images: torch.Tensor, targets: Any) -> torch.Tensor:
        self._freezing.train(self.progress)
        self.stepper.set_rate(learning_rate_at(self._spent.share_in_step, self._recipe))
        motion = Motion(images) if self._task.targets_move else None
        x = augmented(self._data, images, self._side, self._recipe, self._generator, motion)
        if motion is not None:
            targets = self._task.move(targets, motion)
        mixed = mix(x, targets, self._recipe, self._generator)
        raw = self.stepper.forward(x if mixed is None else mixed.images)
        weighed = self._recipe.balance == "loss"
        loss = self.stepper.backward_and_step([mean_loss(self._loss, raw, targets, mixed, weighed)])
        self._spent.steps += 1
        if self._average is not None:
            done = self._spent.steps
            _update_ema(self._average, self._model, min(self._recipe.ema, done / (done + 10)))
        return loss

    def finish(self) -> None:
        """Leave in the model what was scored, in evaluation mode."""
        if self._average is not None:
            self._model.load_state_dict(self._average.state_dict())
        self._model.eval()

    def state(self) -> dict[str, Any]:
        """What the epochs that follow depend on; its tensors are the training's own."""
        return {
            "model": self._model.state_dict(),
            "average": self._average.state_dict() if self._average is not None else None,
            "stepper": self.stepper.state(),
            "generator": self._generator.get_state(),
            "done": self._spent.steps,
            "seconds": self._spent.seconds,
        }

    def restore(self, state: TrainingState) -> None:
        """Go on from what `state` gave."""
        self._model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.stepper.restore(state["stepper"])
        self._generator.set_state(state["generator"])
        self._spent.steps, self._spent.seconds = state["done"], state["seconds"]

    def __enter__(self) -> _Training:
        return self

    def __exit__(self, *_: object) -> None:
        """Take back what was done to the model beside its weights."""
        self._model.requires_grad_(True)
        self._plain_activations()
        if self._dropout is not None:
            self._dropout.remove()


@dataclass(frozen=True)
class Predicted:
    """A network's outputs (N, ...) on a split of the data, what its task reads in them, and the losses (N,)."""

    raw: torch.Tensor
    predictions: Any
    losses: torch.Tensor

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.losses.mean().item()


@torch.inference_mode()
def predict(
    model: nn.Module,
    data: DeviceData,
    part: DevicePart,
    side: int,
    *,
    batch_size: int = 256,
    lease: DeviceLease | None = None,
) -> Predicted:
    """What a model says of a split of the data, in float32; it is left in evaluation mode.

    Raises `CandidateError` when the outputs are not finite.
    """
    model.eval()
    bursts = Bursts(lease, data.device)
    outputs = []
    for images, _ in part.in_order(batch_size):
        with bursts:
            outputs.append(model(data.prepare(images, side)).float())
        if not part.resident:
            bursts.close()
    bursts.close()
    raw = torch.cat(outputs)
    if not torch.isfinite(raw).all():
        raise CandidateError("the network's outputs are not finite numbers")
    task = task_of(data.data.task)
    loss = task.loss(part.labels, data.data.classes, smoothing=0.0)
    return Predicted(raw, task.decode(raw), loss(raw, part.labels))


def report_on(predicted: Predicted, data: ImageData, part: Split) -> Any:
    """How a network does on a whole split of the data, as its task reports it."""
    return task_of(data.task).report(predicted.raw, predicted.predictions, part.labels, data.classes)


def augmented(
    data: DeviceData,
    images: torch.Tensor,
    side: int,
    recipe: Recipe,
    generator: torch.Generator,
    motion: Motion | None = None,
) -> torch.Tensor:
    """uint8 (N, C, H, W) to what the network reads in training, (N, C, side, side); where it moved is added to `motion`."""
    hflip = data.data.hflip if recipe.hflip is None else recipe.hflip
    x = shift_and_hflip(images, recipe.crop_share, hflip, generator, motion).float().div_(255)
    if recipe.resized_crop:
        x = resized_crop(x, recipe.resized_crop, generator, motion)
    x = resize(x, side)
    if recipe.colour:
        x = change_colour(x, recipe.colour, generator)
    x = data.normalise(x)
    return cutout(x, recipe.cutout, generator) if recipe.cutout else x


def _balanced_weights(task: Task, loss: Loss, part: DevicePart) -> torch.Tensor:
    """How much each example (N,) counts where rare kinds do as much as frequent ones."""
    weights = loss.weights(part.labels)
    if weights is None:
        raise InputError(f"balance: the task {task.name} has no kinds of examples to balance; use none")
    return weights


def _order(part: DevicePart, weights: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
    """Rows of an epoch: each once, or drawn with replacement by weights (N,)."""
    if weights is None:
        return torch.randperm(len(part), generator=generator)
    chances = weights.cpu().double()
    places = torch.rand(len(part), generator=generator, dtype=torch.double) * chances.sum()
    return torch.searchsorted(chances.cumsum(0), places).clamp_max(len(part) - 1)


@torch.no_grad()
def _update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average towards the model, batch norm statistics too."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    get_ema_multi_avg_fn(decay)(list(means), list(values), 0)
    for count, current in (pair for pair in pairs if not pair[0].is_floating_point()):
        count.copy_(current)


def _dropout_before_classifier(model: nn.Module, share: float, generator: torch.Generator) -> RemovableHandle | None:
    """Dropout on what the last linear layer reads, while training; None where the share is 0."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not share or not linear:
        return None

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not module.training:
            return None
        keep = (torch.rand(inputs[0].shape, generator=generator) >= share).to(inputs[0].device)
        return (inputs[0] * keep / (1 - share),)

    return linear[-1].register_forward_pre_hook(drop)
