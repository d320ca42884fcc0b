"""Latency of any module under a stated protocol, on a device that nobody else uses meanwhile.

The number is a median over blocks of back-to-back runs (caches hot), with the protocol beside it. The model
given is never changed: a copy is measured, in eval and inference mode, with batch norm folded into the
convolutions, as it would be deployed.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nas.device import device_name
from nas.device_lease import DeviceLease, Grant, lease_for
from nas.errors import CandidateError
from nas.record import Latency
from nas.settings import LatencyProtocol, default_protocol


def fold_batch_norm(module: nn.Module) -> bool:
    """Fold each batch norm of a module in eval mode into the convolution before it, in place; whether that was done.

    The traced graph says which convolution is read by a batch norm alone, and that each of the two is called once;
    the module's own forward stays, so that what it does beside tensors is measured too. A module that `torch.fx`
    cannot trace is left as it is.
    """
    try:
        nodes = list(torch.fx.symbolic_trace(module).graph.nodes)
    except Exception:  # fx raises whatever the traced code raises on a symbolic value
        return False
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    parts = dict(module.named_modules())
    for node in nodes:
        if node.op != "call_module" or not isinstance(parts[node.target], nn.BatchNorm2d) or calls[node.target] > 1:
            continue
        source = node.args[0]
        if source.op != "call_module" or calls[source.target] > 1 or len(source.users) > 1:
            continue
        convolution = parts[source.target]
        if isinstance(convolution, nn.Conv2d):
            module.set_submodule(source.target, fuse_conv_bn_eval(convolution, parts[node.target]))
            module.set_submodule(node.target, nn.Identity())
    return True


def measure(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    protocol: LatencyProtocol | None = None,
    lease: DeviceLease | None = None,
) -> Latency:
    """Latency of a module on images of `input_shape` (C, H, W); the module given is not changed.

    Holds the device's exclusive lease meanwhile. Raises `CandidateError` when the module cannot run.
    """
    protocol = protocol or default_protocol("cpu")
    device = torch.device(protocol.device)
    dtype = getattr(torch, protocol.dtype)
    layout = torch.channels_last if protocol.channels_last else torch.contiguous_format
    folded = copy.deepcopy(module).eval()
    bn_folded = fold_batch_norm(folded)
    folded = folded.to(device, dtype).to(memory_format=layout)
    shape = (protocol.batch_size, *input_shape)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).to(device=device, dtype=dtype, memory_format=layout)

    on_device = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with _exclusive(protocol, lease) as grant, _cpu_threads(protocol), on_device, torch.inference_mode():
        try:
            run = _capture(folded, image) if protocol.mode == "cudagraph" else lambda: folded(image)
            block = _cuda_block if device.type == "cuda" else _cpu_block
            times_ms, runs = _time_blocks(lambda n: block(run, n), protocol)
        except RuntimeError as error:
            raise CandidateError(f"latency could not be measured: {str(error).splitlines()[0]}") from error
    p10, p25, median, p75, p90 = np.percentile(times_ms, [10, 25, 50, 75, 90])
    spread = float((p75 - p25) / median)
    return Latency(
        median_ms=float(median),
        p10_ms=float(p10),
        p90_ms=float(p90),
        spread=spread,
        blocks=len(times_ms),
        runs_per_block=runs,
        noisy=spread >= protocol.max_spread,
        contended=grant.contended,
        waited_s=grant.waited_s,
        bn_folded=bn_folded,
        device_name=device_name(protocol.device),
        input_shape=shape,
        protocol=protocol,
    )


@contextlib.contextmanager
def _exclusive(protocol: LatencyProtocol, lease: DeviceLease | None) -> Iterator[Grant]:
    """The lease of the device, and for eager timing on a GPU that of the CPU too, which launches its kernels."""
    lease = lease or lease_for(protocol.device)
    with lease.exclusive() as grant:
        if protocol.device == "cpu" or protocol.mode != "eager":
            yield grant
            return
        with lease_for("cpu").exclusive() as cpu:
            grant.waited_s += cpu.waited_s
            yield grant
        grant.contended = grant.contended or cpu.contended


@contextlib.contextmanager
def _cpu_threads(protocol: LatencyProtocol) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(protocol.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time_blocks(block: Callable[[int], float], protocol: LatencyProtocol) -> tuple[list[float], int]:
    """Milliseconds a run of each block, and the runs a block had. `block(n)` gives the ms of n runs."""
    warmup_end = time.perf_counter() + protocol.warmup_s
    fastest = block(1)
    while time.perf_counter() < warmup_end:
        fastest = min(fastest, block(1))
    runs = max(1, int(np.ceil(protocol.block_ms / max(fastest, 1e-6))))
    times: list[float] = []
    end = time.perf_counter() + protocol.max_s
    while True:
        times.append(block(runs) / runs)
        if len(times) < protocol.min_blocks:
            continue
        p25, median, p75 = np.percentile(times, [25, 50, 75])
        if (p75 - p25) / median < protocol.max_spread or time.perf_counter() > end:
            return times, runs


def _cpu_block(run: Callable[[], object], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) * 1e3


def _cuda_block(run: Callable[[], object], runs: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _capture(module: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    """A CUDA graph of one forward pass; warm-up on a side stream, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            module(image)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(image)
    return graph.replay
