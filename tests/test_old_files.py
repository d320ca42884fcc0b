"""Run directories, supernets, exports, recipes and spaces of earlier versions: they open, resume, report and export as before.

tests/fixtures/COMMIT holds what nas of that commit wrote (tests/fixtures/README.md says by which commands), and front.json what
its `nas front run --json` said.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import output as call
from conftest import check_consistent
from PIL import Image

from nas.latency.device import device_name
from nas.models.backbones import load_backbone
from nas.runs.picks import pick
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.spaces.files import load_space
from nas.training.recipe import Recipe, read_recipe
from nas.views.report import write_report

FIXTURES = Path(__file__).with_name("fixtures")
COMMITS = ("1b20abf", "3950bf8")


@pytest.fixture(params=COMMITS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old folder, as if it had been written on this machine; measuring takes a moment."""
    folder = Path(shutil.copytree(FIXTURES / request.param, tmp_path / "old"))
    for name in ("run", "run_supernet"):
        settings = folder / name / "run.yaml"
        text = settings.read_text().replace(f"/tmp/fix/{request.param}/", f"{folder}/")
        text = re.sub(r"hardware: .*", f"hardware: {device_name('cpu')}", text)
        settings.write_text(text.replace("warmup_s: 0.5", "warmup_s: 0.05").replace("max_s: 1.0", "max_s: 0.1"))
    return folder


def test_a_run_is_read_as_it_was(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((old / "front.json").read_text())["front"]
    now = json.loads(call(capsys, "front", old / "run", "--json"))["front"]
    assert before
    assert [{key: member[key] for key in was} for member, was in zip(now, before, strict=True)] == before
    run = open_run(old / "run")
    assert [record.architecture.digest for record in run.records()] == [record.digest for record in run.records()]
    assert len(run.confirmations()) == 1
    assert len(run.baselines()) == 2
    (training,) = run.training_records()
    assert training.after is not None


@pytest.mark.subprocess
def test_a_report_and_an_export_are_made_of_it(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(old / "run")
    best = pick(run.judged(), run.settings.objectives, "most-accurate")
    page = write_report(run).read_text(encoding="utf-8")
    assert best.digest[:8] in page
    call(capsys, "export", old / "run", "--pick", "knee", "--to", old / "again", "--no-measure")
    before, now = (json.loads((old / name / "model.json").read_text()) for name in ("export", "again"))
    assert now["architecture"] == before["architecture"]
    assert now["digest"] == before["digest"]
    assert (old / "again/model.safetensors").read_bytes() == (old / "export/model.safetensors").read_bytes()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_goes_on(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_run(old / "run").records()
    call(capsys, "search", "--resume", old / "run", "--trials", "10", "--max-concurrent", "1")
    run = open_run(old / "run")
    after = check_consistent(run)
    assert [replace(record, schema=1) for record in after[: len(before)]] == before
    assert sum(record.outcome is Outcome.DONE for record in after) == run.settings.candidates > len(before) - 2


@pytest.mark.slow
def test_a_search_from_a_supernet_goes_on_and_a_new_one_starts_from_it(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, "search", "--resume", old / "run_supernet", "--trials", "6", "--max-concurrent", "1")
    done = [record for record in open_run(old / "run_supernet").records() if record.outcome is Outcome.DONE]
    assert len(done) == 6
    init = f"supernet:{old / 'supernet'}"
    command = ("evaluate", "smallest", "--space", old / "space.yaml", "--init", init, "--finetune", "0", "--json")
    found = json.loads(call(capsys, *command))
    assert found["fresh"] == []
    assert found["history"][-1]["epoch"] == 0


@pytest.mark.subprocess
def test_an_exported_folder_answers_and_is_inherited_from(old: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 130, np.uint8)).save(tmp_path / "grey.png")
    command = [sys.executable, str(old / "export/predict.py"), str(tmp_path / "grey.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "grey.png" in done.stdout
    source = load_backbone(str(old / "export"))
    told = json.loads((old / "export/model.json").read_text())
    assert list(source.mean or ()) == told["preprocessing"]["mean"]
    assert source.architecture.digest == told["digest"]


def test_a_recipe_and_a_space_are_read(old: Path) -> None:
    recipe = read_recipe(Recipe(), old / "recipe.yaml")
    assert (recipe.optimizer, recipe.epochs) == ("sgd", 2)
    assert load_space(old / "space.yaml") == open_run(old / "run").settings.space
