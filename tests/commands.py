"""Commands of `nas` in this process."""

from __future__ import annotations

import pytest

from nas.cli.app import main


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `nas ARGUMENTS`."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Standard output of `nas ARGUMENTS`, which ends well."""
    code, out, err = call(capsys, *arguments)
    assert not code, err
    return out
