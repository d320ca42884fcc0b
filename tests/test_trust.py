"""Whose code runs: what a run of somebody else's names as `module:name` is not loaded unasked, not even to look at the run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunFactory
from test_run import record

from nas.cli.app import main
from nas.common import trust
from nas.common.errors import InputError
from nas.common.plugins import load_named
from nas.models.backbones import load_backbone
from nas.models.networks import build, networks_of
from nas.runs.run_file import check_destination, note_destinations
from nas.runs.store import RunDirectory, open_run
from nas.search.renewal import Renewal
from nas.spaces.files import load_space, spaces_folder
from nas.spaces.known import known_architectures
from nas.views.report import write_report
from nas.workflows.search import resume_search

HERE = socket.gethostname()


def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has read and accepted."""
    monkeypatch.setattr(trust, "_foreign", {})
    monkeypatch.setattr(trust, "_opened", {})
    monkeypatch.setattr(trust, "_accepted", set())
    monkeypatch.setattr(trust, "_asked", None)


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a fresh process of a user, whose working directory holds a module that leaves a trace."""
    monkeypatch.delenv("NAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fresh_process(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["nas"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trace(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """The name of that module, another one in each test, and the file that it leaves."""
    name, ran = f"theirs_{abs(hash(request.node.name))}", tmp_path / "ran"
    (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nTASK = None\n")
    return name, ran


def changed(run: RunDirectory, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    content = yaml.safe_load((run.path / "run.yaml").read_text())
    change(content)
    (run.path / "run.yaml").write_text(yaml.safe_dump(content))


def named_task(run: RunDirectory, name: str, host: str) -> None:
    def change(content: dict[str, dict[str, object]]) -> None:
        evaluation = content["settings"]["evaluation"]
        assert isinstance(evaluation, dict)
        evaluation["task"] = f"{name}:TASK"
        content["provenance"]["host"] = host

    changed(run, change)


def named_metric(run: RunDirectory, metric: str) -> None:
    def change(content: dict[str, dict[str, object]]) -> None:
        evaluation = content["settings"]["evaluation"]
        assert isinstance(evaluation, dict)
        evaluation["metric"] = metric

    changed(run, change)


@pytest.mark.parametrize("verb", ["status", "front", "report"])
def test_looking_at_a_run_from_elsewhere_runs_nothing_that_it_names(
    make_run: RunFactory, trace: tuple[str, Path], verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (name, ran) = make_run(), trace
    named_task(run, name, "another-host")
    with pytest.raises(SystemExit) as end:
        main([verb, str(run.path)])
    told = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2
    assert f"task '{name}:TASK': {run.path / 'run.yaml'} (started on 'another-host') is not a run of yours" in told
    assert "set NAS_TRUST=1" in told
    assert not ran.exists()


def test_neither_does_a_run_that_says_nothing_of_where_it_was_started(
    make_run: RunFactory, trace: tuple[str, Path]
) -> None:
    run, (name, ran) = make_run(), trace
    named_task(run, name, "another-host")
    changed(run, lambda content: content.pop("provenance"))
    with pytest.raises(InputError, match="is not a run of yours"):
        open_run(run.path)
    assert not ran.exists()


def test_nor_do_its_records(make_run: RunFactory, trace: tuple[str, Path]) -> None:
    run, (name, ran) = make_run(), trace
    run.append(record(0))
    line = json.loads((run.path / "trials.jsonl").read_text())
    line["architecture"]["kind"] = f"{name}:TASK"
    (run.path / "trials.jsonl").write_text(json.dumps(line) + "\n")
    assert open_run(run.path).records() == []
    assert not ran.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="files can be given to another user by root alone")
def test_a_run_of_another_user_is_not_ones_own(make_run: RunFactory, trace: tuple[str, Path]) -> None:
    run, (name, ran) = make_run(), trace
    named_task(run, name, HERE)
    os.chown(run.path / "run.yaml", 54321, 54321)
    with pytest.raises(InputError, match=r"\(of user 54321\) is not a run of yours"):
        open_run(run.path)
    assert not ran.exists()


def loads(name: str) -> bool:
    """Whether the module is loaded: what it holds is no task, which is said."""
    try:
        load_named("task", f"{name}:TASK")
    except InputError:
        return False
    return True


@pytest.mark.parametrize("host", [HERE, "here"])
def test_the_modules_of_ones_own_run_are_loaded_here_and_on_another_node(
    make_run: RunFactory, trace: tuple[str, Path], host: str
) -> None:
    made, (name, ran) = make_run(), trace
    settings = replace(made.settings, evaluation=replace(made.settings.evaluation, metric=f"{name}:TASK"))
    RunDirectory.create(made.path.with_name("own"), settings, replace(made.provenance, host=host))
    run = open_run(made.path.with_name("own"))
    with pytest.raises(InputError, match="is not a function"):
        run.settings.evaluation.load_metric()
    assert ran.exists()


def test_a_run_that_came_back_with_another_module_is_not_ones_own(
    make_run: RunFactory, trace: tuple[str, Path]
) -> None:
    run, (name, ran) = make_run(), trace
    open_run(run.path)
    named_task(run, name, "here")
    with pytest.raises(InputError, match=r"\(started on 'here'\) is not a run of yours"):
        open_run(run.path)
    assert not ran.exists()


def test_a_folder_that_is_called_like_a_module_says_nothing(
    make_run: RunFactory, trace: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (name, ran) = make_run(), trace
    named_task(run, name, "another-host")
    run.path.rename(f"{name}:TASK")
    monkeypatch.setattr(sys, "argv", ["nas", "search", "--resume", f"{name}:TASK"])
    with pytest.raises(InputError, match="is not a run of yours"):
        open_run(f"{name}:TASK")
    assert not ran.exists()


def test_an_exported_folder_names_no_family_unasked(trace: tuple[str, Path], tmp_path: Path) -> None:
    name, ran = trace
    folder = Path(shutil.copytree(Path(__file__).parent / "fixtures/3950bf8/export", tmp_path / "export"))
    card = json.loads((folder / "model.json").read_text())
    card["architecture"]["kind"] = f"{name}:TASK"
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="may name it, which would run code"):
        load_backbone(str(folder))
    assert not ran.exists()


def test_ordinary_runs_from_elsewhere_are_read_trained_and_exported_unasked(tmp_path: Path) -> None:
    run = open_run(shutil.copytree(Path(__file__).parent / "fixtures/3950bf8/run", tmp_path / "run"))
    assert run.provenance.host != HERE or os.getuid() == run.path.stat().st_uid
    changed(run, lambda content: content["provenance"].update(host="another-host"))
    run = open_run(run.path)
    networks_of.cache_clear()
    assert build(run.records()[0].architecture, 10) is not None
    write_report(run)


@pytest.mark.parametrize("by", ["argument", "variable", "before", "answer"])
def test_what_the_user_names_is_loaded(
    make_run: RunFactory, trace: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    run, (name, ran) = make_run(), trace
    changed(run, lambda content: content["provenance"].update(host="another-host"))
    questions: list[str] = []
    if by == "argument":
        monkeypatch.setattr(sys, "argv", ["nas", "search", f"--task={name}:TASK"])
    if by == "variable":
        monkeypatch.setenv("NAS_TRUST", "1")
    if by == "before":
        assert loads(name)
    if by == "answer":

        def agree(question: str) -> bool:
            questions.append(question)
            return True

        trust.ask_by(agree)
    open_run(run.path)
    assert loads(name)
    assert loads(name)
    assert ran.exists()
    assert len(questions) == (by == "answer")


def test_whoever_is_asked_may_refuse(make_run: RunFactory, trace: tuple[str, Path]) -> None:
    run, (name, ran) = make_run(), trace
    changed(run, lambda content: content["provenance"].update(host="another-host"))
    trust.ask_by(lambda question: False)
    open_run(run.path)
    assert not loads(name)
    assert not ran.exists()


# ---------------------------------------------------------------- what a run says of itself decides nothing


def test_a_run_that_only_says_that_it_was_started_here_is_not_ones_own(
    make_run: RunFactory, trace: tuple[str, Path]
) -> None:
    run, (name, ran) = make_run(), trace
    named_task(run, name, HERE)
    says = r"run\.yaml \(says that it was started here, of which nothing else knows\) is not a run of yours"
    with pytest.raises(InputError, match=says):
        open_run(run.path)
    assert not ran.exists()


@pytest.mark.timeout(3)
def test_a_run_file_of_nested_aliases_is_looked_through_at_once(make_run: RunFactory) -> None:
    run = make_run()
    levels = "".join(f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 12))
    text = (run.path / "run.yaml").read_text()
    assert "settings:\n" in text
    more = f"settings:\n  more:\n  - &l0 [m:x]\n{levels}  - &self [*self]\n"
    (run.path / "run.yaml").write_text(text.replace("settings:\n", more, 1))
    assert open_run(run.path).settings == run.settings


def test_an_old_run_from_here_that_names_nothing_asks_nothing(make_run: RunFactory, trace: tuple[str, Path]) -> None:
    run, (name, _) = make_run(), trace
    changed(run, lambda content: content["provenance"].update(host=HERE, created=1.0))
    open_run(run.path)
    assert loads(name)


def test_where_nothing_can_be_noted_the_host_decides(
    make_run: RunFactory, trace: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
    run, (name, ran) = make_run(), trace
    named_task(run, name, HERE)
    with pytest.raises(InputError, match="needs to be an instance"):
        open_run(run.path)
    assert ran.exists()


def test_a_run_that_is_gone_on_with_is_noted_neither_twice_nor_for_the_first_time(
    make_run: RunFactory, trace: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (name, _) = make_run(), trace
    noted = tmp_path / "cache/nas/own-runs"
    before = noted.read_text()
    assert before.count("\n") == 1
    named_metric(run, f"{name}:METRIC")
    again = open_run(run.path)
    again.with_settings(replace(again.settings, trials=7)).with_settings(replace(again.settings, trials=8))
    assert noted.read_text() == before
    fresh_process(monkeypatch)
    with pytest.raises(InputError, match="is not a run of yours"):
        open_run(run.path).settings.evaluation.load_metric()


def test_a_copy_of_an_own_run_beside_other_modules_is_asked_about(
    make_run: RunFactory, trace: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has seen run.yaml can write all that it says."""
    _, ran = trace
    settings = make_run().settings
    (tmp_path / "copied_metric.py").write_text("def METRIC(labels, predictions): return 0.5")
    mine = make_run(
        replace(settings, evaluation=replace(settings.evaluation, metric="copied_metric:METRIC")), name="own"
    )
    fresh_process(monkeypatch)
    open_run(mine.path).settings.evaluation.load_metric()
    theirs = Path(shutil.copytree(mine.path, tmp_path / "theirs"))
    (theirs / "copied_metric.py").write_text(f"open({str(ran)!r}, 'w')\ndef METRIC(labels, predictions): return 0.9")
    fresh_process(monkeypatch)
    monkeypatch.chdir(theirs)
    with pytest.raises(InputError, match="is not a run of yours"):
        open_run(Path()).settings.evaluation.load_metric()
    assert not ran.exists()


def test_what_was_agreed_to_is_asked_once_and_other_modules_again(
    make_run: RunFactory, trace: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (name, _) = make_run(), trace
    questions: list[str] = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    for metric in ("METRIC", "METRIC", "OTHER"):
        fresh_process(monkeypatch)
        trust.ask_by(agree)
        named_metric(run, f"{name}:{metric}")
        with pytest.raises(InputError, match="could not be loaded"):
            open_run(run.path).settings.evaluation.load_metric()
    assert [question.split(":")[1].split("'")[0] for question in questions] == ["METRIC", "OTHER"]


# ---------------------------------------------------------------- where a run would be written to


def with_destinations(run: RunDirectory, tmp_path: Path, host: str = "another-host") -> None:
    def change(content: dict[str, dict[str, object]]) -> None:
        content["settings"] |= {"replica": f"file://{tmp_path}/copy", "storage": f"sqlite:///{tmp_path}/study.db"}
        content["provenance"]["host"] = host

    changed(run, change)


def resumed(run: RunDirectory, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says that refuses to go on: at the latest since the data of these runs is not there."""
    with pytest.raises(SystemExit) as end:
        main(["search", "--resume", str(run.path), *arguments])
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_run_from_elsewhere_does_not_say_where_it_is_written_to(
    make_run: RunFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    with_destinations(run, tmp_path)
    theirs = f"{run.path / 'run.yaml'} (started on 'another-host') is not a run of yours, and this would be written to"
    told = resumed(run, capsys=capsys)
    assert f"--replica file://{tmp_path}/copy: {theirs}; look at that place, then set NAS_TRUST=1" in told
    assert told.endswith("or copy no more: --replica off")
    told = resumed(run, "--replica", "off", capsys=capsys)
    assert f"--storage sqlite:///{tmp_path}/study.db: {theirs}" in told
    assert told.endswith("or name the database yourself, this or another: --storage URL")
    told = resumed(run, "--replica", "off", "--storage", f"sqlite:///{tmp_path}/study.db", capsys=capsys)
    assert "is not a run of yours" not in told
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("agrees", [True, False])
def test_whoever_is_asked_says_where_a_run_is_written_to_once(
    make_run: RunFactory, tmp_path: Path, agrees: bool
) -> None:
    run = make_run()
    questions: list[str] = []
    with_destinations(run, tmp_path)

    def answer(question: str) -> bool:
        questions.append(question)
        return agrees

    trust.ask_by(answer)
    for _ in range(2):
        if agrees:
            check_destination(run.path, "replica", "give another")
        else:
            with pytest.raises(InputError, match="give another"):
                check_destination(run.path, "replica", "give another")
    assert len(questions) == (1 if agrees else 2)


def test_places_of_ones_own_run_and_those_given_are_written_to_unasked(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run()
    own = replace(made.settings, replica=f"file://{tmp_path}/copy")
    check_destination(RunDirectory.create(tmp_path / "own", own, made.provenance).path, "replica", "")
    with_destinations(made, tmp_path)
    with pytest.raises(InputError, match="would be written to"):
        check_destination(made.path, "storage", "")
    note_destinations(made.path)
    check_destination(made.path, "storage", "")
    check_destination(made.path, "replica", "")
    with_destinations(made, tmp_path / "other")
    with pytest.raises(InputError, match="would be written to"):
        check_destination(made.path, "replica", "")
    monkeypatch.setenv("NAS_TRUST", "1")
    check_destination(made.path, "replica", "")


# ---------------------------------------------------------------- other files


def space_file(path: Path, name: str) -> Path:
    path.write_text(f"family: {name}:TASK\nname: theirs\n")
    return path


@pytest.mark.skipif(os.getuid() != 0, reason="files can be given to another user by root alone")
def test_a_space_file_of_another_user_names_no_module_unasked(trace: tuple[str, Path], tmp_path: Path) -> None:
    name, ran = trace
    file = space_file(tmp_path / "theirs.yaml", name)
    os.chown(file, 54321, 54321)
    says = r"theirs\.yaml \(of user 54321\) is not a file of yours, and this would run code; look at that module"
    with pytest.raises(InputError, match=says):
        load_space(file)
    assert not ran.exists()
    digits = shutil.copy(spaces_folder() / "digits.yaml", tmp_path)
    os.chown(digits, 54321, 54321)
    trust._foreign.clear()
    assert load_space(Path(digits)).name == "digits"
    assert loads(name)  # a space that names nothing makes nobody ask


def test_a_space_file_of_ones_own_is_the_users_word(
    make_run: RunFactory, trace: tuple[str, Path], tmp_path: Path
) -> None:
    name, ran = trace
    run = make_run()
    changed(run, lambda content: content["provenance"].update(host="another-host"))
    open_run(run.path)
    with pytest.raises(InputError, match="needs to be an instance"):
        load_space(space_file(tmp_path / "mine.yaml", name))
    assert ran.exists()


def test_networks_to_try_first_name_no_family_unasked(trace: tuple[str, Path], tmp_path: Path) -> None:
    name, ran = trace
    (tmp_path / "front.json").write_text(json.dumps({"front": [{"architecture": {"kind": f"{name}:TASK"}}]}))
    with pytest.raises(InputError, match=r"front\.json may name it, which would run code"):
        known_architectures(load_space("digits"), str(tmp_path / "front.json"))
    assert not ran.exists()


@pytest.mark.parametrize("setting", ["sampler", "mode", "metric"])
def test_a_resume_that_may_not_load_something_changes_nothing(
    make_run: RunFactory, trace: tuple[str, Path], setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (name, ran) = make_run(), trace

    def change(content: dict[str, Any]) -> None:
        settings = content["settings"]
        evaluation = settings["evaluation"]
        holder = {"sampler": settings, "mode": evaluation["protocol"], "metric": evaluation}[setting]
        holder[setting] = f"{name}:TASK"

    changed(run, change)
    before = (run.path / "run.yaml").read_bytes()
    read: list[object] = []
    monkeypatch.setattr("nas.workflows.search.placement_of", lambda *given: read.append(given))
    with pytest.raises(InputError, match=f"{name}:TASK.* is not a run of yours"):
        resume_search(run.path, Renewal(trials=4))
    assert (run.path / "run.yaml").read_bytes() == before
    assert not ran.exists()
    assert not read
