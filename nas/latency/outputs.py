"""Whatever a network gives (a tensor, a dict, a dataclass of them), compared with what it gave before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor


def tensors_of(output: object) -> Iterator[Tensor]:
    """The tensors of an output, in order: those in mappings, lists, tuples and dataclasses too."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_of(value)
    elif is_dataclass(output):
        for field in fields(output):
            yield from tensors_of(getattr(output, field.name))


def kept(output: object) -> list[Tensor]:
    """Copies of the tensors of an output, which later runs cannot change."""
    return [_plain(tensor) for tensor in tensors_of(output)]


def difference(first: object, second: object) -> float | None:
    """The largest difference of two outputs, each tensor's as a share of its largest value.

    Infinite where they have other tensors, shapes, or values that are not finite; None where there is no finite value
    to compare.
    """
    before, after = kept(first), kept(second)
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    worst: float | None = None
    for one, other in zip(before, after, strict=True):
        known = one.isfinite()
        if not torch.equal(known, other.isfinite()):
            return float("inf")
        if known.any():
            apart = (one - other)[known].abs().max().item()
            largest = one[known].abs().max().item()
            worst = max(worst or 0.0, apart / largest if largest else apart and float("inf"))
    return worst


def _plain(tensor: Tensor) -> Tensor:
    """The same values, dense, in double precision, on the CPU."""
    value = tensor.detach()
    if value.is_quantized:
        value = value.dequantize()
    if value.layout is not torch.strided:
        value = value.to_dense()
    return value.to("cpu", torch.complex128 if value.is_complex() else torch.float64, copy=True)
