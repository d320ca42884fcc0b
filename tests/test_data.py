"""Data: splits that are fixed, stratified and disjoint, channels, folders, functions, memory maps, and bad input."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.common.errors import InputError
from nas.data import cache as data_cache
from nas.data import image_data
from nas.data import sets as data_module
from nas.data.sets import ImageData, Split, data_line, load_data

SHARED = Path(os.environ.get("NAS_SHARED", Path(__file__).parents[2] / "shared"))
CIFAR = SHARED / "data" / "cifar10-imagefolder.tar.xz"


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_DATA", str(tmp_path_factory.mktemp("nas-data")))


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


def test_the_search_does_not_see_the_test_split() -> None:
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


@pytest.mark.slow
def test_real_photographs(tmp_path: Path) -> None:
    """One in fifty of them, packed again: all would take half a minute."""
    if not CIFAR.exists():
        pytest.skip(f"{CIFAR} is not there")
    some = tmp_path / "some.tar.xz"
    with tarfile.open(CIFAR, "r|xz") as whole, tarfile.open(some, "w:xz", preset=0) as packed:
        for member in whole:
            if member.name.endswith(("00.jpg", "50.jpg")):
                packed.addfile(member, whole.extractfile(member))
    data = load_data(some, channels=3, size=32)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (750, 250, 200)
    assert len(data.classes) == 10
    assert data.classes[3] == "cat"
    assert np.allclose(data.mean, (0.491, 0.482, 0.447), atol=0.02)  # four times the error of a mean of 750 images
    assert np.allclose(data.std, (0.247, 0.243, 0.262), atol=0.01)
    assert data.corrupt == ()
    assert load_data(some, channels=3, size=32).fingerprint() == data.fingerprint()


def test_an_archive_is_the_same_data_as_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "data" / name, 20)
    archive = shutil.make_archive(str(tmp_path / "packed"), "xztar", tmp_path, "data")
    data, packed = load_data(tmp_path / "data", size=8), load_data(archive, size=8)
    assert data.fingerprint() == packed.fingerprint()
    assert packed.name == archive


def test_corrupt_images_are_left_out_and_named_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, 50)
    for number in range(4):
        (tmp_path / "b" / f"{number:03}.png").write_bytes(b"no image")
    for _ in range(2):
        caplog.clear()
        data = load_data(tmp_path, size=8)
        assert data.corrupt == tuple(f"b/{number:03}.png" for number in range(4))
        assert data.test is not None
        assert len(data.train) + len(data.validation) + len(data.test) == 96
        assert "4 of 100 images are not readable and left out: b/000.png, b/001.png, b/002.png, …" in caplog.text


def test_memory_maps_are_split_read_and_pickled_without_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, 50)
    (tmp_path / "b" / "007.png").write_bytes(b"no image")
    plain = load_data(tmp_path, size=8)
    monkeypatch.setattr(data_cache, "MEMORY_MAPPED_BYTES", 10_000)
    monkeypatch.setattr(image_data, "_CHUNK_BYTES", 1_000)
    mapped = load_data(tmp_path, size=8)
    assert mapped.fingerprint() == plain.fingerprint()
    assert (mapped.mean, mapped.std) == (plain.mean, plain.std)
    assert mapped.test is not None
    assert plain.test is not None
    for part, same in ((mapped.train, plain.train), (mapped.validation, plain.validation), (mapped.test, plain.test)):
        assert isinstance(part.images, np.memmap)
        assert len(part.images) == 100  # all three are rows of the one map
        some = np.array([5, 0, 5])
        assert (part.take(some) == same.images[some]).all()
        assert type(part.take(some)) is np.ndarray
        assert (np.concatenate(list(part.chunks())) == same.images).all()
        assert (part.subset(some).take(np.array([1])) == same.images[:1]).all()
        pickled = pickle.dumps(part)
        assert len(pickled) < 3_000 < part.images.nbytes
        again = pickle.loads(pickled)
        assert isinstance(again.images, np.memmap)
        assert not again.images.flags.writeable
        assert (again.take(some) == same.images[some]).all()
    few = mapped.train.images[:7]  # a part of a map is pickled whole
    assert (pickle.loads(pickle.dumps(Split(few, np.zeros(7, np.int64)))).images == few).all()
    shutil.rmtree(os.environ["NAS_DATA"])
    with pytest.raises(InputError, match="cannot be read on this machine: let NAS_DATA name a directory"):
        pickle.loads(pickled)


def test_parts_in_memory_are_pickled_with_their_images() -> None:
    part = load_data("digits", channels=1).validation
    again = pickle.loads(pickle.dumps(part))
    assert (again.images == part.images).all()
    with pytest.raises(ValueError, match="5 labels do not fit"):
        Split(part.images, part.labels[:5])


def test_statistics_are_of_evenly_spaced_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "val", "test"):
        for name, grey in (("black", 0), ("white", 255)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(30):
                Image.new("L", (8, 8), grey).save(tmp_path / part / name / f"{number:02}.png")
    monkeypatch.setattr(data_module, "STATISTICS_IMAGES", 20)  # the first 20 are all black
    data = load_data(tmp_path, channels=1, size=8)
    assert data.mean == data.std == (0.5,)


def test_statistics_are_those_of_all_images_where_these_are_few() -> None:
    data = load_data("digits", channels=1)
    scaled = data.train.images / 255
    assert data.mean == (round(float(scaled.mean()), 6),)
    assert data.std == (round(float(scaled.std()), 6),)


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


def _not_utf8(root: Path) -> None:
    write_images(root / "a", 4)
    write_images(Path(os.fsdecode(os.fsencode(root) + b"/\xff")), 4)


def _not_an_image(root: Path) -> None:
    _empty_class(root)
    (root / "b" / "x.png").write_bytes(b"\x89PNG not an image")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "holds no images"),
        (_one_class, "found only 'only'"),
        (_empty_class, "b: no images"),
        (_one_image, "too few images for a test split: 5 of 2 classes, 1 of class 'b'"),
        (_not_utf8, r"a folder or file is not UTF-8"),
        (_extra_class, "val/c: a class that .*train does not have"),
        (_not_an_image, r"1 of 5 images \(20\.0%\) .* the first is b/x\.png: not an image"),
    ],
)
def test_bad_folders(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(InputError, match=message):
        load_data(tmp_path / "data")


class Items(list[Any]):
    """A dataset of (image, label) pairs that may know its classes."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        super().__init__(items)
        if classes:
            self.classes = classes


def items(image: Callable[[int], Any], count: int = 40, classes: int = 2) -> list[Any]:
    return [(image(number), number % classes) for number in range(count)]


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)


def pil(number: int) -> Image.Image:
    return Image.fromarray(pixels(number))


def tensor(number: int) -> torch.Tensor:
    return torch.from_numpy(pixels(number)).permute(2, 0, 1)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """The name of a function that returns what it is given, or calls it if it can be called."""

    def make(made: Any) -> str:
        monkeypatch.setattr(data_module, "made_here", made if callable(made) else lambda: made, raising=False)
        return "nas.data.sets:made_here"

    return make


@pytest.mark.parametrize("image", [pil, pixels, tensor])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_function_that_returns_one_dataset(
    plugin: Callable[[Any], str], image: Callable[[int], Any], channels: int
) -> None:
    data = load_data(plugin(Items(items(image), ["cat", "dog"])), channels=channels, size=8)
    assert data.name == "nas.data.sets:made_here"
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 8, 8)
    assert data.classes == ("cat", "dog")
    assert data.train.images.shape[1:] == (channels, 8, 8)
    assert data.fingerprint() == load_data(plugin(items(pil)), channels=channels, size=8).fingerprint()


def test_a_function_reads_like_a_folder(tmp_path: Path, plugin: Callable[[Any], str]) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("cat", "dog"):
        write_images(tmp_path / name, 20)
    data = load_data(plugin(ImageFolder(str(tmp_path))), size=8)
    assert data.classes == ("cat", "dog")
    assert data.fingerprint() == load_data(tmp_path, size=8).fingerprint()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_function_that_returns_parts(plugin: Callable[[Any], str], name: str) -> None:
    made = {"train": items(pil, 9, 3), name: items(pil, 6, 3), "test": items(pil, 3, 3)}
    data = load_data(plugin(made), size=8)
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 6, 3)
    assert data.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "image",
    [
        lambda n: np.full((9, 9), n, np.uint8),
        lambda n: np.full((9, 9, 1), n, np.uint8),
        lambda n: np.full((9, 9, 4), (n, n, n, 255), np.uint8),
        lambda n: torch.full((1, 9, 9), n, dtype=torch.uint8),
        lambda n: Image.new("I;16", (9, 9), n * 257),
    ],
)
def test_other_shapes_of_images(plugin: Callable[[Any], str], image: Callable[[int], Any]) -> None:
    data = load_data(plugin({"train": items(image), "val": items(image), "test": items(image)}), size=8)
    assert (data.train.images == np.arange(40)[:, None, None, None]).all()


def test_a_function_that_returns_image_data(plugin: Callable[[Any], str]) -> None:
    digits = load_data("digits", channels=1)
    assert load_data(plugin(digits), channels=1) is digits
    with pytest.raises(InputError, match="has images of 1 channels, and the space takes 3"):
        load_data(plugin(digits), channels=3)


class Unreliable(Items):
    """A dataset whose items cannot be had."""

    def __getitem__(self, number: Any) -> Any:
        raise KeyError("gone")


class Endless(Items):
    """A dataset that does not know its length."""

    def __len__(self) -> int:
        raise OSError("no index")


def _failing() -> None:
    raise RuntimeError("no disk")


def _exiting() -> None:
    raise SystemExit(0)


def _changed(**changes: Any) -> ImageData:
    """The digits with their training split changed."""
    digits = load_data("digits", channels=3)
    return replace(digits, train=replace(digits.train, **changes))


FLOATS: Any = np.full((1077, 3, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_failing, "raised RuntimeError: no disk"),
        (_exiting, "raised SystemExit: 0"),
        (Endless(items(pil)), "train: its length raised OSError: no index"),
        (_changed(images=FLOATS), "train: images must be uint8 of shape .* these are float64 of shape"),
        (_changed(labels=np.full(1077, 10)), "train: has the label 10: labels must be 0 to 9"),
        (None, "train: is NoneType, not a dataset with __len__ and __getitem__"),
        (iter([]), "train: is list_iterator, not a dataset"),
        ([], "train: holds no images"),
        ({}, "returned no part 'train', only an empty mapping"),
        ({"val": items(pil)}, "returned no part 'train', only val"),
        ({"train": items(pil), "dev": items(pil)}, "returned a part 'dev': use train, val, valid, validation, test"),
        ({"train": items(pil), "val": items(pil), "valid": []}, "the validation split twice: train, val, valid"),
        (Unreliable(items(pil)), "train: item 0 raised KeyError: 'gone'"),
        ([1, 2], "train: item 0 is int, not an image and a label"),
        ([(pil(0), 0.5)], "train: item 0 has the label 0.5, not an int"),
        ([(pil(0), 0), (pil(0), "dog")], "train: item 1 has the label 'dog', not an int"),
        (items(lambda n: pixels(n) / 255), "item 0: the image is of float64: PIL images or uint8 are needed"),
        (items(lambda n: tensor(n).float()), "item 0: the image is of float32: PIL images or uint8 are needed"),
        (items(lambda n: Image.new("F", (9, 9))), "item 0: its pixels are floating-point"),
        (items(lambda n: torch.from_numpy(pixels(n))), r"item 0: the image's shape is none of \(H, W\)"),
        (items(lambda n: "photo.png"), "item 0: the image is str, neither a PIL image nor a uint8 array or tensor"),
        ([(pil(0), 1), (pil(0), 2)], "train: has the label 2: labels must be 0 to 1, for 2 classes"),
        ([(pil(0), 0), (pil(0), -1)], "train: has the label -1: labels must be 0 to 1"),
        (Items([(pil(0), 0), (pil(0), 1)], ["a", "b", "c"]), "has images of 2 of 3 classes"),
        ([(pil(0), 0)], "has images of 1 of 1 classes, and needs all of at least two"),
        ({"train": items(pil), "val": [(pil(0), 2)]}, "val: has the label 2: labels must be 0 to 1"),
        (items(pil, 3), "too few images for a test split: 3 of 2 classes, 1 of class '1'"),
    ],
)
def test_functions_that_return_something_else(plugin: Callable[[Any], str], made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_data(plugin(made), size=8)
    assert "nas.data.sets:made_here" in str(caught.value)


def test_functions_that_cannot_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="data 'no_such:f' could not be loaded: ModuleNotFoundError: No module"):
        load_data("no_such:f")
    with pytest.raises(InputError, match=r"data 'nas\.data\.sets:f' could not be loaded: AttributeError"):
        load_data("nas.data.sets:f")
    with pytest.raises(InputError, match=r"data 'nas\.data\.sets:TEST_SHARE' is not a function"):
        load_data("nas.data.sets:TEST_SHARE")
    for name in (r"C:\photos", "C:/photos", "D:photos", "s3://photos"):
        with pytest.raises(InputError, match="unknown data set"):
            load_data(name)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_images(tmp_path / "nas.data.sets:data_root" / name, 10)
    assert load_data("nas.data.sets:data_root", size=8).classes == ("a", "b")


def test_unknown_names_and_channels() -> None:
    with pytest.raises(InputError, match="unknown data set 'nope': use one of digits, cifar10"):
        load_data("nope")
    with pytest.raises(InputError, match="2 input channels"):
        load_data("digits", channels=2)


# ---------------------------------------------------------------- what is said


def test_the_line_says_what_a_folder_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(("cat", "dog", "eel", "fox", "gnu", "hen")):
        write_images(tmp_path / "train" / name, 20, size=(12, 10) if number else (40, 30))
        write_images(tmp_path / "test" / name, 2)
    with caplog.at_level("INFO"):
        data = load_data(tmp_path, size=8)
    line = (
        f"Data: {tmp_path}: 6 classes (cat, dog, eel, fox, …); 90 training, 30 validation (split off), 12 test images; "
        "12×10 to 40×30 px (median 12×10) → 8×8 px, RGB"
    )
    assert data_line(data) == line
    assert caplog.messages == [line]
    assert "test" not in data_line(data.without_test()).partition("; ")[2]


@pytest.mark.parametrize("made", [items(pil), {"train": items(pil), "test": items(pil, 4)}])
def test_the_line_of_datasets_and_of_named_sets(plugin: Callable[[Any], str], made: Any) -> None:
    assert data_line(load_data(plugin(made), channels=1, size=8)).endswith(" images; 12×10 px → 8×8 px, grey")
    digits = data_line(load_data("digits", channels=3))
    assert digits.startswith(
        "Data: digits: 10 classes (0, 1, 2, 3, …); 1,077 training, 360 validation (split off), 360 test"
    )
    assert digits.endswith(" (split off) images; 8×8 px, RGB")


def test_sizes_that_are_not_known_are_said_to_be(plugin: Callable[[Any], str]) -> None:
    digits = load_data("digits", channels=1)
    made = ImageData(**{name: getattr(digits, name) for name in ("name", "classes", "train", "validation", "test")},
                     mean=(0.5,), std=(0.2,), hflip=False, split_seed=0)  # fmt: skip
    line = data_line(load_data(plugin(made), channels=1))
    assert line.endswith("360 validation, 360 test images; sizes of the files not known → 8×8 px, grey")


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_left_out_is_said_each_time(tmp_path: Path, packed: bool, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("Training", "Testing"):
        for name in ("a", "b"):
            write_images(tmp_path / "data" / part / name, 20)
    (tmp_path / "data" / "Training" / "a" / "1.npy").write_bytes(b"x")
    (tmp_path / "data" / "LICENSE").write_text("MIT License\n")
    path = shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path / "data") if packed else tmp_path / "data"
    for _ in range(2):
        caplog.clear()
        data = load_data(path, size=8)
        assert data.licence == "LICENSE: MIT License"
        assert data.remarks == (
            "Training/ is taken as the training split, Testing/ is taken as the test split",
            "1 file in class folders left out, not images by name: 1 .npy (first: Training/a/1.npy)",
        )
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            f"{path}: {remark}" for remark in data.remarks
        ]
    if not packed:  # of a folder, what is new is seen at once
        (tmp_path / "data" / "Testing" / "b" / "2.heic").write_bytes(b"x")
        assert "2 files in class folders left out" in load_data(path, size=8).remarks[1]


# ---------------------------------------------------------------- data that tell nothing


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 10, 10)])
@pytest.mark.parametrize("kind", ["folder", "archive", "function", "ImageData"])
def test_images_of_one_colour_are_refused(
    tmp_path: Path, kind: str, colour: tuple[int, int, int], plugin: Callable[[Any], str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (9, 9), colour).save(tmp_path / "data" / name / f"{number}.png")
    where: str | Path = tmp_path / "data"
    if kind == "archive":
        where = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "data")
    elif kind == "function":
        where = plugin(items(lambda _: Image.new("RGB", (9, 9), colour)))
    elif kind == "ImageData":
        digits = load_data("digits", channels=3)
        images = np.empty_like(digits.train.images)
        images[:] = np.array(colour, np.uint8)[None, :, None, None]
        where = plugin(replace(digits, name="mine", train=replace(digits.train, images=images)))
    with pytest.raises(
        InputError, match=r"data set .*: every pixel of its [\d,]+ training images has the value \d+, \d+, \d+"
    ):
        load_data(where, size=8)


def test_one_channel_may_be_constant(plugin: Callable[[Any], str]) -> None:
    def reddish(number: int) -> np.ndarray:
        return pixels(number) * np.array([1, 0, 0], np.uint8)

    data = load_data(plugin(items(reddish)), size=8)
    assert data.std[0] > 0.1
    assert data.std[1:] == (0.001, 0.001)


def test_a_standard_deviation_of_0_is_refused(plugin: Callable[[Any], str]) -> None:
    digits = load_data("digits", channels=1)
    for std in ((0.0,), (float("nan"),)):
        with pytest.raises(InputError, match=r"has the standard deviation .* must be above 0"):
            load_data(plugin(replace(digits, std=std)), channels=1)


def test_names_of_classes_that_look_alike(plugin: Callable[[Any], str]) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    data = load_data(plugin(Items(items(pil), [decomposed, "tea"])), size=8)
    assert data.classes == (composed, "tea")
    with pytest.raises(
        InputError, match=r"the classes 'cafe\\u0301' and 'caf\\xe9' differ in Unicode normalisation only"
    ):
        load_data(plugin(Items(items(pil, classes=3), [decomposed, composed, "tea"])), size=8)
    made = replace(load_data("digits", channels=1), classes=(decomposed, *"123456789"))
    assert load_data(plugin(made), channels=1).classes[0] == composed
