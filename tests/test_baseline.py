"""Reference networks beside a run: what is built, measured, trained, recorded, and said of them."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from commands import call
from mobile import mobile_space

from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.latency.protocol import LatencyProtocol
from nas.models.cost import module_cost
from nas.runs.front import beaten_by, pareto_front
from nas.runs.objectives import objective_values
from nas.runs.record import BaselineRecord, Evaluation, Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.evaluate import evaluate_candidate
from nas.spaces.base import Cost
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.views.text import verdict_text
from nas.workflows.baseline import BASELINES, load_published, measure_baselines

SPACE = mobile_space("digits")
QUICK = EvaluationSettings(
    recipe=Recipe(epochs=1, steps=3, batch_size=16, precision="float32"),
    protocol=LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1),
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of two candidates, evaluated in this process: the space's smallest network, and one drawn from it."""
    data = load_data("digits", channels=1, size=8, split_seed=0)
    settings = SearchSettings(SPACE, "digits", evaluation=QUICK)
    provenance = Provenance(
        created=time.time(),
        command="nas search",
        versions={},
        host="here",
        hardware=device_name("cpu"),
        cpu_cores=2,
        git_commit=None,
        data_fingerprint=data.fingerprint(),
        classes=data.classes,
        train_images=len(data.train),
        validation_images=len(data.validation),
        mean=data.mean,
        std=data.std,
    )
    run = RunDirectory.create(tmp_path_factory.mktemp("searched") / "run", settings, provenance)
    drawn = SPACE.architecture(SPACE.sample(random.Random(1)))
    for number, architecture in enumerate((SPACE.smallest, drawn)):
        evaluation = evaluate_candidate(architecture, data, settings.evaluation).evaluation
        values = objective_values(evaluation, settings.objectives)
        canonical = architecture.canonical
        run.append(TrialRecord(number, architecture.digest, str(canonical), canonical, {}, evaluation, values))
    return run


@pytest.fixture
def run(searched: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of that run for one test."""
    return open_run(shutil.copytree(searched.path, tmp_path / "run"))


def recorded(run: RunDirectory) -> dict[str, BaselineRecord]:
    return {record.name: record for record in run.baselines()}


# ---------------------------------------------------------------- the networks


@pytest.mark.parametrize("name", BASELINES)
def test_networks_are_built_for_the_runs_classes_and_channels(name: str) -> None:
    before = torch.random.get_rng_state()
    for space, classes in ((SPACE, 10), (mobile_space("cifar"), 7)):
        network = BASELINES[name](space, classes, 0).eval()
        images = torch.zeros(2, space.input.channels, max(space.input.size), max(space.input.size))
        assert network(images).shape == (2, classes)
        again, other = (BASELINES[name](space, classes, seed).state_dict() for seed in (0, 1))
        first = next(iter(again))
        assert torch.equal(network.state_dict()[first], again[first])
        assert not torch.equal(network.state_dict()[first], other[first])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        # Millions of multiply-adds: the table of MobileNetV2 checkpoints in tensorflow/models,
        # research/slim/nets/mobilenet/README.md (at width 1 also Sandler et al., 2018, table 4). Parameters at
        # width 1 and of ResNet-18: what torchvision lists with its weights; the other widths: the same table, which
        # says 3.47 at width 1.
        pytest.param("mobilenet_v2_050", 97, 1.95, marks=pytest.mark.slow),
        ("mobilenet_v2_100", 300, 3.50),
        pytest.param("mobilenet_v2_140", 582, 6.06, marks=pytest.mark.slow),
        # torchvision lists 1.814 G with its weights; He et al., 2016, table 1, says 1.8 G.
        ("resnet18", 1814, 11.69),
    ],
)
def test_costs_agree_with_published_figures(name: str, macs: int, params: float) -> None:
    network = BASELINES[name](mobile_space("lite0"), 1000, 0)
    cost = module_cost(network, (3, 224, 224))
    assert cost.macs / 1e6 == pytest.approx(macs, rel=0.01)
    assert cost.params / 1e6 == pytest.approx(params, rel=0.015)


def downloaded_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torchvision.models.ResNet:
    """What torch finds in its cache of downloads, with random weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.resnet18()
    file = Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(published.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    return published


def test_torchvisions_weights_are_loaded_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey image has the colours' sum."""
    published = downloaded_resnet(tmp_path, monkeypatch)
    network = BASELINES["resnet18"](SPACE, 10, 0)
    assert load_published(network, "resnet18") == ("fc",)
    assert torch.equal(network.get_parameter("conv1.weight"), published.conv1.weight.sum(1, keepdim=True))
    assert torch.equal(network.get_parameter("layer4.1.conv2.weight"), published.layer4[1].conv2.weight)
    image = torch.rand(2, 1, 32, 32)
    published.fc = torch.nn.Identity()
    network.set_submodule("fc", torch.nn.Identity())
    torch.testing.assert_close(
        network.eval()(image), published.eval()(image.expand(2, 3, 32, 32)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_torchvisions_weights_are_begun_with_where_there_are_any(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded_resnet(tmp_path, monkeypatch)
    names = ("resnet18", "mobilenet_v2_050", "smallest")
    for _ in measure_baselines(run, names, train=True, weights="imagenet"):
        pass
    records = recorded(run)
    assert {name: record.init for name, record in records.items()} == {
        "resnet18": "imagenet",
        "mobilenet_v2_050": "scratch",
        "smallest": "scratch",
    }
    assert records["resnet18"].evaluation.fresh == ("fc",)
    assert "no ImageNet weights" in records["mobilenet_v2_050"].note


# ---------------------------------------------------------------- the command


@pytest.mark.slow
def test_measured_then_trained_and_nothing_twice(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    asked = ["baseline", str(run.path), "--networks", "mobilenet_v2_050, smallest"]
    code, out, _ = call(capsys, *asked)
    assert code == 0
    assert out.count("measured, not trained") == 1  # the smallest was trained by the search
    measured = recorded(run)["mobilenet_v2_050"]
    assert set(measured.objectives) == {"latency"}
    assert not measured.trained
    assert measured.evaluation.cost is not None
    assert measured.evaluation.latency is not None
    assert measured.evaluation.latency.protocol == QUICK.protocol
    assert measured.evaluation.latency.input_shape == (1, 1, 8, 8)

    code, out, _ = call(capsys, *asked, "--train")
    assert code == 0
    assert re.search(r"mobilenet_v2_050 +\d+\.\d\d ± \d+\.\d\d +[\d.]+ \([\d.]+-[\d.]+\)", out)
    assert re.search(r"mobilenet_v2_050 +(beaten by [0-9a-f]{8} \(.*faster\)|on or beyond the front)", out)
    trained = recorded(run)["mobilenet_v2_050"]
    assert set(trained.objectives) == {"accuracy", "latency"}
    assert trained.init == "scratch"
    assert len(trained.evaluation.history) == QUICK.recipe.epochs
    assert "Against what people would otherwise pick" in run.report_path.read_text()

    before = (run.path / "baselines.jsonl").read_bytes()
    for again in (asked, [*asked, "--train"]):  # a measurement does not replace a training either
        code, out, _ = call(capsys, *again)
        assert code == 0
        assert "±" in out
    assert (run.path / "baselines.jsonl").read_bytes() == before


def test_a_trial_of_the_search_answers_for_the_same_network(run: RunDirectory) -> None:
    (record,) = measure_baselines(run, ["smallest"], train=True)
    trial = run.records()[0]
    assert record.evaluation == trial.evaluation
    assert record.objectives == trial.objectives
    assert record.note == "trial 0 of the search"


@pytest.mark.slow
def test_a_hard_budget_does_not_keep_a_baseline_from_being_trained(run: RunDirectory) -> None:
    run = run.with_settings(replace(run.settings, evaluation=replace(QUICK, budgets=Budgets(max_macs=1000))))
    for record in measure_baselines(run, ["largest", "mobilenet_v2_050"], train=True):
        assert record.trained
        assert "times the budget of 1,000" in record.note
        assert record.evaluation.violation == 0


@pytest.mark.slow
def test_freezing_is_for_networks_of_the_space(run: RunDirectory) -> None:
    recipe = replace(QUICK.recipe, trainable="head+1")
    run = run.with_settings(replace(run.settings, evaluation=replace(QUICK, recipe=recipe)))
    (record,) = measure_baselines(run, ["mobilenet_v2_050"], train=True)
    assert record.trained
    assert "all of it is trained" in record.note


@pytest.mark.slow
def test_what_fails_is_recorded_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing downloaded"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    asked = ["baseline", str(run.path), "--train", "--weights", "imagenet", "--networks"]
    code, out, _ = call(capsys, *asked, "mobilenet_v2_100,largest")
    assert code == 1
    assert "mobilenet_v2_100: failed: the ImageNet weights could not be downloaded" in out
    records = recorded(run)
    assert records["mobilenet_v2_100"].evaluation.outcome is Outcome.FAILED
    assert records["mobilenet_v2_100"].evaluation.latency is not None  # what was measured is not lost
    assert records["mobilenet_v2_100"].objectives == {}
    assert records["largest"].trained
    assert call(capsys, "baseline", str(run.path), "--networks", "mobilenet_v2_100")[0] == 0  # it is tried again


@pytest.mark.slow
def test_a_loss_that_explodes_is_a_failed_baseline(run: RunDirectory) -> None:
    recipe = replace(QUICK.recipe, learning_rate=1e30)
    run = run.with_settings(replace(run.settings, evaluation=replace(QUICK, recipe=recipe)))
    records = list(measure_baselines(run, ["mobilenet_v2_050", "largest"], train=True))
    assert [record.evaluation.outcome for record in records] == [Outcome.FAILED, Outcome.FAILED]
    assert all(
        "not finite" in (r.evaluation.reason or "") or "loss became" in (r.evaluation.reason or "") for r in records
    )


@pytest.mark.slow
def test_targets_are_measured_where_their_device_is_here_and_reject_no_baseline(run: RunDirectory) -> None:
    here = LatencyTarget("here", replace(QUICK.protocol, batch_size=2), max_ms=1e-6)
    board = LatencyTarget("board", QUICK.protocol, max_ms=1e6, resources={"BOARD": 1.0})
    evaluation = replace(QUICK, targets=(here, board))
    objectives = ("accuracy", "latency", "latency:here")
    run = run.with_settings(replace(run.settings, evaluation=evaluation, objectives=objectives))
    for record in measure_baselines(run, ["mobilenet_v2_050", "largest"], train=True):
        assert record.trained, record.evaluation.reason
        assert list(record.evaluation.latencies) == ["here"], "a board's latency cannot be measured here"
        assert set(record.objectives) == set(objectives)
        assert "on target here" in record.note
    run = run.with_settings(replace(run.settings, objectives=("accuracy", "latency:board")))
    (record,) = measure_baselines(run, ["mobilenet_v2_075"], train=True)
    assert verdict_text(record, [], run.settings.objectives) == "trained, its latency on board not known here"


BAD = {
    "unknown network": (["--networks", "resnet18,vgg"], "--networks: unknown network 'vgg'; choose from mobilenet_v2_050"),
    "no network": (["--networks", ""], "--networks: unknown network ''"),
    "weights of what is not trained": (["--weights", "imagenet"], "--weights imagenet: only what is trained"),
    "unknown weights": (["--train", "--weights", "cifar"], "'scratch', 'imagenet'"),
    "unknown device": (["--device", "tpu"], "use auto, cpu, cuda"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, name: str
) -> None:
    arguments, expected = BAD[name]
    code, _, err = call(capsys, "baseline", str(run.path), *arguments)
    assert code == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert not (run.path / "baselines.jsonl").exists()


def test_a_run_of_another_machine_or_of_other_data_is_refused(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    changed = replace(run.provenance, data_fingerprint="0" * 16)
    other = RunDirectory.create(tmp_path / "changed", run.settings, changed)
    code, _, err = call(capsys, "baseline", str(other.path), "--train", "--networks", "resnet18")
    assert code == 2
    assert "the data set digits has changed" in err
    elsewhere = RunDirectory.create(tmp_path / "elsewhere", run.settings, replace(run.provenance, hardware="Pi 4"))
    code, _, err = call(capsys, "baseline", str(elsewhere.path))
    assert code == 2
    assert "measured on Pi 4" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = call(capsys, "baseline", str(tmp_path / "nowhere"))
    assert code == 2
    assert "not a run directory" in err


# ---------------------------------------------------------------- the records


def baseline(name: str, values: Mapping[str, float] | None = None, outcome: Outcome = Outcome.DONE) -> BaselineRecord:
    history = (EpochMetrics(1, 1.0, 1.0, 0.5, {"accuracy": 0.5}, 1.0, 1.0),)
    return BaselineRecord(name, Evaluation(outcome, None, Cost(10, 20), None, history), dict(values or {}), "scratch")


def test_the_latest_record_of_a_name_counts_and_a_torn_line_swallows_none(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    assert run.baselines() == []
    records = [baseline("a", {"accuracy": 0.5}), baseline("b"), baseline("a", {"accuracy": 0.75})]
    run.append_baseline(records[0])
    with (run.path / "baselines.jsonl").open("ab") as file:
        file.write(b'{"name": "c", "eval')
    for record in records[1:]:
        run.append_baseline(record)
    assert open_run(run.path).baselines() == [records[2], records[1]]
    assert "baselines.jsonl:2: not a record" in caplog.text
    assert len(run.records()) == 2


@pytest.mark.subprocess
def test_two_processes_that_write_at_once_lose_nothing(run: RunDirectory) -> None:
    script = """
import sys
from nas.runs.record import Evaluation, Outcome
from nas.runs.record import BaselineRecord
from nas.runs.store import open_run
run = open_run(sys.argv[1])
for number in range(100):
    run.append_baseline(BaselineRecord(f"{sys.argv[2]}{number}", Evaluation(Outcome.DONE), {}, "scratch", "x" * 3000))
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, str(run.path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(run.baselines()) == 200


# ---------------------------------------------------------------- the verdict


def member(number: int, accuracy: float, latency: float, macs: float = 1.0) -> TrialRecord:
    architecture = SPACE.smallest
    values = {"accuracy": accuracy, "latency": latency, "macs": macs}
    return TrialRecord(number, f"{number:08}" * 2, "", architecture, {}, Evaluation(Outcome.DONE), values)


FRONT = [member(0, 0.7, 1.0, 100.0), member(1, 0.8, 2.0, 200.0), member(2, 0.9, 4.0, 400.0)]


@pytest.mark.parametrize(
    ("values", "beaten"),
    [
        ({"accuracy": 0.65, "latency": 5.0}, [0, 1, 2]),
        ({"accuracy": 0.75, "latency": 5.0}, [1, 2]),
        ({"accuracy": 0.8, "latency": 2.5}, [1]),
        ({"accuracy": 0.8, "latency": 2.0}, []),  # the same as a member
        ({"accuracy": 0.85, "latency": 3.0}, []),  # between two members
        ({"accuracy": 0.95, "latency": 9.0}, []),  # beyond the most accurate
        ({"accuracy": 0.1, "latency": 0.5}, []),  # beyond the fastest
        ({"accuracy": 0.99, "latency": 0.1}, []),  # beats all of them
    ],
)
def test_beaten_by_the_members_that_dominate(values: dict[str, float], beaten: list[int]) -> None:
    objectives = ("accuracy", "latency")
    assert pareto_front(FRONT, objectives) == FRONT
    assert [record.number for record in beaten_by(FRONT, objectives, values)] == beaten
    verdict = verdict_text(baseline("resnet18", values), FRONT, objectives)
    assert verdict.startswith(f"beaten by {beaten[0]:08} (" if beaten else "on or beyond the front")


def test_the_verdict_says_by_how_much() -> None:
    objectives = ("accuracy", "latency", "macs")
    worse = {"accuracy": 0.75, "latency": 5.0, "macs": 200.0}
    assert verdict_text(baseline("x", worse), FRONT, objectives) == "beaten by 00000001 (+5.00 points, 2.5× faster)"
    assert verdict_text(baseline("x", worse | {"macs": 3000.0}), FRONT, objectives).endswith(
        "2.5× faster, 15× fewer MACs)"
    )
    assert beaten_by(FRONT, objectives, worse | {"macs": 150.0}) == []
    unmeasured = baseline("x", {"accuracy": 0.75, "macs": 1.0})
    assert verdict_text(unmeasured, FRONT, objectives) == "trained, its latency not known here"
    untrained = replace(unmeasured, evaluation=replace(unmeasured.evaluation, history=()), objectives={"latency": 5.0})
    assert verdict_text(untrained, FRONT, objectives) == "measured, not trained"
    assert verdict_text(baseline("x", worse), [], objectives) == "no front to compare with yet"
    assert verdict_text(baseline("x", outcome=Outcome.FAILED), FRONT, objectives).startswith("failed: ")
