"""Doors: what other packages and users' files add by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from conftest import install_package

from nas.common.doors import Door
from nas.common.errors import InputError

DOOR: Door[object] = Door("colour", "nas.colours", {"red": "nas.common.errors:InputError"})


NUMBERS: Door[float] = Door(
    "number", "nas.numbers", {"pi": "math:pi", "no": "math:sqrt", "kind": "builtins:float"}, float
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a colour, and one that cannot be loaded, as pip would leave it."""
    brings = "[nas.colours]\nblue = colours_of_others:BLUE\nbroken = colours_of_others:GREEN\n"
    install_package(tmp_path, "colours", brings, {"colours_of_others": "BLUE = 'blue of others'\n"})
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_what_an_installed_package_brings_is_there_by_name() -> None:
    assert DOOR.names == ("red", "blue", "broken")
    assert DOOR.get("red") is InputError
    assert DOOR.get("blue") == "blue of others"
    with pytest.raises(InputError, match="colour 'broken' of the package colours could not be loaded: AttributeError"):
        DOOR.get("broken")
    DOOR.check("broken")  # known, and not loaded


def test_what_is_of_another_kind_is_refused() -> None:
    assert NUMBERS.get("pi") == math.pi
    with pytest.raises(InputError, match=r"number 'no': is builtin_\w+, and needs to be an instance of builtins.float"):
        NUMBERS.get("no")
    with pytest.raises(InputError, match=r"number 'kind': is the class float, and needs to be an instance of"):
        NUMBERS.get("kind")


def test_a_file_of_the_users_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_colours.py").write_text("GREY = 'mine'\n")
    monkeypatch.chdir(tmp_path)
    assert DOOR.get("my_colours:GREY") == "mine"
    with pytest.raises(InputError, match="colour 'my_colours:GRAY' could not be loaded: AttributeError"):
        DOOR.get("my_colours:GRAY")


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    for ask in (DOOR.get, DOOR.check):
        with pytest.raises(
            InputError, match=r"unknown colour 'rad' \(did you mean 'red'\?\): use one of red, or module:name"
        ):
            ask("rad")
