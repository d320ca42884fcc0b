"""What Pillow opens as the pixels that a network reads: upright, on white, in 8 bit, resized and cropped.

`model.py` of an export holds a copy of the source of `PREPARATION`, which therefore needs numpy and Pillow alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def raster_formats() -> list[str]:
    """The formats that Pillow decodes by itself, in the order in which it tries them."""
    # EPS and WMF start other programs, IPTC holds a file of any format, and the others have no decoder of their own.
    without = {"EPS", "WMF", "IPTC", "MPEG", "BUFR", "GRIB", "HDF5"}
    Image.init()
    return [name for name in Image.ID if name not in without]


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """The image in a file, whatever its name says; raises what PIL raises."""
    return Image.open(file, formats=raster_formats())


def upright_opaque(image: Image.Image) -> Image.Image:
    """An image as viewers show it, without alpha and in at most 8 bit: its first frame, turned by its EXIF orientation, on white.

    16-bit images are scaled to 8 bit. Raises `ValueError` for pixels of more than 16 bit, and what PIL raises.
    """
    image.load()  # a PNG may have its EXIF behind its pixels
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # PIL raises nearly anything on malformed EXIF, and viewers show such files
        orientation = 1
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    if image.mode.startswith(("I", "F")):
        image = eight_bit(image)
    elif image.has_transparency_data:
        premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        image = (image.convert(premultiplied) if premultiplied else image).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    if image.mode in ("RGBA", "LAB"):  # which PIL does not turn into grey
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def eight_bit(image: Image.Image) -> Image.Image:
    """A grey image of up to 16 bit a pixel in 8 bit, white where it is transparent; raises `ValueError` for others."""
    # PIL's own conversion clips: everything above 255 of 65,535 would be white.
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("its pixels have more than 16 bit")
    if "transparency" in image.info:
        values[values == image.info["transparency"]] = 65_535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def covering(image: Image.Image, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An opaque image as uint8 (channels, *size): resized until it just covers `size`, cropped at the centre.

    `size` is height and width. Takes time and memory in proportion to the pixels of the image and of `size`.
    """
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = size
    scale = max(height / image.height, width / image.width)
    whole = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    if whole[0] * whole[1] <= 16 * width * height:
        image = image.resize(whole, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height))
    else:  # a strip, which would take gigabytes: only what the crop keeps, in the image's own pixels
        across, down = image.width / whole[0], image.height / whole[1]
        right, bottom = min((left + width) * across, image.width), min((top + height) * down, image.height)
        image = image.resize((width, height), Image.Resampling.BICUBIC, (left * across, top * down, right, bottom))
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def to_pixels(image: Image.Image, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image as uint8 (channels, *size), `size` being height and width: as viewers show it, resized and cropped.

    Raises `ValueError` for pixels of more than 16 bit, and what PIL raises.
    """
    return covering(upright_opaque(image), channels, size)


def as_image(image: Any) -> Image.Image:
    """A PIL image as it is, or one of uint8: an array (H, W) or (H, W, C), a tensor (C, H, W); raises `ValueError` for others."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        import torch

        if not isinstance(image, torch.Tensor):
            raise ValueError(f"the image is {type(image).__name__}, neither a PIL image nor a uint8 array or tensor")
        image = image.permute(1, 2, 0).cpu().numpy() if image.ndim == 3 else image.cpu().numpy()
    if image.dtype != np.uint8:
        raise ValueError(f"the image is of {image.dtype}: PIL images or uint8 are needed, before any normalisation")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise ValueError("the image's shape is none of (H, W) and (H, W, C), or of a tensor (C, H, W)")
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)


PREPARATION: tuple[Callable[..., Any], ...] = (
    raster_formats,
    open_image,
    upright_opaque,
    eight_bit,
    covering,
    to_pixels,
    as_image,
)
"""All that turns a file or an image into pixels."""
