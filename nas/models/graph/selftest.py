"""Whether what was captured is the network that was given: outputs, other sizes, training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from nas.common.errors import InputError

TOLERANCE = 1e-4
"""By how much a value may differ, as a share of the largest."""
_OTHER = 32
"""Pixels by which the other size differs."""


def check_same(given: nn.Module, made: nn.Module, image: tuple[int, int, int]) -> bool:
    """Raise `InputError` unless both modules are one network; returns whether it takes images of another size too."""
    channels, height, width = image
    given, made = copy.deepcopy(given).eval(), made.eval()
    _check_outputs(given, made, _images(2, image), "")
    _check_outputs(given, made, _images(3, image), " for a batch of three")
    _check_outputs(given, made, _images(2, image), " for images that lie channels last", channels_last=True)
    larger = (channels, height + _OTHER, width + _OTHER)
    any_size = _takes(given, _images(1, larger))
    if any_size:
        _check_outputs(given, made, _images(1, larger), f" for images of {larger[1]}x{larger[2]}")
    _check_training(given, copy.deepcopy(made), _images(4, image))
    return any_size


def _images(count: int, image: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(count, *image, generator=torch.Generator().manual_seed(count))


def outputs(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """All tensors of a network's output, in order."""
    return [each for each in tree_leaves(module(images)) if isinstance(each, torch.Tensor)]


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest difference of a value as a share of the largest value; infinite where shapes differ."""
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        return float("inf")
    found = [float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in zip(ours, theirs, strict=True)]
    return max(found, default=float("inf"))


@torch.no_grad()
def _takes(module: nn.Module, images: torch.Tensor) -> bool:
    try:
        module(images)
    except Exception:  # the network's own code
        return False
    return True


@torch.no_grad()
def _check_outputs(
    given: nn.Module, made: nn.Module, images: torch.Tensor, where: str, channels_last: bool = False
) -> None:
    theirs = outputs(given, images)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    try:
        gap = difference(outputs(made, images), theirs)
    except Exception as error:
        raise InputError(
            f"what was captured does not run{where} ({' '.join(str(error).split())[:200]}): the network's code takes what is "
            "particular to other images for a constant somewhere"
        ) from error
    if not gap <= TOLERANCE:
        raise InputError(
            f"what was captured gives other outputs{where}, by {gap:.1e} of the largest: it is not the same network"
        )


@torch.enable_grad()
def _check_training(given: nn.Module, made: nn.Module, images: torch.Tensor) -> None:
    """Statistics move as they do in the original, and gradients reach every parameter."""
    before = _statistics(made)
    given.train()
    made.train()
    for parameter in made.parameters():
        parameter.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss: Any = sum(output.float().pow(2).sum() for output in outputs(made, images) if output.requires_grad)
    if not isinstance(loss, torch.Tensor):
        raise InputError("in training no gradient reaches the weights of what was captured")
    loss.backward()
    lacking = [name for name, parameter in made.named_parameters() if parameter.grad is None]
    if lacking:
        raise InputError(f"in training no gradient reaches the weights {lacking[0]} of what was captured")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            given(images)
        except Exception as error:  # the network's own code
            raise InputError(
                f"the network cannot be trained on such images: {' '.join(str(error).split())[:200]}"
            ) from error
    theirs, ours = _statistics(given), _statistics(made)
    for name, value in ours.items():
        if name in theirs and torch.equal(before[name], value) != torch.equal(before[name], theirs[name]):
            raise InputError(f"in training the statistics {name} do not move as those of the original do")


def _statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {n: b.clone() for n, b in module.named_buffers() if n.endswith(("running_mean", "running_var"))}
