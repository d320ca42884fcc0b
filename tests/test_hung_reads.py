"""Reads that never come back, of pipes that nobody writes into: one sentence after a while, and the process ends."""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nas.common.errors import InputError
from nas.common.patience import patiently, read_timeout_s, reading
from nas.data.image_data import Split
from nas.data.sets import load_data
from nas.training.device_data import DevicePart
from nas.workflows.space_choice import look_at


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, and less than half a second for a read."""
    monkeypatch.setenv("NAS_READ_TIMEOUT", "0.4")
    monkeypatch.setattr("nas.common.patience._UNWIND_S", 0.1)
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def said(path: Path) -> str:
    return f"^{re.escape(str(path))}: could not be read in 0.4 s: .* NAS_READ_TIMEOUT sets other seconds$"


def test_an_image_that_does_not_come_is_named_and_half_an_entry_is_tidied_up(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = pipe(photos / "a" / "50.png")
    with pytest.raises(InputError, match=said(never)):
        load_data(photos, channels=1, size=8)
    assert not list((tmp_path / "data" / "decoded").iterdir())
    never.unlink()
    monkeypatch.delenv("NAS_READ_TIMEOUT")
    assert len(load_data(photos, channels=1, size=8).train) > 0


def test_so_is_what_is_looked_at_to_choose_a_space(photos: Path) -> None:
    never = pipe(photos / "a" / "00.jpg")
    with pytest.raises(InputError, match=said(never)):
        look_at(str(photos))


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_archive_that_does_not_come_is_named(photos: Path, tmp_path: Path, suffix: str) -> None:
    never = pipe(tmp_path / f"photos{suffix}")
    with pytest.raises(InputError, match=said(never)):
        load_data(never, channels=1, size=8)


def test_only_a_single_read_is_timed_not_all_of_them_and_not_what_is_done_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NAS_READ_TIMEOUT", "600")
    clock, looks = [0.0], SimpleQueue[None]()

    def look(futures: list[Future[int]], timeout: float) -> None:
        looks.put(None)
        concurrent.futures.wait(futures, timeout=0.01)

    def passes(seconds: float) -> None:
        clock[0] += seconds
        while not looks.empty():
            looks.get()
        for _ in range(2):  # whoever waits looks at the clock of now
            looks.get(timeout=10)

    def slow() -> int:
        for number in range(4):
            reading(number)
            passes(400)
        reading(None)
        passes(4000)
        reading("the last")
        passes(700)
        return 4

    monkeypatch.setattr("nas.common.patience.wait", look)
    monkeypatch.setattr("nas.common.patience.time.monotonic", lambda: clock[0])
    with pytest.raises(InputError, match="the last: could not be read in 600 s"):
        patiently(slow)
    assert clock[0] == 4 * 400 + 4000 + 700


def test_whoever_is_interrupted_leaves_no_thread_at_work(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    tidied = threading.Event()

    def endless() -> None:
        try:
            while True:
                reading(len(read))
                read.append(1)
                time.sleep(0.001)
        finally:
            tidied.set()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nas.common.patience.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            patiently(endless)
    assert tidied.wait(5)


@pytest.mark.parametrize(("given", "seconds"), [(None, 600.0), ("off", None), ("90", 90.0)])
def test_how_long_is_waited(monkeypatch: pytest.MonkeyPatch, given: str | None, seconds: float | None) -> None:
    if given is None:
        monkeypatch.delenv("NAS_READ_TIMEOUT", raising=False)
    else:
        monkeypatch.setenv("NAS_READ_TIMEOUT", given)
    assert read_timeout_s() == seconds


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan"])
def test_a_wrong_time_is_one_sentence(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("NAS_READ_TIMEOUT", given)
    with pytest.raises(InputError, match=f"^NAS_READ_TIMEOUT {given}: must be seconds, more than 0, or off$"):
        read_timeout_s()


@pytest.mark.subprocess
def test_the_process_ends_though_its_read_never_does(photos: Path) -> None:
    never = pipe(photos / "a" / "50.png")
    code = f"from nas.data.sets import load_data; load_data({str(photos)!r}, channels=1, size=8)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"{never}: could not be read in 0.4 s" in ended.stderr


class _Hanging(Split):
    """Images on a file system that answers once."""

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        if numbers[0]:
            Path(os.environ["NEVER"]).read_bytes()
        return super().take(numbers)


@pytest.fixture
def part(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevicePart:
    monkeypatch.setenv("NEVER", str(pipe(tmp_path / "never")))
    images = np.lib.format.open_memmap(tmp_path / "train.npy", mode="w+", dtype=np.uint8, shape=(8, 1, 8, 8))
    return DevicePart(_Hanging(images, np.zeros(8, dtype=np.int64)), torch.device("cpu"), resident=False)


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_batch_that_does_not_come_while_training_names_its_file(part: DevicePart, tmp_path: Path) -> None:
    batches = part.in_order(4)
    assert len(next(batches)[0]) == 4
    with pytest.raises(InputError, match=said(tmp_path / "train.npy")):
        next(batches)
