"""Latency of any module under a stated protocol, on a device that nobody else uses meanwhile.

What is done, and why:

- A copy is measured, in eval and inference mode, batch norm folded into the convolutions, as it would be deployed; the
  module given is never changed.
- The mode is the one it will be deployed in. An eager loop at batch 1 on a GPU times the launches, not the network; a
  captured graph has none ("Getting Started with CUDA Graphs", NVIDIA developer blog, 2019).
- The exclusive lease of the device is held (nas/device_lease.py): Ray's `num_gpus` is bookkeeping, and a neighbour
  makes a network several times slower.
- Warm-up by time, not by count: clocks rise and caches fill over time.
- Events around blocks of runs on CUDA, which is asynchronous: a clock read without synchronising times the queue
  ("CUDA C++ Best Practices Guide", section Timing). A block is at least 1 ms, so that the timer's resolution of half a
  microsecond vanishes.
- Back-to-back runs keep the caches hot; cold is asked for, and empties the last-level cache before each run.
- The median and quantiles of many blocks, not the mean: noise only ever adds, and a mean hides it. More blocks until the
  interquartile range is within 3 % of the median ("Scientific Benchmarking of Parallel Computing Systems", Hoefler &
  Belli, SC 2015, rules 5 to 8); otherwise the result is marked noisy.
- A reference network before and after shows whether the device itself changed speed meanwhile, which no spread within
  one measurement shows; then all is done again.
- Images of unit normal distribution and weights as they are: zeros draw less power, and clocks follow power.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import reprlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from nas.device import device_name, resolve_device
from nas.device_lease import DeviceLease, Grant, lease_for
from nas.device_state import Watch
from nas.errors import InputError
from nas.record import DeviceState, Latency
from nas.runtimes import Run, candidates_errors, check_protocol, runner, software
from nas.settings import LatencyProtocol, default_protocol

OTHERS_LIMIT = {"cpu": 0.25, "cuda": 0.0}
"""Share of a device's time used by others above which a measurement counts as contended: Ray's own idle processes
and the system take some of a CPU."""
Block = Callable[[Run, int], float]
"""Runs a network so many times; the ms of them all."""
_REFERENCE_S = 0.1
_LONGEST, _FEWEST_BLOCKS = 10, 5
"""A network so slow that `min_blocks` take this many times `max_s` gets fewer, and is marked noisy: trainers that wait
for the device lose patience after a minute."""
_FLUSH_BYTES = 256 * 2**20
"""More than any last-level cache of today's GPUs and CPUs, but for a few server CPUs."""


def fold_batch_norm(module: nn.Module) -> bool:
    """Fold each batch norm of a module in eval mode into the convolution before it, in place; whether none is left.

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
    names = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))

    def alone(node: torch.fx.Node) -> bool:
        """Whether the part is called once, under its one name, and nothing but its own forward makes its output."""
        part = parts[str(node.target)]
        changed = part._forward_hooks or part._forward_pre_hooks or is_parametrized(part)
        return calls[node.target] == 1 and names[id(part)] == 1 and not changed

    for node in nodes:
        norm = parts[node.target] if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not alone(node):
            continue
        source = next(iter((*node.args, *node.kwargs.values())))
        if source.op != "call_module" or len(source.users) > 1 or not alone(source):
            continue
        convolution = parts[source.target]
        if isinstance(convolution, nn.Conv2d):
            module.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(node.target, nn.Identity())
    return not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def measure(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    protocol: LatencyProtocol | None = None,
    lease: DeviceLease | None = None,
) -> Latency:
    """Latency of a module on images of `input_shape` (C, H, W), in ms a batch; the module given is not changed.

    Holds the device's exclusive lease meanwhile, `lease` in its place where one is given. By default batch 1 in
    float32 on the CPU. Raises `InputError` when the protocol cannot be had here, `CandidateError` when the module
    cannot run.
    """
    protocol = protocol or default_protocol("cpu")
    _check_given(module, input_shape)
    check_protocol(protocol)

    def ready(images: torch.Tensor) -> tuple[Run, bool]:
        network, bn_folded = _deployed(module, protocol)
        return runner(network, images, protocol), bn_folded

    return measure_ready(ready, input_shape, protocol, lease)


def measure_ready(
    ready: Callable[[torch.Tensor], tuple[Run, bool]],
    input_shape: tuple[int, int, int],
    protocol: LatencyProtocol,
    lease: DeviceLease | None = None,
) -> Latency:
    """Latency of whatever `ready` makes of the protocol's images: what runs it once, and whether batch norm is folded.

    As `measure` does it; the protocol's mode says how `ready` lets it run.
    """
    device = _device(protocol)
    lease = lease or lease_for(protocol.device)
    with _settings(protocol, device), torch.inference_mode(protocol.mode != "onnxruntime"):
        # Compiling and exporting are work like any other, which a measurement must not hear.
        with lease.shared(), _cpu_too(protocol, shared=True), candidates_errors(protocol):
            run, bn_folded = ready(_images(protocol, input_shape))
        with lease.exclusive() as grant, _cpu_too(protocol) as cpu:
            watch = _watch(device)
            reference = _reference(str(device), protocol.threads)
            block = _block(protocol)
            with candidates_errors(protocol):
                runs = _warm_up(run, block, protocol)
            tries = [_attempt(run, block, runs, reference, protocol, watch)]
            while len(tries) < protocol.attempts and _again(tries[-1], protocol):
                tries.append(_attempt(run, block, runs, reference, protocol, watch))
        del run, block
        if device.type == "cuda":
            torch.cuda.empty_cache()  # a graph's memory, which nothing else in this process can use
    best = min(tries, key=lambda attempt: (_disturbed(attempt, protocol), attempt.drift, attempt.spread))
    p10, p90 = np.percentile(best.times_ms, [10, 90])
    return Latency(
        median_ms=float(np.median(best.times_ms)),
        p10_ms=float(p10),
        p90_ms=float(p90),
        spread=best.spread,
        blocks=len(best.times_ms),
        runs_per_block=best.runs,
        noisy=len(best.times_ms) < protocol.min_blocks
        or best.spread >= protocol.max_spread
        or best.drift > protocol.max_drift,
        contended=grant.contended or cpu.contended or _disturbed(best, protocol),
        waited_s=grant.waited_s + cpu.waited_s,
        bn_folded=bn_folded,
        device_name=device_name(protocol.device),
        input_shape=(protocol.batch_size, *input_shape),
        protocol=protocol,
        attempts=len(tries),
        reference_ms=best.reference_ms,
        others=best.others,
        before=best.before,
        after=best.after,
        software=software(protocol),
        measured=time.time(),
    )


@dataclass(frozen=True)
class _Attempt:
    times_ms: list[float]
    runs: int
    reference_ms: tuple[float, float]
    others: float | None
    before: DeviceState
    after: DeviceState

    @property
    def spread(self) -> float:
        p25, median, p75 = np.percentile(self.times_ms, [25, 50, 75])
        return float((p75 - p25) / median)

    @property
    def drift(self) -> float:
        return abs(self.reference_ms[1] / self.reference_ms[0] - 1)


def _attempt(run: Run, block: Block, runs: int, reference: Run, protocol: LatencyProtocol, watch: Watch) -> _Attempt:
    """The whole of one measurement, between two of the reference network, all of it watched.

    So the watch lasts a quarter of a second at least: the kernel counts a CPU's time in ticks of 10 ms, NVML in
    periods of a sixth of a second.
    """
    watch.restart()
    first = _reference_ms(reference, protocol)
    before = watch.state()
    times_ms = _time_blocks(run, block, runs, protocol)
    after = watch.state()
    last = _reference_ms(reference, protocol)
    return _Attempt(times_ms, runs, (first, last), watch.others(), before, after)


def _reference_ms(reference: Run, protocol: LatencyProtocol) -> float:
    quick = replace(
        protocol, warmup_s=0.2 * _REFERENCE_S, max_s=_REFERENCE_S, min_blocks=10, max_spread=0.0, cold=False
    )
    block = _block(quick)
    return float(np.median(_time_blocks(reference, block, _warm_up(reference, block, quick), quick)))


def _disturbed(attempt: _Attempt, protocol: LatencyProtocol) -> bool:
    limit = OTHERS_LIMIT[torch.device(protocol.device).type]
    return attempt.others is not None and attempt.others > limit


def _again(attempt: _Attempt, protocol: LatencyProtocol) -> bool:
    return attempt.drift > protocol.max_drift or _disturbed(attempt, protocol)


def _deployed(module: nn.Module, protocol: LatencyProtocol) -> tuple[nn.Module, bool]:
    """A copy of the module as it would be deployed, and whether its batch norm could be folded."""
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    folded = fold_batch_norm(copied)
    copied = copied.to(torch.device(protocol.device), getattr(torch, protocol.dtype))
    return copied.to(memory_format=_layout(protocol)), folded


def _images(protocol: LatencyProtocol, input_shape: tuple[int, int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(protocol.batch_size, *input_shape, generator=generator, device="cpu", dtype=torch.float32)
    return images.to(device=protocol.device, dtype=getattr(torch, protocol.dtype), memory_format=_layout(protocol))


def _layout(protocol: LatencyProtocol) -> torch.memory_format:
    channels_last = protocol.channels_last and protocol.mode != "onnxruntime"
    return torch.channels_last if channels_last else torch.contiguous_format


@functools.cache
def _reference(device: str, threads: int) -> Run:
    """A fixed network of three convolutions, about a million MACs each, in float32."""
    protocol = replace(default_protocol(device), threads=threads)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU alone; torch.manual_seed would seed every GPU
        layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 128, 1)]
    network, _ = _deployed(nn.Sequential(*layers), protocol)
    return runner(network, _images(protocol, (3, 64, 64)), protocol)


@contextlib.contextmanager
def _cpu_too(protocol: LatencyProtocol, shared: bool = False) -> Iterator[Grant]:
    """The CPU's lease beside a GPU's, where the CPU matters too: it launches eager kernels, and builds all others."""
    if protocol.device == "cpu" or (protocol.mode != "eager" and not shared):
        yield Grant(contended=False, waited_s=0.0)
    elif shared:
        with lease_for("cpu").shared():
            yield Grant(contended=False, waited_s=0.0)
    else:
        with lease_for("cpu").exclusive() as grant:
            yield grant


def _check_given(module: nn.Module, input_shape: tuple[int, int, int]) -> None:
    if not isinstance(module, nn.Module):
        hint = "; make an instance of it" if isinstance(module, type) else ""
        raise InputError(f"only an nn.Module can be measured, not {reprlib.repr(module)}{hint}")
    sides = input_shape if isinstance(input_shape, Sequence) else ()
    if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(f"input shape {input_shape!r}: needs channels, height and width of one image, each at least 1")


def _device(protocol: LatencyProtocol) -> torch.device:
    """The protocol's device, a GPU with its number; raises `InputError` when it is not here."""
    if protocol.device == "auto":
        raise InputError("device 'auto': a protocol names its device: cpu, cuda or cuda:N")
    device = torch.device(resolve_device(protocol.device))
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def _watch(device: torch.device) -> Watch:
    return Watch("cpu" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid))


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


def _warm_up(run: Run, block: Block, protocol: LatencyProtocol) -> int:
    """Run until the warm-up is over; how many runs a block needs to take `block_ms`."""
    runs = 1
    end = time.perf_counter() + protocol.warmup_s
    while True:
        ms = block(run, runs)
        if not protocol.cold and ms < protocol.block_ms:
            # At most tenfold: the first blocks of all are no measure.
            runs = min(10 * runs, 1 + int(runs * protocol.block_ms / max(ms, 1e-6)))
        elif time.perf_counter() > end:
            return runs


def _time_blocks(run: Run, block: Block, runs: int, protocol: LatencyProtocol) -> list[float]:
    """Milliseconds a run of each block of so many runs; of a very slow network fewer blocks than asked for."""
    times: list[float] = []
    start = time.perf_counter()
    end, patience_ends = start + protocol.max_s, start + _LONGEST * protocol.max_s
    while True:
        times.append(block(run, runs) / runs)
        hurry = len(times) >= _FEWEST_BLOCKS and time.perf_counter() > patience_ends
        if len(times) < protocol.min_blocks and not hurry:
            continue
        p25, median, p75 = np.percentile(times, [25, 50, 75])
        if (p75 - p25) / median < protocol.max_spread or time.perf_counter() > end:
            return times


def _block(protocol: LatencyProtocol) -> Block:
    """What times a block: ms of so many runs, after emptying the caches where the protocol says cold."""
    time_block = _cuda_block if torch.device(protocol.device).type == "cuda" else _cpu_block
    if not protocol.cold:
        return time_block
    filler = torch.zeros(_FLUSH_BYTES // 4, device=protocol.device)

    def cold_block(run: Run, runs: int) -> float:
        filler.add_(1.0)
        return time_block(run, runs)

    return cold_block


def _cpu_block(run: Run, runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) * 1e3


def _cuda_block(run: Run, runs: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
