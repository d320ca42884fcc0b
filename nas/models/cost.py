"""Cost of any module, by running it: multiply-adds, parameters, bytes of weights and of activations."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from nas.common.errors import CandidateError
from nas.common.kinds import checks_kinds
from nas.latency.folding import fold_batch_norm
from nas.latency.outputs import tensors_of
from nas.models.flops import count
from nas.spaces.base import Cost


@checks_kinds
def module_cost(module: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Cost of any module on one image of `input_shape` (C, H, W), counted by running it (nas/models/flops.py).

    Raises `CandidateError` where multiply-adds or parameters are not known; `nas.models.flops.count` tells one without the other.
    """
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
    tensors = list(tensors_of(module.state_dict()))
    return sum({StorageWeakRef(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


def peak_activation_bytes(module: nn.Module, input_shape: tuple[int, int, int], batch_size: int = 1) -> int:
    """The most bytes of activations alive at one time in an eager inference pass, the images among them.

    Exact, by the life of each storage: a pass of a copy, batch norm folded, on torch's meta device, which has
    shapes and no values. A view counts with its base, an operation in place adds nothing; weights, and what a
    kernel needs inside, are not counted. Images (`batch_size`, *`input_shape`) are in the weights' own precision.
    Raises `CandidateError` when the module cannot run without values.
    """
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
