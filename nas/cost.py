"""Static cost: multiply-adds, parameters and bytes, from the architecture in closed form or counted on a module.

Counted: convolutions and products of matrices, those of attention among them, a multiply-add as one, as published
figures do. Not counted: batch norm (folded away in deployment), activations, pooling. Parameters and bytes of weights
include those of batch norm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nas.architecture import REMEMBERED, Architecture, LayerSpec
from nas.errors import CandidateError
from nas.geometry import output_size
from nas.record import Cost

if TYPE_CHECKING:
    from torch import nn

    from nas.space import SearchSpace
    from nas.space_sections import Choice


def architecture_cost(architecture: Architecture, num_classes: int) -> Cost:
    """Cost in closed form, without building the network (microseconds, for samplers and space statistics).

    Peak activations, which have no such form, are left out.
    """
    macs, params, statistics = map(sum, zip(*part_costs(architecture, num_classes), strict=True))
    return Cost(macs, params, 4 * params + statistics)


def part_costs(architecture: Architecture, num_classes: int) -> list[tuple[int, int, int]]:
    """Of the stem, each layer, the head where there is one, and the classifier: multiply-adds, parameters, and bytes of
    batch norm's statistics. They add up to the cost of the architecture.
    """
    architecture = architecture.canonical
    stem = architecture.stem
    side, channels = output_size(architecture.input_size, stem.stride), stem.out_channels
    parts = [_convolution(architecture.input_channels, channels, stem.kernel_size, side)]
    for layer in architecture.layers:
        parts.append(_layer(layer, channels, side))
        side, channels = output_size(side, layer.stride), layer.out_channels
    if architecture.head_channels:
        parts.append(_convolution(channels, architecture.head_channels, 1, side))
        channels = architecture.head_channels
    parts.append((channels * num_classes, channels * num_classes + num_classes, 0))
    return parts


def _convolution(in_channels: int, out_channels: int, kernel_size: int, side: int) -> tuple[int, int, int]:
    """Multiply-adds, parameters, and bytes of statistics of a convolution to a map of `side`, with its batch norm."""
    weights = in_channels * out_channels * kernel_size**2
    # Mean and variance in float32, the number of batches in int64.
    return weights * side**2, weights + 2 * out_channels, 4 * 2 * out_channels + 8


@lru_cache(REMEMBERED)
def _layer(layer: LayerSpec, in_channels: int, in_size: int) -> tuple[int, int, int]:
    """The same of a layer on a map of `in_channels` and side `in_size`."""
    hidden = layer.hidden_channels(in_channels)
    side = output_size(in_size, layer.stride)
    parts = [_convolution(hidden, layer.out_channels, 1, side)]
    if not layer.separable:
        parts.append(_convolution(in_channels, hidden, layer.kernel_size, side))
    else:
        parts.append(_convolution(1, hidden, layer.kernel_size, side))
        if layer.expansion != 1:
            parts.append(_convolution(in_channels, hidden, 1, in_size))
    macs, params, statistics = map(sum, zip(*parts, strict=True))
    return macs, params, statistics


def least_cost(space: SearchSpace, num_classes: int, what: str) -> int:
    """The least `macs` or `params` of a network of the space, as far as `cheapest_values` finds it."""

    def cost(values: Mapping[str, Choice]) -> int:
        return int(getattr(architecture_cost(space.architecture(values), num_classes), what))

    return cost(cheapest_values(space, cost))


def cheapest_values(
    space: SearchSpace, cost: Callable[[Mapping[str, Choice]], float], start: Mapping[str, Choice] | None = None
) -> dict[str, Choice]:
    """The setting of least cost, as far as changing one choice after another of `start` finds it.

    The space's smallest network, where it starts by default, has the cheapest value of each choice by itself. Together they
    may be dearer: a stage that is left out takes its stride with it, and all that follows works on larger maps.
    """
    values: dict[str, Choice] = dict(space.locate(space.smallest) if start is None else start)
    least, improved = cost(values), True
    while improved:
        improved = False
        for name, choices in space.parameters.items():
            for choice in choices:
                changed = values | {name: choice}
                if (found := cost(changed)) < least:
                    values, least, improved = changed, found, True
    return values


def module_cost(module: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Cost of any module on one image of `input_shape` (C, H, W), counted by running it (nas/macs.py).

    Raises `CandidateError` where multiply-adds or parameters are not known; `nas.macs.count` tells one without the other.
    """
    from nas.macs import count

    counted = count(module, input_shape)
    if counted.macs is None or counted.params is None:
        what = "multiply-adds" if counted.macs is None else "parameters"
        raise CandidateError(f"{what} are not known: {counted.why or 'they cannot be seen'}")
    return Cost(counted.macs, counted.params, model_bytes(module), known_peak(module, input_shape))


def known_peak(module: nn.Module, input_shape: tuple[int, int, int]) -> int | None:
    """Its `peak_activation_bytes` for one image; None where they are not known."""
    try:
        return peak_activation_bytes(module, input_shape)
    except CandidateError:
        return None


def model_bytes(module: nn.Module) -> int:
    """Bytes of the module's state dict: parameters and buffers as they are stored, packed ones too, shared ones once."""
    from torch.multiprocessing.reductions import StorageWeakRef

    from nas.outputs import tensors_of

    tensors = list(tensors_of(module.state_dict()))
    return sum({StorageWeakRef(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


def peak_activation_bytes(module: nn.Module, input_shape: tuple[int, int, int], batch_size: int = 1) -> int:
    """The most bytes of activations alive at one time in an eager inference pass, the images among them.

    Exact, by the life of each storage: a pass of a copy, batch norm folded, on torch's meta device, which has
    shapes and no values. A view counts with its base, an operation in place adds nothing; weights, and what a
    kernel needs inside, are not counted. Images (`batch_size`, *`input_shape`) are in the weights' own precision.
    Raises `CandidateError` when the module cannot run without values.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.weak import WeakIdKeyDictionary

    from nas.folding import fold_batch_norm

    sizes = WeakIdKeyDictionary()  # of the storages that are alive: an entry goes with its storage
    peak = 0

    def note(values: object) -> None:
        nonlocal peak
        for value in tree_leaves(values):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                sizes.setdefault(storage, storage.nbytes())
        peak = max(peak, sum(sizes.values()))

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            note(result)
            return result

    try:
        copied = copy.deepcopy(module).eval().to("meta")
        fold_batch_norm(copied)
        dtype = next((weight.dtype for weight in copied.parameters() if weight.is_floating_point()), torch.float32)
        image = torch.empty(batch_size, *input_shape, dtype=dtype, device="meta")
        for weight in (*copied.parameters(), *copied.buffers()):
            sizes[weight.untyped_storage()] = 0
        note(image)
        # Not inference mode: composite operators would arrive whole there, and what they hold inside be missed.
        with torch.no_grad(), Watch():
            copied(image)
    except Exception as error:  # a forward may raise anything when its tensors have no values
        message = " ".join(str(error).split())[:200]
        raise CandidateError(f"peak activations are not known: {type(error).__name__}: {message}") from error
    return peak
