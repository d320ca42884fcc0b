"""Hashes of images, by which the same image is known again: of its upright, opaque pixels before they are resized.

An image has the same hash whatever its file's name and format, and whatever channels and size a space asks for; a grey image
that of its three channels. One that was resized, cropped or compressed again has another.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Hashes = NDArray[np.uint64]


def image_hash(image: Image.Image) -> int:
    """Eight bytes of the pixels of an upright, opaque image: of a million images, two share one by a chance of 3e-8."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _hash(image.height, image.width, rgb.tobytes())


def array_hashes(images: NDArray[np.uint8]) -> Hashes:
    """The hashes of images (N, C, H, W) as if each were an image of its own."""
    height, width = images.shape[2:]
    found = np.empty(len(images), dtype=np.uint64)
    for number, pixels in enumerate(images):
        channels = np.broadcast_to(pixels, (3, height, width)) if len(pixels) == 1 else pixels
        found[number] = _hash(height, width, channels.transpose(1, 2, 0).tobytes())
    return found


def _hash(height: int, width: int, pixels: bytes) -> int:
    digest = hashlib.sha256(f"{height} {width} ".encode())  # which processors have instructions for
    digest.update(pixels)
    return int.from_bytes(digest.digest()[:8], "little")
