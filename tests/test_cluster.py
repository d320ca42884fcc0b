"""Searches on a Ray cluster of several nodes, real ones, that come and go and differ from each other.

What happens in workers is made up (cluster_parts.py, which is sent to the nodes), so that it takes no time; one whole search is real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_parts import (
    here,
    shared,
    start,
    start_waiting,
    start_waiting_for_a_verdict,
    start_with_a_victim,
    start_with_the_board,
    wait_for,
)
from conftest import BRIEF, RunFactory, check_consistent

import nas
from nas.cli.options import flag_of
from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, Resources, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.ray.placement import Placement, capacity, fitted_resources
from nas.search.ray.worker import Evaluator
from nas.spaces.files import load_space
from nas.workflows.plan import cluster_address, plan_search

SENT = ["cluster_parts:evaluated", "answers:answer"]
METRIC = """
import time

def share(labels, predictions):
    time.sleep(1)
    return float((labels == predictions).mean())
"""


class Nodes:
    """A cluster whose head runs no trial, and its nodes by name: `pinned` has the resource BOARD, `plain` more cores."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes: dict[str, Any] = {}
        self.pinned = self.add("pinned", num_cpus=1, resources={"BOARD": 8})
        self.plain = self.add("plain", num_cpus=2)

    def add(self, name: str, **has: Any) -> str:
        """Start a node; its id."""
        self._nodes[name] = self.cluster.add_node(**has)
        return str(self._nodes[name].node_id)

    def kill(self, name: str) -> None:
        """End a node as a machine ends that loses power; on return Ray knows it."""
        import ray

        gone = self._nodes.pop(name)
        self.cluster.remove_node(gone, allow_graceful=False)
        wait_for(lambda: not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == gone.node_id))

    def connect(self) -> None:
        from nas.search.ray.cluster import start_ray

        start_ray(self.cluster.address, gpus=False, functions=SENT)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray

    ray.shutdown()
    made = Nodes()
    yield made
    ray.shutdown()
    made.cluster.shutdown()


def settings(trials: int, **resources: Any) -> SearchSettings:
    return SearchSettings(
        load_space("digits"),
        "digits",
        objectives=("accuracy", "macs"),
        sampler="random",
        trials=trials,
        resources=Resources(**resources),
    )


def on_gpus(trials: int) -> SearchSettings:
    """A search for latency on GPUs that nobody has."""
    protocol = LatencyProtocol(device="cuda", mode="cudagraph")
    return replace(
        settings(trials), evaluation=EvaluationSettings(protocol=protocol), objectives=("accuracy", "latency")
    )


def searched(
    run: RunDirectory,
    nodes: Nodes,
    starts: Callable[[], Evaluator] = start,
    on_record: Any = None,
    placement: Placement | None = None,
) -> list[TrialRecord]:
    """A search to its end; its records."""
    from nas.search.ray.tune import run_candidates

    nodes.connect()
    broker = Broker(run)
    broker.on_record = on_record or (lambda record: None)
    placement = placement or Placement(run.settings, elastic=True)
    placement.survey()
    run_candidates(broker, starts, None, placement)
    done = [record.digest for record in broker.records if record.outcome is Outcome.DONE]
    assert len(done) == len(set(done)) == run.settings.trials
    assert broker.records == run.records()
    return broker.records


def done_on(records: list[TrialRecord]) -> set[str]:
    return {record.evaluation.worker for record in records if record.outcome is Outcome.DONE}


# ---------------------------------------------------------------- what fits


def test_room_is_counted_on_each_node() -> None:
    halves = [{"CPU": 1.5}, {"CPU": 1.5}, {"CPU": 0.5}]
    assert capacity(settings(1), halves) == 2
    assert capacity(settings(1, cpus_per_trial=0.5), halves) == 7
    boards = [{"CPU": 4.0, "BOARD": 1.0}, {"CPU": 4.0}, {"CPU": 4.0, "BOARD": 9.0}]
    assert capacity(settings(1, custom={"BOARD": 0.5}), boards) == 2 + 4
    cuda = replace(on_gpus(1), resources=Resources(gpus_per_trial=0.4))
    assert capacity(cuda, [{"CPU": 9.0, "GPU": 2.0}, {"CPU": 9.0}]) == 4  # parts of a GPU are all of one
    assert capacity(replace(on_gpus(1), resources=Resources(accelerator="T4")), [{"CPU": 9.0, "GPU": 2.0}]) == 0


def test_more_at_once_than_fit_waits_on_a_cluster_only(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 1.0}]
    assert fitted_resources(settings(1, max_concurrent=5), nodes).max_concurrent == 3
    assert fitted_resources(settings(1, max_concurrent=5), nodes, elastic=True).max_concurrent == 5
    assert fitted_resources(settings(1), nodes, elastic=True).max_concurrent == 0
    pinned = settings(1, custom={"BOARD": 2.0})
    with pytest.raises(
        InputError, match=r"with the resource BOARD=2, but Ray has 1 node with 2 CPUs.* waits for nodes"
    ):
        fitted_resources(pinned, nodes, elastic=True)
    assert not caplog.records
    waiting = replace(pinned, resources=replace(pinned.resources, max_concurrent=5))
    assert fitted_resources(waiting, nodes, elastic=True).max_concurrent == 5
    assert "waiting for one" in caplog.text
    with pytest.raises(InputError, match="BOARD=2"):
        fitted_resources(waiting, nodes)


def test_pins_are_for_clusters(tmp_path: Path) -> None:
    for pin, said in (
        ({"accelerator": "T4"}, "^accelerator T4: needs a cluster"),
        ({"custom": {"B": 1.0}}, "^resource B: needs a cluster"),
    ):
        with pytest.raises(InputError, match=said):
            plan_search(settings(1, **pin), tmp_path / "run")
    for name, amount in (("CPU", 1.0), ("BOARD", 1.5), ("BOARD", 0.0)):
        with pytest.raises(InputError, match=f"resource: resource .?{name}"):
            plan_search(settings(1, custom={name: amount}), tmp_path / "run", "auto")


def test_a_run_that_knew_no_pins_is_read(make_run: RunFactory) -> None:
    run = make_run()
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    for name in ("accelerator", "custom"):
        del written["settings"]["resources"][name]
    (run.path / "run.yaml").write_text(yaml.safe_dump(written))
    assert open_run(run.path).settings == run.settings


def test_in_a_job_the_cluster_is_its_own_and_code_joins_what_it_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.runtime_env.runtime_env import _merge_runtime_env

    from nas.search.ray.cluster import _runtime_env

    for folder, module in (("job", "shipped"), ("elsewhere", "mine")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{module}.py").write_text(METRIC)
        monkeypatch.syspath_prepend(tmp_path / folder)
    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "0")
    job = {"working_dir": "gcs://a.zip", "py_modules": ["gcs://b.zip"], "env_vars": {"MINE": "1"}}
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": job}))
    assert cluster_address(None) == "auto"
    assert cluster_address("host:1") == "host:1"
    ours = _runtime_env(["shipped:share", "mine:share", "yaml:load", "accuracy", "digits"])
    joined = _merge_runtime_env(job, ours, override=os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1")
    modules = [str(Path(nas.__file__).parent), str(tmp_path / "elsewhere" / "mine.py"), "gcs://b.zip"]
    assert joined == job | {"py_modules": modules}
    settings = SearchSettings(load_space("digits"), "digits")
    with pytest.raises(InputError, match=r"out results/mine: lies in the Ray job's copy .* give an absolute path"):
        plan_search(settings, Path("results/mine"))


# ---------------------------------------------------------------- on a cluster


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_trials_run_only_where_they_are_pinned_and_as_many_as_fit_there(nodes: Nodes, make_run: RunFactory) -> None:
    nodes.connect()
    run = make_run(settings(4, custom={"BOARD": 2.0}))
    assert Placement(run.settings, elastic=True).limit == 1
    assert Placement(settings(4), elastic=True).limit == 3
    assert done_on(searched(run, nodes)) == {nodes.pinned}


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_node_that_joins_is_used(nodes: Nodes, make_run: RunFactory) -> None:
    def join(record: TrialRecord) -> None:
        if record.number == 0:
            shared("joined.new").write_text(nodes.add("joined", num_cpus=1))
            shared("joined.new").rename(shared("joined"))

    records = searched(make_run(settings(10)), nodes, start_waiting, join)
    assert shared("joined").read_text() in done_on(records)
    assert not [record for record in records if record.outcome is Outcome.LOST]
    nodes.kill("joined")


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_ran_on_a_node_that_dies_is_done_elsewhere(nodes: Nodes, make_run: RunFactory) -> None:
    victim = nodes.add("victim", num_cpus=1)
    shared("victim").write_text(victim)

    def kill() -> None:
        wait_for(shared("victim at work").exists)
        nodes.kill("victim")

    killer = threading.Thread(target=kill)
    killer.start()
    records = searched(make_run(settings(6)), nodes, start_with_a_victim)
    killer.join()
    lost = [record for record in records if record.outcome is Outcome.LOST]
    assert lost
    assert victim not in done_on(records)
    assert {record.digest for record in lost} <= {r.digest for r in records if r.outcome is Outcome.DONE}


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_trial_that_fits_nowhere_waits_for_a_node_to_join(nodes: Nodes) -> None:
    nodes.connect()
    placement = Placement(settings(1, max_concurrent=2, custom={"LATER": 1.0}), elastic=True)
    placement.survey()
    assert placement.limit == 2
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(placement.ask(here)))
    asking.start()
    later = nodes.add("later", resources={"LATER": 1}, num_cpus=1)
    asking.join(timeout=100)
    assert answers == [later]
    nodes.kill("later")


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_trial_that_meets_a_wrong_node_goes_to_another_one(nodes: Nodes, make_run: RunFactory) -> None:
    records = searched(make_run(settings(6, max_concurrent=3)), nodes, start_with_the_board)
    assert shared("declined").exists()
    assert Counter(record.outcome for record in records) == {Outcome.DONE: 6}
    assert done_on(records) == {nodes.pinned}


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_models_are_not_mixed(nodes: Nodes, make_run: RunFactory, tmp_path: Path) -> None:
    """Nodes with made-up GPUs, of which only Ray knows."""
    gpu = {"num_cpus": 1, "num_gpus": 1}
    t4 = nodes.add("t4", **gpu, resources={"accelerator_type:T4": 1})
    shared("t4").write_text(t4)
    nodes.add("a100", **gpu, resources={"accelerator_type:A100": 1})
    address = nodes.cluster.address
    with pytest.raises(InputError) as raised:
        plan_search(on_gpus(4), tmp_path / "run", address)
    assert re.search(rf"several: A100 on .*; T4 on .*{t4[:8]}.*--accelerator TYPE", raised.value.named(flag_of))
    pinned = replace(on_gpus(4), resources=Resources(accelerator="T4"))
    with pytest.raises(InputError, match="torch sees no CUDA GPU here"):  # said by the node
        plan_search(pinned, tmp_path / "run", address)
    assert done_on(searched(make_run(pinned), nodes)) == {t4}
    nodes.kill("a100")


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_node_of_another_model_that_joins_is_avoided(nodes: Nodes, make_run: RunFactory) -> None:
    placement = Placement(on_gpus(5), elastic=True)

    def join(record: TrialRecord) -> None:
        if record.number == 0:
            late = nodes.add("late", num_cpus=1, num_gpus=1, resources={"accelerator_type:A100": 1})

            def tell() -> None:
                wait_for(lambda: late in placement.selector)
                shared("verdict").touch()

            threading.Thread(target=tell, daemon=True).start()

    nodes.connect()
    records = searched(make_run(placement.settings), nodes, start_waiting_for_a_verdict, join, placement)
    assert done_on(records) == {shared("t4").read_text()}
    assert placement.limit == 1
    nodes.kill("late")


# ---------------------------------------------------------------- a whole search


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_code_of_the_drivers_path_alone_reaches_workers_and_a_dead_head_ends_the_search(
    nodes: Nodes, tmp_path: Path
) -> None:
    import ray

    ray.shutdown()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_metric.py").write_text(METRIC)
    out = tmp_path / "run"
    job = {"runtime_env": {"py_modules": [], "env_vars": {"MINE": "1"}}, "metadata": {}}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "code"), *sys.path]),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        # As `ray job submit` starts it.
        "RAY_ADDRESS": nodes.cluster.address,
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
    }
    command = [sys.executable, "-m", "nas.cli", "search", *BRIEF, "--metric", "my_metric:share"]
    command += ["--trials", "4", "--confirm", "0", "--out", str(out), "--resource", "BOARD:2"]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
        records = out / "trials.jsonl"
        wait_for(lambda: driver.poll() is not None or (records.is_file() and records.read_bytes().count(b"\n") >= 1))
        assert driver.poll() is None, (tmp_path / "log").read_text()
        nodes.cluster.head_node.kill_gcs_server()
        assert driver.wait(timeout=100) == 1
    said = (tmp_path / "log").read_text()
    assert said.count("has not answered for 5 s; what has finished is kept. To go on: nas search --resume") == 1
    assert "Traceback" not in said
    before = open_run(out).records()
    assert {record.outcome for record in before} == {Outcome.DONE}
    assert 1 <= len(before) < 4
    assert (out / "report.html").is_file()
    Broker(open_run(out))  # what a resumed search does first
    after = check_consistent(open_run(out))
    assert after[: len(before)] == before
    assert {record.outcome for record in after[len(before) :]} == {Outcome.LOST}
