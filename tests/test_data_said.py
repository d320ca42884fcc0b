"""The first line of commands that read data, and what a run's file keeps of it; by real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

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
    "Training/ is taken as the training part, Testing/ is taken as the test part",
    "1 file in class folders left out, not images by name: 1 without suffix (first: Training/dark/notes)",
]


def test_one_candidate(photos: Path) -> None:
    arguments = ("smallest", "--space", "space.yaml", "--data", "photos", "--epochs", "1", "--json")
    done = nas(photos.parent, "evaluate", *arguments)
    assert done.stderr.splitlines() == [LINE, *(f"photos: {remark}" for remark in SAID)]
    assert json.loads(done.stdout)["outcome"] == "done"


@pytest.mark.timeout(600)
def test_a_search_and_a_full_training(photos: Path) -> None:
    budget = ("--trials", "1", "--epochs", "1", "--confirm", "0", "--objectives", "accuracy,macs")
    done = nas(photos.parent, "search", "space.yaml", "--data", "photos", *budget, "--out", "run")
    assert done.stderr.splitlines()[:3] == [LINE, *(f"photos: {remark}" for remark in SAID)]
    provenance = yaml.safe_load((photos.parent / "run" / "run.yaml").read_text())["provenance"]
    assert provenance["data_remarks"] == SAID
    assert provenance["data_licence"] == "LICENSE: CC0 1.0 Universal"
    assert SAID[1] in (photos.parent / "run" / "report.html").read_text()
    done = nas(photos.parent, "train", "run", "--pick", "most-accurate", "--epochs", "2", "--device", "cpu", "--json")
    assert done.stderr.splitlines()[0] == LINE
    assert json.loads(done.stdout)
    done = nas(photos.parent, "train", "run", "--pick", "most-accurate", "--epochs", "2", "--device", "cpu", "--json")
    assert "Data:" not in done.stderr  # there is nothing to train, and nothing is read
