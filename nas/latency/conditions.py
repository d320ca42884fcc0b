"""What a latency depends on beside network, protocol, device and versions: variables, quota, cores, governor, limits of a GPU.

Only what is told is listed, and of variables only those that are set, so that most records hold little of it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from nas.latency.protocol import LatencyProtocol
from nas.latency.telemetry import gpu_limits

_PREFIXES = (
    "ONEDNN_", "DNNL_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_CPU_", "MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES",
    "CUDA_MPS_", "CUDA_LAUNCH_BLOCKING", "CUDNN_", "CUBLAS_", "NVIDIA_TF32_OVERRIDE", "TORCH_CUDNN_", "ORT_",
)  # fmt: skip
_IDLE = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_THREAD_LIMIT", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK",
)  # fmt: skip
"""Variables that say nothing: of threads, which the protocol tells, and those that scikit-learn sets where it is imported."""
_SYSTEM = Path("/sys")


def conditions(protocol: LatencyProtocol) -> dict[str, str]:
    """Those of this process on the protocol's device, by name."""
    on_cpu = protocol.device.partition(":")[0] == "cpu"
    found = _variables() | (_of_cpu() if on_cpu else gpu_limits(protocol.device))
    if protocol.mode == "compile" and on_cpu:
        found["compiler"] = _compiler()
    return dict(sorted(found.items()))


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In what conditions differ, in words; empty where they do not."""
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {_told(now.get(name))}, before {_told(before.get(name))}" for name in names)


def _told(value: str | None) -> str:
    return "not set" if value is None else value


def _variables() -> dict[str, str]:
    """Of libraries that are preloaded the names, since their folders differ from host to host."""
    named = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES) and name not in _IDLE}
    if preloaded := named.get("LD_PRELOAD"):
        named["LD_PRELOAD"] = " ".join(Path(file).name for file in preloaded.replace(":", " ").split())
    return named


def _of_cpu() -> dict[str, str]:
    """Quota of the container in cores, and, of the cores that may be used, how fast they may be and who governs their clock."""
    cores = [_SYSTEM / f"devices/system/cpu/cpu{core}/cpufreq" for core in sorted(os.sched_getaffinity(0))]
    turbo = _read(_SYSTEM / "devices/system/cpu/intel_pstate/no_turbo")
    found = {
        "quota": _quota(),
        "governor": _all(_read(core / "scaling_governor") for core in cores),
        "clock limit": _all(_read(core / "scaling_max_freq") for core in cores),
        "core clock": _all(_read(core / "cpuinfo_max_freq") for core in cores),
        "boost": _read(_SYSTEM / "devices/system/cpu/cpufreq/boost") or {"0": "1", "1": "0"}.get(turbo or ""),
        "threads a core": _read(_SYSTEM / "devices/system/cpu/smt/active"),
    }
    return {name: value for name, value in found.items() if value}


def _all(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _quota() -> str | None:
    """The cores' worth of time that the control groups of this process may use; None where there is no limit."""
    limits = []
    for line in (_read(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: the limit of any group above counts too
            folder = _SYSTEM / "fs/cgroup" / group.lstrip("/")
            for place in (folder, *folder.parents):
                quota, _, period = (_read(place / "cpu.max") or "").partition(" ")
                limits += [int(quota) / int(period)] if quota.isdecimal() and period.isdecimal() else []
        elif "cpu" in controllers.split(","):
            folder = _SYSTEM / "fs/cgroup/cpu" / group.lstrip("/")
            given, each = _read(folder / "cpu.cfs_quota_us") or "", _read(folder / "cpu.cfs_period_us") or ""
            limits += [int(given) / int(each)] if given.isdecimal() and each.isdecimal() else []
    return f"{min(limits):g} cores" if limits else None


@functools.cache
def _compiler() -> str:
    """The first line of what the C++ compiler says of its version."""
    names = [os.environ.get("CXX"), "g++", "clang++"]
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        return "not known"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0] or "not known"
