"""Further latency targets: in the worker of a trial, and on another node of a real Ray cluster."""

from __future__ import annotations

import csv
import functools
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from conftest import RunFactory

from nas.cli.app import main
from nas.cli.options import parse_protocol, parse_target
from nas.common.errors import InputError, LostError
from nas.data.sets import ImageData, load_data
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.models.networks import build
from nas.runs.front import pareto_front
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, Resources, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.runs.targets import places
from nas.search.evaluate import MeasureTarget, evaluate_steps, measure_here
from nas.search.ray.placement import capacity, fitted_resources
from nas.spaces.files import load_space
from nas.training.device_data import DeviceData
from nas.training.recipe import Recipe
from nas.views.report import write_report
from nas.views.reported import resume_search, run_search
from nas.views.terminal.front import front_csv
from nas.workflows.plan import plan_search
from nas.workflows.search import Progress

SPACE = load_space("digits")
QUICK = LatencyProtocol(warmup_s=0.01, block_ms=0.1, max_s=0.02, min_blocks=5, attempts=1)
EIGHT = LatencyTarget("eight", replace(QUICK, batch_size=8))
EDGE = LatencyTarget("edge", replace(QUICK, batch_size=64), resources={"EDGE": 1.0})


def settings(*targets: LatencyTarget, objectives: tuple[str, ...] = ("accuracy", "latency")) -> SearchSettings:
    evaluation = EvaluationSettings(Recipe(epochs=1, precision="float32"), QUICK, targets=targets)
    return SearchSettings(SPACE, "digits", objectives=objectives, evaluation=evaluation, trials=3)


def evaluated(searched: SearchSettings, measure: MeasureTarget = measure_here) -> Evaluation:
    """The smallest network, evaluated in this process."""
    digits: ImageData = load_data("digits", channels=1).without_test()
    steps = evaluate_steps(SPACE.smallest, DeviceData(digits, "cpu"), searched.evaluation, measure)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.evaluation


def test_a_target_is_read_from_text() -> None:
    target = parse_target(
        "edge=device:cuda, batch:8,dtype:float16,max:500us,accelerator:T4,resource:A=0.5,resource:B", "cpu"
    )
    protocol = LatencyProtocol(device="cuda", batch_size=8, mode="cudagraph", dtype="float16")
    assert target == LatencyTarget("edge", protocol, 0.5, "T4", {"A": 0.5, "B": 1.0})
    here = parse_target("here=channels_last:no,threads:2,mode:compile", "cpu").protocol
    assert here == replace(default_protocol("cpu"), mode="compile", threads=2, channels_last=False)


def test_the_runs_own_protocol_is_read_from_text() -> None:
    protocol = parse_protocol("mode:onnxruntime, batch:8", "cpu")
    assert protocol == replace(default_protocol("cpu"), mode="onnxruntime", batch_size=8)
    assert parse_protocol("", "cpu") == default_protocol("cpu")
    shorter = replace(default_protocol("cpu"), warmup_s=0.1, max_s=0.25, attempts=1)
    assert parse_protocol("warmup:0.1,seconds:0.25,attempts:1", "cpu") == shorter


def test_a_candidate_over_the_limit_of_a_target_is_rejected_before_training() -> None:
    strict = replace(EDGE, resources={}, max_ms=1e-6)
    evaluation = evaluated(settings(strict, replace(EDGE, name="lenient", resources={}, max_ms=1e6)))
    assert evaluation.outcome is Outcome.REJECTED
    assert "times its limit of 1e-06 ms" in (evaluation.reason or "")
    assert evaluation.violation > 0
    assert not evaluation.history
    assert {name: latency.protocol for name, latency in evaluation.latencies.items()} == {
        "edge": strict.protocol,
        "lenient": strict.protocol,
    }


def test_targets_of_one_device_share_it_and_trials_get_the_gpus_that_are_left() -> None:
    cuda = LatencyProtocol(device="cuda", mode="cudagraph")
    on_t4 = [LatencyTarget(f"t4-{batch}", replace(cuda, batch_size=batch), accelerator="T4") for batch in (1, 64)]
    in_worker = [LatencyTarget("cpu", QUICK), LatencyTarget("many", replace(cuda, batch_size=64))]
    searched = settings(*on_t4, *in_worker)
    searched = replace(searched, evaluation=replace(searched.evaluation, protocol=cuda))
    assert [[target.name for target in targets] for targets in places(searched).values()] == [["t4-1", "t4-64"]]
    node = {"CPU": 8.0, "GPU": 3.0, "accelerator_type:T4": 1.0}
    assert capacity(searched, [node]) == 2
    assert capacity(searched, [node], others=[{"GPU": 1.0, "accelerator_type:T4": 1.0}]) == 3
    with pytest.raises(InputError, match=r"1 node with 8 CPUs, 1 GPUs, accelerator_type:T4, 1 GPUs of it for targets"):
        fitted_resources(searched, [node | {"GPU": 1.0}])


def test_a_run_without_targets_is_read(make_run: RunFactory) -> None:
    run = make_run()
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    del written["settings"]["evaluation"]["targets"]
    (run.path / "run.yaml").write_text(yaml.safe_dump(written))
    assert open_run(run.path).settings == run.settings


# ---------------------------------------------------------------- on a cluster


@dataclass(frozen=True)
class TwoNodes:
    """A Ray cluster: `head` trains, and `edge` has no CPU core for trials and the resource EDGE."""

    address: str
    head: str
    edge: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    importlib.import_module("nas.search.ray.tune")  # before Ray: it says how Ray is to start
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    edge = made.add_node(num_cpus=0, resources={"EDGE": 1})
    made.wait_for_nodes()
    yield TwoNodes(made.address, made.head_node.node_id[:8], edge.node_id[:8])
    ray.shutdown()
    made.shutdown()


class KillsTheActor(Progress):
    """Kills the process that measures on the target edge, once, when the first trial has ended."""

    def __init__(self, for_good: bool = False) -> None:
        self.for_good = for_good
        self.killed = 0

    def record(self, record: TrialRecord) -> None:
        import ray

        if not self.killed:
            for name in ray.util.list_named_actors():
                if name.startswith("nas-target-edge-"):
                    ray.kill(ray.get_actor(name), no_restart=self.for_good)
                    self.killed += 1


@pytest.fixture(scope="module")
def searched(cluster: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A search under a limit between what the smallest and the largest network take on the target edge."""
    small, large = (measure_here(EDGE, each, 10, build(each, 10)).median_ms for each in (SPACE.smallest, SPACE.largest))
    limited = replace(EDGE, max_ms=(small * large) ** 0.5)
    asked = settings(EIGHT, limited, objectives=("accuracy", "latency", "latency:eight"))
    asked = replace(asked, resources=Resources(max_concurrent=1), enqueue=("largest",))
    killer = KillsTheActor()
    out = tmp_path_factory.mktemp("targets") / "run"
    ended = run_search(plan_search(asked, out, cluster.address), killer)
    assert ended.reason == "3 candidates trained"
    assert killer.killed == 1
    return ended.run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_candidates_are_measured_where_the_target_is_and_trained_elsewhere(
    searched: RunDirectory, cluster: TwoNodes
) -> None:
    own = [record for record in searched.records() if record.outcome in (Outcome.DONE, Outcome.REJECTED)]
    for evaluation in (record.evaluation for record in own):
        assert cluster.head in evaluation.worker
        assert cluster.edge in evaluation.latencies["edge"].worker
        assert evaluation.latencies["edge"].input_shape[0] == 64
        assert evaluation.latencies["eight"].worker == ""
        assert evaluation.latencies["eight"].protocol == EIGHT.protocol
    assert not [record for record in searched.records() if record.outcome in (Outcome.FAILED, Outcome.LOST)]


def test_a_candidate_over_the_runs_own_latency_budget_is_measured_on_no_target() -> None:
    search = settings(replace(EDGE, resources={}, max_ms=1e6))
    budgets = Budgets(max_latency_ms=1e-6)
    evaluation = evaluated(replace(search, evaluation=replace(search.evaluation, budgets=budgets)))
    assert evaluation.outcome is Outcome.REJECTED
    assert evaluation.latency is not None
    assert not evaluation.latencies


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_limit_rejects_and_an_objective_is_searched_for(searched: RunDirectory) -> None:
    records = searched.records()
    rejected = [record for record in records if record.outcome is Outcome.REJECTED]
    assert SPACE.largest.digest in {record.digest for record in rejected}
    assert all("its limit of" in (record.evaluation.reason or "") for record in rejected)
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert len(done) == 3
    for record in done:
        assert record.objectives["latency:eight"] == record.evaluation.latencies["eight"].ms
    front = pareto_front(records, searched.settings.objectives)
    best = min(done, key=lambda record: record.objectives["latency:eight"])
    assert best.digest in {record.digest for record in front}


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_front_and_report_show_the_targets(searched: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    front = pareto_front(searched.judged(), searched.settings.objectives)
    rows = list(csv.DictReader(io.StringIO(front_csv(searched, searched.judged()))))
    assert [float(row["latency:eight_ms"]) for row in rows] == [r.objectives["latency:eight"] for r in front]
    with pytest.raises(SystemExit):
        main(["front", str(searched.path)])
    shown = capsys.readouterr().out
    assert "eight ms (95 %)" in shown
    assert "batch 64 · eager" in shown
    page = write_report(searched).read_text()
    for text in ('id="pareto-latency:eight"', "Latency on edge", "Target edge", "EDGE=1"):
        assert text in page


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_ends_when_a_target_is_gone_for_good_and_is_resumed_with_a_new_one(
    cluster: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.ending.MAX_LOSSES_IN_A_ROW", 1)
    asked = replace(settings(replace(EDGE, max_ms=1e6)), trials=2, resources=Resources(max_concurrent=1))
    plan = plan_search(asked, tmp_path / "run", cluster.address)
    ended = run_search(plan, KillsTheActor(for_good=True))
    assert ended.reason.startswith("1 trials in a row were lost: target edge gave no answer, its actor died")
    assert ended.resumable
    before = ended.run.records()
    assert Outcome.FAILED not in {record.outcome for record in before}
    after = resume_search(ended.run.path, address=cluster.address).run.records()
    assert after[: len(before)] == before
    assert sum(record.outcome is Outcome.DONE for record in after) == 2
    assert cluster.edge in after[-1].evaluation.latencies["edge"].worker


@pytest.mark.ray
@pytest.mark.subprocess
def test_a_resource_that_no_node_has_is_said_at_once(
    cluster: TwoNodes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["search", "--device", "cpu", "--address", cluster.address, "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--target", "phone=max:5ms,accelerator:T4,resource:PHONE=2"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--target phone: no node of the Ray cluster has an accelerator T4 and the resource PHONE=2" in said
    assert "there is CPU, EDGE" in said
    assert not out.exists()


@pytest.mark.ray
@pytest.mark.subprocess
def test_a_target_that_its_node_cannot_measure_is_said_before_anything_runs(cluster: TwoNodes, tmp_path: Path) -> None:
    wrong = replace(EDGE, protocol=replace(QUICK, mode="cudagraph"), max_ms=1.0)
    with pytest.raises(InputError, match="target edge: mode cudagraph needs a CUDA device"):
        run_search(plan_search(settings(wrong), tmp_path / "run", cluster.address))
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
@pytest.mark.subprocess
def test_what_measuring_raises_fails_the_candidate_and_no_answer_loses_the_trial(
    cluster: TwoNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.search.ray.cluster import start_ray
    from nas.search.ray.measuring import measure_on, measurers

    start_ray(cluster.address, gpus=False)
    endless = settings(replace(EDGE, protocol=replace(QUICK, batch_size=2**42), max_ms=1.0))
    with measurers(endless) as actors:
        evaluation = evaluated(endless, functools.partial(measure_on, actors))
        assert evaluation.outcome is Outcome.FAILED
        assert "allocate" in (evaluation.reason or "")
        monkeypatch.setattr("nas.search.ray.measuring.PATIENCE_S", 1e-4)
        with pytest.raises(LostError, match="target edge gave no answer within"):
            evaluated(endless, functools.partial(measure_on, actors))
    with pytest.raises(LostError, match="target edge gave no answer, its actor died"):
        evaluated(endless, functools.partial(measure_on, actors))
