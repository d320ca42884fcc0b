"""Errors name arguments; the command line calls them by their flags."""

from __future__ import annotations

import ast
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import call
from typer.main import get_command

import nas
from nas.cli.app import app
from nas.cli.options import flag_of
from nas.common.errors import InputError, arg
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.spaces.files import load_space
from nas.training.recipe import Recipe, read_recipe
from nas.workflows.plan import check_amounts


def test_an_error_speaks_of_arguments_in_python_and_of_flags_on_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        check_amounts(SearchSettings(load_space("digits"), "digits", trials=0, evaluation=EvaluationSettings()))
    assert str(error.value) == "trials 0: needs at least 1"
    code, _, err = call(capsys, "search", "digits", "--device", "cpu", "--trials", "0", "--out", str(tmp_path / "run"))
    assert (code, err) == (2, "nas: --trials 0: needs at least 1\n")


def test_what_is_around_a_message_and_another_process_keep_its_arguments() -> None:
    inner = InputError(f"{arg('max_latency_ms')} 0ms: must be above 0")
    outer = pickle.loads(pickle.dumps(InputError(f"{arg('warm_start')} runs/a: {inner.marked}")))
    assert str(outer) == "warm_start runs/a: max_latency_ms 0ms: must be above 0"
    assert outer.named(flag_of) == "--warm-start runs/a: --max-latency 0ms: must be above 0"
    with pytest.raises(InputError) as several:
        read_recipe(Recipe(), None, ["epochs=x", "momentum=1"])
    assert [line.split()[0] for line in several.value.named(flag_of).splitlines()] == ["--set", "--set"]


def named_arguments() -> Iterator[tuple[str, str]]:
    """Every argument that a message of the package names, with the file."""
    root = Path(nas.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "arg":
                for each in ast.walk(node.args[0]):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value != "max_":
                        yield each.value, str(path.relative_to(root))


def test_every_argument_that_is_named_has_a_flag() -> None:
    commands, flags = [get_command(app)], set[str]()
    while commands:
        command: Any = commands.pop()
        commands += getattr(command, "commands", {}).values()
        flags |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    named = list(named_arguments())
    assert len(named) > 50
    known = {name: set(flag_of(name).partition(" ")[0].split("/")) <= flags for name, _ in named}  # `--set steps=N`
    assert [(name, path) for name, path in named if not known[name]] == []


def test_a_process_that_ray_ends_by_sigterm_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated() -> None:
        raise SystemExit(int(signal.SIGTERM))

    monkeypatch.setattr("nas.workflows.doctor.examine", terminated)
    assert call(capsys, "doctor") == (130, "", "nas: interrupted\n")
