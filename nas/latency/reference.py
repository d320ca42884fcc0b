"""The reference network: a fixed one, whose time says how fast a device is at that moment."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import nn

from nas.latency.at_work import at_work, cpu_too
from nas.latency.estimate import estimate
from nas.latency.prepare import layout, normal_images
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.runtimes import prepare
from nas.latency.runtimes.base import Run
from nas.latency.timing import block_timer, time_until_sure, warm_up

SLOWED = 0.1
"""Share by which it may take longer than at another time on a device that counts as equally fast."""
_SECONDS = 0.1
Took = tuple[float, float]
"""What it took, in ms, at two moments: before and after a measurement, or one after the other."""


@functools.cache
def reference_network(device: str, threads: int) -> Run:
    """Three convolutions, about a million MACs each, in float32."""
    protocol = replace(default_protocol(device), threads=threads)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # of the CPU alone; torch.manual_seed would seed every GPU
        layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 128, 1)]
    network = nn.Sequential(*layers).eval().requires_grad_(False).to(device)
    images = normal_images(protocol, (3, 64, 64))
    return prepare(network.to(memory_format=layout(protocol)), images, protocol).run


def reference_ms(reference: Run, protocol: LatencyProtocol) -> float:
    """What it takes now, in ms; the device is held by whoever asks."""
    seconds = min(_SECONDS, protocol.max_s)  # what is measured for a moment is not held up by what it is held against
    quick = replace(protocol, warmup_s=0.2 * seconds, max_s=seconds, min_blocks=10, max_spread=0.0, cold=False)
    block = block_timer(quick)
    return estimate(time_until_sure(reference, block, warm_up(reference, block, quick), quick), quick).ms


def reference_now(protocol: LatencyProtocol) -> Took:
    """What it takes now, in ms; holds the exclusive lease of the protocol's device for a third of a second."""
    with at_work(protocol, None) as (device, lease), lease.exclusive(), cpu_too(protocol):
        reference = reference_network(str(device), protocol.threads)
        reference_ms(reference, protocol)  # clocks rise, caches fill
        return reference_ms(reference, protocol), reference_ms(reference, protocol)


def agree(one: Took, other: Took) -> bool:
    """Whether a device was equally fast at two times, as far as what the network took then can tell."""
    return min(one) <= max(other) * (1 + SLOWED) and min(other) <= max(one) * (1 + SLOWED)
