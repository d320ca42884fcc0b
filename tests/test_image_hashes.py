"""The same image is known again, is in one split only, and a test split that was swapped is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import RunFactory
from PIL import Image

from nas.cli.app import main
from nas.common.errors import InputError
from nas.data.distinct import distinct_splits
from nas.data.image_data import ImageData, Split
from nas.data.sets import load_data
from nas.models.seen import UNKNOWN
from nas.runs.record import Start
from nas.runs.run_file import RunFile, write_run_file
from nas.runs.run_images import RunImages
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.conditions import check_same_test, data_of
from nas.spaces.files import load_space
from nas.training.images import load_images
from nas.training.recipe import Recipe
from nas.training.supernet import SupernetPlan
from nas.training.supernet_file import write_file
from nas.views.report import write_report
from nas.workflows.supernet import plan_supernet

SPACE = load_space("cifar")
STARTS: tuple[Start, ...] = ("search", "init", "scratch")


def pictures(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)) for _ in range(count)]


def save(folder: Path, images: Sequence[Image.Image], ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    there = len(list(folder.iterdir()))
    for number, image in enumerate(images, there):
        image.save(folder / f"{number:03}.{ending}")


@pytest.fixture
def stored_twice(tmp_path: Path) -> Path:
    """Forty images of each of two classes, each stored as two files."""
    for name, seed in (("cat", 1), ("dog", 2)):
        images = pictures(40, seed)
        save(tmp_path / "photos" / name, images)
        save(tmp_path / "photos" / name, images, "bmp")
    return tmp_path / "photos"


def read(data: Path, *, distinct: bool = True) -> ImageData:
    return load_images(SPACE, str(data), 0, "scratch", distinct=distinct)


def files(part: Split) -> set[bytes]:
    return {image.tobytes() for chunk in part.chunks() for image in chunk}


def test_images_that_are_stored_twice_train_or_score_but_not_both(
    stored_twice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read(stored_twice, distinct=False)
    assert before.test is not None
    assert files(before.train) & files(before.validation)
    assert files(before.train) & files(before.test)

    data = read(stored_twice)

    assert data.test is not None
    train, validation, test = map(files, (data.train, data.validation, data.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert test == files(before.test)
    assert len(data.test) == len(before.test)
    assert len(train | validation | test) == 80  # no image is gone
    lost = len(before.train) - len(data.train)
    assert f"{lost} of {len(before.train)} training images are left out" in " ".join(data.remarks)
    assert f"{lost} of {len(before.train)} training images" in caplog.text
    assert before.remarks == ()


def test_splits_that_were_given_lose_training_images_alone(tmp_path: Path) -> None:
    for name, seed in (("cat", 1), ("dog", 2)):
        shared, own = pictures(4, seed), pictures(6, seed + 10)
        save(tmp_path / "train" / name, [*own, *shared])
        save(tmp_path / "val" / name, shared)
        save(tmp_path / "test" / name, shared[:1])

    data = read(tmp_path)

    assert data.test is not None
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 8, 2]
    assert data.remarks == (
        "2 of 8 validation images are test images too; both splits were given, and are left as they are",
        "8 of 20 training images are left out, as the same images score here: 8 validation and 2 test images",
    )


def test_a_class_that_has_no_other_training_images_is_refused(tmp_path: Path) -> None:
    for name, seed in (("cat", 1), ("dog", 2)):
        save(tmp_path / "train" / name, pictures(6, seed))
        save(tmp_path / "val" / name, pictures(6, 1 if name == "cat" else 5))
    with pytest.raises(InputError, match="every training image of class 'cat' is a validation or test image too"):
        read(tmp_path)


def test_data_without_duplicates_are_left_as_they_are() -> None:
    data = load_data("digits", channels=1, size=8)
    assert distinct_splits(data) is data


def test_an_image_is_known_by_its_pixels_whatever_it_is_read_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("cat", 1), ("dog", 2)):
        save(tmp_path / "a" / "train" / name, pictures(12, seed))
        save(tmp_path / "b" / "train" / name, pictures(12, seed), "bmp")
    one = load_data(tmp_path / "a", channels=3, size=32)
    small = load_data(tmp_path / "b", channels=1, size=8)
    assert sorted(one.train.image_hashes) == sorted(small.train.image_hashes)
    again = load_data(tmp_path / "a", channels=3, size=32)  # from the cache
    assert (again.train.image_hashes == one.train.image_hashes).all()
    assert (again.validation.image_hashes == one.validation.image_hashes).all()

    (tmp_path / "hashed_files.py").write_text(
        "from pathlib import Path\nfrom PIL import Image\n"
        f"FILES = sorted(Path({str(tmp_path / 'a' / 'train')!r}).glob('*/*.png'))\n"
        "def made():\n    return [(Image.open(file), file.parent.name == 'dog') for file in FILES]\n"
    )
    monkeypatch.chdir(tmp_path)
    mine = load_data("hashed_files:made", channels=3, size=16)
    assert mine.test is not None
    assert one.test is not None
    everything = [
        np.concatenate([p.image_hashes for p in (d.train, d.validation, d.test)]) for d in (one, mine) if d.test
    ]
    assert sorted(everything[0]) == sorted(everything[1])

    grey = load_data("digits", channels=1, size=8)
    assert (grey.train.image_hashes == load_data("digits", channels=3, size=8).train.image_hashes).all()
    assert (replace(grey.train, hashes=None).image_hashes == grey.train.image_hashes).all()


def test_hashes_of_parts_go_with_their_images(tmp_path: Path) -> None:
    data = load_data("digits", channels=1, size=8)
    both = data.with_validation().train
    assert (both.image_hashes == replace(both, hashes=None).image_hashes).all()
    few = data.train.subset(np.array([5, 3]))
    assert (few.image_hashes == replace(few, hashes=None).image_hashes).all()


def run_on(make_run: RunFactory, data: Path, images: ImageData, *, distinct: bool) -> RunDirectory:
    """A run on these images; one of before there were hashes tells neither `distinct` nor the test split."""
    run = make_run(SearchSettings(SPACE, str(data)), f"run-{distinct}")
    own = replace(run.provenance, data_fingerprint=images.fingerprint())
    told = replace(own, distinct=True, test_fingerprint=images.test_fingerprint()) if distinct else own
    return RunDirectory(run.path, RunFile(run.settings, told))


def test_a_run_goes_on_with_the_images_that_it_began_with(stored_twice: Path, make_run: RunFactory) -> None:
    for distinct in (False, True):
        images = read(stored_twice, distinct=distinct)
        again = data_of(run_on(make_run, stored_twice, images, distinct=distinct))
        assert again.fingerprint() == images.fingerprint()
        assert len(again.train) == len(images.train)


def test_another_test_split_than_when_the_search_began_is_refused(stored_twice: Path, make_run: RunFactory) -> None:
    images = read(stored_twice)
    assert images.test is not None
    other = replace(images, test=images.test.subset(np.arange(len(images.test) - 1)))
    run, older = (run_on(make_run, stored_twice, images, distinct=distinct) for distinct in (True, False))
    check_same_test(run, images)
    check_same_test(older, other)
    with pytest.raises(InputError, match=r"the test split of the data set .*photos has changed since the search began"):
        check_same_test(run, other)
    with pytest.raises(InputError, match=r"the test split .* is gone since"):
        check_same_test(run, images.without_test())


def test_a_run_says_what_its_candidates_have_seen(make_run: RunFactory, tmp_path: Path) -> None:
    def seen(name: str) -> np.ndarray:
        return np.array([*name.encode()], dtype=np.uint64)

    older = make_run()
    assert older.images() is None
    images = RunImages(seen("train"), seen("XY"), seen("z"))
    run = RunDirectory.create(tmp_path / "new", older.settings, older.provenance, images=images)
    known = run.images()
    assert known is not None
    told = {
        (start, with_validation): "".join(map(chr, known.seen(start, with_validation)))
        for start in STARTS
        for with_validation in (False, True)
    }
    assert told["search", False] == told["init", False] == "ainrtz"
    assert told["search", True] == "XYainrtz"
    assert told["scratch", False] == "ainrt"
    of_older = replace(images, inherited=UNKNOWN)  # what is not known stays so, however often it is inherited
    assert [0 in of_older.seen(start, False) for start in STARTS] == [start != "scratch" for start in STARTS]
    (run.path / "images.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"images.npz: does not hold the hashes"):
        run.images()


def test_a_supernet_that_was_begun_goes_on_with_the_images_that_it_began_with(
    stored_twice: Path, tmp_path: Path
) -> None:
    def planned(folder: Path) -> SupernetPlan:
        return plan_supernet(folder, SPACE, str(stored_twice), Recipe(epochs=1, precision="float32"))

    new = planned(tmp_path / "new")
    assert new.file.distinct
    assert new.file.data_fingerprint == read(stored_twice).fingerprint()
    before = read(stored_twice, distinct=False)
    (tmp_path / "older").mkdir()
    write_file(tmp_path / "older", replace(new.file, distinct=False, data_fingerprint=before.fingerprint()))
    older = planned(tmp_path / "older")
    assert older.data.fingerprint() == before.fingerprint()
    (tmp_path / "begun").mkdir()
    write_file(tmp_path / "begun", new.file)
    assert planned(tmp_path / "begun").file == new.file


def test_what_was_allowed_is_said_with_the_front_and_in_the_report(
    make_run: RunFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    told = "3 of 41 validation images of photos were training images of the supernet nets/a"
    write_run_file(run.path, RunFile(run.settings, replace(run.provenance, seen_images=told)))
    with pytest.raises(SystemExit) as end:
        main(["front", str(run.path)])
    assert not end.value.code
    assert f"Warning: {told}: scores are too good" in capsys.readouterr().out
    assert told in write_report(open_run(run.path)).read_text(encoding="utf-8")
