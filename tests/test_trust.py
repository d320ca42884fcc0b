"""Whose code runs: what a run of somebody else's names as `module:name` is not loaded unasked, not even to look at the run."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import RunFactory
from test_run import record

from nas.cli.app import main
from nas.common import trust
from nas.common.errors import InputError
from nas.common.plugins import load_object
from nas.runs.store import RunDirectory, open_run

HERE = socket.gethostname()


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a fresh process of a user, whose working directory holds a module that leaves a trace."""
    monkeypatch.delenv("NAS_TRUST")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "_foreign", [])
    monkeypatch.setattr(trust, "_accepted", set())
    monkeypatch.setattr(trust, "_asked", None)
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
    changed(run, lambda content: content["provenance"].update(host="another-host"))
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
        load_object("task", f"{name}:TASK")
    except InputError:
        return False
    return True


def test_ones_own_runs_are_not_asked_about_here_or_on_another_node(
    make_run: RunFactory, trace: tuple[str, Path]
) -> None:
    name, _ = trace
    here = make_run(name="here")
    content = replace(here.content, provenance=replace(here.provenance, host=HERE))
    open_run(RunDirectory.create(here.path.with_name("own"), content.settings, content.provenance).path)
    assert loads(name)
    open_run(here.path)  # of the host "here", which this user's cache knows to be theirs
    assert loads(f"{name}")
    assert re.fullmatch(r"([0-9a-f]{32}\n){2}", Path("cache/nas/own-runs").read_text())


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
