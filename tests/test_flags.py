"""Flags belong to the command line: all other code speaks of arguments, or of whole commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.common.errors import InputError, arg, named

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
