"""What a user can name for measuring: a torchvision model, a class in a Python file, an exported folder, a candidate.

Code of the user's own runs here: the file that is named, and model.py of an exported folder.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from nas.common.errors import InputError, arg
from nas.common.jsonl import parse_json
from nas.common.plugins import searched_last
from nas.common.text import quoted
from nas.models.networks import build
from nas.spaces.base import Architecture

Shape = tuple[int, int, int]

IMAGENET_SHAPE: Shape = (3, 224, 224)
_LOADED = "_nas_measured"
_opened: list[tuple[str, set[str]]] = []
"""Folders of the files that are imported now, with the modules that were there before each."""


@dataclass(frozen=True)
class Measurable:
    """A network with the shape (C, H, W) of one of its images, and what people call it."""

    label: str
    module: nn.Module
    input_shape: Shape


def parse_shape(text: str) -> Shape:
    """`3x96x96` as (C, H, W); raises `InputError`."""
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})x([1-9]\d{0,5})", text.strip())
    if match is None:
        raise InputError(f"{arg('input')} {text}: write channels x height x width of one image, as in 3x224x224")
    return int(match[1]), int(match[2]), int(match[3])


def candidate(architecture: Architecture, num_classes: int) -> Measurable:
    """A network of a search space."""
    return Measurable(str(architecture.canonical), build(architecture, num_classes), architecture.input_shape)


@contextmanager
def named(what: str, input_shape: Shape | None) -> Iterator[Measurable]:
    """What a name means: an exported folder, `path/to/file.py:Class`, or a torchvision model.

    `input_shape` is needed for a class of a file, may be given for a torchvision model, and is told by an exported
    folder itself. On leaving, the interpreter forgets the file and what it imported from beside it. Raises
    `InputError`.
    """
    path, _, name = what.rpartition(":")
    if os.path.isdir(what):
        if input_shape is not None:
            raise InputError(f"{arg('input')} cannot be given with the exported folder {what}, which says its own")
        with _exported(Path(what)) as found:
            yield found
    elif path.endswith(".py"):
        if input_shape is None and os.path.isfile(path):
            raise InputError(f"{what}: its input is not known; give {arg('input')}, as in {arg('input')} 3x224x224")
        with _imported(Path(path)) as module:
            assert input_shape is not None
            yield Measurable(what, _constructed(what, getattr(module, name, None), name), input_shape)
    elif what.endswith(".py"):
        raise InputError(f"{what}: name the class too, as in {what}:Network")
    else:
        yield Measurable(what, _torchvision(what), input_shape or IMAGENET_SHAPE)


def _torchvision(name: str) -> nn.Module:
    """An image classifier of torchvision's with random weights; raises `InputError`."""
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        if "/" in name:
            raise InputError(f"{name}: no such folder, and no file.py:Class")
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "torchvision has resnet18, mobilenet_v2 and others"
        raise InputError(
            f"unknown network {quoted(name)}, neither a folder, a file.py:Class nor a torchvision model: {hint}"
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how slowly two old models draw their weights
        torch.default_generator.manual_seed(0)
        network: nn.Module = models.get_model(name, weights=None)
    return network


@contextmanager
def _exported(folder: Path) -> Iterator[Measurable]:
    """The network of a folder that `nas export` wrote: its weights are a state dict, which model.py loads safely."""
    missing = [name for name in ("model.py", "model.json") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: not a folder that nas export made, it has no {' and no '.join(missing)}")
    try:
        shape = parse_json((folder / "model.json").read_text(encoding="utf-8"))["preprocessing"]["input_shape"]
        channels, height, width = (int(side) for side in shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'model.json'}: preprocessing.input_shape cannot be read: {error!r}") from error
    with _imported(folder / "model.py") as module:
        network = _constructed(str(folder / "model.py"), getattr(module, "load", None), "load")
        yield Measurable(folder.resolve().name, network, (channels, height, width))


@contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    """A Python file as a module that finds what lies beside it; nothing of it is left in the interpreter or on disk.

    Of files imported one inside the other, each finds its own: what an outer one brought from its folder is out of sight.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file")
    folder = str(path.resolve().parent)
    search_path, modules, bytecode = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    loaded = f"{_LOADED}{len(_opened)}"
    spec = importlib.util.spec_from_file_location(loaded, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    outer = [name for other, before in _opened if other != folder for name in _modules_of(other) - before]
    hidden = {name: sys.modules.pop(name) for name in dict.fromkeys(outer)}
    _opened.append((folder, modules))
    sys.modules[loaded] = module  # where dataclasses and torch.compile look it up
    try:
        with searched_last(folder):
            with _users_own(str(path), "importing it"):
                spec.loader.exec_module(module)
            yield module
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path[:] = search_path
        _opened.pop()
        for name in {loaded, *_modules_of(folder)} - modules:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def _modules_of(folder: str) -> set[str]:
    """Names of the modules that came from beside a named file, that file aside; packages that are installed do not."""
    files = {name: str(getattr(module, "__file__", None) or "") for name, module in sys.modules.items()}
    beside = {name for name, file in files.items() if file.startswith(folder) and not file.startswith(sys.prefix)}
    return {name for name in beside if not name.startswith((_LOADED, "nas."))}


def _constructed(what: str, found: Any, name: str) -> nn.Module:
    """The module that a class or function gives; raises `InputError`."""
    if found is None:
        raise InputError(f"{what}: the file has no {quoted(name)}")
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise InputError(f"{what}: {name} is neither a class nor a function")
        with _users_own(what, f"{name}()"):
            found = found()
    if not isinstance(found, nn.Module):
        raise InputError(f"{what}: {name}() gives {type(found).__name__}, not an nn.Module")
    return found


@contextmanager
def _users_own(what: str, action: str) -> Iterator[None]:
    """The user's code, which may raise anything, as one sentence."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{what}: {action} raised {reason}") from error
