"""What a device does while it is measured: clocks, power, temperature, and how much others use it.

On GPUs by NVML, through NVIDIA's own bindings; on the CPU from /proc. Whatever cannot be known is None, never zero.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.latency.result import DeviceState

# nvmlClocksEventReasons that slow a busy device down (nvml.h); idle and the application's own clocks are no faults.
_THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "synchronised boost",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
}


class Watch:
    """Watches one device, `cpu` or the UUID of a GPU, from its making on."""

    def __init__(self, device: str, proc: Path = Path("/proc")) -> None:
        self._nvml, self._handle = (None, None) if device == "cpu" else _nvml_handle(device)
        self._proc = proc
        self._is_cpu = device == "cpu"
        self.restart()

    def restart(self) -> None:
        """Count what others use from now on."""
        self._since_us = time.time_ns() // 1000
        self._jiffies = _cpu_jiffies(self._proc) if self._is_cpu else None
        self._own_s = time.process_time()

    def state(self) -> DeviceState:
        """Clocks, power and temperature now."""
        if self._is_cpu:
            return DeviceState(clock_mhz=_cpu_clock_mhz(self._proc))
        nvml, handle = self._nvml, self._handle
        if nvml is None:
            return DeviceState()

        def ask(question: Callable[[], Any]) -> Any:
            try:
                return question()
            except nvml.NVMLError:  # a MIG instance has no clocks of its own, a data-centre driver may hide them
                return None

        milliwatts = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        reasons = ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return DeviceState(
            clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            throttled=None if reasons is None else tuple(name for bit, name in _THROTTLES.items() if reasons & bit),
        )

    def others(self) -> float | None:
        """Share of the device's time that other processes used since the last `restart`, or None.

        On the CPU of all cores this process may run on, time stolen from a virtual machine included.
        """
        return self._others_on_cpu() if self._is_cpu else self._others_on_gpu()

    def _others_on_cpu(self) -> float | None:
        now = _cpu_jiffies(self._proc)
        if now is None or self._jiffies is None or now[1] <= self._jiffies[1]:
            return None
        busy, total = now[0] - self._jiffies[0], now[1] - self._jiffies[1]
        own = (time.process_time() - self._own_s) * os.sysconf("SC_CLK_TCK")
        return max(0.0, min(1.0, (busy - own) / total))

    def _others_on_gpu(self) -> float | None:
        nvml, handle = self._nvml, self._handle
        if nvml is None:
            return None
        own = os.getpid()
        listed: set[int] = set()
        try:
            listed = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
            if own not in listed:  # a container's list is empty, or numbers processes as its host does
                return None
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, self._since_us)
        except nvml.NVMLError as error:
            # No sample since then: nobody has computed, or too short a time has passed for one to be taken.
            unsampled = getattr(error, "value", None) == nvml.NVML_ERROR_NOT_FOUND
            return 0.0 if unsampled and listed == {own} else None
        busiest: dict[int, int] = {}
        for sample in samples:
            if sample.pid != own and sample.timeStamp > self._since_us:
                busiest[sample.pid] = max(busiest.get(sample.pid, 0), sample.smUtil)
        return min(1.0, sum(busiest.values()) / 100)


def gpu_limits(device: str) -> dict[str, str]:
    """What limits a CUDA device beside its model, as far as its driver tells: its power, and the mode of its memory."""
    import torch

    nvml, handle = _nvml_handle(str(torch.cuda.get_device_properties(torch.device(device)).uuid))
    found: dict[str, str] = {}
    if nvml is not None:
        with contextlib.suppress(nvml.NVMLError):  # a MIG instance has none of its own
            found["power limit"] = f"{nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000:g} W"
        with contextlib.suppress(nvml.NVMLError):
            found["ECC"] = "on" if nvml.nvmlDeviceGetEccMode(handle)[0] else "off"
    return found


def driver_version() -> str | None:
    """Version of NVIDIA's driver, where NVML tells it."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return None


def gpu_models() -> tuple[str, ...]:
    """Models of this machine's GPUs, whether this process may use them or not; empty where NVML tells none."""
    nvml = _nvml()
    if nvml is None:
        return ()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(sorted({str(nvml.nvmlDeviceGetName(handle)) for handle in handles}))
    except nvml.NVMLError:
        return ()


def _nvml() -> Any | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _nvml_handle(uuid: str) -> tuple[Any | None, Any | None]:
    nvml = _nvml()
    if nvml is None:
        return None, None
    for name in (uuid, f"GPU-{uuid}", f"MIG-{uuid}"):  # torch gives the bare number
        with contextlib.suppress(nvml.NVMLError):
            return nvml, nvml.nvmlDeviceGetHandleByUUID(name)
    return None, None


def _cpu_jiffies(proc: Path) -> tuple[int, int] | None:
    """Busy and all clock ticks of the cores this process may run on."""
    try:
        lines = (proc / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = total = 0
    for line in lines:
        name, *fields = line.split()
        if name in cores:
            user, nice, system, idle, waiting, interrupt, soft, *rest = map(int, fields)
            steal = rest[0] if rest else 0
            used = user + nice + system + interrupt + soft + steal
            busy, total = busy + used, total + used + idle + waiting
    return (busy, total) if total else None


def _cpu_clock_mhz(proc: Path) -> float | None:
    """Mean clock of the cores, as the kernel tells it."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else None
