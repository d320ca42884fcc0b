"""Names of initial weights. No torch."""

from __future__ import annotations

from typing import Final

SCRATCH = "scratch"
"""Initial weights: random ones, for each candidate its own."""


IMAGENET: Final = "imagenet"
"""Initial weights of reference networks: torchvision's own, version IMAGENET1K_V1."""


SUPERNET = "supernet:"
"""Before the folder of a supernet, where initial weights are asked for."""

BACKBONES = ("efficientnet_lite0", "mobilenet_v2")
"""Initial weights that have a name (`nas.models.backbones`)."""
