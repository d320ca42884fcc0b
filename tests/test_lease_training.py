"""The device lease where it matters: real fine-tuning beside a real measurement, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.latency.at_work import OTHERS_LIMIT
from nas.latency.lease import DeviceLease, Grant
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol
from nas.models.networks import build
from nas.spaces.files import load_space

QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5)
SPACE = load_space("digits")

# Fine-tunes for ever. Appends a line at the begin and at the end of each step, and of each batch of validation, to a
# log that all processes share; once the file of its third argument is there it hangs in a step instead, inside a burst.
_TRAINER = """
import os, sys, time
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
torch.set_num_threads(1)
from nas.data.sets import load_data
from nas.training.device_data import DeviceData
from nas.latency.lease import lease_for
from nas.training.loop import finetune
from nas.tasks.classification_metrics import METRICS
from nas.models.networks import build
from nas.training.recipe import Recipe
from nas.spaces.files import load_space

log, name, hang = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), sys.argv[2], sys.argv[3]

def note(what):
    os.write(log, f"{name} {what} {time.monotonic_ns()}\\n".encode())

def begin(module, _):
    note("begin")
    if module.training and os.path.exists(hang):
        print("hangs", flush=True)
        time.sleep(600)

network = build(load_space("digits").smallest, 10)
network.register_forward_pre_hook(begin)
network.register_forward_hook(lambda module, *_: None if module.training else note("end"))
register_optimizer_step_post_hook(lambda *_: note("end"))
data = DeviceData(load_data("digits", channels=1).without_test(), "cpu")
for _ in finetune(network, data, 8, Recipe(epochs=10**6), METRICS["accuracy"], seed=0, lease=lease_for("cpu")):
    pass
"""


class Log:
    """Who ran when, on the clock that all processes of a machine share."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def note(self, name: str, what: str) -> None:
        """Add a line."""
        os.write(self._file, f"{name} {what} {time.monotonic_ns()}\n".encode())

    def spans(self) -> dict[str, list[tuple[int, int]]]:
        """Begin and end of everything that has ended, by name."""
        begun: dict[str, int] = {}
        spans: dict[str, list[tuple[int, int]]] = {}
        *lines, _ = self.path.read_text().split("\n")
        for line in lines:
            name, what, at = line.split()
            if what == "begin":
                begun[name] = int(at)
            else:
                spans.setdefault(name, []).append((begun.pop(name), int(at)))
        return spans

    def until(self, names: list[str], more: int) -> None:
        """Wait until each has ended so many more steps."""
        before = {name: len(self.spans().get(name, [])) for name in names}
        deadline = time.monotonic() + 120
        while any(len(self.spans().get(name, [])) < before[name] + more for name in names):
            assert time.monotonic() < deadline, "a trainer makes no progress"
            time.sleep(0.02)


@dataclass(frozen=True)
class Trainers:
    """Two that train until the module's tests end; `doomed` hangs once `hang` is there."""

    log: Log
    doomed: subprocess.Popen[str]
    hang: Path


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    """Their start takes longer than the tests do."""
    folder = tmp_path_factory.mktemp("trainers")
    log = Log(folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_LEASE_DIR", str(folder / "leases"))
        commands = [
            [sys.executable, "-c", _TRAINER, str(log.path), name, str(folder / f"hang-{name}")]
            for name in ("other", "doomed")
        ]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        yield Trainers(log, started[1], folder / "hang-doomed")
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def _whoever_else_computes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lease decides what is contended, not what else this machine does."""
    monkeypatch.setitem(OTHERS_LIMIT, "cpu", 1.0)


@pytest.mark.subprocess
@pytest.mark.slow
def test_no_training_step_falls_into_a_measurement_and_training_goes_on_after_it(
    trainers: Trainers,
) -> None:
    log, names = trainers.log, ["other", "doomed"]
    log.until(names, 5)
    measured = build(SPACE.backbone, 10)
    measurements: list[str] = []
    granted: dict[str, int] = {}

    class Noted(DeviceLease):
        @contextmanager
        def exclusive(self) -> Iterator[Grant]:
            with super().exclusive() as grant:
                granted[measurements[-1]] = time.monotonic_ns()
                yield grant

    measured.register_forward_pre_hook(lambda *_: log.note(measurements[-1], "begin"))
    measured.register_forward_hook(lambda *_: log.note(measurements[-1], "end"))
    for name in ("m0", "m1"):
        measurements.append(name)
        latency = measure(measured, (1, 8, 8), QUICK, Noted("cpu"))
        assert not latency.contended
        log.until(names, 5)
    spans = log.spans()
    for name in measurements:
        # Before the lease is its own there are trial runs, which are work like any other.
        alone = [span for span in spans[name] if span[0] >= granted[name]]
        assert 0 < len(alone) < len(spans[name])
        first, last = alone[0][0], alone[-1][1]
        assert len(alone) >= QUICK.min_blocks
        for trainer in names:
            assert not [(a, b) for a, b in spans[trainer] if a < last and b > first], "trained during a measurement"
            assert any(b <= first for _, b in spans[trainer])
            assert any(a >= last for a, _ in spans[trainer])


@pytest.mark.subprocess
def test_a_trainer_killed_in_a_burst_frees_the_measurement_that_waits_for_it(
    trainers: Trainers,
) -> None:
    log, doomed = trainers.log, trainers.doomed
    log.until(["other"], 1)
    trainers.hang.touch()
    assert doomed.stdout is not None
    assert doomed.stdout.readline() == "hangs\n"
    with DeviceLease("cpu", patience_s=0.1).exclusive() as grant:
        assert grant.contended, "it holds the lease"
    killer = threading.Timer(0.5, doomed.send_signal, [signal.SIGKILL])
    killer.start()
    latency = measure(build(SPACE.smallest, 10), (1, 8, 8), QUICK)
    assert doomed.wait(timeout=30) == -signal.SIGKILL
    assert not latency.contended
    log.until(["other"], 5)
