"""What every measurement needs: the network ready to run, its device alone, and what is written of it."""

from __future__ import annotations

import contextlib
import hashlib
import reprlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.common.errors import InputError
from nas.latency.conditions import conditions
from nas.latency.device import device_name, resolve_device
from nas.latency.estimate import Estimate, Times
from nas.latency.lease import DeviceLease, Grant, lease_for
from nas.latency.prepare import Preparation, normal_images, prepared
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.latency.runtimes import candidates_errors, prepare, runtime_of, software
from nas.latency.runtimes.base import Session
from nas.latency.telemetry import Watch

OTHERS_LIMIT = {"cpu": 0.25, "cuda": 0.0}
"""Share of a device's time used by others above which a measurement counts as contended: Ray's own idle processes
and the system take some of a CPU."""
Shape = tuple[int, int, int]
Ready = Callable[[torch.Tensor], tuple[Session, Preparation]]
"""What makes of the protocol's images a network that is ready to run on them, and says what was done to it before."""
_LOOK_S, _QUIET = 0.25, {"cpu": 0.1, "cuda": 0.0}
"""Seconds of looking, and the share of a device's time used by others up to which it is quiet."""


def check_given(module: nn.Module, input_shape: tuple[int, int, int]) -> None:
    if not isinstance(module, nn.Module):
        hint = "; make an instance of it" if isinstance(module, type) else ""
        raise InputError(f"only an nn.Module can be measured, not {reprlib.repr(module)}{hint}")
    sides = input_shape if isinstance(input_shape, Sequence) else ()
    if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"input shape {input_shape!r}: needs channels, height and width of one image, each at least 1")


def ready_of(module: nn.Module, protocol: LatencyProtocol, held: contextlib.ExitStack) -> Ready:
    """The module as it would be deployed, in the protocol's mode; `held` gives it back what was borrowed of it."""

    def ready(images: torch.Tensor) -> tuple[Session, Preparation]:
        found = held.enter_context(prepared(module, images, protocol))
        return prepare(found.network, found.images, protocol), found.preparation

    return ready


def prepared_on(
    ready: Ready, input_shape: Shape, protocol: LatencyProtocol, lease: DeviceLease
) -> tuple[Session, Preparation]:
    """A network made ready on images of `input_shape`; raises `CandidateError` when it cannot run."""
    # Compiling and exporting are work like any other, which a measurement must not hear.
    with lease.shared(), cpu_too(protocol, shared=True), candidates_errors(protocol):
        return ready(normal_images(protocol, input_shape))


@contextlib.contextmanager
def at_work(protocol: LatencyProtocol, lease: DeviceLease | None) -> Iterator[tuple[torch.device, DeviceLease]]:
    """The protocol's device and its lease, with torch set as the protocol says; no memory of the device's is kept."""
    device, runtime = device_of(protocol), runtime_of(protocol)
    with _settings(protocol, device), torch.inference_mode(not runtime.converts):
        runtime.begin()
        yield device, lease or lease_for(protocol.device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # a graph's memory, which nothing else in this process can use


@contextlib.contextmanager
def _settings(protocol: LatencyProtocol, device: torch.device) -> Iterator[None]:
    """Threads of the protocol, and cuDNN's fastest algorithm for each shape, as one would deploy; restored after.

    So are the random generators, in case the module draws from them, and the current GPU. Autocast is off.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    on_gpu = device.type == "cuda"
    with (
        torch.cuda.device(device) if on_gpu else contextlib.nullcontext(),
        torch.random.fork_rng(devices=[device] if on_gpu else []),
        torch.autocast(device.type, enabled=False),
    ):
        torch.set_num_threads(protocol.threads)
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def cpu_too(protocol: LatencyProtocol, shared: bool = False) -> Iterator[Grant]:
    """The CPU's lease beside a GPU's, where the CPU matters too: it launches eager kernels, and builds all others."""
    if protocol.device == "cpu" or not (shared or runtime_of(protocol).launches):
        yield Grant(contended=False, waited_s=0.0)
    elif shared:
        with lease_for("cpu").shared():
            yield Grant(contended=False, waited_s=0.0)
    else:
        with lease_for("cpu").exclusive() as grant:
            yield grant


def device_of(protocol: LatencyProtocol) -> torch.device:
    """The protocol's device, a GPU with its number; raises `InputError` when it is not here."""
    if protocol.device == "auto":
        raise InputError("device 'auto': a protocol names its device: cpu, cuda or cuda:N")
    device = torch.device(resolve_device(protocol.device))
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def watch_of(device: torch.device) -> Watch:
    """What tells how the device does, and how much of it others use."""
    return Watch("cpu" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid))


def is_quiet(protocol: LatencyProtocol) -> bool:
    """Whether others leave the protocol's device alone now, as far as that is known; holds its lease for a quarter second."""
    device = device_of(protocol)
    with lease_for(protocol.device).exclusive() as grant:
        watch = watch_of(device)
        time.sleep(_LOOK_S)
        others = watch.others()
    return not grant.contended and (others is None or others <= _QUIET[device.type])


def disturbed(others: float | None, protocol: LatencyProtocol) -> bool:
    """Whether others used too large a share of the protocol's device."""
    return others is not None and others > OTHERS_LIMIT[torch.device(protocol.device).type]


def artefact_of(session: Session) -> str | None:
    """Digest of the file that a runtime made of the network, where it made one."""
    return hashlib.sha256(session.artefact).hexdigest() if session.artefact is not None else None


def latency_of(
    times: Times,
    found: Estimate,
    protocol: LatencyProtocol,
    input_shape: Shape,
    preparation: Preparation,
    **circumstances: Any,
) -> Latency:
    """What is written of a measurement; `circumstances` are the other fields of `Latency`."""
    p10, p25, median, p75, p90 = np.percentile(times.wall_ms, [10, 25, 50, 75, 90]).tolist()
    own = times.process_ms
    process_p25, process = (None, None) if own is None else np.percentile(own, [25, 50]).tolist()
    return Latency(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        p25_ms=p25,
        process_ms=process,
        process_p25_ms=process_p25,
        estimator=found.estimator,
        interval_ms=found.interval_ms,
        rounds_ms=found.rounds_ms,
        spread=(p75 - p25) / median,
        blocks=times.wall_ms.size,
        device_name=device_name(protocol.device),
        input_shape=(protocol.batch_size, *input_shape),
        protocol=protocol,
        software=software(protocol),
        conditions=conditions(protocol),
        measured=time.time(),
        bn_folded=preparation.bn_folded,
        left_out=preparation.left_out,
        notes=preparation.notes,
        **circumstances,
    )
