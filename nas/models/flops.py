"""Multiply-adds and parameters of any module, counted where torch dispatches its operators.

So a layer counts however it is written: as a module, as a function, exported, or in TorchScript. Attention is run
unfused, since what a fused kernel multiplies is not seen. Where an operator that computes has no count, the sum is not
known: it would be too small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from nas.latency.outputs import tensors_of
from nas.latency.prepare import borrowed, copy_of, device_of, dtype_of, reason_of, to_eval
from nas.latency.runtimes.base import quiet

_aten = torch.ops.aten
_VECTOR_PRODUCTS = {_aten.mv: 0, _aten.dot: 0, _aten.vdot: 0, _aten.addmv: 1}
"""Products that torch's counter leaves out, and which argument of them has a value for each multiply-add."""
_PRODUCT = re.compile(
    r"(^|_)(conv(?!ert)\w*|\w*linear|\w*mm|matmul|attention|rnn|lstm|gru|fft|linalg|multi_head|encoder_layer)(_|$)"
)
"""Names of aten's that multiply matrices, or do work of that order."""
_NO_PRODUCTS = re.compile(
    r"aten\.(cat|stack|where|_?(unsafe_)?index_\w+|\w*scatter\w*|_?copy\w*|_to_copy|equal|"
    r"\w*(batch|layer|group|rms|instance|vector)_norm\w*|_weight_norm_interface|linalg_cross|batch_norm\w*|\w*grid_sampler\w*|"
    r"\w*embedding\w*|bucketize|searchsorted|_thnn_fused_(lstm|gru)_cell|\w*quantize\w*|_foreach_\w+|\w*packed_sequence|"
    r"block_diag|lift\w*|set_|normal\w*|_assert\w*|\w*_loss\w*|rrelu\w*|_?prelu\w*)"
    r"|torchvision\.(nms|\w*roi_\w+)"
)
"""Operators on several floating tensors that only move, compare, normalise or sample."""
_NAMED = 3
"""So many operators without a count are named."""


@dataclass(frozen=True)
class Counted:
    """Multiply-adds for one image, and parameters; None where not known, `why` says of the multiply-adds why not."""

    macs: int | None
    params: int | None
    why: str = ""


def count(module: nn.Module, input_shape: tuple[int, int, int]) -> Counted:
    """Count a module on one image of `input_shape` (C, H, W); the module is not changed.

    Parameters are those that are stored, each once: of a parametrised layer the original ones, of a quantised one what
    it has packed, of a lazy one those of its first forward pass.
    """
    reason = ""
    for way in (_without_values, _copy, borrowed):
        try:
            with quiet(), way(module) as network:
                macs, why, watch = _multiply_adds(network, input_shape)
                lazy = any(map(is_lazy, module.parameters()))
                hidden = watch.packed if _is_scripted(module) else watch.unregistered
                params = None if hidden else parameter_count(network if lazy else module)
                if macs == 0 and params != 0:
                    macs, why = None, "nothing that it does is counted"
                return Counted(macs, params, why)
        except Exception as error:  # the network's own code: without values, in a copy, or at all
            reason = reason_of(error)
    return Counted(None, parameter_count(module), reason)


def parameter_count(module: nn.Module) -> int | None:
    """Parameters that are stored, each once; None where they cannot be seen."""
    parameters = list(module.parameters())
    opaque = {
        id(part)
        for part in module.modules()
        if not isinstance(part, torch.jit.ScriptModule)  # which is one itself
        and any(isinstance(value, torch.ScriptObject) for value in vars(part).values())
    }
    packed = 0
    for part in module.modules():
        inside = opaque & {id(inner) for inner in part.modules()}
        tensors = _packed(part) if inside else []
        if tensors:
            packed += sum(tensor.numel() for tensor in tensors)
            opaque -= inside
    if opaque or any(map(is_lazy, parameters)):
        return None
    found = packed + sum(parameter.numel() for parameter in parameters)
    return None if _is_scripted(module) and not found else found  # frozen TorchScript has its weights as constants


def _is_scripted(module: nn.Module) -> bool:
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def _packed(part: nn.Module) -> list[Tensor]:
    """The weights of a quantised layer, which are no parameters but are given by its methods."""
    methods = (getattr(part, name, None) for name in ("weight", "bias", "get_weight", "get_bias"))
    return [tensor for method in methods if callable(method) for tensor in tensors_of(method())]


@contextmanager
def _copy(module: nn.Module) -> Iterator[nn.Module]:
    """A copy in eval mode; parametrisations are gone into its weights, which are computed once, not for each image."""
    copied = copy_of(module)
    to_eval(copied)
    for part in list(copied.modules()):
        if parametrize.is_parametrized(part):
            _compute_weights(part)
    yield copied


def _compute_weights(part: nn.Module) -> None:
    """Put its weights in the place of their parametrisations, whose class torch lets copies share with the original."""
    values = {name: getattr(part, name) for name in part.parametrizations}  # type: ignore[union-attr]
    plain = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    part.__class__ = plain
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


@contextmanager
def _without_values(module: nn.Module) -> Iterator[nn.Module]:
    """A copy on the meta device, which takes no time and no memory."""
    with _copy(module) as copied:
        yield copied.to("meta")


def _multiply_adds(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int | None, str, _Watch]:
    """For one image, or why they are not known; and what was seen meanwhile."""
    device = device_of(network) or torch.device("cpu")
    image = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0)).to(device, dtype_of(network))
    counter = FlopCounterMode(display=False)
    watch = _Watch(network, image, counter)
    outside = _Outside()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.no_grad(),
        _unfused(),
        counter,
        watch,
        outside,
    ):
        output = network(image)
    if watch.uncounted:
        names = list(watch.uncounted)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return None, f"{', '.join(names[:_NAMED])}{more} not counted", watch
    if outside.left or not all(map(watch.saw, tensors_of(output))):
        return None, "part of it is computed outside of torch", watch
    return counter.get_total_flops() // 2 + watch.vector_macs, "", watch


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention as the matrix products that it is made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Outside(TorchFunctionMode):
    """Whether values leave torch on the way, for numpy and the like, where nothing is seen of them."""

    left = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.left |= func in (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.tolist)
        return func(*args, **(kwargs or {}))


class _Watch(TorchDispatchMode):
    """What torch's counter leaves out: products of vectors, and operators that compute and have no count.

    What hangs on weights alone is left out rightly, since it could be computed once: the norm of a weight, say.
    """

    supports_higher_order_operators = True

    def __init__(self, network: nn.Module, image: Tensor, counter: FlopCounterMode) -> None:
        super().__init__()
        self.vector_macs = 0
        self.uncounted: dict[str, None] = {}
        self.unregistered = False  # an operator that counts was given a tensor of unknown origin
        self.packed = False  # one was given packed weights
        self._counts = counter.flop_registry
        self._made = WeakIdKeyDictionary()  # the storages that operators made, and whether of weights alone
        self._made[_storage(image)] = False
        # A weak dictionary does not keep these, which TorchScript makes again for each look at them.
        self._weights = [
            _storage(tensor) for tensor in (*network.parameters(), *network.buffers()) if not is_lazy(tensor)
        ]
        for storage in self._weights:
            self._made[storage] = True

    def saw(self, tensor: Tensor) -> bool:
        """Whether an operator made it, or it is a weight."""
        return _storage(tensor) in self._made

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not hasattr(func, "overloadpacket"):  # control flow, and kernels of the user's
            self.uncounted[str(func)] = None
            return func(*args, **kwargs)
        operator = func.overloadpacket
        if operator not in self._counts:
            with self:
                composed = func.decompose(*args, **kwargs)
            if composed is not NotImplemented:
                return composed
        result = func(*args, **kwargs)
        self._look(func, args, kwargs, result)
        return result

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        leaves = tree_leaves((args, kwargs))
        given = [value for value in leaves if isinstance(value, Tensor)]
        of_weights = bool(given) and all(self._made.get(_storage(tensor), False) for tensor in given)
        self.packed |= func.namespace != "profiler" and any(isinstance(value, torch.ScriptObject) for value in leaves)
        operator = func.overloadpacket
        if any(tensor.is_mkldnn and not self.saw(tensor) for tensor in given):  # TorchScript's, fused for inference
            self.uncounted["layers of MKLDNN's"] = None
        if operator in self._counts:
            self.unregistered |= not all(map(self.saw, given))
        elif not of_weights:
            if operator in _VECTOR_PRODUCTS:
                self.vector_macs += args[_VECTOR_PRODUCTS[operator]].numel()
            elif _computes(func, leaves):
                self.uncounted[str(operator).replace(".", "::")] = None
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._made[_storage(value)] = of_weights


def _computes(func: Any, leaves: list[Any]) -> bool:
    """Whether an operator may do the work of a matrix product: by its name, or since it takes several floating tensors."""
    floats = [
        v for v in leaves if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex() or v.is_quantized)
    ]
    name = str(func.overloadpacket)
    if _NO_PRODUCTS.fullmatch(name):
        return False
    if func.namespace == "profiler":
        return False
    if func.namespace not in ("aten", "prim", "prims"):
        return bool(floats) or any(isinstance(value, torch.ScriptObject) for value in leaves)
    if torch.Tag.pointwise in func.tags or func.is_view:
        return False
    has_tensor = any(isinstance(value, Tensor) for value in leaves)
    return has_tensor and (bool(_PRODUCT.search(name.removeprefix("aten."))) or len(floats) > 1)


def _storage(tensor: Tensor) -> object:
    """What holds its values, which views share; the tensor itself where it has none."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # sparse, or of MKLDNN's
        return tensor
