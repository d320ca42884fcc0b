"""Flags belong to the command line: all other code speaks of arguments, or of whole commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from commands import call
from conftest import new_run
from test_front import record

from nas.cli.app import app
from nas.common.errors import InputError, arg, named
from nas.runs.store import RunDirectory

PACKAGE = Path(__file__).resolve().parents[1] / "nas"
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(r"\b(nas|ray|python predict\.py) [^;]*$")
"""What stands before a flag in a sentence that tells a whole command."""
ALLOWED = {
    ("common/errors.py", "--max-macs"),  # what doctests show
    ("common/errors.py", "--epochs"),
    ("latency/conditions.py", "--version"),  # of the compiler
    ("common/signals.py", "--signal"),  # sbatch's
    ("common/provenance.py", "--always"),  # git's, as the next ones
    ("common/provenance.py", "--abbrev"),
    ("common/provenance.py", "--dirty"),
    ("common/provenance.py", "--exclude"),
    ("common/provenance.py", "--error-unmatch"),
    ("tasks/classification_predict.py", "--top"),  # a flag of the script that exports hold
    ("workflows/doctor.py", "--shm-size"),  # Docker's
    ("views/page/actions.py", "--pick"),  # commands that the page puts together, word by word
    ("views/page/actions.py", "--to"),
    ("views/report/rerun.py", "--pick"),  # what else the command takes that stands above
    ("views/report/rerun.py", "--format"),
    ("views/report/baselines.py", "--weights"),
}


def mentions() -> Iterator[tuple[str, str, int]]:
    """File, flag and line of each flag that a string names outside of a command."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("cli/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {
            id(word)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "command_text"
            for word in ast.walk(call)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words:
                for found in FLAG.finditer(node.value):
                    if not COMMAND.search(node.value[: found.start()]):
                        yield name, found[0], node.lineno


def test_no_module_but_the_command_line_names_flags() -> None:
    found = list(mentions())
    assert [each for each in found if each[:2] not in ALLOWED] == []
    assert {each[:2] for each in found} == ALLOWED  # and none is allowed that is not there


def test_an_argument_in_a_note_is_called_as_it_was_given() -> None:
    from nas.cli.options import flag_of, named_here

    note = f"more {arg('epochs')}, or {arg('measure=False')}"
    assert (named(note), named(note, flag_of)) == ("more epochs, or measure=False", "more --epochs, or --no-measure")
    with pytest.raises(InputError) as raised, named_here(out="--to"):
        raise InputError(f"{arg('out')} a: exists; {arg('max_macs')} stays")
    assert raised.value.named(flag_of) == "--to a: exists; --max-macs stays"


POSITIONS = {
    "search": ["digits"],
    "evaluate": ["smallest", "--space", "digits"],
    "measure": ["mobilenet_v2"],
    "measure --arch": ["--space", "digits"],
    "measure --space": ["--arch", "smallest"],
    "space show": ["digits"],
    "space from": ["torchvision:squeezenet1_1", "--out", "new", "--input", "3x32x32"],
    "supernet train": ["digits", "--out", "new"],
    "export": ["RUN", "--to", "new"],
    **{name: ["RUN"] for name in ("fidelity", "train", "report", "baseline", "browse", "status", "stop", "front")},
}
"""What a command, or one of its flags, cannot do without."""
WRONG = {
    "--resume": "nowhere",
    "--out": "/etc/passwd/x",
    "--to": "/etc/passwd/x",
    "--networks": "zzz,smallest",
    "--latency": "batch:0",
    "--target": "edge=threads:0,max:1ms",
    "--learning-rate": "1e999",
    "--cpus-per-trial": "1e999",
    "--gpus-per-trial": "1e999",
}
"""Values that no such flag may have, where another one than `zzz` says more."""
SHOWN = {"batch:0": "batch size 0", "edge=threads:0,max:1ms": "threads 0", "1e999": "inf", "zzz,smallest": "'zzz'"}
"""How they are called."""


def options() -> Iterator[tuple[str, str]]:
    """Each command and each of its flags that takes a value."""
    commands = {"": typer.main.get_command(app)}
    while commands:
        name, command = commands.popitem()
        below = getattr(command, "commands", {})
        commands |= {f"{name} {word}".strip(): each for word, each in below.items()}
        for parameter in () if below else command.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False):
                yield name, next(option for option in parameter.opts if option.startswith("--"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = new_run(tmp_path_factory.mktemp("run") / "run")
    for number in range(3):
        run.append(record(number, 0.5 + number / 10, 1.0 + number))
    return run


@pytest.mark.parametrize(("command", "flag"), sorted(options()))
def test_a_wrong_value_is_answered_by_one_sentence_that_names_flag_and_value(
    command: str,
    flag: str,
    searched: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    value = WRONG.get(flag, "zzz")
    words = [
        str(searched.path) if word == "RUN" else word
        for word in POSITIONS.get(f"{command} {flag}", POSITIONS.get(command, []))
    ]
    if flag in words:
        del words[words.index(flag) :]
    code, out, err = call(
        capsys, *command.split(), *words, f"{flag}={value}", *(["--png"] if command == "report" else [])
    )
    assert (code, out) == (2, "")
    (told,) = (line for line in err.splitlines() if not line.startswith("Data: "))
    assert told.startswith("nas: ")
    assert flag in told
    assert SHOWN.get(value, value) in told
    assert "Input should" not in told
    assert not list(tmp_path.iterdir())
