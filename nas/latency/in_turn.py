"""Latencies of several networks that can be compared: measured in turn, round after round, under one lease."""

from __future__ import annotations

import contextlib
import functools
import random
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from nas.common.errors import CandidateError, InputError
from nas.latency.at_work import (
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
from nas.latency.estimate import Times, estimate
from nas.latency.lease import DeviceLease
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import DeviceState, Latency
from nas.latency.runtimes import candidates_errors, check_protocol
from nas.latency.runtimes.base import Session, TimeBlock
from nas.latency.timing import block_timer, time_blocks, warm_up

ROUNDS = 20
"""Rounds of networks that are measured in turn."""
_HELD_S = 20.0
"""Seconds after which networks that are measured in turn let others have the device: trainers wait a minute for it."""
_FEWEST, _MOST = 5, 15
"""Blocks of one turn."""


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
        check_given(module, shape)
    check_protocol(protocol)
    if not modules:
        return ()
    with contextlib.ExitStack() as held, at_work(protocol, lease) as (device, lease):
        networks = []
        for number, (module, shape) in enumerate(zip(modules, input_shapes, strict=True), 1):
            try:
                networks.append(prepared_on(ready_of(module, protocol, held), shape, protocol, lease))
            except CandidateError as error:
                raise CandidateError(f"network {number} of {len(modules)}: {error}") from error
        preparations = [preparation for _, preparation in networks]
        artefacts = [artefact_of(ready) for ready, _ in networks]
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
            latency_of(
                times,
                value,
                protocol,
                shape,
                runs_per_block=runs,
                noisy=value.width >= protocol.noisy_width,
                contended=found.contended or disturbed(found.others, protocol),
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
    """All rounds, each in an order of its own, with others let in between every `_HELD_S`."""
    rng = random.Random(0)
    left = deque(index for _ in range(rounds) for index in rng.sample(range(len(networks)), len(networks)))
    found = _Turns([[] for _ in networks], [])
    count = 0
    while left:
        with lease.exclusive() as grant, cpu_too(protocol) as cpu, candidates_errors(protocol):
            start = time.perf_counter()
            watch = watch_of(device)
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
