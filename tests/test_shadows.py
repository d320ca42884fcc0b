"""Files of the user's that are called like modules of Python's, of a package, or of ours, beside where a command runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import BRIEF, RunFactory

from nas.common.errors import InputError
from nas.common.plugins import children_path, load_function
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.tasks.classification import CLASSIFICATION
from nas.views.page.actions import Jobs

NAS = [sys.executable, str(Path(sys.executable).with_name("nas"))]
SHADOWS = ("queue", "random", "types", "typing", "signal", "select", "torch", "optuna", "ray", "yaml", "rich", "nas")
METRIC = """
from helper import same

def share(labels, predictions):
    from late import mean
    return mean(same(labels, predictions))
"""


@pytest.fixture
def shadowed(tmp_path: Path) -> Path:
    """A folder with files that must not be imported, and modules that must."""
    folder = tmp_path / "shadowed"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the {name} of the user')\n")
    (folder / "mine.py").write_text(METRIC)
    (folder / "helper.py").write_text("def same(labels, predictions):\n    return labels == predictions\n")
    (folder / "late.py").write_text("import random\n\ndef mean(values):\n    return float(values.mean())\n")
    return folder


def nas(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NAS, *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_runs_beside_them_and_workers_find_a_metric_and_what_it_imports(shadowed: Path) -> None:
    done = nas(shadowed, "search", *BRIEF, "--trials", "2", "--confirm", "0", "--metric", "mine:share", "--out", "run")
    assert done.returncode == 0, done.stderr
    records = open_run(shadowed / "run").records()
    assert [record.outcome for record in records] == [Outcome.DONE] * 2, [r.evaluation.reason for r in records]


@pytest.mark.subprocess
def test_a_network_in_a_file_beside_them_finds_its_own_modules(shadowed: Path) -> None:
    (shadowed / "blocks.py").write_text("from torch import nn\n\ndef head():\n    return nn.Linear(48, 4)\n")
    (shadowed / "net.py").write_text(
        "import random\nfrom torch import nn\nfrom blocks import head\n\n"
        "class Network(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), head())\n        random.random()\n"
    )
    done = nas(shadowed, "measure", "net.py:Network", "--input", "3x4x4", "--batch-size", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert '"macs"' in done.stdout


@pytest.mark.subprocess
def test_python_m_nas_is_not_misled_either(shadowed: Path) -> None:
    for name in ("nas", "types", "typing"):  # which Python itself needs before it runs what -m names
        (shadowed / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "nas", "space", "list"],
        cwd=shadowed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lite0" in done.stdout


@pytest.mark.subprocess
def test_the_commands_of_a_page_run_beside_them(
    shadowed: Path, make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.chdir(shadowed)
    jobs = Jobs()
    jobs.start("export", run.path, "abcdef0123")
    while (job := jobs.of(run.path, "abcdef0123")[0]).code is None:
        time.sleep(0.1)
    jobs.close()
    assert job.output == "nas: the run has no trained candidate yet, so there is nothing to pick from"


@pytest.mark.parametrize("name", ["random:share", "statistics:share", "optuna.inner:share"])
def test_of_two_modules_of_one_name_the_one_in_the_working_directory_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code = "import random, statistics, optuna\n\ndef share(labels, predictions):\n    return statistics.mean([1, 2])\n"
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "__init__.py").touch()
    for file in ("random.py", "statistics.py", "optuna/inner.py"):
        (tmp_path / file).write_text(code)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert CLASSIFICATION.load_metric(name)([], []) == 1.5  # type: ignore[arg-type]
    assert sys.path == before
    import random

    import optuna

    assert random.random() < 1
    assert callable(optuna.create_study)


def test_a_module_on_the_users_own_path_comes_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("path", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "chosen_by_path.py").write_text(f"def where():\n    return {folder!r}\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.chdir(tmp_path / "here")
    assert load_function("metric", "chosen_by_path:where")() == "path"


def test_what_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nowhere_at_all:share", "random:share", "__main__:share_of_nothing", ":x"):
        with pytest.raises(InputError, match="could not be loaded"):
            CLASSIFICATION.load_metric(name)


def test_children_search_the_working_directory_last_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert children_path().split(os.pathsep)[-1] == str(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert children_path().split(os.pathsep)[0] == str(tmp_path)


def test_a_module_that_would_hide_an_installed_one_on_a_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.search.ray.cluster import _runtime_env

    (tmp_path / "colorsys.py").write_text("def share(labels, predictions):\n    return 1.0\n")
    (tmp_path / "my_share.py").write_text("def share(labels, predictions):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"colorsys:share: .*colorsys\.py is called like a module .* rename it"):
        _runtime_env(["colorsys:share"])
    sent = _runtime_env(["my_share:share"])
    assert str(tmp_path / "my_share.py") in sent["py_modules"]
    assert sent["env_vars"] == {"NAS_CODE": str(tmp_path)}
