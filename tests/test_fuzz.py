"""Some of what benchmarks/fuzz.py draws, and what it found: odd files are answered with a sentence."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from fuzz import FIXTURES, Target, run_case, targets

from nas.common.errors import InputError
from nas.common.text import time_text
from nas.models.backbones import load_backbone
from nas.runs.store import open_run
from nas.views.report import write_report


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Target]:
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NAS_TRUST")
    (tmp_path / "seeds").mkdir()
    return dict(targets(tmp_path / "seeds"))


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "3950bf8" / name, tmp_path / name))


@pytest.mark.parametrize("told", ["a text", [1], 7])
def test_an_exported_folder_that_tells_nonsense_of_its_export(tmp_path: Path, told: object) -> None:
    folder = copied("export", tmp_path)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | {"export": told}))
    with pytest.raises(InputError, match="not a folder that nas export made"):
        load_backbone(str(folder))


def test_a_confusion_matrix_of_other_rows_than_classes_is_no_record(tmp_path: Path) -> None:
    run = open_run(copied("run", tmp_path))
    line = json.loads((run.path / "trainings.jsonl").read_text().splitlines()[0])
    del line["after"]["confusion"][3]
    (run.path / "trainings.jsonl").write_text(json.dumps(line) + "\n")
    assert run.training_records() == []
    write_report(run)


@pytest.mark.parametrize("when", [1e300, -1e18, 1e13])
def test_a_moment_that_no_calendar_has_is_not_known(tmp_path: Path, when: float) -> None:
    run = open_run(copied("run", tmp_path))
    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    changed = [json.dumps(line | {"started": when, "finished": when}) + "\n" for line in lines]
    (run.path / "trials.jsonl").write_text("".join(changed))
    write_report(run)
    if abs(when) > 1e15:
        assert time_text(when) == "not known"


def test_a_driver_that_was_started_at_infinity_told_nothing(tmp_path: Path) -> None:
    run = open_run(copied("run", tmp_path))
    state = json.loads((run.path / "state.json").read_text())
    (run.path / "state.json").write_text(json.dumps(state | {"started": float("-inf")}))
    assert run.state() is None
    write_report(run)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", range(8))
def test_odd_files_are_answered_with_a_sentence(reader: dict[str, Target], seeds: int) -> None:
    drawn = random.Random(seeds).sample(range(1_000_000), 40)
    wrong = {seed: told for seed in drawn if (told := run_case(seed, reader, None)[1]) is not None}
    assert wrong == {}
