"""Which device a name means here, and what people call it."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator

from nas.common.errors import InputError, arg
from nas.common.text import quoted


def resolve_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is here; raises `InputError` when it is not."""
    import torch

    kind, _, index = name.partition(":")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and (kind != "cuda" or not (index.isdigit() or name == "cuda")):
        raise InputError(f"{arg('device')}: unknown device {quoted(name)}: use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{arg('device')} {name}: torch sees no CUDA GPU here; use {arg('device')} cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise InputError(f"{arg('device')} {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return name


def device_name(device: str) -> str:
    """The device as people know it: the GPU's name, or the CPU's model."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(torch.device(device))
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def check_context(device: str) -> None:
    """Raise `RuntimeError` when this process can no longer use the device: some CUDA errors stay until it ends."""
    if device != "cpu":
        import torch

        torch.zeros(1, device=device).add(1).item()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch compute with so many threads of this process while the context lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_identity() -> str:
    """Which CPU it is beside its name, which virtual machines often shorten: family, model, stepping, cache."""
    wanted = ("cpu family", "model", "stepping", "cache size")
    found: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in wanted:
                found.setdefault(key.strip(), value.strip())
    return ", ".join(f"{key} {found[key]}" for key in wanted if key in found) or platform.machine()
