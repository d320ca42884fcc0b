"""Which latencies differ, by made-up rounds and intervals; and real networks measured in turn, beside busy processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import COMPILE
from torch import nn

import nas.latency.in_turn as in_turn_module
from nas.common.errors import CandidateError, InputError
from nas.latency.compare import contention, differ, groups
from nas.latency.in_turn import measure_in_turn
from nas.latency.lease import DeviceLease, Grant
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.spaces.files import load_space

SPACE = load_space("digits")
QUICK = replace(default_protocol("cpu"), warmup_s=0.02, max_s=0.1, min_blocks=5)


def alone(ms: float, half: float | None = None, **changes: Any) -> Latency:
    """A latency of one measurement, with so much below and above it."""
    interval = None if half is None else (ms - half, ms + half)
    latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "a CPU", (1, 1, 8, 8), LatencyProtocol())
    return replace(latency, interval_ms=interval, **changes)


def in_turn(rounds_ms: list[float], session: str = "s") -> Latency:
    ms = float(np.median(rounds_ms))
    return alone(ms, max(rounds_ms) - min(rounds_ms), rounds_ms=tuple(rounds_ms), session=session)


SWINGS = np.random.default_rng(0).uniform(1.0, 2.0, 20)
"""The device's speed in each round."""
JITTER = [np.random.default_rng(seed).normal(1.0, 0.01, 20) for seed in (1, 2)]


def test_rounds_tell_a_small_difference_that_the_devices_swings_hide_from_intervals() -> None:
    slow, fast = in_turn([*(1.03 * SWINGS * JITTER[0])]), in_turn([*(SWINGS * JITTER[1])])
    assert differ(slow, fast) is True
    assert differ(fast, slow) is True
    apart = replace(fast, session="another")
    assert differ(slow, apart) is False  # rounds of different minutes are no pairs


def test_what_differs_by_no_more_than_its_jitter_does_not() -> None:
    assert differ(in_turn([*(SWINGS * JITTER[0])]), in_turn([*(SWINGS * JITTER[1])])) is False
    assert differ(in_turn([*SWINGS]), in_turn([*SWINGS])) is False


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (alone(1.0, 0.1), alone(1.3, 0.1), True),
        (alone(1.0, 0.2), alone(1.3, 0.2), False),
        (alone(1.0), alone(9.0, 0.1), None),
        (alone(1.0), alone(9.0), None),
        (alone(1.0, 0.1), alone(9.0, 0.1, protocol=LatencyProtocol(batch_size=8)), None),
        (alone(1.0, 0.1), alone(9.0, 0.1, p25_ms=9.0, estimator="lower quartile of wall time"), None),
        (alone(1.0, 0.1), alone(9.0, 0.1, device_name="another CPU"), None),
    ],
)
def test_measurements_of_their_own_differ_where_their_intervals_are_apart(
    a: Latency, b: Latency, expected: bool | None
) -> None:
    assert differ(a, b) is expected
    assert differ(b, a) is expected


def test_a_group_is_its_fastest_and_what_does_not_differ_from_it() -> None:
    latencies = [alone(3.0, 0.1), alone(1.1, 0.1), alone(1.0, 0.1), alone(1.25, 0.1), alone(1.3, 0.5)]
    assert groups(latencies) == [[2, 1, 4], [3], [0]]  # 1.25 differs from 1.0, though not from 1.1
    assert groups([]) == []
    assert groups([alone(2.0), alone(1.0)]) == [[1], [0]]  # whether they differ is not known


def test_the_share_of_contended_latencies() -> None:
    assert contention([]) is None
    assert contention([alone(1.0), alone(1.0, contended=True)]) == 0.5


@pytest.fixture
def busy() -> Iterator[None]:
    """Two processes that compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for other in others:
        other.kill()
        other.wait()


def stack(layers: int) -> nn.Module:
    return nn.Sequential(*[nn.Conv2d(32, 32, 3, padding=1) for _ in range(layers)])


@pytest.mark.subprocess
@pytest.mark.usefixtures("busy")
def test_networks_of_ten_times_the_cost_differ_beside_busy_processes() -> None:
    modules = [stack(20), stack(2), stack(20)]
    slow, fast, again = measure_in_turn(modules, 3 * [(32, 24, 24)], QUICK, rounds=10)
    assert differ(slow, fast)
    assert differ(again, fast)
    assert slow.ms > 3 * fast.ms
    assert groups([slow, fast, again])[0] == [1]
    for found in (slow, fast, again):
        assert len(found.rounds_ms) == 10
        assert found.interval_ms is not None
        assert found.interval_ms[0] <= found.ms <= found.interval_ms[1]
        assert found.estimator == "lower quartile of process time"
        assert found.session == slow.session != ""
    other, _ = measure_in_turn(modules[:2], 2 * [(32, 24, 24)], QUICK, rounds=2)
    assert other.session != slow.session


COMPILED = pytest.param("compile", 2, 1, marks=COMPILE.marks)
EXPORTED = pytest.param("onnxruntime", 1, 1, marks=pytest.mark.slow)


@pytest.mark.parametrize(("mode", "batch_size", "threads"), [("eager", 3, 2), EXPORTED, COMPILED])
def test_in_every_mode_as_measured_alone(mode: str, batch_size: int, threads: int) -> None:
    protocol = replace(QUICK, mode=mode, batch_size=batch_size, threads=threads, warmup_s=0.01, max_s=0.02)
    small, large = (build(architecture, 10) for architecture in (SPACE.smallest, SPACE.largest))
    before = [parameter.clone() for parameter in small.parameters()]
    found = measure_in_turn([small, large], [(1, 8, 8), SPACE.largest.input_shape], protocol, rounds=4)
    assert [latency.input_shape for latency in found] == [
        (batch_size, 1, 8, 8),
        (batch_size, *SPACE.largest.input_shape),
    ]
    assert all(latency.protocol == protocol and latency.bn_folded for latency in found)
    kind = "process" if threads == 1 else "wall"
    assert {latency.estimator for latency in found} == {f"lower quartile of {kind} time"}
    assert all(torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


def test_others_have_their_turn_while_many_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    holds: list[str] = []
    original = DeviceLease.exclusive

    def counted(self: DeviceLease) -> AbstractContextManager[Grant]:
        holds.append(self.key)
        return original(self)

    monkeypatch.setattr(DeviceLease, "exclusive", counted)
    monkeypatch.setattr(in_turn_module, "_HELD_S", 0.0)
    found = measure_in_turn([nn.Flatten(), nn.Identity()], [(1, 4, 4), (1, 4, 4)], replace(QUICK, warmup_s=0), rounds=3)
    assert holds == 6 * ["cpu"]
    assert [len(latency.rounds_ms) for latency in found] == [3, 3]
    holds.clear()
    monkeypatch.setattr(in_turn_module, "_HELD_S", 1e9)
    measure_in_turn([nn.Flatten()], [(1, 4, 4)], replace(QUICK, warmup_s=0), rounds=3)
    assert holds == ["cpu"]


def test_what_cannot_be_measured_in_turn_is_said() -> None:
    assert measure_in_turn([], []) == ()
    with pytest.raises(CandidateError, match=r"network 2 of 2: latency could not be measured in mode eager"):
        measure_in_turn([nn.Identity(), nn.Conv2d(3, 4, 3)], [(1, 8, 8), (1, 8, 8)], QUICK)
    with pytest.raises(InputError, match="rounds 1: must be at least 2"):
        measure_in_turn([nn.Identity()], [(1, 8, 8)], QUICK, rounds=1)
    with pytest.raises(InputError, match="channels, height and width"):
        measure_in_turn([nn.Identity()], [(8, 8)], QUICK)  # type: ignore[list-item]
