"""The network that a user names: `torchvision:NAME`, `timm:NAME`, `net.py:Class`, `module:function`, or an exported folder."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.common.errors import InputError, arg, did_you_mean
from nas.common.plugins import load_named, searched_last
from nas.common.text import printable, quoted
from nas.models.backbones import load_backbone
from nas.models.graph.analyse import About
from nas.models.graph.checkpoint import load_into, read_weights
from nas.models.graph.errors import line_of_error
from nas.models.graph.make import plain_name
from nas.models.licences import NAMED
from nas.models.networks import Backbone, build
from nas.models.sources import BACKBONES

IMAGE = (3, 224, 224)
"""Shape of images where nothing else is known."""
PRETRAINED = "pretrained"


@dataclass(frozen=True)
class Given:
    """A network of a user's, the images (C, H, W) that it is for, and what is said of it; `trained` says whether it has weights."""

    model: nn.Module
    image: tuple[int, int, int]
    about: About
    trained: bool


def given_network(text: str, load: str | None = None) -> Given:
    """The network that a text names, with the weights of a file, or of its library where `load` says so.

    Raises `InputError`. The user's own code is run here, and nowhere else.
    """
    library, _, name = text.partition(":")
    if library in ("torchvision", "timm") and name:
        given = _torchvision(name, load) if library == "torchvision" else _timm(name, load)
    elif text in BACKBONES or os.path.isfile(os.path.join(text, "model.json")):
        given = _ours(load_backbone(text))
    elif ".py:" in text:
        given = _of_object(text, _from_file(text))
    elif ":" in text:
        given = _of_object(text, load_named("the network", text))
    else:
        raise InputError(
            f"unknown network {quoted(text)}: use torchvision:NAME, timm:NAME, net.py:Class, module:function, or a folder that nas "
            "export made"
        )
    if load is None or load == PRETRAINED or _is_name(load):
        return given
    with_weights = read_weights(Path(load))
    load_into(given.model, with_weights, printable(load))
    return Given(given.model, given.image, given.about, trained=True)


def with_normalisation(given: Given, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Given:
    """The network with the normalisation that its weights were trained with, where that is said; raises `InputError`."""
    if mean is None and std is None:
        return given
    for name, values in (("mean", mean), ("std", std)):
        if values is None or len(values) != given.image[0]:
            raise InputError(
                f"{arg(name)}: mean and std have to have one value for each of the {given.image[0]} channels"
            )
    return replace(given, about=replace(given.about, mean=mean, std=std))


def _is_name(load: str) -> bool:
    """Whether it names weights of torchvision's, as `DEFAULT`, rather than a file."""
    return re.fullmatch(r"[A-Z][A-Z0-9_]*", load) is not None and not os.path.exists(load)


def _torchvision(name: str, load: str | None) -> Given:
    models = importlib.import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise InputError(f"torchvision has no network {quoted(name)}{did_you_mean(name, known)}")
    weights = None
    if load == PRETRAINED or (load and _is_name(load)):
        enum = models.get_model_weights(name)
        wanted = "DEFAULT" if load == PRETRAINED else load
        if wanted not in enum.__members__ and wanted != "DEFAULT":
            raise InputError(
                f"{arg('load')} {wanted}: torchvision's {name} has the weights {', '.join(enum.__members__)}"
            )
        weights = getattr(enum, wanted)
    model = _made(lambda: models.get_model(name, weights=weights), f"torchvision:{name}")
    side = weights.transforms().crop_size[0] if weights else IMAGE[1]
    licence = (
        "torchvision's weights (BSD-3-Clause as torchvision, whose README warns that weights may have terms of their own, from the "
        "data that they were trained on)."
        if weights
        else ""
    )
    mean, std = (tuple(weights.transforms().mean), tuple(weights.transforms().std)) if weights else (None, None)
    about = About(plain_name(name), f"torchvision {name}", mean, std, licence)
    return Given(model, (3, side, side), about, weights is not None)


def _timm(name: str, load: str | None) -> Given:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"timm:{name}: timm is not installed: pip install timm") from error
    if not timm.is_model(name):
        raise InputError(f"timm has no network {quoted(name)}{did_you_mean(name, timm.list_models())}")
    if load and _is_name(load):
        raise InputError(
            f"{arg('load')} {load}: weights of timm are part of a network's name; say {arg('load')} {PRETRAINED}"
        )
    model = _made(lambda: timm.create_model(name, pretrained=load == PRETRAINED), f"timm:{name}")
    config = model.pretrained_cfg
    licence = f"timm's weights {name}: {config.get('license') or 'licence not known'}." if load == PRETRAINED else ""
    about = About(plain_name(name), f"timm {name}", tuple(config["mean"]), tuple(config["std"]), licence)
    return Given(model, tuple(config["input_size"]), about, load == PRETRAINED)


def _ours(backbone: Backbone) -> Given:
    """A network that nas made or knows, as any other."""
    model = build(backbone.architecture, backbone.num_classes)
    model.load_state_dict(dict(backbone.state))
    name = plain_name(Path(backbone.name).name)
    about = About(name, f"nas {name}", backbone.mean, backbone.std, NAMED.get(backbone.name, ""))
    return Given(model, backbone.architecture.input_shape, about, trained=True)


def _from_file(text: str) -> Any:
    """What a name in a file means; the file's folder is searched for what it imports."""
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{printable(file)}: no such file")
    spec = importlib.util.spec_from_file_location(f"_nas_network_{plain_name(path.stem)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with searched_last(str(path.parent.absolute())):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code
        where = line_of_error(error) or printable(file)
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        names = [
            each for each, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise InputError(f"{printable(file)}: has no {quoted(name)}{did_you_mean(name, names)}")
    return getattr(module, name)


def _of_object(text: str, found: Any) -> Given:
    """A module, or what makes one without arguments."""
    model = found if isinstance(found, nn.Module) else _made(found, text) if callable(found) else found
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{text}: gives {quoted(model)} of the kind {type(model).__name__}, where a torch.nn.Module is needed"
        )
    name = plain_name(text.rpartition(":")[2])
    return Given(model, IMAGE, About(name, text), trained=True)


def _made(make: Callable[[], Any], what: str) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return make()
    except Exception as error:  # the network's own code, or a download
        where = line_of_error(error)
        raise InputError(f"{where or what}: {what} could not be made: {type(error).__name__}: {error}") from error
