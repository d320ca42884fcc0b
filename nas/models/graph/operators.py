"""What a captured network may call: by name, so that a file of it can call nothing else.

Layers of `torch.nn` and the leaves of ours; functions of torch, `torch.nn.functional`, `operator` and `math` that take tensors
and numbers; methods and plain attributes of tensors. Nothing here reads or writes files, or takes a function.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.models.graph import leaves


def words(text: str) -> tuple[str, ...]:
    """Names in a text, with blanks between."""
    return tuple(text.split())


LEAVES: dict[str, type[nn.Module]] = {"DropPath": leaves.DropPath, "SamePad2d": leaves.SamePad2d}

ATTRIBUTES = frozenset(("shape", "ndim", "dtype", "device", "T", "mT"))

_OPERATORS = words(
    "add sub mul truediv floordiv mod pow neg pos abs matmul getitem eq ne lt le gt ge and_ or_ not_ invert iadd "
    "isub imul itruediv index"
)
_METHODS = frozenset(
    words(
        "abs add add_ addcmul addmm all amax amin any argmax argmin bmm bool cat ceil chunk clamp clamp_ clip clone "
        "contiguous cos cumsum detach diagonal dim div div_ einsum eq exp expand expand_as flatten flip float floor "
        "gather gt half index_select int item l1_norm le log log_softmax logsumexp long lt masked_fill masked_fill_ "
        "matmul max maximum mean min minimum mm movedim mul mul_ narrow ne neg new_empty new_full new_ones new_zeros "
        "norm numel permute pow prod reciprocal relu relu_ repeat repeat_interleave reshape reshape_as roll rsqrt "
        "rsub select sigmoid sigmoid_ sign sin size softmax split sqrt square squeeze std sub sub_ sum swapaxes "
        "swapdims t tanh tile to transpose triu tril type_as unbind unflatten unfold unsqueeze var view view_as where"
    )
)
_FUNCTIONAL = words(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d "
    "batch_norm celu conv1d conv2d conv_transpose2d dropout dropout1d dropout2d elu gelu glu group_norm "
    "hardsigmoid hardswish hardtanh instance_norm interpolate layer_norm leaky_relu linear local_response_norm "
    "log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d mish normalize one_hot pad pixel_shuffle "
    "pixel_unshuffle prelu relu relu6 relu_ rms_norm scaled_dot_product_attention selu sigmoid silu softmax "
    "softplus softsign tanh unfold"
)
_CREATORS = words(
    "arange cat concat stack einsum full linspace meshgrid ones ones_like zeros zeros_like empty full_like where"
)


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """What may be called, by its whole name."""
    found: dict[str, Callable[..., Any]] = {f"operator.{name}": getattr(operator, name) for name in _OPERATORS}
    found |= {f"math.{name}": each for name, each in vars(math).items() if callable(each) and name[0] != "_"}
    found |= {f"torch.{name}": each for name in (*_CREATORS, *_METHODS) if callable(each := getattr(torch, name, None))}
    return (
        found
        | {f"torch.nn.functional.{name}": getattr(functional, name) for name in _FUNCTIONAL}
        | {"getattr": getattr}
    )


@functools.cache
def _names() -> dict[int, str]:
    return {id(function): name for name, function in reversed(functions().items())}


def name_of(function: Any) -> str | None:
    """The name of a function that may be called; None for any other."""
    return _names().get(id(function))


def function_of(name: str) -> Callable[..., Any]:
    """The function of a name; raises `InputError` where none such may be called."""
    if name not in functions():
        raise InputError(f"not a network: it calls {quoted(name)}, which is none of torch's operators")
    return functions()[name]


def check_method(name: str) -> None:
    """Raise `InputError` unless tensors have the method, and it may be called."""
    if name not in _METHODS:
        raise InputError(f"not a network: it calls the method {quoted(name)}, which is none of a tensor's operators")


def is_method(name: str) -> bool:
    """Whether a tensor's method may be called."""
    return name in _METHODS


def layer_class(kind: str) -> type[nn.Module]:
    """The class of a layer by its name; raises `InputError` where there is none."""
    found = LEAVES.get(kind) or getattr(nn, kind, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module) or issubclass(found, _CONTAINERS):
        raise InputError(f"not a network: {quoted(kind)} is no layer of torch.nn")
    return found


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.DataParallel)


def constant_of(name: str) -> Any:
    """A dtype or memory format of torch's; raises `InputError` where there is none of the name."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype | torch.memory_format):
        raise InputError(f"not a network: {quoted(name)} is no constant of torch's")
    return found
