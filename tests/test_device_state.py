"""What is told of a device while it is measured, and that what cannot be known is never told as nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nas.latency.telemetry as device_state
from nas.latency.result import DeviceState
from nas.latency.telemetry import Watch

UUID = "8b1e6a2c-0000-1111-2222-333344445555"
NOT_SUPPORTED, NOT_FOUND = 3, 6


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        self.value = value


class FakeNvml:
    """NVML as its Python bindings show it, with one device; an exception as an answer is raised."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_FOUND = NOT_FOUND
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, prefix: str = "GPU-", **answers: Any) -> None:
        self.name = prefix + UUID
        self.answers: dict[str, Any] = {
            "nvmlDeviceGetPowerUsage": 71_500,
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetClockInfo": {1: 1_980, 2: 2_619},
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetComputeRunningProcesses": [os.getpid()],
            "nvmlDeviceGetProcessUtilization": [(os.getpid(), 90)],
            "nvmlSystemGetDriverVersion": "580.10",
        } | answers

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        if name != self.name:
            raise NVMLError(NOT_FOUND)
        return "handle"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            value = self.answers[name]
            if isinstance(value, Exception):
                raise value
            if name == "nvmlDeviceGetClockInfo":
                return value[arguments[1]]
            if name == "nvmlDeviceGetComputeRunningProcesses":
                return [SimpleNamespace(pid=pid) for pid in value]
            if name == "nvmlDeviceGetProcessUtilization":
                later = arguments[1] + 1
                return [SimpleNamespace(pid=pid, smUtil=share, timeStamp=later) for pid, share in value]
            return value

        return answer


def watch(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> Watch:
    monkeypatch.setattr(device_state, "_nvml", lambda: nvml)
    return Watch(UUID)


def test_clocks_power_and_temperature_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=0x01 | 0x04 | 0x40)  # idle is no fault
    state = watch(monkeypatch, nvml).state()
    assert state == DeviceState(1_980, 2_619, 71.5, 41, ("power cap", "thermal, by hardware"))
    assert device_state.driver_version() == "580.10"


def test_a_question_that_nvml_does_not_answer_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = NVMLError(NOT_SUPPORTED)
    nvml = FakeNvml(nvmlDeviceGetClockInfo=refused, nvmlDeviceGetCurrentClocksEventReasons=refused)
    assert watch(monkeypatch, nvml).state() == DeviceState(None, None, 71.5, 41, None)
    monkeypatch.setattr(device_state, "_nvml", lambda: FakeNvml(nvmlSystemGetDriverVersion=refused))
    assert device_state.driver_version() is None


OWN, OTHER, THIRD = os.getpid(), 999_999_001, 999_999_002


@pytest.mark.parametrize(
    ("listed", "samples", "others"),
    [
        ([OWN], [(OWN, 90)], 0.0),
        ([OWN, OTHER], [(OWN, 50), (OTHER, 30), (OTHER, 40), (THIRD, 5)], 0.45),  # the busiest sample of each
        ([OWN, OTHER, THIRD], [(OTHER, 80), (THIRD, 70)], 1.0),
        ([OWN, OTHER], [(OWN, 90)], 0.0),  # it is there, and idle
        ([], [(OTHER, 80)], None),  # a container that sees nobody
        ([OTHER], [(OTHER, 80)], None),  # a container that sees its host's numbers
        ([OWN], NVMLError(NOT_FOUND), 0.0),  # nothing sampled, and nobody there who could have computed
        ([OWN, OTHER], NVMLError(NOT_FOUND), None),  # nothing sampled yet says nothing of the other
        ([OWN], NVMLError(NOT_SUPPORTED), None),
        (NVMLError(NOT_SUPPORTED), [], None),
        (NVMLError(NOT_FOUND), [], None),
    ],
)
def test_what_others_use_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, listed: Any, samples: Any, others: float | None
) -> None:
    nvml = FakeNvml(nvmlDeviceGetComputeRunningProcesses=listed, nvmlDeviceGetProcessUtilization=samples)
    assert watch(monkeypatch, nvml).others() == others


def test_samples_from_before_the_restart_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(nvmlDeviceGetProcessUtilization=[(OTHER, 80)])
    seen = watch(monkeypatch, nvml)
    assert seen.others() == 0.8
    seen._since_us += 10**12
    monkeypatch.setattr(nvml, "nvmlDeviceGetProcessUtilization", lambda *_: [SimpleNamespace(pid=OTHER, smUtil=80, timeStamp=1)], raising=False)  # fmt: skip
    assert seen.others() == 0.0


@pytest.mark.parametrize("prefix", ["", "GPU-", "MIG-"])
def test_a_device_is_found_by_the_bare_number_that_torch_gives(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    assert watch(monkeypatch, FakeNvml(prefix)).state().power_w == 71.5


@pytest.mark.parametrize("nvml", [None, FakeNvml("elsewhere-")])
def test_without_nvml_all_is_unknown(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> None:
    seen = watch(monkeypatch, nvml)
    assert seen.state() == DeviceState()
    assert seen.others() is None


def write_stat(proc: Path, busy: int, idle: int, steal: int = 0) -> None:
    """Clock ticks of each core this process may run on, and of one that it may not."""
    rows = [f"cpu{core} {busy} 0 0 {idle} 0 0 0 {steal} 0 0" for core in sorted(os.sched_getaffinity(0))]
    (proc / "stat").write_text("\n".join(["cpu  9 9 9 9 9 9 9 9 0 0", *rows, "cpu99999 9 0 0 9 0 0 0 0", "intr 1"]))


def test_what_others_use_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_s = 0.0
    monkeypatch.setattr(time, "process_time", lambda: own_s)
    cores = len(os.sched_getaffinity(0))
    write_stat(tmp_path, busy=1_000, idle=5_000)
    seen = Watch("cpu", tmp_path)
    write_stat(tmp_path, busy=1_060, idle=5_030, steal=10)
    assert seen.others() == pytest.approx(0.7)  # 70 of 100 ticks, none of them this process's
    own_s = 20 * cores / os.sysconf("SC_CLK_TCK")
    assert seen.others() == pytest.approx(0.5)
    own_s = 1e6
    assert seen.others() == 0.0
    seen.restart()
    assert seen.others() is None  # no tick since
    (tmp_path / "stat").unlink()
    assert seen.others() is None


def test_the_clock_of_the_cpu(tmp_path: Path) -> None:
    assert Watch("cpu", tmp_path).state() == DeviceState()
    (tmp_path / "cpuinfo").write_text("model name : x\ncpu MHz : 2000.0\n\nmodel name : x\ncpu MHz : 3000.0\n")
    assert Watch("cpu", tmp_path).state() == DeviceState(clock_mhz=2_500.0)
    (tmp_path / "cpuinfo").write_text("processor : 0\nBogoMIPS : 50\n")  # as on ARM
    assert Watch("cpu", tmp_path).state() == DeviceState()
