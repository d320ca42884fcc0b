"""Weights of the user's, as trainers write them: found in their file without running anything that it holds."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.common.errors import InputError, arg
from nas.common.files import load_tensors
from nas.common.text import printable, quoted
from nas.models.graph.operators import words

_WITHIN = words(
    "state_dict model_state_dict model_state model net network state_dict_ema model_ema ema ema_state_dict module"
)
"""Keys under which trainers keep a state dict, the first that there is being meant."""
_BEFORE = ("module.", "_orig_mod.", "model.", "network.")
"""What wrappers put before every name."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint; raises `InputError`, also for a pickled module, which is never loaded."""
    if not path.is_file():
        raise InputError(f"{arg('load')} {printable(str(path))}: no such file of weights")
    if path.suffix == ".safetensors":
        return load_tensors(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_pickled(path)) from error
    except Exception as error:  # torch raises nearly anything on what is no checkpoint
        raise InputError(
            f"{printable(str(path))}: not a file of weights: {' '.join(str(error).split())[:200]}"
        ) from error
    found = _state_dict(held)
    if found is None:
        raise InputError(
            f"{printable(str(path))}: holds no state dict, at its top or under one of {', '.join(_WITHIN)} "
            f"({quoted(list(held)) if isinstance(held, dict) else type(held).__name__})"
        )
    return found


def _pickled(path: Path) -> str:
    name = printable(str(path))
    return (
        f"{name}: holds a pickled module or other objects, whose loading would run code of the file's; where it was made, save its "
        f"weights alone:\n    network = torch.load({str(path)!r}, weights_only=False)\n"
        f"    torch.save(network.state_dict(), {str(path.with_name(f'{path.stem}_weights.pt'))!r})"
    )


def _state_dict(held: Any) -> dict[str, torch.Tensor] | None:
    if not isinstance(held, Mapping):
        return None
    if held and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in held.items()):
        return dict(held)
    for key in _WITHIN:
        inner = _state_dict(held.get(key))
        if inner is not None:
            return inner
    return None


def load_into(model: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Put weights into a network, in place; raises `InputError` where they do not fit, naming the first that does not."""
    own = model.state_dict()
    given = _renamed(weights, own)
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    lacking = [name for name in own if name not in given and name not in counters]
    unknown = [name for name in given if name not in own]
    other = [name for name in given if name in own and given[name].shape != own[name].shape]
    for names, what in ((lacking, "lack"), (unknown, "hold what the network has not:")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{source}: the weights {what} {printable(names[0])}{more}")
    if other:
        name = other[0]
        shapes = f"{tuple(given[name].shape)}; the network needs {tuple(own[name].shape)}"
        raise InputError(f"{source}: {printable(name)} is of shape {shapes}")
    model.load_state_dict({**{name: own[name] for name in counters}, **given})


def _renamed(weights: Mapping[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Names without what wrappers put before all of them, where the network's own have it not."""
    found = dict(weights)
    for prefix in _BEFORE:
        if (
            found
            and all(name.startswith(prefix) for name in found)
            and not any(name.startswith(prefix) for name in own)
        ):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found
