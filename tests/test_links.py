"""Symbolic links in a run directory or a replica: nothing outside is written, deleted or copied."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunFactory
from test_run import record

from nas.common.errors import InputError
from nas.export.folder import export_candidate
from nas.runs.remote_folder import RemoteFolder
from nas.runs.replica import fetch_run, replicated
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.spaces.files import load_space
from nas.training.recipe import Recipe
from nas.views.page.actions import Jobs
from nas.views.report import write_front, write_report

DIGITS = SearchSettings(space=load_space("digits"), data="digits", evaluation=EvaluationSettings(Recipe(epochs=1)))


def to_outside(path: Path, outside: Path) -> None:
    """Put a link in place of a file or an empty folder, or of none."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(outside, path.parent))


@pytest.mark.parametrize(
    "name", ["weights", "trained", "tensorboard", "trials.jsonl", "study.journal", ".lock", "stop"]
)
def test_a_run_with_a_link_to_elsewhere_is_not_gone_on_with(make_run: RunFactory, tmp_path: Path, name: str) -> None:
    run = make_run()
    to_outside(run.path / name, tmp_path / "elsewhere")
    kind = "file" if name in ("trials.jsonl", "study.journal", ".lock", "stop") else "folder"
    says = f"{run.path / name}: is a link to {tmp_path / 'elsewhere'}, outside of the run; put a {kind} there"
    with pytest.raises(InputError, match=re.escape(says)), run.locked():
        pass
    with pytest.raises(InputError, match=re.escape(says)), run.training_locked("a"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_the_lock_of_a_training_makes_no_file_elsewhere(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    (run.path / "trained").mkdir()
    to_outside(run.path / "trained/.a.lock", tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"trained/\.a\.lock: is a link to"), run.training_locked("a"):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("folder", ["tensorboard", "mlflow"])
def test_what_trackers_write_goes_nowhere_else(make_run: RunFactory, tmp_path: Path, folder: str) -> None:
    run = make_run()
    (run.path / folder).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (run.path / folder / "within").symlink_to("..")
    with run.locked():
        pass
    for name in ("mlflow.db", "trial-00000"):
        target = tmp_path / ("elsewhere" if name == "trial-00000" else "nowhere")
        to_outside(run.path / folder / name, target)
        kind = "folder" if target.exists() else "file"
        says = f"{run.path / folder / name}: is a link to {target}, outside of the run; put a {kind} there"
        with pytest.raises(InputError, match=re.escape(says)), run.locked():
            pass
        (run.path / folder / name).unlink()


def test_a_request_to_stop_makes_no_file_elsewhere(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    to_outside(run.path / "stop", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"/stop: is a link to .*, outside of the run"):
        run.request_stop()
    assert not (tmp_path / "nowhere").exists()


def test_a_page_exports_nowhere_else(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    (tmp_path / "elsewhere").mkdir()
    to_outside(run.path / "exports", tmp_path / "elsewhere")
    jobs = Jobs()
    with pytest.raises(InputError, match=r"/exports: is a link to .*; put a folder there"):
        jobs.start("export", run.path, record(0).digest)
    jobs.close()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_export_takes_the_place_of_a_link(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    to_outside(tmp_path / "model", tmp_path / "nowhere")
    with pytest.raises(InputError, match="/model: exists already"):
        export_candidate(run, record(0), tmp_path / "model")
    assert not (tmp_path / "nowhere").exists()


def test_report_and_picture_replace_a_link_and_write_nothing_behind_it(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.views.report.html.slide_png", lambda found: b"picture")  # drawn by a browser
    run = make_run()
    (tmp_path / "precious").write_text("mine")
    for name in ("report.html", "front.png"):
        to_outside(run.path / name, tmp_path / "precious")
    for path in (write_report(run), write_front(run)):
        assert not path.is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_to_a_run_and_links_within_it_stay(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    (run.path / "weights").rename(run.path / "kept")
    (run.path / "weights").symlink_to("kept")
    (tmp_path / "by link").symlink_to(run.path)
    linked = open_run(tmp_path / "by link")
    with linked.locked(), linked.training_locked("a"):
        linked.append(record(0))
    assert len(run.records()) == 1


def test_records_behind_a_link_are_read(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    run.append(record(0))
    (run.path / "trials.jsonl").rename(tmp_path / "elsewhere")
    to_outside(run.path / "trials.jsonl", tmp_path / "elsewhere")
    assert len(open_run(run.path).records()) == 1


def test_weights_behind_a_link_are_not_deleted(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    (tmp_path / "elsewhere").mkdir()
    files = [tmp_path / f"elsewhere/{number}.safetensors" for number in range(9)]
    for file in files:
        file.touch()
    to_outside(run.path / "weights", tmp_path / "elsewhere")
    run.prune_weights(())
    assert all(file.exists() for file in files)


def add_links(folder: Path, secret: Path) -> set[str]:
    """Links to a file, and to the folder of one, under names that a run's own files have; returns the names."""
    (folder / "exports/ok").mkdir(parents=True)
    for name in ("confirmations.jsonl", "exports/ok/pw"):
        to_outside(folder / name, secret)
    for name in ("exports/all", "tensorboard"):
        to_outside(folder / name, secret.parent)
    return {"confirmations.jsonl", "exports/ok/pw", f"exports/all/{secret.name}", f"tensorboard/{secret.name}"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/secret").write_text("secret")
    return tmp_path / "private/secret"


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_what_a_replica_links_to_is_left_out(
    make_run: RunFactory, tmp_path: Path, secret: Path, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    source = make_run().path
    linked = add_links(source, secret)
    uri = f"{scheme}://{source}"
    assert linked <= set(RemoteFolder.at(uri).names())
    fetch_run(uri, tmp_path / "fetched")
    assert not [path for path in (tmp_path / "fetched").rglob("*") if path.is_file() and "secret" in path.read_text()]
    assert f"left out what is no part of a run: {', '.join(sorted(linked))}" in caplog.text


def test_a_replica_whose_records_are_a_link_is_none(make_run: RunFactory, tmp_path: Path, secret: Path) -> None:
    source = make_run().path
    to_outside(source / "trials.jsonl", secret)
    with pytest.raises(InputError, match="no run is there"):
        fetch_run(f"file://{source}", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_no_link_is_sent_to_a_replica(
    make_run: RunFactory, tmp_path: Path, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(replace(DIGITS, replica=f"file://{tmp_path}/replica"))
    add_links(run.path, secret)
    with replicated(run):
        run.append(record(0))
    copied = {path.relative_to(tmp_path / "replica").as_posix() for path in (tmp_path / "replica").rglob("*.*")}
    assert copied == {"run.yaml", "trials.jsonl", "mirror.json"}
    assert not [path for path in (tmp_path / "replica").rglob("*") if path.name in ("pw", "secret")]
    assert "is given no links: confirmations.jsonl, exports/all, exports/ok/pw, tensorboard" in caplog.text


def test_weights_behind_a_link_of_a_replica_are_not_deleted(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run(replace(DIGITS, replica=f"file://{tmp_path}/replica"))
    with replicated(run):
        run.append(record(0))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/0.safetensors").touch()
    to_outside(tmp_path / "replica/weights", tmp_path / "elsewhere")
    with replicated(run):
        run.append(record(1))
    assert (tmp_path / "elsewhere/0.safetensors").exists()
