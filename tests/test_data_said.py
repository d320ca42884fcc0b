"""The first line of commands that read data, and what a run's file keeps of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import BRIEF
from PIL import Image

from nas.cli.app import main
from nas.data.sets import load_data
from nas.runs.store import open_run

SPACE = """
name: tiny
input: {channels: 3, size: [16]}
stem: {kernel_size: 3, stride: 2, out_channels: [4, 8]}
stages:
  - {depth: [1, 2], out_channels: 8, kernel_size: 3, expansion: 1}
head_channels: [0]
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("Training", 16), ("Testing", 4)):
        for name in ("dark", "light"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8) + np.uint8(120 * (name == "light"))
                Image.fromarray(pixels).save(folder / f"{number:02}.jfif", format="JPEG")
    (tmp_path / "photos" / "Training" / "dark" / "notes").write_text("no image")
    (tmp_path / "photos" / "LICENSE").write_text("CC0 1.0 Universal\n")
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path / "photos"


def nas(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "nas.cli", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"NAS_DATA": str(folder / "cache"), "NAS_LATENCY_CACHE": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


LINE = (
    "Data: photos: 2 classes (dark, light); 24 training, 8 validation (split off), 8 test images; "
    "24×20 px → 16×16 px, RGB"
)
SAID = [
    "Training/ is taken as the training split, Testing/ is taken as the test split",
    "1 file in class folders left out, not images by name: 1 without suffix (first: Training/dark/notes)",
]
FIRST = [LINE, *(f"photos: {remark}" for remark in SAID)]


@pytest.mark.subprocess
@pytest.mark.slow
def test_one_candidate(photos: Path) -> None:
    arguments = ("smallest", "--space", "space.yaml", "--data", "photos", "--epochs", "1", "--json")
    done = nas(photos.parent, "evaluate", *arguments)
    assert done.stderr.splitlines() == FIRST
    assert json.loads(done.stdout)["outcome"] == "done"


@pytest.fixture
def said(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """What a command in this process tells of itself beside its output, line by line."""
    monkeypatch.chdir(photos.parent)
    monkeypatch.setenv("NAS_LATENCY_CACHE", "off")

    def run(*arguments: str) -> list[str]:
        caplog.clear()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        out = capsys.readouterr().out
        assert end.value.code == 0, out
        assert "Data: " not in out
        return caplog.messages

    return run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_that_train_candidates_of_a_run_say_first_what_they_read(
    said: Callable[..., list[str]], photos: Path
) -> None:
    wider = SPACE.replace("kernel_size: 3, expansion: 1", "kernel_size: [3, 5], expansion: [1, 2]")
    (photos.parent / "space.yaml").write_text(wider)
    brief = ("--confirm", "0", "--device", "cpu", *BRIEF)
    assert said("search", "space.yaml", "--data", "photos", *brief, "--trials", "2", "--out", "run")[:3] == FIRST
    provenance = yaml.safe_load((photos.parent / "run" / "run.yaml").read_text())["provenance"]
    assert provenance["data_remarks"] == SAID
    read = load_data("photos", channels=3, size=16)
    assert (provenance["distinct"], provenance["test_fingerprint"]) == (True, read.test_fingerprint())
    images = open_run(Path("run")).images()
    assert images is not None
    assert (images.training == read.train.image_hashes).all()
    assert (images.validation == read.validation.image_hashes).all()
    assert provenance["data_licence"] == "LICENSE: CC0 1.0 Universal"
    assert SAID[1] in (photos.parent / "run" / "report.html").read_text()
    assert said("search", "--resume", "run", "--trials", "8")[:3] == FIRST
    assert said("audit", "run", "--count", "8", "--epochs", "2", "--max-concurrent", "1")[:3] == FIRST
    assert said("baseline", "run", "--train", "--networks", "smallest")[:3] == FIRST
    train = ("train", "run", "--pick", "most-accurate", "--epochs", "2", "--device", "cpu", "--json")
    assert said(*train)[:3] == FIRST
    assert said(*train) == []  # there is nothing to train, and nothing is read


def test_a_supernet_says_what_it_reads(said: Callable[..., list[str]]) -> None:
    train = ("supernet", "train", "space.yaml", "--data", "photos", "--epochs", "1", "--device", "cpu", "--out", "net")
    assert said(*train)[:3] == FIRST
