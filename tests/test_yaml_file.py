"""YAML files: what libyaml and PyYAML's own parser each refuse is read, written and said all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.files import write_yaml
from nas.common.yaml_file import read_yaml


def test_names_of_files_that_are_no_utf8_survive(tmp_path: Path) -> None:
    """Python tells them by lone surrogates, which libyaml neither writes nor reads."""
    data = {"data": "photos-\udcff-ü", "note": "a: #b\n", "width": "x " * 200, "rate": 1e-9, "none": None}
    write_yaml(tmp_path / "run.yaml", data)
    found, lines = read_yaml(tmp_path / "run.yaml", "run.yaml")
    assert found == data
    assert lines[("data",)] == 1
    assert list(found) == list(data)


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "- " * 20_000, "? " * 20_000, "a: [1, 2\nb: 3", "a: *b", "a: &a [*a]\n\tb"]
)
def test_what_is_no_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^space.yaml(:\d+)?: not valid YAML: .{5,300}$"):
        read_yaml(tmp_path / "space.yaml", "space.yaml")


@pytest.mark.parametrize("flag", ["--enqueue", "--recipe"])
def test_a_file_without_an_end_is_one_sentence(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", "digits", flag, "/dev/zero"])
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err == f"nas: {flag} /dev/zero: cannot be read: larger than 64 MiB, which no such file is\n"
    )
