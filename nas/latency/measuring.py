"""Latency of any module under a stated protocol, on a device that nobody else uses meanwhile.

What is done, and why:

- A copy is measured, in eval and inference mode, batch norm folded into the convolutions, as it would be deployed, as far
  as a forward pass shows that each step keeps the function (nas/latency/prepare.py); the module given is never changed.
- The mode is the one it will be deployed in. An eager loop at batch 1 on a GPU times the launches, not the network; a
  captured graph has none ("Getting Started with CUDA Graphs", NVIDIA developer blog, 2019).
- The exclusive lease of the device is held (nas/latency/lease.py): Ray's `num_gpus` is bookkeeping, and a neighbour
  makes a network several times slower.
- Warm-up by time, not by count: clocks rise and caches fill over time.
- Events around blocks of runs on CUDA, which is asynchronous: a clock read without synchronising times the queue
  ("CUDA C++ Best Practices Guide", section Timing). A block is at least 1 ms, so that the timer's resolution of half a
  microsecond vanishes.
- Back-to-back runs keep the caches hot; cold is asked for, and empties the last-level cache before each run.
- A quantile of many blocks, not the mean: noise only ever adds, and a mean hides it. Which one, and of which clock, the
  protocol says (nas/latency/estimate.py). More blocks until its 95 % interval is narrower than 3 % of it ("Scientific Benchmarking
  of Parallel Computing Systems", Hoefler & Belli, SC 2015, rules 5 to 8), while there is time; from three
  times that on the result is marked noisy.
- A reference network before and after shows whether the device itself changed speed meanwhile, which no spread within
  one measurement shows; then all is done again.
- Whether two networks differ is measured in turn, a few blocks of each at a time: what changes the device's speed then
  changes it for both (nas/latency/compare.py).
- Images of unit normal distribution and weights as they are: zeros draw less power, and clocks follow power.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import reprlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.common.errors import CandidateError, InputError
from nas.latency.device import device_name, resolve_device
from nas.latency.estimate import Estimate, Times, estimate
from nas.latency.folding import fold_batch_norm as fold_batch_norm
from nas.latency.lease import DeviceLease, Grant, lease_for
from nas.latency.prepare import Preparation, layout, normal_images, prepared
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import DeviceState, Latency
from nas.latency.runtimes import candidates_errors, check_protocol, prepare, runtime_of, software
from nas.latency.runtimes.base import Run, Session, TimeBlock
from nas.latency.telemetry import Watch
from nas.latency.timing import block_timer, time_blocks, time_until_sure, warm_up

OTHERS_LIMIT = {"cpu": 0.25, "cuda": 0.0}
"""Share of a device's time used by others above which a measurement counts as contended: Ray's own idle processes
and the system take some of a CPU."""
ROUNDS = 20
"""Rounds of networks that are measured in turn."""
Shape = tuple[int, int, int]
Ready = Callable[[torch.Tensor], tuple[Session, Preparation]]
"""What makes of the protocol's images a network that is ready to run on them, and says what was done to it before."""
_LOOK_S, _QUIET = 0.25, {"cpu": 0.1, "cuda": 0.0}
"""Seconds of looking, and the share of a device's time used by others up to which it is quiet."""
_REFERENCE_S = 0.1
_HELD_S = 20.0
"""Seconds after which networks that are measured in turn let others have the device: trainers wait a minute for it."""
_FEWEST, _MOST = 5, 15
"""Blocks of one turn."""


def measure(
    module: nn.Module,
    input_shape: Shape,
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
    with contextlib.ExitStack() as held:
        return measure_ready(_ready(module, protocol, held), input_shape, protocol, lease)


def measure_ready(
    ready: Ready, input_shape: Shape, protocol: LatencyProtocol, lease: DeviceLease | None = None
) -> Latency:
    """Latency of whatever `ready` makes of the protocol's images: what runs it once, and what was done before.

    As `measure` does it; the protocol's mode says how `ready` lets it run.
    """
    with _at_work(protocol, lease) as (device, lease):
        session, preparation = _prepared(ready, input_shape, protocol, lease)
        run, artefact = session.run, _digest(session)
        with lease.exclusive() as grant, _cpu_too(protocol) as cpu:
            watch = _watch(device)
            reference = _reference(str(device), protocol.threads)
            block = block_timer(protocol, session.time_block)
            with candidates_errors(protocol):
                runs = warm_up(run, block, protocol)
            tries = [_attempt(run, block, runs, reference, protocol, watch)]
            while len(tries) < protocol.attempts and _again(tries[-1], protocol):
                tries.append(_attempt(run, block, runs, reference, protocol, watch))
        del session, run, block
    best = min(tries, key=lambda attempt: (_disturbed(attempt.others, protocol), attempt.drift, attempt.found.width))
    return _latency(
        best.times,
        best.found,
        protocol,
        input_shape,
        runs_per_block=best.runs,
        noisy=best.times.wall_ms.size < protocol.min_blocks
        or best.found.width >= protocol.noisy_width
        or best.drift > protocol.noisy_drift,
        contended=grant.contended or cpu.contended or _disturbed(best.others, protocol),
        waited_s=grant.waited_s + cpu.waited_s,
        preparation=preparation,
        artefact=artefact,
        attempts=len(tries),
        reference_ms=best.reference_ms,
        others=best.others,
        before=best.before,
        after=best.after,
    )


def measure_in_turn(
    modules: Sequence[nn.Module],
    input_shapes: Sequence[Shape],
    protocol: LatencyProtocol | None = None,
    rounds: int = ROUNDS,
    lease: DeviceLease | None = None,
) -> tuple[Latency, ...]:
    """Latencies of several modules that can be compared: in each round some blocks of each, in an order of its own.

    In ms a batch, as `measure` gives them, and with the same errors; `nas.latency.compare` says which differ. The device's
    exclusive lease is held for about 20 s at a time.
    """
    protocol = protocol or default_protocol("cpu")
    if rounds < 2:
        raise InputError(f"rounds {rounds}: must be at least 2")
    for module, shape in zip(modules, input_shapes, strict=True):
        _check_given(module, shape)
    check_protocol(protocol)
    if not modules:
        return ()
    with contextlib.ExitStack() as held, _at_work(protocol, lease) as (device, lease):
        networks = []
        for number, (module, shape) in enumerate(zip(modules, input_shapes, strict=True), 1):
            try:
                networks.append(_prepared(_ready(module, protocol, held), shape, protocol, lease))
            except CandidateError as error:
                raise CandidateError(f"network {number} of {len(modules)}: {error}") from error
        preparations = [preparation for _, preparation in networks]
        artefacts = [_digest(ready) for ready, _ in networks]
        found = _turns([ready for ready, _ in networks], rounds, protocol, device, lease)
        del networks
    session = uuid.uuid4().hex[:12]
    latencies = []
    for shape, preparation, artefact, turns, runs in zip(
        input_shapes, preparations, artefacts, found.times, found.runs, strict=True
    ):
        times = Times.joined(turns)
        value = estimate(times, protocol)
        latencies.append(
            _latency(
                times,
                value,
                protocol,
                shape,
                runs_per_block=runs,
                noisy=value.width >= protocol.noisy_width,
                contended=found.contended or _disturbed(found.others, protocol),
                waited_s=found.waited_s / len(modules),
                preparation=preparation,
                artefact=artefact,
                others=found.others,
                before=found.before,
                after=found.after,
                session=session,
            )
        )
    return tuple(latencies)


def is_quiet(protocol: LatencyProtocol) -> bool:
    """Whether others leave the protocol's device alone now, as far as that is known; holds its lease for a quarter second."""
    device = _device(protocol)
    with lease_for(protocol.device).exclusive() as grant:
        watch = _watch(device)
        time.sleep(_LOOK_S)
        others = watch.others()
    return not grant.contended and (others is None or others <= _QUIET[device.type])


def _latency(
    times: Times,
    found: Estimate,
    protocol: LatencyProtocol,
    input_shape: Shape,
    preparation: Preparation,
    **circumstances: Any,
) -> Latency:
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
        measured=time.time(),
        bn_folded=preparation.bn_folded,
        left_out=preparation.left_out,
        notes=preparation.notes,
        **circumstances,
    )


@dataclass
class _Turns:
    """What networks took in turn: times by network and round; runs a block by network; what happened meanwhile."""

    times: list[list[Times]]
    runs: list[int]
    contended: bool = False
    waited_s: float = 0.0
    others: float | None = None
    before: DeviceState | None = None
    after: DeviceState | None = None


def _turns(
    networks: Sequence[Session], rounds: int, protocol: LatencyProtocol, device: torch.device, lease: DeviceLease
) -> _Turns:
    rng = random.Random(0)
    left = deque(index for _ in range(rounds) for index in rng.sample(range(len(networks)), len(networks)))
    found = _Turns([[] for _ in networks], [])
    count = 0
    while left:
        with lease.exclusive() as grant, _cpu_too(protocol) as cpu, candidates_errors(protocol):
            start = time.perf_counter()
            watch = _watch(device)
            timer = functools.cache(lambda own: block_timer(protocol, own))  # what empties the caches is made once
            blocks = [timer(network.time_block) for network in networks]
            found.before = found.before or watch.state()
            warm_up(networks[left[0]].run, blocks[left[0]], protocol)
            if not count:
                brief = replace(protocol, warmup_s=protocol.warmup_s / 5)
                found.runs = [warm_up(each.run, block, brief) for each, block in zip(networks, blocks, strict=True)]
                count = _blocks_a_turn(networks, found.runs, blocks, rounds, protocol)
            while left:
                index = left.popleft()
                run, runs, block = networks[index].run, found.runs[index], blocks[index]
                block(run, runs)  # what another network left in the caches
                found.times[index].append(time_blocks(run, block, runs, count, protocol))
                if time.perf_counter() - start > _HELD_S:
                    break
            found.after = watch.state()
            others = [share for share in (found.others, watch.others()) if share is not None]
            found.others = max(others, default=None)
            found.waited_s += grant.waited_s + cpu.waited_s
        found.contended = found.contended or grant.contended or cpu.contended
    return found


def _blocks_a_turn(
    networks: Sequence[Session],
    runs: Sequence[int],
    blocks: Sequence[TimeBlock],
    rounds: int,
    protocol: LatencyProtocol,
) -> int:
    """So many that all rounds of a network take about `max_s`; equally many of each, as quantiles of a few are not those of many."""
    took = [block(network.run, many)[0] for network, many, block in zip(networks, runs, blocks, strict=True)]
    wall_ms = sum(took) / len(took)
    return max(_FEWEST, min(_MOST, int(1e3 * protocol.max_s / rounds / max(wall_ms, 1e-3))))


@dataclass(frozen=True)
class _Attempt:
    times: Times
    found: Estimate
    runs: int
    reference_ms: tuple[float, float]
    others: float | None
    before: DeviceState
    after: DeviceState

    @property
    def drift(self) -> float:
        return abs(self.reference_ms[1] / self.reference_ms[0] - 1)


def _attempt(
    run: Run, block: TimeBlock, runs: int, reference: Run, protocol: LatencyProtocol, watch: Watch
) -> _Attempt:
    """The whole of one measurement, between two of the reference network, all of it watched.

    So the watch lasts a quarter of a second at least: the kernel counts a CPU's time in ticks of 10 ms, NVML in
    periods of a sixth of a second.
    """
    watch.restart()
    first = _reference_ms(reference, protocol)
    before = watch.state()
    times = time_until_sure(run, block, runs, protocol)
    after = watch.state()
    last = _reference_ms(reference, protocol)
    return _Attempt(times, estimate(times, protocol), runs, (first, last), watch.others(), before, after)


def _reference_ms(reference: Run, protocol: LatencyProtocol) -> float:
    quick = replace(
        protocol, warmup_s=0.2 * _REFERENCE_S, max_s=_REFERENCE_S, min_blocks=10, max_spread=0.0, cold=False
    )
    block = block_timer(quick)
    return estimate(time_until_sure(reference, block, warm_up(reference, block, quick), quick), quick).ms


def _digest(session: Session) -> str | None:
    return hashlib.sha256(session.artefact).hexdigest() if session.artefact is not None else None


def _disturbed(others: float | None, protocol: LatencyProtocol) -> bool:
    return others is not None and others > OTHERS_LIMIT[torch.device(protocol.device).type]


def _again(attempt: _Attempt, protocol: LatencyProtocol) -> bool:
    return attempt.drift > protocol.max_drift or _disturbed(attempt.others, protocol)


def _ready(module: nn.Module, protocol: LatencyProtocol, held: contextlib.ExitStack) -> Ready:
    """The module as it would be deployed, in the protocol's mode; `held` gives it back what was borrowed of it."""

    def ready(images: torch.Tensor) -> tuple[Session, Preparation]:
        found = held.enter_context(prepared(module, images, protocol))
        return prepare(found.network, found.images, protocol), found.preparation

    return ready


def _prepared(
    ready: Ready, input_shape: Shape, protocol: LatencyProtocol, lease: DeviceLease
) -> tuple[Session, Preparation]:
    # Compiling and exporting are work like any other, which a measurement must not hear.
    with lease.shared(), _cpu_too(protocol, shared=True), candidates_errors(protocol):
        return ready(normal_images(protocol, input_shape))


@functools.cache
def _reference(device: str, threads: int) -> Run:
    """A fixed network of three convolutions, about a million MACs each, in float32."""
    protocol = replace(default_protocol(device), threads=threads)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU alone; torch.manual_seed would seed every GPU
        layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 128, 1)]
    network = nn.Sequential(*layers).eval().requires_grad_(False).to(device)
    images = normal_images(protocol, (3, 64, 64))
    return prepare(network.to(memory_format=layout(protocol)), images, protocol).run


@contextlib.contextmanager
def _at_work(protocol: LatencyProtocol, lease: DeviceLease | None) -> Iterator[tuple[torch.device, DeviceLease]]:
    """The protocol's device and its lease, with torch set as the protocol says; no memory of the device's is kept."""
    device, runtime = _device(protocol), runtime_of(protocol)
    with _settings(protocol, device), torch.inference_mode(not runtime.converts):
        runtime.begin()
        yield device, lease or lease_for(protocol.device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # a graph's memory, which nothing else in this process can use


@contextlib.contextmanager
def _cpu_too(protocol: LatencyProtocol, shared: bool = False) -> Iterator[Grant]:
    """The CPU's lease beside a GPU's, where the CPU matters too: it launches eager kernels, and builds all others."""
    if protocol.device == "cpu" or not (shared or runtime_of(protocol).launches):
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
