"""Steps of the optimiser: loss, precision, learning rate."""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nas.common.errors import InputError, arg
from nas.tasks.base import Loss
from nas.training.augment import Mixed
from nas.training.distributed import average_gradients
from nas.training.recipe import Precision, Recipe

_ONECYCLE_START, _ONECYCLE_END = 1 / 25, 1e-4
"""As shares of the peak, of torch's OneCycleLR and of the start."""

_PRECISION_S = 2.0
"""Seconds after which no more steps are timed to choose a precision."""
_FEW = 16
"""Images of a step that is timed where one on a whole batch would be long."""


def learning_rate_at(progress: float, recipe: Recipe) -> float:
    """The learning rate at a share (0 to 1) of the training, whatever budget ends it.

    One-cycle: from 1/25 of the peak up and down to next to nothing, both along a cosine (Smith & Topin, 2018); cosine:
    a linear warm-up, then a cosine to zero (Loshchilov & Hutter, 2017; Goyal et al., 2017, section 2.2).
    """
    peak, warmup = recipe.learning_rate, recipe.warmup
    one_cycle = recipe.schedule == "onecycle"
    start, end = (peak * _ONECYCLE_START, peak * _ONECYCLE_START * _ONECYCLE_END) if one_cycle else (0.0, 0.0)
    if progress < warmup:
        share = progress / warmup
        return start + (peak - start) * ((1 - math.cos(math.pi * share)) / 2 if one_cycle else share)
    share = (progress - warmup) / (1 - warmup)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


def check_recipe(recipe: Recipe, device: str, least_epochs: int = 1) -> None:
    """Raise `InputError` for what a device cannot do, or fewer epochs than are needed."""
    if recipe.epochs < least_epochs:
        raise InputError(
            f"epochs {recipe.epochs}: this training needs at least {least_epochs}; only nas search and nas evaluate can "
            f"do without, with {arg('recipe.epochs')} 0"
        )
    if recipe.precision == "float16" and device == "cpu":
        raise InputError("precision float16: only on cuda; use auto, float32 or bfloat16 on a CPU")
    if recipe.compile and device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise InputError("compile true: torch.compile needs a C++ compiler on a CPU, and there is no g++ here")


def faster_precision(model: nn.Module, images: torch.Tensor, recipe: Recipe) -> Precision:
    """What `auto` means here: bfloat16 (float16 on older GPUs) on CUDA; on a CPU what takes less time, measured.

    On a CPU training steps of a copy of the model on these images (N, C, H, W), or on a few of them where a step is long, are
    timed in turn, and the fastest of each counts, which is what a busy machine disturbs least; bfloat16 has to be faster
    by a tenth.
    """
    if images.device.type == "cuda":
        return gpu_precision()
    copied = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    few = images[:_FEW]

    def step_s(precision: Precision, images: torch.Tensor) -> float:
        stepper = Stepper(copied, replace(recipe, precision=precision, compile=False), images.device)
        start = time.perf_counter()
        stepper.backward_and_step([stepper.forward(images).square().mean()])
        return time.perf_counter() - start

    seconds: dict[Precision, float] = {"float32": math.inf, "bfloat16": math.inf}
    end = time.perf_counter() + _PRECISION_S
    if sum(step_s(precision, few) for precision in seconds) < _PRECISION_S / 4:
        few = images
    for attempt in range(10):
        if attempt > 1 and time.perf_counter() > end:
            break
        for precision, fastest in seconds.items():
            seconds[precision] = min(fastest, step_s(precision, few))
    return "bfloat16" if seconds["bfloat16"] < 0.9 * seconds["float32"] else "float32"


def gpu_precision() -> Precision:
    """What `auto` means on this machine's GPU."""
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


class Stepper:
    """An optimiser with the recipe's precision, compilation and clipping around it."""

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self._forward = torch.compile(model) if recipe.compile else model
        self._recipe = recipe
        self._device = device
        self._dtype = getattr(torch, recipe.precision) if recipe.precision != "auto" else torch.float32
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)
        self._parameters = list(model.parameters())
        groups = [
            {"params": [p for p in self._parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            momentum = recipe.momentum
            self._optimizer = torch.optim.SGD(groups, recipe.learning_rate, momentum, nesterov=momentum > 0)
        else:
            self._optimizer = torch.optim.AdamW(groups, recipe.learning_rate)
        self.rate = recipe.learning_rate

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps that follow."""
        self.rate = rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """What the steps that follow depend on, beside the model; tensors of it are the optimiser's own."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What the network gives for images (N, C, H, W), in float32."""
        with self.autocast():
            return self._forward(images).float()

    def autocast(self) -> torch.autocast:
        """In which a forward pass has the recipe's precision."""
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not torch.float32)

    def backward_and_step(self, losses: Iterable[torch.Tensor]) -> torch.Tensor:
        """One step down the sum of losses, each taken back through its network before the next is asked for; the first."""
        self._optimizer.zero_grad(set_to_none=True)
        first: torch.Tensor | None = None
        for loss in losses:
            self._scaler.scale(loss).backward()
            first = loss.detach() if first is None else first
        assert first is not None
        average_gradients(self._parameters)
        if self._recipe.clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return first


def mean_loss(loss: Loss, raw: torch.Tensor, targets: Any, mixed: Mixed | None, weighed: bool) -> torch.Tensor:
    """The mean loss of a batch, of images in their shares where they are mixed; with `weighed` rare kinds count more."""
    if mixed is None:
        of_each, weights = loss(raw, targets), loss.weights(targets) if weighed else None
        return of_each.mean() if weights is None else (weights * of_each).sum() / weights.sum()
    total, weight = torch.zeros_like(mixed.share), torch.zeros_like(mixed.share)
    for target, share in ((targets, mixed.share), (mixed.others, 1 - mixed.share)):
        weights = loss.weights(target) if weighed else None
        share = share if weights is None else share * weights
        total = total + share * loss(raw, target)
        weight = weight + share
    return total.sum() / weight.sum()
