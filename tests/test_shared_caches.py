"""Caches of one folder and several users: real ones, by their numbers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_latency_cache import KEY, latency

from nas.data.cache import load_decoded
from nas.latency.cache import LatencyCache

ANNA, BERT, LAB = 54321, 54322, 54399
pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(os.getuid() != 0, reason="takes root, to be two other users"),
]


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _act(user: int, umask: int, act: Callable[[], Any], said: Connection) -> None:
    heard = _Heard()
    logging.getLogger().handlers = [heard]
    os.setgroups([LAB])
    os.setgid(user)
    os.setuid(user)
    os.umask(umask)
    said.send((act(), heard.texts))


def as_user(user: int, act: Callable[[], Any], umask: int = 0o022) -> tuple[Any, list[str]]:
    """What `act` gives in a process of a user of the lab's group, and what was warned of there."""
    fork = multiprocessing.get_context("fork")
    told, say = fork.Pipe(duplex=False)
    process = fork.Process(target=_act, args=(user, umask, act, say))
    process.start()
    say.close()
    found: tuple[Any, list[str]] = told.recv()
    process.join()
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users reach, with images and a folder `lab` of the lab's group."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Path(folder)
        made.chmod(0o755)
        generator = np.random.default_rng(0)
        for name in ("a", "b"):
            (made / "images" / name).mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(made / "images" / name / f"{number}.png")
        load_decoded(made / "images", 1, 8, made / "warm")  # what is imported on first use may lie in a closed home
        lab = made / "lab"
        lab.mkdir()
        os.chown(lab, 0, LAB)
        lab.chmod(0o775)
        yield made


def adds(folder: Path, ms: float) -> Callable[[], Any]:
    def act() -> float | None:
        cache = LatencyCache(folder)
        found = cache.find(KEY)
        cache.add(KEY, latency(ms, measured=ms))
        return found.ms if found else None

    return act


def decodes(images: Path, cache: Path, size: int) -> Callable[[], Any]:
    """How many entries the cache has once a user has read images through it."""

    def act() -> int:
        assert len(load_decoded(images, 1, size, cache).images["train"]) == 6
        return len(list(cache.glob("[0-9a-f]*")))

    return act


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_users_who_share_a_folder_by_its_group_read_and_write_one_cache(place: Path, umask: int) -> None:
    latencies, decoded = place / "lab" / "new" / "latency", place / "lab" / "new" / "data"
    assert as_user(ANNA, adds(latencies, 1.0), umask) == (None, [])
    assert as_user(BERT, adds(latencies, 2.0), umask) == (1.0, [])
    assert as_user(ANNA, adds(latencies, 3.0), umask) == (2.0, [])
    assert as_user(ANNA, decodes(place / "images", decoded, 8), umask) == (1, [])
    assert as_user(BERT, decodes(place / "images", decoded, 8), umask) == (1, [])  # Anna's
    assert as_user(BERT, decodes(place / "images", decoded, 4), umask) == (2, [])
    assert as_user(ANNA, decodes(place / "images", decoded, 4), umask) == (2, [])
    (entry,) = (each for each in decoded.iterdir() if each.stat().st_uid == ANNA)
    (entry / "index.json").write_text("{")
    _, warned = as_user(BERT, decodes(place / "images", decoded, 8), umask)
    assert {text.partition(" again")[0] for text in warned} == {f"{entry}: damaged, so its images are decoded"}
    assert entry.stat().st_uid == BERT  # put right by whoever found it


def test_a_cache_that_is_another_users_alone_is_read_and_one_warning_says_that_nothing_is_added(place: Path) -> None:
    own = place / "lab" / "own"
    own.mkdir()
    os.chown(own, ANNA, ANNA)
    assert as_user(ANNA, adds(own, 1.0)) == (None, [])
    assert as_user(BERT, adds(own, 2.0)) == (1.0, [f"latency cache {own} cannot be written: Permission denied"])
    assert as_user(ANNA, decodes(place / "images", own, 8)) == (1, [])
    assert as_user(BERT, decodes(place / "images", own, 8)) == (1, [])
    found, warned = as_user(BERT, decodes(place / "images", own, 4))
    assert found == 1
    kept = f"{place / 'images'}: its decoded images cannot be kept in {own} for the next time: Permission denied"
    assert warned == [kept]


def test_what_lies_in_a_folder_of_ones_own_is_opened_to_nobody(place: Path) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    os.chown(home, ANNA, ANNA)
    home.chmod(0o700)
    as_user(ANNA, adds(home / "latency", 1.0), 0o077)
    as_user(ANNA, decodes(place / "images", home / "data", 8), 0o077)
    assert {stat for each in home.rglob("*") if (stat := each.stat().st_mode & 0o077)} == set()
