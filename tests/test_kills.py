"""What strikes a search while it runs: drivers and workers killed, a full disk, no memory. Nothing finished is lost.

The rounds are those of benchmarks/kill_rounds.py, which runs many more of them.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import kill_rounds
import pytest
import run_checks
from answers import answer, snapshot
from conftest import RunFactory
from test_workers import first_time, settings

from nas.common.errors import InputError
from nas.runs.record import Evaluation, Outcome
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.ray.cluster import start_ray
from nas.search.ray.tune import run_candidates


@pytest.fixture(autouse=True)
def _ray_of_each_test(own_ray: None) -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.mark.subprocess
@pytest.mark.slow
def test_killed_drivers_and_workers_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    *rounds, end = kill_rounds.kill_drivers(tmp_path, 2, random.Random(1))
    assert len(rounds) == 2
    assert end["problems"] == []
    assert end["done"] == end["budget"]
    assert end["left_over"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=30, check=True)


def quick(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    yield snapshot(candidate)
    return answer(candidate)


def whole_lines(run: RunDirectory) -> bytes:
    content = (run.path / "trials.jsonl").read_bytes()
    return content[: content.rfind(b"\n") + 1]


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_full_disk_ends_the_search_with_one_sentence_and_with_space_again_it_goes_on(
    make_run: RunFactory, small_disk: Path
) -> None:
    run = make_run(settings(trials=30), name=str(small_disk / "run"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 860_000)
    start_ray(None, gpus=False)
    with pytest.raises(
        InputError, match=r"(trials\.jsonl|study\.journal): cannot be written: No space left on device$"
    ):
        run_candidates(Broker(run), lambda: quick)
    before = whole_lines(run)
    recorded = open_run(run.path).records()
    assert 3 < len(recorded) < 30
    assert len(recorded) == before.count(b"\n")

    with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
        Broker(open_run(run.path))  # still no room for the loss of what ran
    ballast.unlink()
    broker = Broker(open_run(run.path))
    run_candidates(broker, lambda: quick)
    assert broker.finished
    assert whole_lines(run).startswith(before)
    done = [record.digest for record in open_run(run.path).records() if record.outcome is Outcome.DONE]
    assert len(done) == len(set(done)) == 30
    assert run_checks.running_in(run.path) == frozenset()


def hungry(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """Trial 2 takes six gigabytes the first time, and keeps them until it is killed."""
    yield snapshot(candidate)
    if candidate.number == 2 and first_time("hungry"):
        kept = []
        for _ in range(60):
            kept.append(bytearray(b"x" * 100_000_000))
            time.sleep(0.03)
        time.sleep(60)
    return answer(candidate)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_worker_killed_for_its_memory_is_replaced_and_its_candidate_tried_again(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    total, free = figures["MemTotal"], figures["MemAvailable"]
    if free < 8_000_000:
        pytest.skip("needs 8 GB of free memory")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setenv(
        "RAY_memory_usage_threshold", f"{(total - free + 4_000_000) / total:.4f}"
    )  # what others may take meanwhile
    start_ray(None, gpus=False)
    run = make_run(settings(trials=6))
    broker = Broker(run)
    run_candidates(broker, lambda: hungry)
    lost = [record for record in broker.records if record.outcome is Outcome.LOST]
    assert lost
    assert any(record.number == 2 for record in lost)
    assert all("memory" in (record.evaluation.reason or "") for record in lost)
    done = Counter(record.digest for record in broker.records if record.outcome is Outcome.DONE)
    assert len(done) == done.total() == 6
    assert {record.digest for record in lost} <= set(done)
