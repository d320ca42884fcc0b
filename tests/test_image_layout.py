"""Layouts: which folders are parts and which are classes, what is said of a guess, and what is left out by name."""

from __future__ import annotations

import io
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.common.errors import InputError
from nas.data.class_names import same_classes
from nas.data.image_files import image_suffixes, list_files
from nas.data.image_layout import Layout, find_layout
from nas.data.split_names import split_names

CAFE_C, CAFE_D = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


def png(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def content(name: str) -> bytes:
    return png() if Path(name).suffix.lower() in image_suffixes() else b"some text"


def laid_out(path: Path, *files: str, kind: str = "folder") -> Layout:
    """The layout of these files in a folder, a tar or a zip."""
    if kind == "folder":
        for name in files:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content(name))
    elif kind == ".zip":
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for name in files:
                archive.writestr(name, content(name))
    else:
        path = path.with_suffix(".tar")
        with tarfile.open(path, "w") as tar:
            for name in files:
                member = tarfile.TarInfo(name)
                member.size = len(content(name))
                tar.addfile(member, io.BytesIO(content(name)))
    return find_layout(path, list_files(path))


def each(*folders: str, of: tuple[str, ...] = ("a", "b")) -> list[str]:
    """An image of each class in each of some folders."""
    return [f"{folder}/{name}/1.png" for folder in folders for name in of]


def counts(layout: Layout) -> dict[str, int]:
    return {part: len(items) for part, items in layout.parts.items()}


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("kind", ["folder", ".tar", ".zip"])
@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"train": "train", "val": "val", "test": "test"}, ""),
        ({"train": "train", "val": "valid"}, ""),
        (
            {"train": "Training", "test": "Testing"},
            "Training/ is taken as the training split, Testing/ is taken as the test",
        ),
        ({"train": "TRAIN", "val": "VAL", "test": "TEST"}, "VAL/ is taken as the validation split"),
        ({"train": "training_set", "test": "test_set"}, "training_set/ is taken as the training split"),
        ({"train": "trainset", "val": "validset", "test": "testset"}, "validset/ is taken as the validation split"),
        ({"train": "TrainImages", "test": "TestImages"}, "TestImages/ is taken as the test split"),
        ({"train": "train2017", "val": "val2017"}, "val2017/ is taken as the validation split"),
        ({"train": "pets_train", "val": "pets_val", "test": "pets_test"}, "pets_val/ is taken as the validation split"),
        ({"train": "seg_train/seg_train", "test": "seg_test/seg_test"}, "seg_test/ is taken as the test split"),
        ({"train": "train/train", "test": "test/test"}, ""),
        ({"train": "archive/data/train", "test": "archive/data/test"}, ""),
        ({"train": "train/images", "test": "test/images"}, ""),
        ({"train": "train_data/train", "test": "test_data/Test"}, "train_data/ is taken as the training split"),
        ({"train": "train", "val": "dev"}, "dev/ is taken as the validation split"),
        ({"train": "train", "test": "eval"}, "eval/ is taken as the test split"),
        ({"train": "train", "val": "eval", "test": "test"}, "eval/ is taken as the validation split"),
        ({"train": "Train", "val": "dev", "test": "Evaluation"}, "Evaluation/ is taken as the test split"),
        ({"train": "train", "test": "holdout"}, "holdout/ is taken as the test split"),
    ],
)
def test_parts_are_known_by_their_names_and_what_is_guessed_is_said(
    tmp_path: Path, kind: str, folders: dict[str, str], said: str
) -> None:
    layout = laid_out(tmp_path / "x", *each(*folders.values()), kind=kind)
    assert layout.classes == ("a", "b")
    assert layout.parts == {part: [(file, i) for i, file in enumerate(each(name))] for part, name in folders.items()}
    assert said in " ".join(layout.remarks)
    assert len(layout.remarks) == bool(said)


@pytest.mark.parametrize(
    "folders",
    [
        ["fold_0", "fold_1", "fold_2"],
        ["split1", "split2"],
        ["hospital", "clinic"],
        ["Training", "more"],  # which of the two is all of it?
    ],
)
@pytest.mark.parametrize("kind", ["folder", ".tar"])
def test_would_be_classes_that_hold_the_same_folders_are_refused(tmp_path: Path, folders: list[str], kind: str) -> None:
    with pytest.raises(InputError) as caught:
        laid_out(tmp_path / "x", *each(*folders), kind=kind)
    said = str(caught.value)
    assert "\n" not in said
    assert all(f"{folder.partition('/')[0]}/" in said for folder in folders[:3])
    assert "hold the same folders" in said
    assert "name them train/, val/ and test/" in said


@pytest.mark.parametrize("folders", [["fold_0", "fold_1"], ["indoor", "outdoor", "elsewhere"]])
def test_the_way_out_that_the_refusal_names_is_one(tmp_path: Path, folders: list[str]) -> None:
    """Classes with folders of the same names, put into train/, are classes; and that is said."""
    layout = laid_out(tmp_path / "x", *each(*(f"train/{folder}" for folder in folders)))
    assert layout.classes == tuple(sorted(folders))
    assert "each class holds a/, b/: the images of all of these count" in " ".join(layout.remarks)
    alone = laid_out(tmp_path / "y", *each(folders[0]))
    assert alone.classes == ("a", "b")


@pytest.mark.parametrize(
    "files",
    [
        each("COVID", "normal", of=("images", "masks")),
        each("cat", "dog", of=("rgb", "depth")),
    ],
)
def test_classes_that_each_hold_images_and_masks_are_classes_as_before(tmp_path: Path, files: list[str]) -> None:
    layout = laid_out(tmp_path / "x", *files)
    assert layout.classes == tuple(sorted({file.partition("/")[0] for file in files}))
    assert counts(layout) == {"train": 4}
    assert "each class holds" in " ".join(layout.remarks)


@pytest.mark.parametrize(
    "files",
    [
        [*each("cat", of=("2019", "2020")), *each("dog", of=("2020", "2021", "2022"))],  # little in common
        [*each("cat", "dog"), "cat/1.png", "dog/1.png"],  # images of their own beside the folders
        each("cat", "dog", of=("photos",)),
    ],
)
def test_nested_folders_of_classes_are_theirs(tmp_path: Path, files: list[str]) -> None:
    layout = laid_out(tmp_path / "x", *files)
    assert layout.classes == ("cat", "dog")
    assert counts(layout) == {"train": len(files)}


def test_a_class_may_be_named_like_a_part_and_that_is_said(tmp_path: Path) -> None:
    vehicles = laid_out(tmp_path / "x", "bus/1.png", "car/1.png", "train/1.png")
    assert vehicles.classes == ("bus", "car", "train")
    assert vehicles.remarks == ("train/: taken as a class, like the folders beside it",)
    tested = laid_out(tmp_path / "y", "Control/1.png", "Test/1.png")
    assert tested.classes == ("Control", "Test")
    assert tested.remarks == ("Test/: taken as a class, like the folders beside it",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["cat/1.png", "dog/1.png", *each("test", of=("cat", "dog"))],
            r"x/test: named like a split .* \(cat, dog\): move",
        ),
        (["cat/1.png", "dog/1.png", *each("Validation", of=("cat", "dog"))], "x/Validation: named like a split"),
        (["Training/1.png", "Testing/1.png"], "x/Training: needs one folder a class, at least two; found none"),
        (each("Testing", "Validation"), "x: has Testing/, Validation/ but no train/"),
        (each("dev", "eval"), "x: has dev/, eval/ but no train/"),
        (each("train_1", "train_2", "test"), "x: has both train_1/ and train_2/, which name the same part"),
        (
            [*each("Training"), "Testing/a/1.png", "Testing/c/1.png"],
            "x/Testing/c: a class that .*Training does not have",
        ),
        (each("train", "val", "valid"), "x: has both val/ and valid/, which name the same part"),
    ],
)
def test_layouts_that_cannot_be_what_their_names_say(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        laid_out(tmp_path / "x", *files)


@pytest.mark.parametrize(
    "files",
    [
        [f"run{number}/{file}" for number in (1, 2) for file in each("train", "test")],
        [f"{name}/{part}/1.png" for name in ("cat", "dog") for part in ("train", "test")],
        [f"{name}/{part}/1.png" for name in ("cat", "dog") for part in ("Training", "Validation")],
    ],
)
def test_folders_that_each_hold_parts_are_refused(tmp_path: Path, files: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"hold the same folders .*, which look like splits of the data: give one of them"
    ):
        laid_out(tmp_path / "x", *files)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [*each("data/Training", "data/Testing"), "samples/1.png"],
            r"data/ holds parts of data \(Testing/, Training/\)",
        ),
        (each("original/train", "augmented/train"), r"augmented/ holds parts of data \(train/\)"),
        (
            [*each("pets/pets/train", "pets/pets/val"), *each("code")],
            r"give .*x/pets/pets alone, or, if pets is a class",
        ),
    ],
)
def test_a_class_that_would_hold_a_whole_data_set_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        laid_out(tmp_path / "x", *files)


@pytest.mark.parametrize("folder", ["Testing", "test_set", "data/Validation"])
def test_a_test_or_validation_part_alone_is_not_trained_on(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InputError, match=f"has {folder.rpartition('/')[2]}/ but no train/"):
        laid_out(tmp_path / "x", *each(folder))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            [*each("one"), *each("two", of=("c", "d"))],
            "one, two hold folders (a/, b/, c/, d/): the images of all of these",
        ),
        (
            [*each("one", of=("a", "b", "c")), "two/a/1.png"],
            "one holds folders (a/, b/, c/): the images of all of these",
        ),
        (["cat/1.png", "cat/deep/2.png", "dog/photos/1.png"], ""),
    ],
)
def test_classes_that_hold_folders_and_no_images_are_said(tmp_path: Path, files: list[str], said: str) -> None:
    layout = laid_out(tmp_path / "x", *files)
    assert len(layout.classes) == 2
    assert counts(layout) == {"train": len(files)}
    assert said in " ".join(layout.remarks)
    assert len(layout.remarks) == bool(said)


def test_one_odd_folder_does_not_hide_that_the_others_look_like_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fold_0/, fold_1/ hold the same folders \(a, b\)"):
        laid_out(tmp_path / "x", *each("fold_0", "fold_1"), "unlabelled/1.png")


def test_words_in_the_names_of_classes_are_no_parts() -> None:
    for names in (
        ["positive_test", "negative_test"],
        ["train_station", "airport"],
        ["bullet_train", "steam_train"],
        ["fitness", "retraining"],
        ["contest", "valley", "developer"],
    ):
        assert split_names(names) == {}


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize("kind", ["folder", ".tar", ".zip"])
def test_files_that_are_no_images_by_name_are_counted_and_named(tmp_path: Path, kind: str) -> None:
    files = ["a/1.jpg", "a/2.jfif", "b/1.avif", "b/deep/2.jpe", "b/3.PNG"]
    odd = [
        "a/1.npy",
        "a/2.npy",
        "a/noname",
        "b/deep/4.heic",
        "a/Thumbs.db",
        "b/desktop.ini",
        "a/.DS_Store",
        "notes.txt",
    ]
    layout = laid_out(tmp_path / "x", *files, *odd, kind=kind)
    assert counts(layout) == {"train": 5}
    assert layout.remarks == (
        "4 files in class folders left out, not images by name: 2 .npy, 1 without suffix, 1 .heic (first: a/1.npy)",
    )


@pytest.mark.parametrize("kind", ["folder", ".zip"])
def test_images_and_folders_that_nothing_uses_are_named(tmp_path: Path, kind: str) -> None:
    files = [*each("data/train", "data/test"), *each("data/extra"), "data/train/stray.jpg", "data/top.png"]
    files += ["data/notes/a.txt", "data/notes/b.txt", "data/README.md", "data/unlabelled/deep/1.png"]
    layout = laid_out(tmp_path / "x", *files, kind=kind)
    assert counts(layout) == {"train": 2, "test": 2}
    assert layout.remarks == (
        "2 images outside of class folders left out (first: data/top.png)",
        "3 folders used by nothing: data/extra/ (2 images), data/notes/ (no images, 2 other files), data/unlabelled/ (1 image)",
    )


def test_a_second_folder_for_a_part_and_one_of_other_classes_are_named(tmp_path: Path) -> None:
    spare = laid_out(tmp_path / "x", *each("train", "test", "eval", "val", "dev"))
    assert counts(spare) == {"train": 2, "val": 2, "test": 2}
    assert spare.remarks == ("2 folders used by nothing: dev/ (2 images), eval/ (2 images)",)
    other = laid_out(tmp_path / "y", *each("train"), *each("dev", of=("x", "y")))
    assert counts(other) == {"train": 2}
    assert other.remarks == ("1 folder used by nothing: dev/ (2 images)",)


@pytest.mark.parametrize("where", ["test", "test/test"])
def test_a_test_folder_without_classes_is_left_out_and_said(tmp_path: Path, where: str) -> None:
    layout = laid_out(tmp_path / "x", *each("train"), f"{where}/1.png", f"{where}/2.png")
    assert counts(layout) == {"train": 2}
    (remark,) = layout.remarks
    assert "has no folders by class: 2 images left out" in remark


def test_no_images_tells_what_there_is_instead(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x: holds no images .*; what it holds: 2 \.npy, 1 \.heic"):
        laid_out(tmp_path / "x", "a/1.npy", "a/2.npy", "b/1.heic")
    with pytest.raises(InputError, match=r"y/b: no images .*; what it holds: 1 without suffix"):
        laid_out(tmp_path / "y", "a/1.png", "b/1")


def test_what_pillow_decodes_is_taken_and_what_runs_programs_is_not() -> None:
    assert {
        ".jpg",
        ".jfif",
        ".jpe",
        ".png",
        ".apng",
        ".webp",
        ".gif",
        ".tif",
        ".bmp",
        ".ppm",
        ".mpo",
    } <= image_suffixes()
    assert not image_suffixes() & {".eps", ".ps", ".pdf", ".wmf", ".emf", ".mpg", ".h5", ".grib", ".bufr", ".npy", ""}


# ---------------------------------------------------------------- names in Unicode


@pytest.mark.parametrize("kind", ["folder", ".tar", ".zip"])
def test_a_class_is_one_in_either_normal_form(tmp_path: Path, kind: str) -> None:
    files = [f"train/{CAFE_D}/1.png", "train/tea/1.png", f"val/{CAFE_C}/1.png", "val/tea/1.png"]
    layout = laid_out(tmp_path / "x", *files, kind=kind)
    assert layout.classes == (CAFE_C, "tea")
    assert layout.parts == {
        "train": [(files[0], 0), (files[1], 1)],
        "val": [(files[2], 0), (files[3], 1)],
    }
    assert layout.remarks == ()


@pytest.mark.parametrize("name", ["café", "Å", "각"])
@pytest.mark.parametrize("kind", ["folder", ".tar"])
def test_two_folders_of_one_name_to_a_reader_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    both = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    with pytest.raises(
        InputError, match=r"differ in Unicode normalisation only \('.*\\u?.*' and '.*'\): put their images"
    ):
        laid_out(tmp_path / "x", *(f"{one}/1.png" for one in (*both, "tea")), kind=kind)


# ---------------------------------------------------------------- licence


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("LICENSE", "\n  MIT License\n\nCopyright (c) 2020 X", "LICENSE: MIT License"),
        ("LICENCE.txt", "SPDX-License-Identifier: CC-BY-4.0\nMore", "LICENCE.txt: CC-BY-4.0"),
        (
            "COPYING",
            "   Apache License\n   Version 2.0, January 2004",
            "COPYING: Apache License, Version 2.0, January 2004",
        ),
        ("license.md", "# Creative Commons Zero\n", "license.md: Creative Commons Zero"),
        (
            "README.roboflow.txt",
            "Exported\n\nProvided by a user\nLicense: CC BY 4.0\n",
            "README.roboflow.txt: CC BY 4.0",
        ),
        ("README.md", "---\nlicense: cc-by-sa-3.0\n---\n# Pets", "README.md: cc-by-sa-3.0"),
        ("readme.md", "# Pets\n\n## License\n\nFree for research.\n", "readme.md: Free for research."),
        ("README.md", "# Pets\n", None),
        ("LICENSE", "", None),
        ("LICENSE", "Mine\x1b[31m only", "LICENSE: Mine[31m only"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "data/"])
@pytest.mark.parametrize("kind", ["folder", ".tar", ".zip"])
def test_the_licence_of_the_data_is_found(
    tmp_path: Path, name: str, text: str, found: str | None, wrapper: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "content", lambda file: png() if file.endswith(".png") else text.encode())
    files = [f"{wrapper}{file}" for file in (*each("train"), name)]
    assert laid_out(tmp_path / "x", *files, kind=kind).licence == found


def test_a_licence_inside_a_class_is_not_that_of_the_data(tmp_path: Path) -> None:
    assert laid_out(tmp_path / "x", "a/1.png", "b/1.png", "a/LICENSE").licence is None


def test_records_of_before_name_the_same_classes_in_either_normal_form() -> None:
    assert same_classes((CAFE_D, "tea"), [CAFE_C, "tea"])
    assert not same_classes((CAFE_C, "tea"), ("tea", CAFE_C))
    assert not same_classes((CAFE_C, "tea"), ("cafe", "tea"))
