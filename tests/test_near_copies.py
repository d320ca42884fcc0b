"""Near copies across splits: found where one picture was saved or resized again, and not where pictures only resemble each other."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import near_copies
from nas.data.image_data import ImageData, Split
from nas.data.near_copies import near_remarks
from nas.data.sets import load_data
from nas.spaces.files import load_space
from nas.training.images import load_images


def picture(number: int, side: int = 48) -> Image.Image:
    """Coloured shapes of its own, as in a photograph that is out of focus."""
    few = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((side, side), Image.Resampling.BICUBIC)


def saved(image: Image.Image, quality: int) -> Image.Image:
    content = BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


def resized(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC)


def split(images: list[Image.Image]) -> Split:
    pixels = np.stack([np.asarray(each.convert("RGB")).transpose(2, 0, 1) for each in images])
    return Split(pixels, np.zeros(len(images), dtype=np.int64))


def data(train: list[Image.Image], validation: list[Image.Image], test: list[Image.Image] | None) -> ImageData:
    tested = split(test) if test else None
    return ImageData(
        "photos", ("a", "b"), split(train), split(validation), tested, (0.5,) * 3, (0.2,) * 3, hflip=True, split_seed=0
    )


TRAIN = [picture(number) for number in range(40)]
OTHERS = [picture(number) for number in range(100, 140)]


@pytest.mark.parametrize(
    "copies",
    [
        [saved(each, 50) for each in TRAIN[:5]],
        [resized(resized(each, 31), 48) for each in TRAIN[:5]],
        [resized(resized(each, 96), 48) for each in TRAIN[:5]],
        [Image.eval(each, lambda value: value * 3 // 4 + 20) for each in TRAIN[:5]],
    ],
    ids=["saved again", "smaller", "larger", "paler"],
)
def test_one_picture_saved_or_resized_again_is_a_near_copy(copies: list[Image.Image]) -> None:
    told = near_remarks(data(TRAIN, OTHERS + copies, OTHERS[:8] + copies[:1]))
    look = "look like training images (near copies, as of one picture saved or resized again), and stay"
    assert told == (f"5 of 45 validation images and 1 of 9 test images {look}",)


def test_other_pictures_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert near_remarks(data(TRAIN, OTHERS, None)) == ()
    plain = [Image.new("RGB", (48, 48), (grey, grey, grey)) for grey in range(0, 250, 10)]
    assert near_remarks(data(plain, plain[:2], None)) == ()  # they have nothing to be known again by
    (one,) = near_remarks(data(TRAIN, [*OTHERS, saved(TRAIN[7], 60)], None))
    assert one.startswith("1 of 41 validation images looks like a training image (")
    monkeypatch.setattr(near_copies, "MOST_BITS", -1)
    assert near_remarks(data(TRAIN, TRAIN, None)) == ()


@pytest.mark.parametrize("side", [8, 32])
def test_digits_of_many_hands_are_no_near_copies(side: int) -> None:
    digits = load_data("digits", channels=1)

    def large(part: Split) -> Split:
        images = [Image.fromarray(pixels[0]).resize((side, side), Image.Resampling.BICUBIC) for pixels in part.images]
        return Split(np.stack([np.asarray(each)[None] for each in images]), part.labels)

    assert digits.test is not None
    parts = {"train": large(digits.train), "validation": large(digits.validation), "test": large(digits.test)}
    assert near_remarks(replace(digits, **parts)) == ()  # type: ignore[arg-type]


def test_they_are_counted_where_commands_read_data_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    copies = [saved(each, 80) for each in TRAIN[:3]]
    for part, pictures in (("train", TRAIN), ("val", [*OTHERS[:8], *copies]), ("test", OTHERS[8:16])):
        for number, image in enumerate(pictures):
            folder = tmp_path / "photos" / part / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number}.png")
    space, name = load_space("cifar"), str(tmp_path / "photos")
    loaded = load_images(space, name, 0, "scratch")
    assert len(loaded.validation) == 11
    (told,) = [remark for remark in loaded.remarks if "near copies" in remark]
    assert told.startswith("3 of 11 validation images")
    assert told in caplog.text
    before = load_images(space, name, 0, "scratch", distinct=False)  # a run of before
    assert not [remark for remark in before.remarks if "near copies" in remark]
