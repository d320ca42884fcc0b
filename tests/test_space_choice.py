"""A space is chosen by the images where none is named, and one that does not fit them gets a warning."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nas
from nas.cli.app import main
from nas.common.errors import InputError
from nas.data.look import NAMED_LOOKS, Look
from nas.data.sets import NAMED
from nas.runs.settings import SearchSettings
from nas.spaces.files import load_space
from nas.workflows.space_choice import chosen_space, fitting, look_at, unfit, warn_unfit

Photos = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Makes a folder of images in two classes."""

    def make(
        name: str, size: tuple[int, int], colour: bool = True, mode: str = "RGB", count: int = 12, **save: Any
    ) -> Path:
        random = np.random.default_rng(0)
        for label in range(2):
            (tmp_path / name / f"class{label}").mkdir(parents=True)
            for number in range(count):
                grey = random.integers(0, 256, (size[1], size[0]), dtype=np.uint8)
                pixels = np.stack([grey, grey // 2, 255 - grey], axis=2) if colour else grey
                image = Image.fromarray(pixels).convert(mode)
                image.save(tmp_path / name / f"class{label}" / f"{number}.png", **{"compress_level": 1} | save)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("size", "colour", "mode", "look", "space"),
    [
        ((240, 180), True, "RGB", "colour images of 240×180 px, 2 classes", "lite0_small"),
        ((64, 80), True, "P", "colour images of 64×80 px, 2 classes", "lite0_small"),
        ((28, 28), False, "L", "grey images of 28×28 px, 2 classes", "cifar"),
        ((28, 28), False, "RGB", "grey images of 28×28 px, 2 classes", "cifar"),
        ((32, 32), True, "RGBA", "colour images of 32×32 px, 2 classes", "cifar"),
        ((8, 8), False, "RGB", "grey images of 8×8 px, 2 classes", "digits"),
        ((8, 8), True, "RGB", "colour images of 8×8 px, 2 classes", "cifar"),
        ((300, 400), False, "L", "grey images of 300×400 px, 2 classes", "lite0_small"),
    ],
)
def test_a_space_is_chosen_by_size_and_colour(
    photos: Photos, size: tuple[int, int], colour: bool, mode: str, look: str, space: str
) -> None:
    data = photos("data", size, colour, mode, count=4)
    chosen, why = chosen_space(None, str(data), "scratch")
    assert chosen.name == space
    assert why == f"Space {space} for {look}; name another one to have that (nas space list)"
    assert unfit(chosen, Look(colour, *size)) is None or fitting(Look(colour, *size))[0].name == space


def test_turned_photos_an_archive_and_unreadable_files(photos: Photos, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = photos("turned", (90, 60), exif=exif)
    (data / "class0" / "0.png").write_bytes(b"nothing")
    assert look_at(str(data)) == Look(True, 60, 90)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(data.rglob("*.png")):
            archive.write(file, file.relative_to(data))
    assert look_at(str(tmp_path / "photos.zip"), counted=True) == Look(True, 60, 90, 2)


def test_named_sets_and_nothing_named() -> None:
    for data, space in (("cifar100", "cifar"), ("fashion_mnist", "cifar"), ("svhn", "cifar"), ("digits", "digits")):
        assert chosen_space(None, data, "scratch")[0].name == space
    assert NAMED.keys() == NAMED_LOOKS.keys()
    assert chosen_space(None, None, "scratch") == (load_space("digits"), None)
    assert chosen_space("lite0", "digits", "scratch") == (load_space("lite0"), None)


def test_a_function_of_the_users_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looked_at.py").write_text(
        "import numpy as np\nfrom nas.data.sets import ImageData, Split\n"
        "def items():\n    return {'train': [(np.full((60, 70, 3), (200, 10, 90), np.uint8), n % 2) for n in range(20)]}\n"
        "def grey():\n    return [(np.full((28, 28), n, np.uint8), n % 2) for n in range(20)]\n"
        "def nothing():\n    return []\n"
    )
    monkeypatch.chdir(tmp_path)
    assert chosen_space(None, "looked_at:items", "scratch")[0].name == "lite0_small"
    assert chosen_space(None, "looked_at:grey", "scratch")[0].name == "cifar"
    with pytest.raises(InputError, match="none of its images can be read"):
        chosen_space(None, "looked_at:nothing", "scratch")


def test_initial_weights_narrow_the_choice(photos: Photos, tmp_path: Path) -> None:
    data = photos("small", (32, 32))
    assert chosen_space(None, str(data), "efficientnet_lite0")[0].name == "lite0_small"


@pytest.mark.parametrize(
    ("space", "look", "said"),
    [
        ("digits", Look(True, 300, 300), "is for grey images of 8 px"),
        ("digits", Look(False, 300, 300), "shrinks images to 8 px"),
        ("digits", Look(False, 28, 28), "shrinks images to 8 px"),
        ("lite0", Look(False, 28, 28), "enlarges images to 160 px"),
        ("lite0", Look(True, 64, 64), "enlarges images to 160 px"),
        ("cifar", Look(True, 240, 180), "shrinks images to 32 px"),
        ("lite0", Look(True, 4000, 3000), None),
        ("lite0_small", Look(True, 240, 180), None),
        ("lite0_small", Look(False, 28, 28), None),
        ("cifar", Look(False, 28, 28), None),
        ("digits", Look(False, 8, 8), None),
    ],
)
def test_what_does_not_fit(space: str, look: Look, said: str | None) -> None:
    assert unfit(load_space(space), look) == said


def test_a_named_space_that_does_not_fit_is_warned_of_before_a_search(
    photos: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = photos("photos", (300, 225), count=30)
    settings = SearchSettings(load_space("digits"), str(data), objectives=("accuracy", "macs"))
    nas.plan_search(settings, tmp_path / "run")
    assert (
        f"space digits is for grey images of 8 px, and {data} has colour images of 300×225 px; lite0_small fits them "
        "better" in caplog.messages
    )
    caplog.clear()
    warn_unfit(load_space("lite0"), str(data))
    warn_unfit(load_space("lite0_small"), "no/such:thing")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("brief_measurements")
def test_evaluate_chooses_too(photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    data = photos("data", (28, 28), colour=False, count=20)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "smallest", "--data", str(data), "--epochs", "1", "--set", "precision=float32", "--json"])
    assert end.value.code == 0
    told = capsys.readouterr()
    assert "Space cifar for grey images of 28×28 px, 2 classes" in told.err
    assert told.out.startswith("{")
