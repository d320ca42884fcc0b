"""The value of a latency and its interval, from made-up blocks; and when timing ends, by a made-up clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.latency.estimate import Times, estimate
from nas.latency.protocol import Estimator, LatencyProtocol
from nas.latency.runtimes.base import BlockTime
from nas.latency.timing import time_until_sure, warm_up

Floats = NDArray[np.float64]
MEDIAN = LatencyProtocol()
WALL = replace(MEDIAN, estimator="lower quartile of wall time")
PROCESS = replace(MEDIAN, estimator="lower quartile of process time")


def noise(count: int, seed: int = 0) -> Floats:
    """What noise adds to 1 ms: never less than nothing."""
    return 1 + np.random.default_rng(seed).exponential(0.1, count)


@pytest.mark.parametrize(
    ("protocol", "ms", "estimator"),
    [
        (MEDIAN, 4.0, "median wall time"),
        (WALL, 3.0, "lower quartile of wall time"),
        (PROCESS, 1.5, "lower quartile of process time"),
    ],
)
def test_each_estimator_is_what_its_name_says(protocol: LatencyProtocol, ms: float, estimator: Estimator) -> None:
    wall = np.array([3.0, 2.0, 5.0, 4.0, 90.0])
    found = estimate(Times(wall, np.array([1.5, 1.0, 9.0, 3.0, 2.0])), protocol)
    assert (found.ms, found.estimator, found.rounds_ms) == (ms, estimator, ())


def test_where_cpu_time_is_no_latency_the_value_is_of_wall_time_and_says_so() -> None:
    found = estimate(Times(np.array([1.0, 2.0, 3.0])), PROCESS)
    assert (found.ms, found.estimator) == (1.5, "lower quartile of wall time")


@pytest.mark.parametrize("protocol", [MEDIAN, WALL])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(protocol: LatencyProtocol) -> None:
    truth = 1 - 0.1 * np.log(0.5 if protocol is MEDIAN else 0.75)  # quantiles of an exponential distribution
    found = [estimate(Times(noise(300, seed)), protocol) for seed in range(200)]
    held = [low <= truth <= high for low, high in (each.interval_ms for each in found)]
    assert 0.86 <= np.mean(held) <= 0.99
    assert all(each.interval_ms[0] <= each.ms <= each.interval_ms[1] for each in found)
    assert all(each.width < 0.1 for each in found)


def test_blocks_that_are_disturbed_together_say_less_than_as_many_disturbed_one_by_one() -> None:
    in_spells = np.repeat(noise(20), 20) + 0.001 * noise(400, 1)
    mixed = np.random.default_rng(4).permutation(in_spells)
    assert estimate(Times(in_spells), MEDIAN).width > 2 * estimate(Times(mixed), MEDIAN).width


def test_blocks_that_all_take_the_same_are_sure() -> None:
    found = estimate(Times(np.full(30, 2.0)), MEDIAN)
    assert (found.ms, found.interval_ms, found.width) == (2.0, (2.0, 2.0), 0.0)


def test_of_rounds_each_has_a_value_and_the_interval_is_theirs() -> None:
    levels = [1.0, 1.0, 1.3, 1.0, 1.3, 1.3, 1.0, 1.0]
    rounds = Times.joined([Times(level * np.ones(5), 0.5 * level * np.ones(5)) for level in levels])
    found = estimate(rounds, MEDIAN)
    assert found.rounds_ms == pytest.approx(levels)
    assert found.interval_ms == pytest.approx((1.0, 1.3))  # of a few rounds, several drawn may be slow ones
    assert estimate(rounds, PROCESS).ms == 0.5
    mixed = Times.joined([Times(np.ones(5), np.ones(5)), Times(np.ones(5))])
    assert mixed.process_ms is None


class Clock:
    """A clock that blocks alone move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("nas.latency.timing.time.perf_counter", lambda: self.now)

    def block(self, ms_a_run: Callable[[], float]) -> Callable[[object, int], BlockTime]:
        def timed(run: object, runs: int) -> BlockTime:
            ms = runs * ms_a_run()
            self.now += ms / 1e3
            return ms, ms

        return timed


def test_timing_ends_once_the_value_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = time_until_sure(lambda: None, clock.block(lambda: 1.0), 1, MEDIAN)
    assert len(times.wall_ms) == MEDIAN.min_blocks


def test_timing_that_never_is_sure_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, wild = Clock(monkeypatch), np.random.default_rng(0)
    times = time_until_sure(lambda: None, clock.block(lambda: float(wild.choice([1.0, 9.0]))), 1, MEDIAN)
    assert 100 < len(times.wall_ms) < 300
    assert MEDIAN.max_s < clock.now < MEDIAN.max_s + 0.02


def test_a_network_too_slow_for_its_blocks_gets_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = time_until_sure(lambda: None, clock.block(lambda: 1000.0), 1, MEDIAN)
    assert len(times.wall_ms) == 11  # the first after ten times the time that it has


def test_disturbed_runs_do_not_make_blocks_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, taken = Clock(monkeypatch), iter([50.0, 40.0, 0.1, 30.0] + 100_000 * [0.1])
    runs = warm_up(lambda: None, clock.block(lambda: next(taken)), MEDIAN)
    assert 9 <= runs <= 11  # of 0.1 ms each, in a block of 1 ms


@pytest.mark.parametrize(("threads", "device"), [(2, "cpu"), (1, "cuda")])
def test_cpu_time_of_several_threads_or_of_a_gpu_is_no_latency(
    monkeypatch: pytest.MonkeyPatch, threads: int, device: str
) -> None:
    clock = Clock(monkeypatch)
    protocol = replace(PROCESS, threads=threads, device=device)
    times = time_until_sure(lambda: None, clock.block(lambda: 1.0), 1, protocol)
    assert times.process_ms is None
    assert time_until_sure(lambda: None, clock.block(lambda: 1.0), 1, PROCESS).process_ms is not None
