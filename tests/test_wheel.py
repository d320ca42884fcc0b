"""The wheel: what a user without a checkout gets."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.subprocess
def test_spaces_and_report_work_from_the_wheel_alone(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(PROJECT),
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("pareto_nas-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    assert not [name for name in names if name.startswith("tests/")]
    assert "nas/py.typed" in names  # users' type checkers read our annotations
    script = (
        "import nas, nas.views.report.html as html, sys; assert nas.__file__.startswith(sys.argv[1]), nas.__file__; "
        "print(nas.__version__, [nas.load_space(name).name for name in nas.list_spaces()], len(html._asset('report.css')) > 0)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(site)],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == "0.1.0 ['cifar', 'digits', 'lite0', 'lite0_small'] True"
