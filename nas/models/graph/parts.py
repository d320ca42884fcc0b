"""Layers by their constructors' arguments, and what stands in for layers of others that are torch's but for their code."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.models.graph.build import make_part
from nas.models.graph.operators import LEAVES
from nas.spaces.graph.program import Named, Part

_DROP_PATHS = ("DropPath", "StochasticDepth")
"""Layers that people copy from each other, by the names of their classes."""
_AS_TORCH = (
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.Dropout,
    nn.MaxPool2d,
    nn.AvgPool2d,
)
_PADDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
SAME_PAD = "same_pad"
"""Name within a layer of the padding before it."""


@dataclass(frozen=True)
class StandIn:
    """Layers that together do what one of somebody else's does: a padding, torch's layer, and then some of its own children."""

    part: Part
    pad: Part | None = None
    after: tuple[str, ...] = ()


def is_torchs(module: nn.Module) -> bool:
    """Whether it is a layer of torch's own, or a leaf of ours."""
    return type(module).__module__.startswith("torch.nn") or type(module) in LEAVES.values()


def part_of(path: str, module: nn.Module, kind: type[nn.Module] | None = None) -> Part:
    """A layer by its arguments, of class `kind` where its own is another one; raises `InputError` where they cannot be told."""
    kind = kind or type(module)
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in ("device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _argument(module, name, parameter.default)
        if value is inspect.Parameter.empty:
            raise InputError(
                f"layer {path}: its class {kind.__name__} does not tell the argument {name} that it was made with"
            )
        if value != parameter.default or type(value) is not type(parameter.default):
            arguments[name] = value
    if isinstance(module, nn.Conv2d) and isinstance(module.padding, str):
        arguments["padding"] = _whole_padding(module)
    part = Part(kind.__name__, arguments)
    made = make_part(part)
    if {k: v.shape for k, v in made.state_dict().items()} != {k: v.shape for k, v in _own_state(module, made).items()}:
        raise InputError(f"layer {path}: another {kind.__name__} with its arguments has other weights")
    return part


def _own_state(module: nn.Module, like: nn.Module) -> dict[str, torch.Tensor]:
    """Its state, without that of children that torch's own class would not have."""
    state: dict[str, torch.Tensor] = module.state_dict()
    children = {name for name, _ in module.named_children()} - {name for name, _ in like.named_children()}
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in children}


def _argument(module: nn.Module, name: str, default: Any) -> Any:
    if isinstance(module, nn.MultiheadAttention) and name in ("bias", "add_bias_kv"):
        return (module.in_proj_bias if name == "bias" else module.bias_k) is not None
    value = getattr(module, name, default)
    if name in ("bias", "affine") and not isinstance(value, bool):
        return value is not None
    if isinstance(value, torch.dtype):
        return Named(str(value).removeprefix("torch."))
    return _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_plain(name, each) for each in value) if type(value) in (tuple, list) else tuple(value)
    if value is None or value is inspect.Parameter.empty or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"an argument {name} of the kind {type(value).__name__} cannot be written down: {quoted(value)}")


def _whole_padding(module: nn.Conv2d) -> Any:
    """Torch's `same` and `valid` in pixels, where both sides get the same."""
    reach = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if module.padding == "valid":
        return (0, 0)
    return tuple(each // 2 for each in reach) if not any(each % 2 for each in reach) else module.padding


def stand_ins(model: nn.Module, image: torch.Tensor) -> dict[str, StandIn]:
    """By path what stands in for layers of others. Each gave the same as the layer itself, on noise of the shape that it gets."""
    others = {
        path: module
        for path, module in model.named_modules()
        if not is_torchs(module) and (isinstance(module, _AS_TORCH) or type(module).__name__ in _DROP_PATHS)
    }
    shapes: dict[str, torch.Size] = {}
    hooks = [module.register_forward_pre_hook(_recorder(path, shapes)) for path, module in others.items()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for path, module in others.items():
        if path in shapes:
            noise = torch.randn(shapes[path], generator=torch.Generator().manual_seed(0))
            same = (each for each in _candidates(path, module) if _same(module, each, noise))
            if (first := next(same, None)) is not None:
                found[path] = first
    return found


def _recorder(path: str, shapes: dict[str, torch.Size]) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], torch.Tensor):
            shapes[path] = args[0].shape

    return record


def _candidates(path: str, module: nn.Module) -> list[StandIn]:
    if type(module).__name__ in _DROP_PATHS:
        p = float(getattr(module, "drop_prob", None) or getattr(module, "p", None) or 0.0)
        mode = getattr(module, "mode", "row")
        return [
            StandIn(Part("DropPath", {"p": p, "mode": mode, "scale": bool(getattr(module, "scale_by_keep", True))}))
        ]
    kind = next(kind for kind in _AS_TORCH if isinstance(module, kind))
    try:
        part = part_of(path, module, kind)
    except InputError:
        return []
    after = tuple(name for name, _ in module.named_children())
    found = [StandIn(part), StandIn(part, after=after)] if after else [StandIn(part)]
    if isinstance(module, _PADDED):
        pad = {name: _pair(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation")}
        if isinstance(module, nn.MaxPool2d):
            pad["value"] = float("-inf")  # type: ignore[assignment]
        found.append(StandIn(part.with_(padding=(0, 0)), Part("SamePad2d", pad)))
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


@torch.no_grad()
def _same(module: nn.Module, stand_in: StandIn, noise: torch.Tensor) -> bool:
    layer = make_part(stand_in.part).eval()
    layer.load_state_dict(_own_state(module, layer))
    pad = make_part(stand_in.pad) if stand_in.pad else nn.Identity()
    try:
        expected = module(noise.clone())
        output = layer(pad(noise.clone()))
        for name in stand_in.after:
            output = module.get_submodule(name)(output)
    except Exception:  # a padding that the layer does not take, children that are no functions of one tensor
        return False
    return output.shape == expected.shape and torch.allclose(output, expected, rtol=1e-4, atol=1e-5)
