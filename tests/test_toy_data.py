"""A data set that another package brings, by its name, and as a function of the user's file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import install_package

from nas.common.errors import InputError
from nas.data.sets import check_data_name, load_data
from nas.workflows.space_choice import look_at

TOY = Path(__file__).with_name("toy_data.py")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy as a package that pip installed."""
    brings = "[nas.data]\nsquares = squares_of_others:squares\n"
    install_package(tmp_path, "squares", brings, {"squares_of_others": TOY})
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_a_package_brings_a_data_set_by_name() -> None:
    check_data_name("squares")
    data = load_data("squares", channels=1, size=8)
    assert data.classes == ("dark", "bright")
    assert len(data.train) + len(data.validation) == 200
    assert data.test is not None
    assert len(data.test) == 40
    assert data.name == "squares"
    with pytest.raises(
        InputError, match=r"unknown data set 'square' \(did you mean 'squares'\?\): use one of digits, .*, squares, "
    ):
        check_data_name("square")


def test_the_same_function_of_a_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(TOY, tmp_path / "my_squares.py")
    monkeypatch.chdir(tmp_path)
    check_data_name("my_squares:squares")
    assert len(load_data("my_squares:squares", channels=1, size=8).train) > 100


def test_without_the_package_its_name_means_nothing() -> None:
    with pytest.raises(InputError, match="unknown data set 'squares'"):
        load_data("squares")


@pytest.mark.usefixtures("installed")
def test_a_space_is_chosen_by_its_images() -> None:
    look = look_at("squares", counted=True)
    assert look is not None
    assert (look.width, look.height, look.colour) == (8, 8, False)
