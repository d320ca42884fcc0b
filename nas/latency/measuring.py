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
  changes it for both (nas/latency/in_turn.py, nas/latency/compare.py).
- Images of unit normal distribution and weights as they are: zeros draw less power, and clocks follow power.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from torch import nn

from nas.latency.at_work import (
    Ready,
    Shape,
    artefact_of,
    at_work,
    check_given,
    cpu_too,
    disturbed,
    latency_of,
    prepared_on,
    ready_of,
    watch_of,
)
from nas.latency.estimate import Estimate, Times, estimate
from nas.latency.lease import DeviceLease
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.reference import reference_ms, reference_network
from nas.latency.result import DeviceState, Latency
from nas.latency.runtimes import candidates_errors, check_protocol
from nas.latency.runtimes.base import Run, TimeBlock
from nas.latency.telemetry import Watch
from nas.latency.timing import block_timer, time_until_sure, warm_up


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
    check_given(module, input_shape)
    check_protocol(protocol)
    with contextlib.ExitStack() as held:
        return measure_ready(ready_of(module, protocol, held), input_shape, protocol, lease)


def measure_ready(
    ready: Ready, input_shape: Shape, protocol: LatencyProtocol, lease: DeviceLease | None = None
) -> Latency:
    """Latency of whatever `ready` makes of the protocol's images: what runs it once, and what was done before.

    As `measure` does it; the protocol's mode says how `ready` lets it run.
    """
    with at_work(protocol, lease) as (device, lease):
        session, preparation = prepared_on(ready, input_shape, protocol, lease)
        run, artefact = session.run, artefact_of(session)
        with lease.exclusive() as grant, cpu_too(protocol) as cpu:
            watch = watch_of(device)
            reference = reference_network(str(device), protocol.threads)
            block = block_timer(protocol, session.time_block)
            with candidates_errors(protocol):
                runs = warm_up(run, block, protocol)
            tries = [_attempt(run, block, runs, reference, protocol, watch)]
            while len(tries) < protocol.attempts and _again(tries[-1], protocol):
                tries.append(_attempt(run, block, runs, reference, protocol, watch))
        del session, run, block
    best = min(tries, key=lambda attempt: (disturbed(attempt.others, protocol), attempt.drift, attempt.found.width))
    return latency_of(
        best.times,
        best.found,
        protocol,
        input_shape,
        runs_per_block=best.runs,
        noisy=best.times.wall_ms.size < protocol.min_blocks
        or best.found.width >= protocol.noisy_width
        or best.drift > protocol.noisy_drift,
        contended=grant.contended or cpu.contended or disturbed(best.others, protocol),
        waited_s=grant.waited_s + cpu.waited_s,
        preparation=preparation,
        artefact=artefact,
        attempts=len(tries),
        reference_ms=best.reference_ms,
        others=best.others,
        before=best.before,
        after=best.after,
    )


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
    first = reference_ms(reference, protocol)
    before = watch.state()
    times = time_until_sure(run, block, runs, protocol)
    after = watch.state()
    last = reference_ms(reference, protocol)
    return _Attempt(times, estimate(times, protocol), runs, (first, last), watch.others(), before, after)


def _again(attempt: _Attempt, protocol: LatencyProtocol) -> bool:
    return attempt.drift > protocol.max_drift or disturbed(attempt.others, protocol)
