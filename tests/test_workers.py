"""Workers that hang, die, or are too slow, on real Ray: no candidate is lost for it, and none holds up the search.

What happens in their processes is made up here, so that it happens when it should and takes no time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from answers import answer, snapshot
from conftest import RunFactory

from nas.common.errors import LostError, WrongNodeError
from nas.data.sets import load_data
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Resources, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.ray.artifacts import ArtifactStore, keeper_of
from nas.search.ray.cluster import start_ray
from nas.search.ray.tune import run_candidates
from nas.search.ray.worker import Evaluator, Worker
from nas.spaces.files import load_space

DIGITS = load_space("digits")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> None:
    start_ray(None, gpus=False)


def first_time(what: str) -> bool:
    """Whether nobody asked this before, in any process of this run of the tests."""
    try:
        (Path(os.environ["NAS_LEASE_DIR"]) / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def searched(run: RunDirectory, start: Evaluator) -> list[TrialRecord]:
    broker = Broker(run)
    with keeper_of(run) as keeper:
        run_candidates(broker, lambda: start, keeper=keeper)
    assert broker.finished
    done = [record.digest for record in broker.records if record.outcome is Outcome.DONE]
    assert len(set(done)) == len(done)
    assert broker.records == run.records()
    return broker.records


def settings(trials: int, timeout_s: float | None = None) -> SearchSettings:
    return SearchSettings(
        space=DIGITS,
        data="digits",
        sampler="random",
        trials=trials,
        trial_timeout_s=timeout_s,
        resources=Resources(max_concurrent=2),
    )


def late(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """Trial 1 hangs in a step and never comes back, trial 2 takes its time from step to step."""
    yield snapshot(candidate)
    if candidate.number == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        while True:
            time.sleep(60)
    for _ in range(30 if candidate.number == 2 else 0):
        time.sleep(0.2)
        yield snapshot(candidate)
    return answer(candidate)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_takes_too_long_has_failed_and_what_hangs_is_killed(make_run: RunFactory) -> None:
    records = searched(make_run(settings(4, timeout_s=3.0)), late)
    failed = {record.number: record for record in records if record.outcome is Outcome.FAILED}
    assert set(failed) == {1, 2}
    hung, slow = (failed[number].evaluation for number in (1, 2))
    assert hung.reason == "it took longer than the trial timeout of 3.0 s, and hung: its process was killed"
    assert slow.reason == "it took longer than the trial timeout of 3.0 s"
    assert slow.history  # what was known by then is kept
    assert sum(record.outcome is Outcome.DONE for record in records) == 4


def dying(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """Trial 1's process is killed, trial 2's says that its device is gone."""
    yield snapshot(candidate)
    if candidate.number == 1 and first_time("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if candidate.number == 2:
        raise LostError("the device no longer answers")
    return replace(answer(candidate), worker=str(os.getpid()))


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_a_dead_process_worked_on_is_tried_again_in_another(make_run: RunFactory) -> None:
    records = searched(make_run(settings(5)), dying)
    lost = {record.number: record for record in records if record.outcome is Outcome.LOST}
    assert {1, 2} <= set(lost)
    assert lost[2].evaluation.reason == "the device no longer answers"
    done = {record.digest for record in records if record.outcome is Outcome.DONE}
    assert len(done) == 5
    assert {lost[1].digest, lost[2].digest} <= done


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_worker_knows_a_wrong_node() -> None:
    data = load_data("digits", channels=1)
    worker = Worker(settings(1), data, ArtifactStore(None), {}, models={"cpu": "a 486"})
    with pytest.raises(WrongNodeError, match=r"\(Ray node \w+\) has .*, and the latencies of this search are of a 486"):
        worker.start()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_weights_and_whereabouts_come_back_to_the_driver(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    with keeper_of(run) as keeper:
        keeper.save_weights("0" * 16, b"weights")
        assert run.weights_path("0" * 16).read_bytes() == b"weights"
        keeper.begin(3, "here (Ray node 1234)")
        assert keeper.places() == {3: "here (Ray node 1234)"}
        run.weights_path("x").parent.rename(tmp_path / "elsewhere")
        with pytest.raises(LostError, match=r"its weights could not be kept: .*No such file"):
            keeper.save_weights("1" * 16, b"weights")
    deadline = time.monotonic() + 30
    while keeper.places():  # its process takes a moment to die
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert isinstance(keeper, ArtifactStore)


@pytest.mark.ray
def test_a_signal_to_the_process_group_of_a_driver_reaches_none_of_rays_processes() -> None:
    @ray.remote(num_cpus=0)
    class Asked:
        def groups(self) -> list[int]:
            return [os.getpgid(pid) for pid in (os.getpid(), os.getppid())]  # its own and the raylet's

    actor: Any = Asked.remote()  # type: ignore[attr-defined]
    groups = ray.get(actor.groups.remote())
    ray.kill(actor)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert children
    assert os.getpgid(0) not in {*groups, *(os.getpgid(int(child)) for child in children)}
