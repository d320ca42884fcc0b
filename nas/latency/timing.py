"""Blocks of runs, timed: by events on CUDA, by the wall clock and the CPU's own time on a CPU.

The CPU's own time is that of the thread that runs the network, which other processes cannot add their turns to. It is a
latency where that thread does all the work: not with several threads, and not of a network that waits by itself, as the
kernel's count of voluntary waits shows.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence

import numpy as np
import torch

from nas.latency.estimate import Times, estimate
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import BlockTime, Run, TimeBlock

_LONGEST, _FEWEST_BLOCKS = 10, 5
"""A network so slow that `min_blocks` take this many times `max_s` gets fewer, and is marked noisy: trainers that wait
for the device lose patience after a minute."""
_FLUSH_BYTES = 256 * 2**20
"""More than any last-level cache of today's GPUs and CPUs, but for a few server CPUs."""
_WAITS = 0.5
"""Voluntary waits a run from which on a network waits by itself."""


def block_timer(protocol: LatencyProtocol, own: TimeBlock | None = None) -> TimeBlock:
    """What times a block, by the runtime's own means where it has them; after emptying the caches where the protocol says cold."""
    time_block = own or (_cuda_block if torch.device(protocol.device).type == "cuda" else _cpu_block)
    if not protocol.cold:
        return time_block
    filler = torch.zeros(_FLUSH_BYTES // 4, device=protocol.device)

    def cold_block(run: Run, runs: int) -> BlockTime:
        filler.add_(1.0)
        return time_block(run, runs)

    return cold_block


def warm_up(run: Run, block: TimeBlock, protocol: LatencyProtocol) -> int:
    """Run until the warm-up is over; how many runs a block needs to take `block_ms`."""
    runs, fastest_ms = 1, math.inf
    end = time.perf_counter() + protocol.warmup_s
    while True:
        fastest_ms = min(fastest_ms, max(block(run, runs)[0] / runs, 1e-6))  # what was disturbed is no measure
        needed = 1 if protocol.cold else math.ceil(protocol.block_ms / fastest_ms)
        if needed > runs:
            runs = min(10 * runs, needed)  # nor are the first blocks of all
        elif time.perf_counter() > end:
            return runs


def time_until_sure(run: Run, block: TimeBlock, runs: int, protocol: LatencyProtocol) -> Times:
    """Blocks of so many runs until the value is as sure as the protocol asks; of a very slow network fewer than it asks."""
    blocks: list[BlockTime] = []
    waits = _waits()
    start = time.perf_counter()
    end, patience_ends = start + protocol.max_s, start + _LONGEST * protocol.max_s
    look = protocol.min_blocks
    while True:
        blocks.append(block(run, runs))
        now = time.perf_counter()
        if len(blocks) < protocol.min_blocks and not (len(blocks) >= _FEWEST_BLOCKS and now > patience_ends):
            continue
        if now > end:
            return _times(blocks, runs, protocol, _waits() - waits)
        if len(blocks) >= look:
            look = 2 * len(blocks)  # now and then: looking takes time, and often enough anything looks sure once
            times = _times(blocks, runs, protocol, _waits() - waits)
            if estimate(times, protocol).width < protocol.max_spread:
                return times


def time_blocks(run: Run, block: TimeBlock, runs: int, count: int, protocol: LatencyProtocol) -> Times:
    """So many blocks of so many runs."""
    waits = _waits()
    blocks = [block(run, runs) for _ in range(count)]
    return _times(blocks, runs, protocol, _waits() - waits)


def _times(blocks: Sequence[BlockTime], runs: int, protocol: LatencyProtocol, waits: int) -> Times:
    wall_ms, process_ms = np.array(blocks).T / runs
    alone = protocol.device == "cpu" and protocol.threads == 1 and waits < _WAITS * runs * len(blocks)
    alone = alone and not np.isnan(process_ms).any()
    return Times(wall_ms, process_ms if alone else None)


def _waits() -> int:
    """How often this thread gave the CPU away by itself."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _cpu_block(run: Run, runs: int) -> BlockTime:
    start, own = time.perf_counter(), time.thread_time()
    for _ in range(runs):
        run()
    own = time.thread_time() - own
    return (time.perf_counter() - start) * 1e3, own * 1e3


def _cuda_block(run: Run, runs: int) -> BlockTime:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(runs):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end), float("nan")
