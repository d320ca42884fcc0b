"""Processes that train one network together: what each needs of the others. A process on its own is the only rank."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist


def rank_and_ranks() -> tuple[int, int]:
    """Which one this process is, from 0, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, all of which have gradients of the same parameters."""
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= ranks
    for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def largest(value: float, device: torch.device) -> float:
    """The largest of the ranks' values, so that all of them decide alike by it."""
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return value
    agreed = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return float(agreed)
