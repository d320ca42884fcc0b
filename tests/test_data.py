"""Data: splits that are fixed, stratified and disjoint, channels, folders, and bad input."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import load_data
from nas.errors import InputError

SHARED = Path(os.environ.get("NAS_SHARED", Path(__file__).parents[2] / "shared"))
CIFAR = SHARED / "data" / "cifar10-imagefolder.tar.xz"


def write_images(folder: Path, count: int, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for index in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index:03}.png")


def test_digits_split_is_fixed_by_its_seed_stratified_and_disjoint() -> None:
    data, again, other = (load_data("digits", channels=1, split_seed=seed) for seed in (0, 0, 1))
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (1077, 360, 360)
    assert data.fingerprint() == again.fingerprint() != other.fingerprint()
    for part in (data.train, data.validation, data.test):
        shares = np.bincount(part.labels) / len(part)
        assert shares.min() > 0.08
        assert shares.max() < 0.12
        assert part.images.dtype == np.uint8
        assert part.images.shape[1:] == (1, 8, 8)
    seen = np.concatenate([data.train.images, data.validation.images, data.test.images])
    whole = load_data("digits", channels=1, split_seed=1)
    assert whole.test is not None
    same = np.concatenate([whole.train.images, whole.validation.images, whole.test.images])
    assert sorted(map(bytes, seen)) == sorted(map(bytes, same))  # nothing lost, nothing twice
    assert data.train.images.max() == 255  # the scans' 0 to 16, stretched


def test_the_search_does_not_see_the_test_part() -> None:
    assert load_data("digits", channels=1).without_test().test is None


def test_digits_in_three_channels_are_grey() -> None:
    images = load_data("digits", channels=3).train.images
    assert images.shape[1] == 3
    assert (images[:, 0] == images[:, 2]).all()


def test_folder_with_parts(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    data = load_data(tmp_path, channels=3, size=16)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 6, 4)
    assert data.classes == ("cat", "dog")
    assert data.train.images.shape == (12, 3, 16, 16)


def test_usual_variants_of_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part, count in (("train", 20), ("valid", 3)):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "unlabelled.png").write_bytes(b"")
    data = load_data(tmp_path, size=8)
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 6, 8)
    assert "no folders by class" in caplog.text


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_folder_without_parts_is_split(tmp_path: Path, mode: str, channels: int) -> None:
    for name in ("a", "b", "c"):
        write_images(tmp_path / name, 20, mode)
    data = load_data(tmp_path, channels=channels, size=8)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 12, 12)
    assert data.train.images.shape[1:] == (channels, 8, 8)
    assert len(set(data.test.labels)) == 3


def test_real_photographs(tmp_path: Path) -> None:
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR} is not there")
    wanted, found = {("train", "cat"), ("train", "ship")}, 0
    with tarfile.open(CIFAR) as archive:
        for member in archive:
            path = Path(member.name)
            if member.isfile() and path.parts[-3:-1] in wanted and int(path.stem) < 40:
                archive.extract(member, tmp_path, filter="data")
                found += 1
            if found == 80:
                break
    (root,) = (path.parent for path in tmp_path.rglob("train"))
    assert found == 80
    data = load_data(root, channels=3, size=32)
    assert data.classes == ("cat", "ship")
    assert 30 < data.train.images.mean() < 220


def _one_class(root: Path) -> None:
    write_images(root / "only", 4)


def _empty_class(root: Path) -> None:
    write_images(root / "a", 4)
    (root / "b").mkdir()


def _one_image(root: Path) -> None:
    write_images(root / "a", 4)
    write_images(root / "b", 1)


def _extra_class(root: Path) -> None:
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b"), ("val", "c")):
        write_images(root / part / name, 4)


def _not_an_image(root: Path) -> None:
    _empty_class(root)
    (root / "b" / "x.png").write_bytes(b"\x89PNG not an image")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "at least two; found none"),
        (_one_class, "found only 'only'"),
        (_empty_class, "b: no images"),
        (_one_image, "too few images"),
        (_extra_class, "val/c: a class that .*train does not have"),
        (_not_an_image, "x.png: not a readable image"),
    ],
)
def test_bad_folders(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(InputError, match=message):
        load_data(tmp_path / "data")


def test_unknown_names_and_channels() -> None:
    with pytest.raises(InputError, match="unknown data set 'nope': use one of digits, cifar10"):
        load_data("nope")
    with pytest.raises(InputError, match="2 input channels"):
        load_data("digits", channels=2)
