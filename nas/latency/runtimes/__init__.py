"""How a network runs when it is deployed, by the name of its mode: eager, a captured CUDA graph, compiled, or by ONNX Runtime.

A runtime of another package's or of a user's file is one more mode (`RUNTIMES`; nas/latency/runtimes/base.py says what it has).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from nas.common.doors import Door
from nas.common.errors import CandidateError, InputError, arg
from nas.common.text import quoted
from nas.latency.device import cpu_identity
from nas.latency.protocol import LatencyProtocol, Precision
from nas.latency.runtimes.base import Runtime, Session, quiet
from nas.latency.telemetry import driver_version

if TYPE_CHECKING:
    import torch
    from torch import nn

RUNTIMES: Door[Runtime] = Door(
    "mode",
    "nas.runtimes",
    {
        "eager": "nas.latency.runtimes.eager:EAGER",
        "cudagraph": "nas.latency.runtimes.cudagraph:CUDAGRAPH",
        "compile": "nas.latency.runtimes.compile:COMPILE",
        "onnxruntime": "nas.latency.runtimes.onnxruntime:ONNXRUNTIME",
    },
    Runtime,
)
"""Modes of `LatencyProtocol`."""

MOST_THREADS = 1024
"""Above, OpenMP may end the process where it cannot start so many."""


def runtime_of(protocol: LatencyProtocol) -> Runtime:
    """What the protocol's mode means; raises `InputError` where that is not had here, or is no runtime."""
    return _runtime(protocol.mode)


@functools.cache
def _runtime(mode: str) -> Runtime:
    return RUNTIMES.get(mode)


def check_protocol(protocol: LatencyProtocol) -> None:
    """Raise `InputError` when a latency cannot be measured here in this way."""
    runtime = runtime_of(protocol)
    if protocol.dtype not in get_args(Precision):
        raise InputError(f"unknown dtype {quoted(protocol.dtype)}: use {', '.join(get_args(Precision))}")
    for flag, value in (("batch size", protocol.batch_size), ("threads", protocol.threads)):
        if value < 1:
            raise InputError(f"{flag} {value}: must be at least 1")
    for name, number, least in (
        ("warmup_s", protocol.warmup_s, 0.0),
        ("block_ms", protocol.block_ms, 1e-3),
        ("min_blocks", protocol.min_blocks, 1),
        ("max_s", protocol.max_s, 0.0),
        ("attempts", protocol.attempts, 1),
    ):
        if not least <= number < math.inf:  # it would measure for ever, and hold the device
            raise InputError(f"{name} {number}: must be a number of at least {least:g}")
    if protocol.threads > MOST_THREADS:
        raise InputError(f"threads {protocol.threads}: must be at most {MOST_THREADS:,}")
    _check_able(runtime, protocol)
    runtime.check(protocol)


def _check_able(runtime: Runtime, protocol: LatencyProtocol) -> None:
    """Raise `InputError` unless the runtime has the protocol's device and precision."""
    kind, mode = protocol.device.partition(":")[0], f"mode {protocol.mode}"
    if kind == "cuda" and kind not in runtime.devices:
        raise InputError(f"{mode} measures on the CPU alone, not {protocol.device}: use {arg('device')} cpu")
    if kind == "cpu" and kind not in runtime.devices:
        *others, last = (name for name in RUNTIMES.own if kind in RUNTIMES.get(name).devices)
        raise InputError(f"{mode} needs a CUDA device, not {protocol.device}: use {', '.join(others)} or {last}")
    if protocol.dtype not in runtime.precisions:
        raise InputError(f"{mode} measures {', '.join(runtime.precisions)} alone, not {protocol.dtype}")


@contextmanager
def candidates_errors(protocol: LatencyProtocol) -> Iterator[None]:
    """What goes wrong with the network itself, as a `CandidateError`."""
    try:
        yield
    except (InputError, CandidateError):
        raise
    except Exception as error:  # the network's own code, Inductor and the exporter raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CandidateError(f"latency could not be measured in mode {protocol.mode}: {reason}") from error


def prepare(network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
    """The network in the protocol's mode on these images (N, C, H, W), built and run once on return.

    On CUDA the current device must be the images'. Raises `CandidateError` when the network cannot be brought into that mode.
    """
    import torch

    with candidates_errors(protocol), quiet():
        network(images)  # one that does not run at all says so better than a compiler or an exporter would
        session = runtime_of(protocol).prepare(network, images, protocol)
        session.run()
        if images.device.type == "cuda":
            torch.cuda.synchronize()  # before whoever calls gives its lease back
    return session


def software(protocol: LatencyProtocol) -> dict[str, str]:
    """Versions that a latency depends on."""
    import torch

    versions = {"torch": str(torch.__version__)} | runtime_of(protocol).software()
    if protocol.device != "cpu":
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())
        versions["driver"] = driver_version() or "unknown"
        if protocol.dtype == "float32":
            # Not by allow_tf32, which raises where a caller has set precision by the newer names.
            precisions = {
                "convolutions": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
                "matrix products": torch.backends.cuda.matmul.fp32_precision,
            }
            versions["tf32"] = ", ".join(name for name, value in precisions.items() if value == "tf32") or "no"
    else:
        versions["kernel"] = os.uname().release
        versions["cpu"] = cpu_identity()
    return versions


def memory_format_text(protocol: LatencyProtocol) -> str:
    """In which order the values of an image lie in memory, in words."""
    try:
        converts = runtime_of(protocol).converts
    except InputError:  # a run of elsewhere
        return "memory format not known"
    if converts:
        return "memory format its own"
    return "channels last" if protocol.channels_last else "channels first"
