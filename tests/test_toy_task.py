"""A task that nas does not have (toy_task.py), from a user's file and from an installed package, start to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from commands import output as nas
from conftest import GLANCE, install_package

from nas.common.errors import InputError
from nas.export.folder import ExportOptions, export_candidate
from nas.runs.frames import trials_frame
from nas.runs.front import pareto_front
from nas.runs.objectives import check_objectives, score_of
from nas.runs.picks import pick
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.spaces.files import load_space
from nas.tasks.base import TASKS, task_of
from nas.tasks.report import ScoreReport
from nas.views.page.runs import LiveRun
from nas.views.page.state import one_of
from nas.views.page.tables import trial_columns, trial_rows
from nas.views.page.views import Axes, front_figure
from nas.views.reported import run_training
from nas.views.run import open_run as open_as_given
from nas.views.terminal.front import front_json
from nas.workflows.train import plan_training

FILE = Path(__file__).with_name("toy_task.py")
SEARCH = (
    "search", "digits", "--data", "digits", "--trials", "5", "--confirm", "0.4", "--epochs", "2", "--set",
    "precision=float32", "--max-concurrent", "1", "--max-latency", "1s", "--latency", GLANCE,
)  # fmt: skip
RESUME = ("search", "--resume", "run", "--trials", "6")
BRINGS = "[nas.tasks]\nbrightness = bright:TASK\nnothing = bright:np\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What pip leaves of a package that brings the task."""
    return install_package(tmp_path / "site", "bright", BRINGS, {"bright": FILE})


@pytest.fixture(scope="module")
def folder(own_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a user works: the task is in a file there, and in an installed package. Ray, once started, has both."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(FILE, folder / "my_task.py")
    site = install_package(tmp_path_factory.mktemp("packages") / "site", "bright", BRINGS, {"bright": FILE})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(site))
        patch.setenv("COLUMNS", "150")
        yield folder


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_for_the_task_of_a_users_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = nas(capsys, *SEARCH, "--task", "my_task:TASK", "--objectives", "mae,latency,macs", "--out", "run")
    assert re.search(r"trial 0 done: mae 0\.\d+ levels, latency", told)
    assert re.search(r"mae levels +latency ms", told)
    run = open_run(folder / "run")
    front = json.loads(front_json(run, run.judged()))
    assert front["objectives"] == ["mae", "latency", "macs"]
    assert front["metric"] == "mae"
    assert all(0 < member["mae"] < 0.2 for member in front["front"])
    report = run.report_path.read_text(encoding="utf-8")
    assert "Validation mae (levels)" in report
    (folder / "my_task.py").rename(folder / "elsewhere.py")
    command = [sys.executable, "-m", "nas.cli", *RESUME]
    gone = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert gone.returncode == 2
    assert re.fullmatch(r"nas: .*my_task.*\n", gone.stderr)
    (folder / "elsewhere.py").rename(folder / "my_task.py")
    ended = len(run.records())
    assert "trial 0 " not in nas(capsys, *RESUME)
    records = run.records()
    assert len([record for record in records if record.outcome is Outcome.DONE]) == 4
    assert len(records) > ended
    assert {tuple(record.objectives) for record in records if record.outcome is Outcome.DONE} == {
        ("mae", "latency", "macs")
    }
    body = re.sub(r"<script.*?</script>", "", report[report.index("<body>") :], flags=re.DOTALL)
    assert "accuracy" not in body
    assert "0 classes" not in body
    best = pick(run.judged(), run.settings.objectives, "most-accurate")
    recipe = replace(run.settings.evaluation.recipe, epochs=3)
    assert run_training(plan_training(run, [best], recipe, device="cpu")) is None
    (training,) = run.training_records()
    assert isinstance(training.after, ScoreReport)
    assert training.after.score == training.after.scores["mae"] < 0.2
    assert re.search(r"Test mae.*\d levels.*class by class", run.report_path.read_text(encoding="utf-8"), re.DOTALL)
    exported = export_candidate(run, best, folder / "model", ExportOptions(measure=False))
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "A network for the task brightness" in card
    assert "1 value for each image" in card
    (folder / "grey.png").write_bytes(_grey_png(128))
    program = [sys.executable, str(exported / "predict.py"), str(folder / "grey.png")]
    said = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.fullmatch(r".*grey\.png: -?\d[\d.e-]*\n", said)


def _grey_png(value: int) -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_for_the_task_of_an_installed_package(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = ("--trials", "3", "--confirm", "0", "--epochs", "1")
    nas(capsys, *SEARCH, *brief, "--task", "brightness", "--out", "installed")
    assert TASKS.names[-2:] == ("brightness", "nothing")
    run = open_run(folder / "installed")
    assert run.settings.evaluation.task == "brightness"
    assert run.settings.objectives == ("mae", "latency")
    score = score_of(run.settings.objectives)
    assert (score.direction, score.unit, score.show(0.25)) == ("minimize", "levels", "0.25 levels")
    records = [record for record in run.judged() if record.outcome is Outcome.DONE]
    assert len(records) >= 3
    for record in records:
        last = record.evaluation.history[-1]
        assert last.score == last.scores["mae"] == record.objectives["mae"]
        assert last.scores["r2"] <= 1
        assert record.architecture.digest == record.digest
        assert (
            run.load_weights(record.digest)["classifier.weight"].shape[0] == 1
            if run.weights_path(record.digest).is_file()
            else True
        )
    least = min(records, key=lambda record: record.objectives["mae"])
    front = pareto_front(records, run.settings.objectives)
    assert least.digest in {member.digest for member in front}
    assert pick(records, run.settings.objectives, "most-accurate").digest == least.digest
    limit = sorted(record.objectives["mae"] for record in records)[1]
    within = pick(records, run.settings.objectives, f"mae<={limit}")
    assert within.objectives["mae"] <= limit
    assert trials_frame(run)["mae"].min() == least.objectives["mae"]
    assert open_as_given(run.path)._repr_html_().count(" levels") == len(front)
    seen = LiveRun(run).look()
    (column,) = (column for column in trial_columns(seen) if column["field"] == "score")
    assert column["headerName"] == "Validation mae (levels)"
    assert {row["score"] for row in trial_rows(seen, "0")} >= {float(f"{least.objectives['mae']:.4g}")}
    figure = front_figure(seen, Axes("latency", one_of("mae", seen.quantities, ""), colour="mae"), {}, None, [])
    assert figure.layout.yaxis.title.text == "Validation mae (levels)"
    drawn = [value for trace in figure.data if trace.name == "Pareto front" for value in trace.y if value is not None]
    assert min(drawn) == pytest.approx(least.objectives["mae"], rel=1e-5)
    with pytest.raises(InputError, match=r"write mae<=0\.1"):
        pick(records, run.settings.objectives, "mae>=0.1")


def test_names_of_tasks_that_mean_nothing_are_told(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(package))
    with pytest.raises(InputError, match=r"task 'nothing': is module, and needs to be an instance"):
        task_of("nothing")
    with pytest.raises(InputError, match=r"unknown task 'brightnes' \(did you mean 'brightness'\?\)"):
        EvaluationSettings(task="brightnes")
    with pytest.raises(InputError, match="unknown metric 'accuracy': brightness has mae"):
        EvaluationSettings(task="brightness", metric="accuracy").load_metric()
    assert EvaluationSettings(task="brightness").metric == "mae"
    settings = SearchSettings(load_space("digits"), "digits", evaluation=EvaluationSettings(task="brightness"))
    assert settings.objectives == ("mae", "latency")


def test_an_objective_of_another_task_is_refused() -> None:
    with pytest.raises(
        InputError, match="unknown objective 'mae': choose from accuracy, latency, macs, params, memory"
    ):
        check_objectives(("mae", "latency"))
    with pytest.raises(InputError, match="unknown objective 'accuracy': choose from mae, latency"):
        check_objectives(("accuracy", "latency"), task=f"{FILE.stem}:TASK")
