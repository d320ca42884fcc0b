"""The cache of decoded images: found again, made again when damaged or outdated, and memory-mapped when large."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.common.errors import InputError
from nas.data import cache as data_cache
from nas.data.cache import Decoded, load_decoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(tmp_path / "images" / part / name / f"{number:02}.png")
    (tmp_path / "images" / "train" / "dog" / "05.png").write_bytes(b"")
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(data_cache, "decode_into", refuse)


def same(one: Decoded, other: Decoded) -> bool:
    return (
        (one.classes, one.corrupt) == (other.classes, other.corrupt)
        and one.images.keys() == other.images.keys() == one.labels.keys() == other.labels.keys()
        and all((one.images[part] == other.images[part]).all() for part in one.images)
        and all((one.labels[part] == other.labels[part]).all() for part in one.labels)
        and all((one.hashes[part] == other.hashes[part]).all() for part in one.labels)
    )


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_decoded_once(folder: Path, cache: Path, no_decoding: Callable[[], None]) -> None:
    first = load_decoded(folder, 3, 8, cache)
    assert first.classes == ("cat", "dog")
    assert first.corrupt == ("train/dog/05.png",)
    assert first.labels["train"].tolist() == [0] * 24 + [1] * 5 + [-1] + [1] * 18
    assert first.images["val"].shape == (6, 3, 8, 8)
    no_decoding()
    second = load_decoded(folder, 3, 8, cache)
    assert same(first, second)
    assert second.images["train"].flags.writeable
    (entry,) = entries(cache)  # and no temporary directory
    assert sorted(os.listdir(entry)) == ["index.json", "train.hashes.npy", "train.npy", "val.hashes.npy", "val.npy"]


def test_an_archive_is_not_even_listed_again(
    folder: Path, cache: Path, no_decoding: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.make_archive(str(folder), "gztar", folder))
    first = load_decoded(archive, 1, 8, cache)
    assert same(first, load_decoded(folder, 1, 8, cache))
    no_decoding()
    monkeypatch.setattr(data_cache, "list_files", None)
    assert same(first, load_decoded(archive, 1, 8, cache))


def test_every_change_is_another_entry(folder: Path, cache: Path) -> None:
    load_decoded(folder, 3, 8, cache)
    load_decoded(folder, 1, 8, cache)
    load_decoded(folder, 3, 4, cache)
    assert len(entries(cache)) == 3
    os.utime(folder / "train" / "cat" / "00.png", ns=(1, 1))
    load_decoded(folder, 3, 8, cache)
    (folder / "train" / "cat" / "00.png").unlink()
    assert len(load_decoded(folder, 3, 8, cache).labels["train"]) == 47
    assert len(entries(cache)) == 5
    (folder / "train" / "mouse").mkdir()
    with pytest.raises(InputError, match="mouse"):
        load_decoded(folder, 3, 8, cache)


def _edit(entry: Path, **changes: Any) -> None:
    index = json.loads((entry / "index.json").read_text())
    (entry / "index.json").write_text(json.dumps(index | changes))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no index": lambda entry: (entry / "index.json").unlink(),
    "index is no JSON": lambda entry: (entry / "index.json").write_text('{"classes": '),
    "index without labels": lambda entry: (entry / "index.json").write_text("{}"),
    "labels of another length": lambda entry: _edit(entry, labels={"train": [0], "val": [1]}),
    "no array": lambda entry: (entry / "val.npy").unlink(),
    "empty array": lambda entry: (entry / "val.npy").write_bytes(b""),
    "truncated array": lambda entry: os.truncate(entry / "train.npy", 5_000),
    "another array": lambda entry: np.save(entry / "train.npy", np.zeros((3, 3))),
    "pickled array": lambda entry: np.save(entry / "train.npy", np.array([{}]), allow_pickle=True),
    "no hashes": lambda entry: (entry / "val.hashes.npy").unlink(),
    "hashes of another length": lambda entry: np.save(entry / "val.hashes.npy", np.zeros(2, np.uint64)),
    "zip": lambda entry: (entry / "val.npy").write_bytes(b"PK\3\4" + bytes(100)),
    "broken header": lambda entry: (entry / "val.npy").write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': ((((((((("),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_made_anew(
    folder: Path,
    cache: Path,
    damage: Callable[[Path], Any],
    caplog: pytest.LogCaptureFixture,
    no_decoding: Callable[[], None],
) -> None:
    first = load_decoded(folder, 3, 8, cache)
    (entry,) = entries(cache)
    damage(entry)
    assert same(first, load_decoded(folder, 3, 8, cache))
    assert "damaged, so its images are decoded again" in caplog.text
    assert entries(cache) == [entry]
    no_decoding()
    assert same(first, load_decoded(folder, 3, 8, cache))


def test_a_cache_that_cannot_be_written(folder: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the directory should be")
    assert len(load_decoded(folder, 3, 8, cache / "decoded").labels["train"]) == 48
    assert "cannot be kept" in caplog.text
    assert caplog.text.count("WARNING") == 1


def test_a_disk_that_is_full_at_the_end(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert len(load_decoded(folder, 3, 8, cache).labels["train"]) == 48
    assert "No space left on device" in caplog.text
    assert entries(cache) == []


def test_large_parts_are_memory_maps(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    plain = load_decoded(folder, 3, 8, cache / "plain")
    monkeypatch.setattr(data_cache, "MEMORY_MAPPED_BYTES", 5_000)  # train has 9,216 bytes, val 1,152
    first = load_decoded(folder, 3, 8, cache / "mapped")
    (entry,) = entries(cache / "mapped")
    no_decoding()
    for found in (first, load_decoded(folder, 3, 8, cache / "mapped"), load_decoded(folder, 3, 8, cache / "plain")):
        assert same(plain, found)
        train = found.images["train"]
        assert isinstance(train, np.memmap)
        assert not train.flags.writeable
        assert not isinstance(found.images["val"], np.memmap)
    assert isinstance(first.images["train"], np.memmap)
    assert Path(str(first.images["train"].filename)) == entry / "train.npy"


@pytest.mark.parametrize("reason", ["unwritable", "full"])
def test_large_parts_need_the_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_cache, "MEMORY_MAPPED_BYTES", 5_000)
    if reason == "full":
        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        cache.write_text("a file where the directory should be")
    with pytest.raises(InputError, match=r"cannot be written to .*cache; let NAS_DATA name a directory"):
        load_decoded(folder, 3, 8, cache)
    assert cache.is_file() or entries(cache) == []


def test_errors_leave_nothing_behind(folder: Path, cache: Path) -> None:
    for file in (folder / "val").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(InputError, match="not readable"):
        load_decoded(folder, 3, 8, cache)
    assert entries(cache) == []


def _load(folder: Path, cache: Path, start: Any, results: Any) -> None:
    start.wait()
    found = load_decoded(folder, 3, 8, cache)
    results.put(int(found.images["train"].sum()))


@pytest.mark.subprocess
def test_several_processes_at_once(folder: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_load, args=(folder, cache, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert sums == {int(load_decoded(folder, 3, 8, cache).images["train"].sum())}
    assert len(entries(cache)) == 1
