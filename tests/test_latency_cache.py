"""The latency cache: what a latency depends on, many writers, a writer that is killed, and trouble with the folder."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import socket
import time
from dataclasses import asdict, fields, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch
from mobile import mobile_space
from torch import nn

import nas.latency.at_work
import nas.latency.cache
import nas.latency.reference
import nas.search.latency
from nas.latency.cache import Key, LatencyCache, cache_folder
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.search.latency import candidate_latency

SPACE = mobile_space("digits")
QUICK = LatencyProtocol(warmup_s=0.01, block_ms=0.1, max_s=0.02, min_blocks=5, attempts=1)
KEY = Key("0" * 16, 10, QUICK, "a CPU", 2, (("kernel", "6"), ("torch", "2")), (("governor", "powersave"),))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, on a machine of which nobody says that others use it, nor that they leave it alone."""
    monkeypatch.setenv("NAS_LATENCY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nas.latency.cache, "is_quiet", lambda protocol: False)
    monkeypatch.setitem(nas.latency.at_work.OTHERS_LIMIT, "cpu", 1.0)
    return tmp_path / "cache"


def latency(ms: float, key: Key = KEY, measured: float = 1.0, **changes: Any) -> Latency:
    """A latency as it would be measured under the key."""
    quiet = Latency(
        ms, ms, ms, 0.01, 30, 4, False, False, 0.5, True, key.device_name, (1, 1, 8, 8), key.protocol,
        software=dict(key.software), conditions=dict(key.conditions) if key.conditions is not None else None, measured=measured,
        reference_ms=(1.0, 1.0),
    )  # fmt: skip
    return replace(quiet, **changes)


def test_the_second_time_is_looked_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = candidate_latency(SPACE.smallest, 10, QUICK)
    assert not first.cached
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(nas.search.latency, "measure", lambda *_: pytest.fail("measured again"))
    second = candidate_latency(SPACE.smallest, 10, QUICK)
    assert second == replace(first, cached=True, waited_s=0.0)
    assert second.measured == first.measured > 0


def other_values() -> dict[str, LatencyProtocol]:
    """The protocol with each of its fields changed in turn."""
    values: dict[str, Any] = {"device": "cuda", "mode": "compile", "dtype": "bfloat16"}
    values["estimator"] = "lower quartile of wall time"
    for field in fields(LatencyProtocol):
        old = getattr(QUICK, field.name)
        if field.name not in values:
            values[field.name] = not old if isinstance(old, bool) else old + 1
    return {name: replace(QUICK, **{name: value}) for name, value in values.items()}


OTHER_KEYS = {f"protocol.{name}": replace(KEY, protocol=protocol) for name, protocol in other_values().items()} | {
    "digest": replace(KEY, digest="1" * 16),
    "classes": replace(KEY, num_classes=11),
    "device": replace(KEY, device_name="NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
    "cores": replace(KEY, cores=3),
    "torch": replace(KEY, software=(("kernel", "6"), ("torch", "3"))),
    "conditions": replace(KEY, conditions=(("ONEDNN_MAX_CPU_ISA", "AVX2"), ("governor", "powersave"))),
    "no conditions": replace(KEY, conditions=()),
    "conditions of an older version": replace(KEY, conditions=None),
    "driver": replace(KEY, software=(("driver", "1"), ("kernel", "6"), ("torch", "2"))),
}


@pytest.mark.parametrize("name", OTHER_KEYS)
def test_whatever_changes_the_number_is_another_key(folder: Path, name: str) -> None:
    key = OTHER_KEYS[name]
    LatencyCache(folder).add(KEY, latency(1.0))
    assert LatencyCache(folder).find(KEY) == latency(1.0)
    assert LatencyCache(folder).find(key) is None
    LatencyCache(folder).add(key, latency(2.0, key))
    found = LatencyCache(folder).find(key)
    assert found is not None
    assert found.median_ms == 2.0
    assert LatencyCache(folder).find(KEY) == latency(1.0)


@pytest.mark.slow
def test_a_candidate_is_kept_under_what_it_was_measured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.latency.reference, "SLOWED", 1000.0)  # this machine may change its speed meanwhile

    def measured_again(*arguments: Any) -> bool:
        return not candidate_latency(*arguments).cached

    assert measured_again(SPACE.smallest, 10, QUICK)
    assert not measured_again(SPACE.smallest, 10, QUICK)
    assert measured_again(SPACE.smallest, 11, QUICK)
    assert measured_again(SPACE.backbone, 10, QUICK)
    assert measured_again(SPACE.smallest, 10, replace(QUICK, threads=2))
    assert not measured_again(replace(SPACE.smallest, layers=SPACE.smallest.canonical.layers), 10, QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(nas.latency.cache, "device_name", lambda device: "another CPU")
        patch.setattr(nas.latency.at_work, "device_name", lambda device: "another CPU")
        assert measured_again(SPACE.smallest, 10, QUICK)
        assert not measured_again(SPACE.smallest, 10, QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4})
        assert measured_again(SPACE.smallest, 10, QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99.0")
        assert measured_again(SPACE.smallest, 10, QUICK)
        assert not measured_again(SPACE.smallest, 10, QUICK)
    monkeypatch.setattr(nas.latency.cache, "SCHEMA", 2)
    nas.latency.cache._cache.cache_clear()
    assert measured_again(SPACE.smallest, 10, QUICK)


def test_two_equal_gpus_share_a_latency(folder: Path) -> None:
    on_second = replace(QUICK, device="cuda:1")
    key = replace(KEY, protocol=replace(QUICK, device="cuda"), cores=0, device_name="NVIDIA H100")
    LatencyCache(folder).add(key, latency(1.0, replace(key, protocol=on_second)))
    assert LatencyCache(folder).find(key) is not None


def add_fifty(folder: Path, name: str, start: Barrier) -> None:
    cache = LatencyCache(folder)
    start.wait()
    for number in range(50):
        key = replace(KEY, digest=f"{name}-{number}")
        cache.add(key, latency(1.0 + number, key))


@pytest.mark.subprocess
def test_writers_at_once_lose_no_value_and_tear_no_line(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    names = ("a", "b", "c", "d")
    start = fork.Barrier(len(names))
    writers = [fork.Process(target=add_fifty, args=(folder, name, start)) for name in names]
    for writer in writers:
        writer.start()
    reader = LatencyCache(folder)
    while any(writer.is_alive() for writer in writers):
        reader.find(KEY)  # reads half-written files too
        time.sleep(0.001)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * len(names)
    (file,) = folder.glob(f"{socket.gethostname()}*.jsonl")
    lines = file.read_bytes().splitlines()
    assert len([json.loads(line) for line in lines]) == 200
    for cache in (reader, LatencyCache(folder)):
        for name in names:
            for number in range(50):
                found = cache.find(replace(KEY, digest=f"{name}-{number}"))
                assert found is not None
                assert found.median_ms == 1.0 + number


def test_a_writer_that_is_killed_costs_its_line_alone(folder: Path) -> None:
    reader = LatencyCache(folder)
    keys = [replace(KEY, digest=str(number)) for number in range(4)]
    for key in keys[:2]:
        reader.add(key, latency(1.0, key))
    file = next(folder.iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:-30])  # the second line was not written to its end
    assert reader.find(keys[0]) is not None
    assert reader.find(keys[1]) is None
    reader.add(keys[2], latency(3.0, keys[2]))
    for cache in (reader, LatencyCache(folder)):
        assert [cache.find(key) is not None for key in keys] == [True, False, True, False]


def test_lines_of_others_and_of_newer_versions_are_skipped(folder: Path) -> None:
    cache = LatencyCache(folder)
    cache.add(KEY, latency(1.0))
    file = next(folder.iterdir())
    newer = json.loads(file.read_bytes()) | {"schema": 99}
    newer["latency"]["median_ms"] = 9.0
    newer["latency"]["measured"] = 9.0
    strange = b'\n[1]\nnull\n\xff\xfe\n{"latency": {}}\n'
    (folder / "other-host.jsonl").write_bytes(json.dumps(newer).encode() + strange)
    other = replace(KEY, digest="1" * 16)
    cache.add(other, latency(2.0, other))
    for reader in (cache, LatencyCache(folder)):
        assert reader.find(KEY) == latency(1.0)
        assert reader.find(other) == latency(2.0, other)


def test_the_newest_wins_whichever_file_it_is_in(folder: Path) -> None:
    cache = LatencyCache(folder)
    cache.add(KEY, latency(1.0, measured=5.0))
    file = next(folder.iterdir())
    (folder / "zzz.jsonl").write_bytes(file.read_bytes().replace(b'"measured":5.0', b'"measured":4.0'))
    cache.add(KEY, latency(2.0, measured=6.0))
    for reader in (cache, LatencyCache(folder)):
        found = reader.find(KEY)
        assert found is not None
        assert (found.median_ms, found.measured) == (2.0, 6.0)


def noisy(half: float, measured: float = 1.0, ms: float = 1.0) -> Latency:
    return latency(ms, measured=measured, noisy=True, interval_ms=(ms - half, ms + half))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_of_noisy_values_the_surest_is_found_and_none_once_there_is_a_calm_one(
    folder: Path, order: tuple[int, ...]
) -> None:
    values = [noisy(0.2, 1.0), noisy(0.1, 2.0), noisy(0.3, 3.0), latency(1.0, measured=4.0, noisy=True)]
    cache = LatencyCache(folder)
    for number in order:
        cache.add(KEY, values[number])
    for reader in (cache, LatencyCache(folder)):
        assert reader.find(KEY) == values[1]
    calm = latency(5.0, measured=0.5, interval_ms=(4.9, 5.1))
    cache.add(KEY, calm)
    cache.add(KEY, values[1])
    for reader in (cache, LatencyCache(folder)):
        assert reader.find(KEY) == calm


def test_what_was_measured_while_the_whole_device_was_slow_is_noisy_once_that_is_known(folder: Path) -> None:
    calm, other = replace(KEY, digest="1" * 16), replace(KEY, digest="2" * 16, protocol=replace(QUICK, threads=2))
    slow = latency(3.0, interval_ms=(2.97, 3.03), reference_ms=(1.4, 1.5))
    cache = LatencyCache(folder)
    cache.add(KEY, slow)
    cache.add(other, latency(1.0, other, interval_ms=(0.99, 1.01), reference_ms=(0.1, 0.1)))  # of two threads
    assert cache.find(KEY) == slow  # for all that is known
    cache.add(calm, latency(2.0, calm, interval_ms=(1.99, 2.01), reference_ms=(1.0, 0.99)))
    for reader in (cache, LatencyCache(folder)):
        found = reader.find(KEY)
        assert found is not None
        assert found.noisy
        assert found.interval_ms == pytest.approx((2.97 / 1.5, 3.03))
        assert [reader.find(key) and reader.find(key).noisy for key in (calm, other)] == [False, False]  # type: ignore[union-attr]
    cache.add(KEY, latency(2.1, measured=0.5, interval_ms=(2.09, 2.11), reference_ms=(1.02, 1.0)))
    found = cache.find(KEY)  # older, and measured when the device was fast
    assert found is not None
    assert (found.ms, found.noisy) == (2.1, False)


def wobbly(monkeypatch: pytest.MonkeyPatch, *measured: Latency) -> list[Latency]:
    """What measuring will give, in this order; what is left of it."""
    left = list(measured)
    monkeypatch.setattr(nas.search.latency, "measure", lambda *_: left.pop(0))
    monkeypatch.setattr(nas.latency.cache, "_key", lambda *_: KEY)
    reference_takes(monkeypatch, 1.0)
    return left


def reference_takes(monkeypatch: pytest.MonkeyPatch, ms: float) -> list[LatencyProtocol]:
    """As in a process that has measured nothing yet; what the reference network was asked for."""
    asked: list[LatencyProtocol] = []
    monkeypatch.setattr(nas.latency.cache, "_speeds", nas.latency.cache._Speeds())

    def now(protocol: LatencyProtocol) -> tuple[float, float]:
        asked.append(protocol)
        return ms, 1.05 * ms

    monkeypatch.setattr(nas.latency.cache, "reference_now", now)
    return asked


def test_a_noisy_value_is_measured_again_once_the_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    left = wobbly(monkeypatch, noisy(0.2, 1.0, ms=1.5), latency(1.0, measured=2.0, interval_ms=(0.99, 1.01)))
    assert candidate_latency(SPACE.smallest, 10, QUICK).ms == 1.5
    looked_up = candidate_latency(SPACE.smallest, 10, QUICK)  # others are still there
    assert (looked_up.ms, looked_up.cached, looked_up.noisy) == (1.5, True, True)
    monkeypatch.setattr(nas.latency.cache, "is_quiet", lambda protocol: True)
    again = candidate_latency(SPACE.smallest, 10, QUICK)
    assert (again.ms, again.cached) == (1.0, False)
    assert not left
    assert candidate_latency(SPACE.smallest, 10, QUICK) == replace(
        again, cached=True, waited_s=0.0
    )  # not noisy: it stays


@pytest.mark.parametrize("worse", [noisy(1.5, 2.0, ms=3.0), latency(3.0, measured=2.0, contended=True)])
def test_a_second_measurement_that_is_no_better_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, worse: Latency
) -> None:
    wobbly(monkeypatch, noisy(0.2, 1.0), worse)
    monkeypatch.setattr(nas.latency.cache, "is_quiet", lambda protocol: True)
    first = candidate_latency(SPACE.smallest, 10, QUICK)
    second = candidate_latency(SPACE.smallest, 10, QUICK)
    assert second == replace(first, cached=True, waited_s=0.0)


@pytest.mark.parametrize(
    ("then", "now", "counts"),
    [(1.0, 1.0, True), (1.0, 1.09, True), (1.0, 1.4, False), (1.4, 1.0, False), (None, 1.0, False)],
)
def test_a_hit_counts_only_where_the_reference_network_takes_what_it_took_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch, then: float | None, now: float, counts: bool
) -> None:
    took = None if then is None else (then, then)
    LatencyCache(folder).add(KEY, latency(1.5, reference_ms=took))
    left = wobbly(monkeypatch, latency(2.0, measured=2.0, reference_ms=(now, now)))
    asked = reference_takes(monkeypatch, now)
    found = candidate_latency(SPACE.smallest, 10, QUICK)
    assert (found.ms, found.cached, bool(found.doubted)) == ((1.5, True, False) if counts else (2.0, False, True))
    assert bool(left) is counts
    if not counts:
        told = "was not timed" if then is None else f"took {then:.3f} ms"
        assert f"takes {now:.3f}-{1.05 * now:.3f} ms now and {told} when" in found.doubted
    again = candidate_latency(SPACE.smallest, 10, QUICK)  # what was measured now counts from now on
    assert (again.ms, again.cached, again.doubted) == (1.5 if counts else 2.0, True, "")
    assert len(asked) == 1  # once in a process, however many hits


def test_what_a_process_measures_itself_tells_how_fast_its_device_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(KEY, digest="1" * 16)
    LatencyCache(folder).add(other, latency(1.5, other, reference_ms=(1.3, 1.3)))
    wobbly(monkeypatch, latency(2.0, measured=2.0), latency(2.1, measured=3.0))
    asked = reference_takes(monkeypatch, 1.3)
    assert not candidate_latency(SPACE.smallest, 10, QUICK).doubted  # nothing was known of it
    monkeypatch.setattr(nas.latency.cache, "_key", lambda *_: other)
    assert "takes 1.000 ms now and took 1.300 ms" in candidate_latency(SPACE.backbone, 10, QUICK).doubted
    assert not asked
    now = time.monotonic() + nas.latency.cache.STANDS_S + 60
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert candidate_latency(SPACE.backbone, 10, QUICK).ms == 1.5  # the device has changed again since
    assert asked == [QUICK]


@pytest.mark.parametrize(("slack", "counts"), [(1000.0, True), (-0.99, False)])
def test_a_process_that_measured_nothing_asks_the_reference_network_itself(
    monkeypatch: pytest.MonkeyPatch, slack: float, counts: bool
) -> None:
    first = candidate_latency(SPACE.smallest, 10, QUICK)
    monkeypatch.setattr(nas.latency.cache, "_speeds", nas.latency.cache._Speeds())
    monkeypatch.setattr(nas.latency.reference, "SLOWED", slack)  # this machine may change its speed meanwhile
    second = candidate_latency(SPACE.smallest, 10, QUICK)
    assert (second.cached, second.measured == first.measured, bool(second.doubted)) == (counts, counts, not counts)


@pytest.mark.parametrize("flaw", [{"contended": True}, {"p90_ms": math.inf}, {"median_ms": math.nan}])
def test_contended_and_not_finite_values_never_enter(folder: Path, flaw: dict[str, Any]) -> None:
    cache = LatencyCache(folder)
    cache.add(KEY, latency(1.0, **flaw))
    assert cache.find(KEY) is None
    assert not folder.exists()
    cache.add(KEY, latency(1.0, noisy=True))  # noisy ones may, as what they are
    found = cache.find(KEY)
    assert found is not None
    assert found.noisy
    written = next(folder.iterdir())
    written.write_text(json.dumps(json.loads(written.read_text()) | {"latency": asdict(latency(1.0, **flaw))}) + "\n")
    assert LatencyCache(folder).find(KEY) is None  # nor are they believed where somebody wrote them


def test_a_contended_measurement_is_repeated_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(nas.latency.at_work.OTHERS_LIMIT, "cpu", -1.0)
        assert candidate_latency(SPACE.smallest, 10, QUICK).contended
    again = candidate_latency(SPACE.smallest, 10, QUICK)
    assert not again.cached
    assert candidate_latency(SPACE.smallest, 10, QUICK).cached


def test_reading_on_takes_only_what_was_appended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = LatencyCache(folder), LatencyCache(folder)
    taken: list[bytes] = []
    original = LatencyCache._take

    def watched(self: LatencyCache, line: bytes) -> None:
        taken.append(line)
        original(self, line)

    monkeypatch.setattr(LatencyCache, "_take", watched)
    for number in range(5):
        key = replace(KEY, digest=str(number))
        writer.add(key, latency(1.0, key))
        for _ in range(3):
            assert reader.find(key) is not None
    assert len(taken) == 5


@pytest.mark.parametrize("where", ["/proc/nas-latency", "below a file"])
def test_a_folder_that_cannot_be_written_is_one_warning(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAS_LATENCY_CACHE", str(tmp_path / "file" / "cache") if where == "below a file" else where)
    for _ in range(2):
        assert not candidate_latency(SPACE.smallest, 10, QUICK).cached
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text


def test_a_file_that_cannot_be_read_is_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "folder.jsonl" / "something").mkdir(parents=True)
    cache = LatencyCache(folder)
    cache.add(KEY, latency(1.0))
    assert cache.find(KEY) == cache.find(KEY) == latency(1.0)
    assert len(caplog.records) == 1
    assert "cannot be read" in caplog.text


def test_it_can_be_switched_off_and_lies_in_the_users_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_LATENCY_CACHE", "off")
    network = nn.Sequential(nn.Conv2d(1, 2, 1))
    assert not candidate_latency(SPACE.smallest, 10, QUICK, network).cached
    assert not candidate_latency(SPACE.smallest, 10, QUICK, network).cached
    assert not folder.exists()
    monkeypatch.delenv("NAS_LATENCY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/nas/latency")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/nas/latency")
