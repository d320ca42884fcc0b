"""Pixels: what a viewer shows of a file is what a network reads, at a cost in proportion to the file's own pixels."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from nas.data.pixels import open_image, raster_formats, to_pixels

TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored so that a viewer, which obeys this EXIF orientation, shows it upright again."""
GREY_16 = np.array([[0, 128, 129, 1000], [257, 25_700, 32_896, 65_535]], dtype=np.uint16)
GREY_8 = np.array([[0, 0, 1, 4], [1, 100, 128, 255]], dtype=np.uint8)


def corner() -> Image.Image:
    """Wider than high, and different in each of its corners."""
    pixels = np.full((16, 24, 3), 40, dtype=np.uint8)
    pixels[:8, :8] = 220
    pixels[:8, 16:] = (200, 90, 60)
    pixels[8:, 8:16] = (60, 90, 200)
    return Image.fromarray(pixels)


def reopened(image: Image.Image, format_: str, **options: Any) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return open_image(stream)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", TURNED_BACK)
@pytest.mark.parametrize(
    ("format_", "options"),
    [("JPEG", {"quality": 98, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_a_turned_photo_is_read_upright(format_: str, options: dict[str, Any], orientation: int) -> None:
    stored = corner().transpose(TURNED_BACK[orientation])
    with reopened(stored, format_, exif=turned(orientation), **options) as image:
        found = to_pixels(image, 3, (16, 16)).astype(int)
    expected = to_pixels(corner(), 3, (16, 16)).astype(int)
    assert np.abs(found - expected).max() <= (12 if format_ == "JPEG" else 0)


def test_a_turned_photo_of_one_channel_and_16_bit() -> None:
    upright = Image.fromarray(np.tile(GREY_16, (2, 1)))
    exif = turned(3)
    with reopened(upright.transpose(Image.Transpose.ROTATE_180), "PNG", exif=exif) as image:
        assert image.mode in ("I;16", "I")
        assert (to_pixels(image, 1, (4, 4))[0] == np.tile(GREY_8, (2, 1))).all()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no EXIF at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0"]
)
def test_malformed_exif_does_not_make_a_photo_unreadable(exif: bytes) -> None:
    with reopened(corner(), "JPEG", quality=98, subsampling=0, exif=exif) as image:
        found = to_pixels(image, 3, (16, 16)).astype(int)
    assert np.abs(found - to_pixels(corner(), 3, (16, 16))).max() <= 12


@pytest.mark.parametrize("orientation", [0, 1, 9, 65_535])
def test_an_orientation_that_says_nothing_turns_nothing(orientation: int) -> None:
    with reopened(corner(), "PNG", exif=turned(orientation)) as image:
        assert (to_pixels(image, 3, (16, 16)) == to_pixels(corner(), 3, (16, 16))).all()


# ---------------------------------------------------------------- transparency


def icon() -> Image.Image:
    """All of it is black, and its left half transparent."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, 4:, 3] = 255
    return Image.fromarray(pixels)


def _palette(transparency: int | bytes) -> Image.Image:
    image = Image.fromarray(np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 8, axis=0).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.info["transparency"] = transparency
    return image


def _keyed(image: Image.Image, colour: Any) -> Image.Image:
    return reopened(image, "PNG", transparency=colour)


LEFT_WHITE = np.repeat([[255, 255, 255, 255, 0, 0, 0, 0]], 8, axis=0)
LEFT_LIGHT = np.repeat([[250, 250, 250, 250, 0, 0, 0, 0]], 8, axis=0).astype(np.uint8)
TRANSPARENT = {
    "RGBA": icon(),
    "LA": icon().convert("LA"),
    "PA": icon().convert("PA"),
    "RGBa": icon().convert("RGBa"),
    "La": icon().convert("LA").convert("La"),
    "P, one index": _palette(0),
    "P, alpha of each": _palette(b"\0\xff"),
    "PNG with alpha": reopened(icon(), "PNG"),
    "PNG with a palette": reopened(_palette(b"\0\xff"), "PNG"),
    "WebP": reopened(icon(), "WEBP", lossless=True),
    "TIFF": reopened(icon(), "TIFF"),
    "GIF": reopened(_palette(0), "GIF", transparency=0),
    "ICO": reopened(icon(), "ICO", sizes=[(8, 8)]),
    "RGB, one colour": _keyed(Image.fromarray(LEFT_LIGHT).convert("RGB"), (250, 250, 250)),
    "L, one value": _keyed(Image.fromarray(LEFT_LIGHT), 250),
    "1, one value": _keyed(Image.fromarray(LEFT_LIGHT).convert("1"), 255),
    "16 bit, one value": _keyed(Image.fromarray(LEFT_LIGHT.astype(np.uint16) * 257), 250 * 257),
}


@pytest.mark.parametrize("image", TRANSPARENT.values(), ids=TRANSPARENT.keys())
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_are_white(image: Image.Image, channels: int) -> None:
    for row in to_pixels(image, channels, (8, 8)):
        assert (row == LEFT_WHITE).all()


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (64, 191), (128, 127), (255, 0)])
def test_half_transparent_pixels_are_mixed_with_white(alpha: int, expected: int) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, alpha))
    assert np.abs(to_pixels(image, 3, (8, 8)).astype(int) - expected).max() <= 1
    assert np.abs(to_pixels(image.convert("LA"), 1, (8, 8)).astype(int) - expected).max() <= 1


def test_white_is_put_behind_before_the_image_is_resized() -> None:
    """A colour that nobody sees must not bleed into the edge of one that everybody sees."""
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)
    pixels[:, 32:] = (200, 200, 200, 255)
    pixels[:, :32, 0] = 255  # red, and wholly transparent
    found = to_pixels(Image.fromarray(pixels), 3, (8, 8))
    assert np.ptp(found.astype(int), axis=0).max() <= 1  # grey everywhere
    assert found.min() > 190


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "1"])
def test_modes_are_converted(mode: str) -> None:
    half = np.zeros((8, 8, 3), dtype=np.uint8)
    half[4:] = 255
    image = Image.fromarray(half).convert(mode)
    assert to_pixels(image, 3, (8, 8)).shape == (3, 8, 8)
    assert (to_pixels(image, 1, (8, 8))[0] == half[:, :, 0]).all()
    assert (to_pixels(image, 3, (8, 8))[1] == half[:, :, 0]).all()


@pytest.mark.parametrize(
    ("mode", "format_", "options"),
    [("CMYK", "JPEG", {"quality": 98}), ("CMYK", "TIFF", {}), ("LAB", "TIFF", {}), ("YCbCr", "TIFF", {})],
)
def test_colours_of_other_modes_are_those_of_a_viewer(mode: str, format_: str, options: dict[str, Any]) -> None:
    with reopened(corner().convert(mode), format_, **options) as image:
        assert image.mode in (mode, "RGB")
        for channels in (1, 3):
            found = to_pixels(image, channels, (16, 16)).astype(int)
            assert np.abs(found - to_pixels(corner(), channels, (16, 16))).max() <= 16


# ---------------------------------------------------------------- 16 bit


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_scaled_not_clipped(format_: str) -> None:
    with reopened(Image.fromarray(np.tile(GREY_16, (2, 1))), format_) as image:
        assert image.mode in ("I;16", "I")
        assert (to_pixels(image, 1, (4, 4))[0] == np.tile(GREY_8, (2, 1))).all()
        assert (to_pixels(image, 3, (4, 4))[2] == np.tile(GREY_8, (2, 1))).all()


def test_16_bit_of_the_other_byte_order_and_in_32_bit_files() -> None:
    pixels = np.tile(GREY_16, (2, 1))
    big = Image.frombytes("I;16B", (4, 4), pixels.astype(">u2").tobytes())
    wide = Image.fromarray(pixels.astype(np.int32))
    for image, mode in ((big, "I;16B"), (wide, "I")):
        with reopened(image, "TIFF") as opened:
            assert opened.mode == mode
            assert (to_pixels(opened, 1, (4, 4))[0] == np.tile(GREY_8, (2, 1))).all()


def test_pixels_of_unknown_range_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        to_pixels(Image.new("F", (4, 4)), 1, (4, 4))
    with pytest.raises(ValueError, match="more than 16 bit"):
        to_pixels(Image.new("I", (4, 4), 70_000), 1, (4, 4))


# ---------------------------------------------------------------- size


def test_the_shorter_side_is_resized_and_the_centre_kept() -> None:
    stripes = np.zeros((20, 60, 3), dtype=np.uint8)
    stripes[:, 20:40] = 200
    assert (to_pixels(Image.fromarray(stripes), 3, (10, 10))[:, :, 1:-1] > 190).all()


def whole_then_cropped(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The rule in its plainest form: the whole image resized, then cropped."""
    height, width = size
    scale = max(height / image.height, width / image.width)
    whole = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    return np.asarray(whole.crop((left, top, left + width, top + height))).transpose(2, 0, 1).astype(int)


@pytest.mark.parametrize(
    "shape", [(12, 10), (10, 12), (24, 24), (640, 480), (333, 500), (97, 31), (32, 250), (700, 60)]
)
@pytest.mark.parametrize("size", [(32, 32), (24, 24), (224, 224), (48, 16)])
def test_the_pixels_of_usual_shapes_are_those_of_earlier_versions(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """To the last bit: a run of before goes on only where its data have the same fingerprint."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8))
    assert (to_pixels(image, 3, size) == whole_then_cropped(image, size)).all()
    palette, opaque = image.quantize(16), image.convert("RGBA")
    grey = to_pixels(Image.fromarray(np.asarray(palette.convert("L"))), 1, size)
    assert (to_pixels(palette, 1, size) == grey).all()
    assert (to_pixels(opaque, 3, size) == whole_then_cropped(image, size)).all()
    assert (to_pixels(opaque, 1, size) == to_pixels(image.convert("L"), 1, size)).all()


@pytest.mark.parametrize("shape", [(1000, 12), (9, 1500), (3000, 31), (2000, 1), (1, 900)])
@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_a_strip_gives_the_same_as_the_whole_of_it_resized(shape: tuple[int, int], size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    waves = np.stack([np.sin(x / 9 + y / 5 + phase) for phase in range(3)], axis=2)
    image = Image.fromarray((127 + 90 * waves).astype(np.uint8))
    assert (
        np.abs(to_pixels(image, 3, size) - whole_then_cropped(image, size)).max() <= 2
    )  # each of the two passes rounds


STRIP = """
import resource
from PIL import Image
from nas.data.pixels import to_pixels
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = to_pixels(Image.new('RGB', (300, 300)), 3, (224, 224))
before = peak()
pixels = to_pixels(Image.new('RGB', ({shape}), (10, 20, 30)), 3, (224, 224))
assert pixels.shape == (3, 224, 224) and pixels[1].min() == pixels[1].max() == 20
print(peak() - before)
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("shape", ["30_000, 1", "1, 30_000", "65_500, 2", "3, 65_500"])
def test_a_strip_takes_no_more_memory_than_its_own_pixels(shape: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", STRIP.replace("{shape}", shape)], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 50_000  # kB; resized as a whole, the smallest of them would take 4.5 GB


# ---------------------------------------------------------------- formats


def test_what_starts_other_programs_or_has_no_pixels_is_not_opened(tmp_path: Path) -> None:
    assert {"JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"} <= set(raster_formats())
    corner().save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        assert image.format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "photo.png")


def test_a_file_is_opened_by_its_content(tmp_path: Path) -> None:
    corner().save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.jpg")
    with open_image(tmp_path / "photo.jpg") as image:
        assert image.format == "PNG"
        assert (to_pixels(image, 3, (16, 16)) == to_pixels(corner(), 3, (16, 16))).all()
