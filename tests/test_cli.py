"""The command line: every verb works, and every bad input is one sentence with exit code 2."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import call
from conftest import GLANCE, RunFactory

import nas.latency.at_work
from nas.cli.app import main
from nas.cli.options import parse_count, parse_duration, parse_milliseconds
from nas.common.files import weights_content
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.store import RunDirectory, open_run
from nas.spaces.base import Cost
from nas.spaces.files import list_spaces
from nas.training.history import EpochMetrics

pytestmark = pytest.mark.usefixtures("own_ray")

COMMANDS = ["space list", "space show", "space check", "search", "evaluate", "front", "report", "baseline", "export"]
COMMANDS += ["measure", "status", "stop", "train"]


@pytest.fixture
def run(make_run: RunFactory) -> RunDirectory:
    """A finished run of eight candidates, without a search."""
    run = make_run()
    for number in range(8):
        values = run.settings.space.sample(random.Random(number))
        architecture = run.settings.space.architecture(values).canonical
        ms, score = 1.0 + number, 0.5 + number / 20
        latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
        epoch = EpochMetrics(1, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0)
        evaluation = Evaluation(Outcome.DONE, None, Cost(1000, 100), latency, (epoch,))
        run.save_weights(architecture.digest, weights_content(build(architecture, 10).state_dict()))
        run.append(
            TrialRecord(
                number,
                architecture.digest,
                str(architecture),
                architecture,
                values,
                evaluation,
                {"accuracy": score, "latency": ms},
            )
        )
    return run


def test_nas_alone_shows_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys)
    assert code == 0
    for command in ("nas search", "nas front", "nas export", "--help"):
        assert command in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = call(capsys, *command.split(), "--help")
    assert code == 0
    assert f"Example: nas {command}" in re.sub(r"\s+", " ", out)


BAD = {
    "unknown command": (["serach"], "serach"),
    "unknown flag": (["search", "--trails", "3"], "--trails"),
    "not a number": (["search", "--trials", "many"], "--trials"),
    "zero trials": (["search", "--trials", "0"], "needs at least 1"),
    "negative trials": (["search", "--trials", "-3"], "needs at least 1"),
    "absurd trials": (["search", "--trials", "9" * 23], "at most 10,000,000"),
    "absurd failures": (["search", "--max-failures", "9" * 23], "at most 10,000,000"),
    "absurd epochs": (["search", "--epochs", "9" * 21], "must be at most 1,000,000"),
    "absurd batch": (["search", "--set", f"batch_size={'9' * 20}"], "must be at most 1,000,000"),
    "absurd steps": (["search", "--set", f"steps={'9' * 20}"], "must be at most 1,000,000,000"),
    "absurd duration": (["search", "--time-budget", "99999999999d"], "is too long: at most 36500 d"),
    "absurd trials at once": (["search", "--max-concurrent", "99999999"], "at most 100,000"),
    "unknown space": (["search", "atlantis"], "cifar, digits, lite0, lite0_small"),
    "missing space file": (["search", "no/such.yaml"], "no such file"),
    "unknown data": (["search", "--data", "nope"], "digits, cifar10"),
    "space without data": (["search", "lite0"], "--data"),
    "latency in an unknown mode": (
        ["search", "--latency", "mode:graph"],
        "--latency: mode:graph: unknown mode 'graph' (did you mean 'cudagraph'?): use one of eager,",
    ),
    "latency with an unknown key": (["search", "--latency", "speed:9"], "--latency: 'speed:9' is not key:value"),
    "latency in a mode of GPUs": (["search", "--device", "cpu", "--latency", "mode:cudagraph"], "needs a CUDA device"),
    "latency of no images": (["search", "--latency", "batch:0"], "batch size 0: must be at least 1"),
    "unknown objective": (["search", "--objectives", "accuracy,speed"], "accuracy, latency, macs, params, memory"),
    "one objective": (["search", "--objectives", "accuracy"], "at least one of latency, macs, params, memory"),
    "objective twice": (["search", "--objectives", "accuracy,latency,latency"], "twice"),
    "nothing to stop": (["search", "--stop-early", "--epochs", "1"], "--stop-early: a training of 1 epoch"),
    "unknown metric": (["search", "--metric", "f2"], "accuracy, macro_f1, balanced_accuracy"),
    "metric without module": (["search", "--metric", "nowhere:f"], "nowhere"),
    "unknown weights": (["search", "--init", "resnet50"], "scratch, efficientnet_lite0, mobilenet_v2"),
    "weights that do not fit": (["search", "--init", "efficientnet_lite0"], "fit no layer of the space digits"),
    "no folder of a supernet": (["search", "--init", "supernet:"], "--init supernet:: names no folder"),
    "nothing to try first": (["search", "--enqueue", ""], "--enqueue '': names no architecture"),
    "no earlier run": (["search", "--warm-start", ""], "--warm-start '': names no run"),
    "unknown device": (["search", "--device", "tpu"], "auto, cpu, cuda"),
    "unknown sampler": (
        ["search", "--sampler", "magic"],
        "'magic': use one of front, tpe, nsga2, gp, random, or module:name of yours",
    ),
    "bad duration": (["search", "--time-budget", "soon"], "30m"),
    "bad latency": (["search", "--max-latency", "fast"], "2.5ms"),
    "bad count": (["search", "--max-macs", "0"], "300M"),
    "fraction of a count": (["search", "--max-macs", "0.5"], "at least 1"),
    "budget that nothing meets": (["search", "--max-macs", "1k"], "--max-macs 1,000 cannot be met"),
    "split seed too large": (["search", "--split-seed", str(2**32)], "--split-seed"),
    "out below a file": (["search", "--out", "/etc/passwd/x/y"], "/etc/passwd is not a folder"),
    "out too long": (["search", "--out", "x" * 300], "name too long"),
    "one of several GPUs": (["search", "--device", "cuda:0"], "cuda"),
    "unknown key of the recipe": (["search", "--set", "lr=1"], "--set lr=1: unknown key 'lr'; a recipe has epochs"),
    "no value": (["evaluate", "smallest", "--set", "ema"], "--set ema: write KEY=VALUE"),
    "value out of range": (["search", "--set", "dropout=2"], "--set dropout=2: dropout 2: must be below 1"),
    "unknown optimizer": (["recipe", "--set", "optimizer=adam"], "'adamw' or 'sgd'"),
    "unknown freezing": (["recipe", "--set", "trainable=tail"], "use all, head, head+K or gradual"),
    "no such recipe": (["search", "--recipe", "nowhere.yaml"], "--recipe nowhere.yaml: cannot be read"),
    "float16 on a CPU": (["search", "--device", "cpu", "--set", "precision=float16"], "only on cuda"),
    "unknown log": (["search", "--log", "wandb"], "tensorboard, mlflow"),
    "plug-in that is not there": (["search", "--data", "nowhere:data"], "nowhere"),
    "zero epochs": (["search", "--epochs", "0"], "--epochs"),
    "target without values": (["search", "--target", "edge"], "--target edge: write NAME=key:value"),
    "unknown key of a target": (
        ["search", "--target", "edge=size:8"],
        "'size:8' is not key:value with a key of device",
    ),
    "value of a target": (
        ["search", "--target", "edge=mode:fast,max:1ms"],
        "--target edge: mode:fast: unknown mode 'fast': use one of eager,",
    ),
    "limit of a target": (["search", "--target", "edge=max:fast"], "--target edge: max: 'fast' is not a latency"),
    "amount of a resource": (["search", "--target", "e=max:1,resource:A=b"], "--target e: resource:A=b: write"),
    "part of a resource": (["search", "--target", "e=max:1,resource:A=1.5"], "resource A=1.5: must be a whole number"),
    "no custom resource": (["search", "--target", "e=max:1,resource:GPU"], "resource 'GPU': must be the name of a cus"),
    "key of a target twice": (["search", "--target", "edge=batch:8,batch:9"], "--target edge: batch is given twice"),
    "target twice": (["search", "--target", "e=max:1ms", "--target", "e=max:2ms"], "--target e: two targets have"),
    "name of a target": (["search", "--target", "a/b=max:1ms"], "--target a/b: a name has letters"),
    "target for nothing": (["search", "--target", "e=batch:8"], "give it a max, or latency:e in --objectives"),
    "objective without target": (["search", "--objectives", "accuracy,latency:e"], "unknown objective 'latency:e'"),
    "one GPU of several as target": (["search", "--target", "e=device:cuda:1,max:1ms"], "must be cpu or cuda"),
    "target that cannot be measured": (
        ["search", "--target", "e=mode:cudagraph,max:1ms", "--device", "cpu"],
        "--target e: mode cudagraph needs a CUDA device",
    ),
    "batch of a target": (["search", "--target", "e=batch:0,max:1ms"], "--target e: batch size 0: must be at least 1"),
    "value with a picture's name": (
        ["search", "--target", "e=threads:x,max:1ms"],
        "--target e: threads:x: must be a whole number",
    ),
    "count without end": (["search", "--max-macs", "9" * 400], "is not a count"),
    "ray client": (["search", "--address", "ray://head:10001"], "ray job submit"),
    "no cluster": (["search", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    "no port": (["search", "--address", "head"], "no Ray cluster answers at head"),
    "path too long": (["search", "--data", "x" * 5000], "unknown data set"),
    "brackets without end": (["search", "--set", "epochs=" + "[" * 3000], "is not a value"),
    "flag beside resume of nothing": (["search", "--resume", "nowhere", "--epochs", "3"], "not a run directory"),
    "resume nothing": (["search", "--resume", "nowhere"], "not a run directory"),
    "unknown architecture": (["evaluate", "r8-c16"], "not of the form"),
    "architecture not in the space": (["evaluate", "r8-c16k3-k3e3s16-h64"], "not in the space digits"),
    "front of nothing": (["front", "nowhere"], "not a run directory"),
    "report of nothing": (["report", "nowhere"], "not a run directory"),
    "export of nothing": (["export", "nowhere", "--to", "x"], "not a run directory"),
    "export without --to": (["export", "nowhere"], "--to"),
    "measure nothing": (["measure"], "nothing to measure"),
    "measure a space": (["measure", "--space", "digits"], "both --space and --arch"),
    "measure an unknown space": (["measure", "--space", "atlantis", "--arch", "middle"], "cifar, digits"),
    "measure an unknown candidate": (["measure", "--space", "digits", "--arch", "r8"], "not of the form"),
    "measure two things": (["measure", "resnet18", "--space", "digits"], "--space cannot be given with resnet18"),
    "measure with classes": (["measure", "resnet18", "--classes", "3"], "--classes cannot be given with resnet18"),
    "measure an input of a candidate": (
        ["measure", "--space", "digits", "--arch", "middle", "--input", "1x8x8"],
        "--input cannot be given with --space",
    ),
    "measure a misspelt model": (["measure", "mobilnet_v2"], "did you mean mobilenet_v2"),
    "measure an unknown model": (["measure", "zzzzzz"], "torchvision has"),
    "measure a detector": (["measure", "fasterrcnn_resnet50_fpn"], "unknown network"),  # it would download weights
    "measure no folder": (["measure", "no/such"], "no/such: no such folder"),
    "measure no file": (["measure", "no/such.py:Network"], "no/such.py: no such file"),
    "measure a file": (["measure", "model.py"], "as in model.py:Network"),
    "measure another folder": (["measure", "/proc"], "not a folder that nas export made"),
    "measure a name too long": (["measure", "x" * 5000], "unknown network"),
    "measure a flat input": (["measure", "resnet18", "--input", "224x224"], "--input 224x224: write channels x height"),
    "measure an empty input": (["measure", "resnet18", "--input", "3x0x8"], "--input 3x0x8"),
    "measure no batch": (["measure", "resnet18", "--batch-size", "0"], "--batch-size 0: write different whole numbers"),
    "measure a batch twice": (["measure", "resnet18", "--batch-size", "1,1"], "--batch-size 1,1"),
    "measure batches apart": (["measure", "resnet18", "--batch-size", "1 2"], "--batch-size 1 2"),
    "measure a graph on a CPU": (
        ["measure", "resnet18", "--mode", "cudagraph", "--device", "cpu"],
        "needs a CUDA device",
    ),
    "measure an unknown mode": (["measure", "resnet18", "--mode", "jit"], "--mode"),
    "measure an unknown dtype": (["measure", "resnet18", "--dtype", "int8"], "--dtype"),
    "measure half by ONNX": (
        ["measure", "resnet18", "--mode", "onnxruntime", "--dtype", "bf16", "--device", "cpu"],
        "float32 alone",
    ),
    "measure without threads": (["measure", "resnet18", "--threads", "0"], "--threads"),
    "measure elsewhere": (["measure", "resnet18", "--device", "tpu"], "auto, cpu, cuda"),
    "check of nothing": (["space", "check", "nowhere.yaml"], "no such file"),
    "show without name": (["space", "show"], "SPACE"),
}


@pytest.mark.parametrize("name", ["NAS_LEASE_DIR", "NAS_LATENCY_CACHE"])
def test_a_folder_that_workers_would_not_find_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "here")
    with pytest.raises(SystemExit) as end:
        main(["search", "--device", "cpu", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    assert f"{name} here: must be an absolute path" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arguments, expected = BAD[name]
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("nas: ")
    assert list(tmp_path.iterdir()) == []  # nothing was made


def test_an_existing_run_directory_is_not_touched(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    code, _, err = call(capsys, "search", "--out", str(run.path))
    assert code == 2
    assert "exists already" in err
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_broken_space_file_names_file_line_and_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ninput: {size: 8}\nstem: {out_channels: 8}\n"
        "stages:\n  - out_channels: 8\n    kernel_size: [3, 4]\n    expansion: 2\n"
    )
    code, _, err = call(capsys, "search", str(path), "--data", "digits")
    assert code == 2
    assert "mine.yaml:6: stages.0.kernel_size" in err
    assert "4" in err


@pytest.mark.usefixtures("brief_measurements")
def test_space_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nas.latency.at_work.OTHERS_LIMIT, "cpu", 1.0)  # so that the second time is looked up
    monkeypatch.setattr("nas.latency.cache.is_quiet", lambda protocol: False)  # noisy ones are not measured again
    monkeypatch.setattr("nas.latency.reference.SLOWED", 1000.0)  # nor those that were measured at another speed
    code, out, _ = call(capsys, "space", "list")
    assert code == 0
    assert all(name in out for name in list_spaces())
    code, out, _ = call(
        capsys,
        "space",
        "show",
        "digits",
        "--max-macs",
        "1",
        "--max-params",
        "1M",
        "--max-latency",
        "9s",
        "--device",
        "cpu",
    )
    assert code == 0
    out = " ".join(out.split())
    assert re.search(r"A budget of 1 MACs cannot be met: the smallest network has [\d,]+ MACs\.", out)
    assert re.search(r"A budget of 1,000,000 parameters can be met: the smallest network has [\d,]+ parameters\.", out)
    assert re.search(r"A budget of 9,000 ms can be met: the fastest of these networks, the \w+, takes [\d.]+ ms\.", out)
    assert "times the backbone's MACs" in out
    code, out, _ = call(capsys, "space", "show", "digits", "--max-latency", "1us", "--device", "cpu")
    assert "4 of 4 looked up" in " ".join(out.split())
    assert re.search(
        r"A budget of 0\.001 ms can hardly be met: the fastest .* takes [\d.]+ ms\.", " ".join(out.split())
    )
    code, out, _ = call(capsys, "space", "show", "digits", "--max-latency", "2.5ms", "--no-measure")
    assert "A budget of 2.5 ms was not checked: latency was not measured." in " ".join(out.split())


def test_front_as_table_json_and_csv(capsys: pytest.CaptureFixture[str], run: RunDirectory) -> None:
    digests = [record.digest for record in run.records()]
    code, out, _ = call(capsys, "front", str(run.path))
    assert code == 0
    assert all(digest[:8] in out for digest in digests)
    assert "50.00 ± 2.50" in out  # 400 validation images
    code, out, _ = call(capsys, "front", str(run.path), "--json")
    data = json.loads(out)
    assert [member["digest"] for member in data["front"]] == digests
    assert data["hypervolume"] > 0
    assert set(data["reference_point"]) == {"accuracy", "latency"}
    code, out, _ = call(capsys, "front", str(run.path), "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["digest"] for row in rows] == digests
    assert [float(row["latency_ms"]) for row in rows] == [1.0 + i for i in range(8)]
    assert {row["memory_bytes"] for row in rows} == {""}  # records without bytes have none
    assert call(capsys, "front", str(run.path), "--csv", "--json")[0] == 2


@pytest.mark.subprocess
def test_report_and_export(capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path) -> None:
    code, out, _ = call(capsys, "report", str(run.path))
    assert code == 0
    assert Path(out.strip()) == run.report_path
    assert run.report_path.is_file()
    digest = run.records()[2].digest
    code, out, _ = call(
        capsys, "export", str(run.path), "--pick", digest[:6], "--no-measure", "--to", str(tmp_path / "m")
    )
    assert code == 0
    assert json.loads((tmp_path / "m" / "model.json").read_text())["digest"] == digest
    code, _, err = call(capsys, "export", str(run.path), "--pick", "best", "--to", str(tmp_path / "n"))
    assert code == 2
    assert "knee, most-accurate, fastest" in err


def test_export_of_a_candidate_whose_weights_are_gone(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    record = run.records()[0]
    run.weights_path(record.digest).unlink()
    code, _, err = call(capsys, "export", str(run.path), "--pick", record.digest, "--to", str(tmp_path / "m"))
    assert code == 2
    assert "were not kept" in err


@pytest.mark.usefixtures("brief_measurements")
def test_evaluate_one_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "evaluate", "smallest", "--epochs", "1", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["outcome"] == "done"
    assert data["latency"]["median_ms"] > 0
    code, out, _ = call(capsys, "evaluate", data["architecture"], "--epochs", "2", "--metric", "macro_f1")
    assert code == 0
    assert data["digest"] in out
    assert out.count("macro_f1") == 2


@pytest.mark.usefixtures("brief_measurements")
def test_a_failed_candidate_is_exit_code_1_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "evaluate", "smallest", "--epochs", "1", "--learning-rate", "1e30")
    assert code == 1
    assert "the candidate failed: " in err


@pytest.mark.usefixtures("brief_measurements")
def test_a_latency_that_was_looked_up_says_when_it_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nas.latency.at_work.OTHERS_LIMIT, "cpu", 1.0)  # whoever else computes on this machine
    monkeypatch.setattr("nas.latency.cache.is_quiet", lambda protocol: False)  # noisy ones are not measured again
    monkeypatch.setattr("nas.latency.reference.SLOWED", 1000.0)  # nor those that were measured at another speed
    arguments = ["evaluate", "middle", "--epochs", "1", "--device", "cpu"]
    said = [call(capsys, *arguments)[1] for _ in range(2)]
    assert any(re.search(r"time \(cached, measured \d{4}-\d\d-\d\d \d\d:\d\d UTC\)", out) for out in said[1:])


TWO = (
    "name: two\ninput: {channels: 1, size: 8}\nstem: {out_channels: 8}\n"
    "stages:\n  - {out_channels: [8, 16], kernel_size: 3, expansion: 2}\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        (["--max-latency", "1us"], "--max-latency 0.001ms"),
        (["--target", "edge=batch:2,max:1us"], "--target edge: max 0.001 ms"),
    ],
)
def test_a_limit_of_latency_that_nothing_meets_is_said_at_once_with_what_the_smallest_network_takes(
    flags: list[str], limit: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, space = tmp_path / "run", tmp_path / "two.yaml"
    space.write_text(TWO)
    code, _, error = call(
        capsys, "search", str(space), "--data", "digits", *flags, "--device", "cpu", "--out", str(out)
    )
    assert code == 2
    told = re.search(
        rf"nas: {limit} cannot be met here: the smallest network of the space two takes ([\d.]+) ms \(([\d.]+) to ([\d.]+)\), "
        r"and the fastest of 2 networks of the least cost ([\d.]+) ms, on .+; allow at least ([\d.]+) ms",
        error,
    )
    assert told, error
    takes, low, high, fastest, least = map(float, told.groups())
    assert 0.001 < low <= takes <= high
    assert fastest <= takes
    assert least >= fastest
    assert not out.exists()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_of_which_nothing_could_be_forecast_or_trained_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, space = tmp_path / "run", tmp_path / "two.yaml"
    space.write_text(TWO)
    arguments = [str(space), "--data", "digits", "--device", "cpu", "--max-concurrent", "1", "--latency", GLANCE]
    arguments += ["--set", "learning_rate=1e30"]  # no backbone can be trained by that
    code, said, _ = call(capsys, "search", *arguments, "--out", str(out))
    assert code == 1
    assert "No forecast" in said
    assert "No candidate was trained." in said
    assert {record.outcome for record in open_run(out).records()} <= {Outcome.FAILED, Outcome.REPEAT}


@pytest.mark.usefixtures("brief_measurements")
def test_reports_of_the_test_split_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "evaluate", "smallest", "--epochs", "4", "--test")
    assert code == 0
    assert "Test split, 360 images" in out
    assert "F1 % before → after" in out
    code, out, _ = call(capsys, "evaluate", "smallest", "--epochs", "4", "--test", "--json")
    reports = json.loads(out)["test"]
    assert reports["after"]["accuracy"] > reports["before"]["accuracy"]
    assert sum(map(sum, reports["after"]["confusion"])) == 360


def test_a_recipe_that_was_printed_is_read_and_goes_with_any_initial_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, printed, _ = call(capsys, "recipe", "--set", "optimizer=sgd")
    assert code == 0
    file = tmp_path / "mine.yaml"
    file.write_text(printed)
    code, again, _ = call(capsys, "recipe", "--recipe", str(file))
    assert again == printed
    code, inheriting, _ = call(
        capsys, "recipe", "--recipe", str(file), "--init", "efficientnet_lite0", "--learning-rate", "0.5"
    )
    assert "optimizer: sgd" in inheriting
    assert "\nlearning_rate: 0.5\n" in inheriting


FULL = "the output cannot be written: No space left on device"


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "arguments", [("front", "RUN"), ("front", "RUN", "--csv"), ("status", "RUN"), ("recipe",), ("space", "list")]
)
def test_output_to_a_full_disk_is_one_sentence(run: RunDirectory, arguments: tuple[str, ...]) -> None:
    words = [str(run.path) if word == "RUN" else word for word in arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nas", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, f"nas: {FULL}\n")


@pytest.mark.subprocess
@pytest.mark.parametrize("arguments", [("front", "RUN"), ("recipe",)])
def test_a_reader_that_goes_away_is_no_error(run: RunDirectory, arguments: tuple[str, ...]) -> None:
    words = [str(run.path) if word == "RUN" else word for word in arguments]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "nas", *words], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.subprocess
def test_reading_a_run_does_not_import_torch_or_ray(run: RunDirectory) -> None:
    script = "import sys; from nas.cli.app import main\ntry: main(['front', sys.argv[1]])\nexcept SystemExit: pass\n"
    script += "print('imported:', [name for name in ('torch', 'ray', 'plotly', 'sklearn') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, check=True)
    assert "imported: []" in out.stdout


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration, "90", 90.0),
        (parse_duration, "30m", 1800.0),
        (parse_duration, "1.5h", 5400.0),
        (parse_milliseconds, "2.5ms", 2.5),
        (parse_milliseconds, "800us", 0.8),
        (parse_count, "300M", 300_000_000),
        (parse_count, "1.5k", 1500),
    ],
)
def test_units(parse: object, text: str, value: float) -> None:
    assert callable(parse)
    assert parse(text) == pytest.approx(value)


def test_python_api_is_what_it_says() -> None:
    import nas

    assert nas.__all__
    for name in nas.__all__:
        assert getattr(nas, name) is not None
    assert nas.build(nas.load_space("digits").smallest, 10)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_flags_that_were_called_otherwise_are_taken_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = call(capsys, "search", "--mirror", "no-uri", "--trials", "2")
    assert (code, "--replica no-uri: cannot be used: not a URI" in error) == (2, True)
    old, now = (call(capsys, verb, "no-run")[2] for verb in ("audit", "fidelity"))
    assert old == now != ""
    assert "audit" not in call(capsys)[1]
    code, out, _ = call(capsys, "search", "--help")
    assert (code, "--replica" in out, "--mirror" in out) == (0, True, False)


def test_markup_of_our_own_texts_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["space", "show", "digits", "--no-measure"]):
        code, out, _ = call(capsys, *command)
        assert (code, "[bold]" in out, "[/" in out) == (0, False, False)
