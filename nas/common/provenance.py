"""What a run notes of where its code came from: versions, commit, command line."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from nas.common.redact import without_password

_VERSIONS_OF = ("pareto-nas", "torch", "torchvision", "optuna", "ray", "numpy", "pandas", "plotly", "scikit-learn")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of the project's checkout, `+` behind it when files differ from it; None when installed."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None


def command_line() -> str:
    """The command that this process was started with, as one would type it, without passwords."""
    return shlex.join([Path(sys.argv[0]).name, *(without_password(argument) for argument in sys.argv[1:])])
