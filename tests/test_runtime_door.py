"""Runtimes of others: by a file of the user's, and brought by an installed package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BRIEF, GLANCE, install_package
from torch import nn

from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.plugins import children_path
from nas.latency.in_turn import measure_in_turn
from nas.latency.measuring import measure
from nas.latency.protocol import default_protocol
from nas.latency.runtimes import check_protocol, prepare
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.views.report import write_report

TWICE = replace(default_protocol("cpu"), mode="toy_runtime:TWICE", warmup_s=0.01, max_s=0.02, min_blocks=5, attempts=1)
MINE = Path(__file__).with_name("toy_runtime.py")


class Counting(nn.Module):
    """How often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.conv(x)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package that brings the mode `toy`, as pip would leave it; on the path of this process."""
    brings = "[nas.runtimes]\ntoy = runtime_of_others:TWICE\n"
    site = install_package(tmp_path / "site", "others", brings, {"runtime_of_others": MINE})
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_runtime_of_the_users_file_runs_the_network_and_is_told() -> None:
    network = Counting().eval()
    session = prepare(network, torch.zeros(1, 1, 4, 4), TWICE)
    before = network.calls
    session.run()
    assert network.calls == before + 2
    latency = measure(Counting(), (1, 4, 4), TWICE)
    assert latency.protocol == TWICE
    assert (latency.software or {})["twice"] == "1.0"
    assert latency.artefact == hashlib.sha256(b"twice").hexdigest()
    assert latency.process_ms is not None


def test_what_a_runtime_cannot_do_is_refused() -> None:
    for changes, message in (
        ({"device": "cuda"}, "mode toy_runtime:TWICE measures on the CPU alone, not cuda"),
        ({"dtype": "float16"}, "mode toy_runtime:TWICE measures float32 alone, not float16"),
        ({"threads": 3}, "mode toy_runtime:TWICE has two threads, not 3: buy the larger one"),
        ({"mode": "toy_runtime:THRICE"}, "mode 'toy_runtime:THRICE' could not be loaded: AttributeError"),
        (
            {"mode": "toy_runtime:Twice"},
            "mode 'toy_runtime:Twice': is the class Twice, and needs to be an instance of .*[.]Runtime",
        ),
        ({"mode": "toy_runtime:nn"}, "mode 'toy_runtime:nn': is module, and needs to be an instance of .*[.]Runtime"),
        ({"mode": "toy"}, "unknown mode 'toy': use one of eager, cudagraph, compile, onnxruntime, or module:name"),
    ):
        with pytest.raises(InputError, match=message):
            check_protocol(replace(TWICE, **changes))  # type: ignore[arg-type]


def test_a_runtime_may_tell_the_time_itself() -> None:
    protocol = replace(TWICE, mode="toy_runtime:BOARD")
    alone = measure(Counting(), (1, 4, 4), protocol)
    first, second = measure_in_turn([Counting(), Counting()], [(1, 4, 4)] * 2, protocol, rounds=2)
    for latency in (alone, first, second):
        assert latency.ms == pytest.approx(2.0)
        assert latency.process_ms is None  # which nobody knows
        assert latency.estimator == "lower quartile of wall time"


@pytest.mark.usefixtures("installed", "brief_measurements")
def test_measure_has_the_mode_of_an_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--input", "3x32x32", "--batch-size", "1", "--device", "cpu", "--mode", "toy"]
    with pytest.raises(SystemExit):
        main(["measure", "squeezenet1_1", *flags, "--json"])
    measured = json.loads(capsys.readouterr().out)["measured"][0]
    assert measured["protocol"]["mode"] == "toy"
    assert measured["software"]["twice"] == "1.0"


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_measures_a_target_in_that_mode_and_others_can_read_it(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), children_path()])}
    nas = [sys.executable, "-m", "nas"]
    shown = subprocess.run([*nas, "measure", "--help"], capture_output=True, text=True, env=environment, check=True)
    assert "toy" in shown.stdout
    out = tmp_path / "run"
    command = [
        *nas,
        "search",
        "digits",
        *BRIEF,
        "--device",
        "cpu",
        "--trials",
        "2",
        "--confirm",
        "0",
        "--out",
        str(out),
    ]
    command += ["--objectives", "accuracy,macs,latency:twice", "--target", f"twice=mode:toy,{GLANCE}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.remove(str(installed))  # as on a machine without that package
    run = open_run(out)
    trained = [record for record in run.records() if record.outcome is Outcome.DONE]
    assert len(trained) == 2
    for record in trained:
        on_target = record.evaluation.latencies["twice"]
        assert on_target.protocol.mode == "toy"
        assert on_target.software is not None
        assert on_target.software["twice"] == "1.0"
    page = write_report(run).read_text()
    assert "toy, memory format not known" in page
