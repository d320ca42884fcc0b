"""`nas doctor`: what is here is found, what is missing is told with how to get it, and only what a plain search needs fails."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nas.cli.app import main
from nas.workflows import doctor
from nas.workflows.doctor import Check, examine


def checks() -> dict[str, Check]:
    """Without starting Ray, by name."""
    return {check.name: check for check in examine(start_ray=False)}


def test_on_this_machine_a_plain_search_can_run() -> None:
    found = checks()
    assert not [check for check in found.values() if check.fails]
    assert found["cpu"].found.endswith("cores may be used")
    assert found["eager"].state == "here"
    assert found["torch"].found == metadata.version("torch")
    assert {"png", "onnx", "pretrained"} <= {check.name for check in found.values() if check.topic == "extras"}


def test_an_extra_that_lacks_a_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = metadata.version

    def without(package: str) -> str:
        if package in ("kaleido", "aiohttp_cors", "aiohttp-cors"):
            raise metadata.PackageNotFoundError(package)
        return versions(package)

    monkeypatch.setattr(metadata, "version", without)
    found = checks()
    assert found["png"].state == "missing"
    assert "kaleido" in found["png"].found
    assert found["png"].remedy == "pip install 'pareto-nas[png]'"
    assert found["cluster"].state == "missing"  # a package of ray[default], not of ray
    assert not found["png"].fails
    assert not found["required"].fails


def test_a_required_package_of_another_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.9" if name == "optuna" else versions(name))
    required = checks()["required"]
    assert required.fails
    assert required.found == "lacking: optuna<6,>=5 (here is 4.9)"


def test_folders_that_cannot_be_used_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_LATENCY_CACHE", "off")
    monkeypatch.setenv("NAS_LEASE_DIR", "leases")
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "a" / "b"))
    found = checks()
    assert (found["latencies"].state, found["latencies"].fails) == ("missing", False)
    assert found["device leases"].fails
    assert "NAS_LEASE_DIR leases: must be an absolute path" in found["device leases"].found
    assert found["decoded images"].state == "here"
    assert not (tmp_path / "a").exists()  # it looks, and makes nothing


def test_a_full_disk_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_DISK_BYTES", 1 << 60)
    found = checks()
    assert found["working directory"].state == "trouble"
    assert "make room" in found["working directory"].remedy


def test_a_browser_that_is_named_and_not_there_is_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    assert checks()["chromium"].state == "trouble"


@pytest.mark.ray
@pytest.mark.subprocess
def test_command_starts_ray_and_says_what_it_found() -> None:
    command = [sys.executable, "-m", "nas", "doctor", "--json"]  # a process of its own: it starts a Ray of its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    told = json.loads(done.stdout)
    assert next(check for check in told["checks"] if check["name"] == "ray")["found"].endswith("starts here")
    assert done.returncode == 0
    assert told["fit"] is True


def test_command_fails_where_a_search_could_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "examine", lambda: [Check("ray", "ray", "trouble", "[red] does not start", needed=True)]
    )
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    said = capsys.readouterr().out
    assert ended.value.code == 1
    assert "! ray: [red] does not start" in said
    assert said.splitlines()[-1] == "Can a plain search run here: not for want of 1 thing marked above"
