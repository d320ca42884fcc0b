"""Where candidates train and what they are measured on: two things, of which either may be a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import call
from conftest import RunFactory

import nas.latency.at_work
import nas.search.evaluate
import nas.workflows.plan
from nas.common.errors import InputError
from nas.data.sets import load_data
from nas.latency.lease import Grant
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.runs.demands import ResourceRequest, trial_request
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings, LatencyTarget, Resources, SearchSettings
from nas.runs.store import open_run
from nas.runs.targets import latency_devices, places, targets_here
from nas.search.conditions import settings_here
from nas.search.evaluate import evaluate_steps
from nas.search.ray.placement import capacity, fitted_resources
from nas.spaces.files import load_space
from nas.training.device_data import DeviceData
from nas.training.recipe import Recipe
from nas.workflows.plan import plan_search

SPACE = load_space("digits")
QUICK = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5, attempts=1)
ON_GPU = replace(QUICK, device="cuda", mode="cudagraph")
SPLIT = EvaluationSettings(Recipe(epochs=1, precision="float32"), QUICK, train_device="cuda")


def searched(evaluation: EvaluationSettings = SPLIT, **changes: Any) -> SearchSettings:
    return SearchSettings(SPACE, "digits", evaluation=evaluation, **changes)


def test_without_a_device_to_train_on_it_is_that_of_the_first_latency() -> None:
    for protocol in (QUICK, ON_GPU):
        settings = searched(EvaluationSettings(protocol=protocol))
        assert settings.device == protocol.device
        assert settings.worker_devices == (protocol.device,)


def test_the_first_latency_is_one_of_all() -> None:
    edge = LatencyTarget("edge", replace(QUICK, batch_size=8), 5.0)
    first, second = replace(SPLIT, targets=(edge,)).latencies
    assert (first.protocol, first.max_ms) == (SPLIT.protocol, None)
    assert second is edge


def test_a_trial_takes_a_gpu_to_train_for_a_cpu_and_its_latency_is_the_cpus() -> None:
    settings = searched()
    assert settings.device == "cuda"
    assert trial_request(settings.resources, settings.on_gpu) == ResourceRequest(1.0, 1.0)
    assert latency_devices(settings) == ("cpu",)
    assert capacity(settings, [{"CPU": 8.0, "GPU": 2.0}]) == 2
    assert fitted_resources(settings, [{"CPU": 8.0, "GPU": 2.0}]).gpus_per_trial == 1.0
    with pytest.raises(
        InputError, match=r"a trial takes 1 CPUs and 1 GPUs on one node, but Ray has 1 node with 8 CPUs"
    ):
        fitted_resources(settings, [{"CPU": 8.0}])


def test_a_trial_that_trains_on_a_cpu_takes_the_gpu_that_it_is_measured_on() -> None:
    settings = searched(replace(SPLIT, protocol=ON_GPU, train_device="cpu"), resources=Resources(gpus_per_trial=0.5))
    assert settings.device == "cpu"
    assert settings.on_gpu
    assert latency_devices(settings) == ("cuda",)
    assert capacity(settings, [{"CPU": 8.0, "GPU": 1.0}]) == 2


def test_a_worker_measures_on_every_device_that_it_has() -> None:
    further = (LatencyTarget("gpu", ON_GPU), LatencyTarget("edge", QUICK, resources={"EDGE": 1.0}))
    settings = searched(replace(SPLIT, targets=further))
    assert [target.name for target in targets_here(settings)] == ["gpu"]
    assert [[target.name for target in there] for there in places(settings).values()] == [["edge"]]
    on_cpu = searched(replace(SPLIT, targets=further, train_device=None))
    assert [target.name for target in targets_here(on_cpu)] == []


def test_a_run_keeps_its_devices_and_an_older_one_is_read(make_run: RunFactory) -> None:
    run = make_run(searched())
    assert open_run(run.path).settings == run.settings
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    del written["settings"]["evaluation"]["train_device"]
    del written["provenance"]["train_hardware"]
    (run.path / "run.yaml").write_text(yaml.safe_dump(written))
    older = open_run(run.path)
    assert older.settings.device == "cpu"
    assert older.provenance.trained_on == "test"


@pytest.mark.skipif(torch.cuda.is_available(), reason="is refused only without a GPU")
def test_a_run_that_trains_on_a_gpu_goes_on_here_on_a_device_that_is_given(make_run: RunFactory) -> None:
    run = make_run(searched())
    with pytest.raises(InputError, match="device cuda: torch sees no CUDA GPU here"):
        settings_here(run)
    here = settings_here(run, "cpu")
    assert (here.device, here.evaluation.protocol.device) == ("cpu", "cpu")


# ---------------------------------------------------------------- what the flags ask for


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SearchSettings]:
    """What would be searched for on a machine with a GPU."""
    found: list[SearchSettings] = []

    def plan(settings: SearchSettings, *_: object) -> None:
        found.append(settings)
        raise InputError("far enough")

    def device_of(name: str, address: str | None, resources: Resources, functions: object) -> str:
        return "cuda" if name == "auto" else name

    monkeypatch.setattr(nas.workflows.plan, "plan_search", plan)
    monkeypatch.setattr(nas.workflows.plan, "device_of", device_of)
    return found


@pytest.mark.parametrize(
    ("flags", "train_device", "measured_on"),
    [
        ([], None, "cuda"),
        (["--device", "cpu"], None, "cpu"),
        (["--device", "cuda"], None, "cuda"),
        (["--train-device", "cuda", "--latency", "device:cpu,mode:onnxruntime"], "cuda", "cpu"),
        (["--train-device", "cuda", "--device", "cpu"], "cuda", "cpu"),
        (["--device", "cuda", "--latency", "device:cpu"], "cuda", "cpu"),
        (["--latency", "device:cpu"], None, "cpu"),
        (["--train-device", "cpu"], "cpu", "cuda"),
        (["--train-device", "cpu", "--device", "cpu", "--latency", "device:cpu"], None, "cpu"),
    ],
)
def test_flags_say_where_to_train_and_what_to_measure_on(
    asked: list[SearchSettings],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    train_device: str | None,
    measured_on: str,
) -> None:
    code, _, err = call(capsys, "search", "digits", *flags)
    assert (code, err) == (2, "nas: far enough\n")
    evaluation = asked[0].evaluation
    assert evaluation.train_device == train_device
    assert evaluation.protocol.device == measured_on
    mode = {"mode": "onnxruntime"} if "device:cpu,mode:onnxruntime" in flags else {}
    assert evaluation.protocol == replace(default_protocol(measured_on), **mode)  # type: ignore[arg-type]


@pytest.mark.usefixtures("asked")
def test_a_target_is_by_default_on_the_device_of_the_first_latency(
    asked: list[SearchSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--train-device", "cuda", "--latency", "device:cpu", "--target", "many=batch:8,max:5ms"]
    call(capsys, "search", "digits", *flags)
    assert asked[0].evaluation.targets[0].protocol == replace(default_protocol("cpu"), batch_size=8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is refused only without a GPU")
def test_a_device_to_train_on_that_is_not_here_is_named_by_its_flag(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = ["--train-device", "cuda", "--latency", "device:cpu", "--out", str(out)]
    code, _, err = call(capsys, "search", "digits", *flags)
    assert code == 2
    assert err.startswith("nas: --train-device cuda: torch sees no CUDA GPU here; use --train-device cpu")
    assert not out.exists()


@pytest.mark.parametrize(
    ("evaluation", "name"),
    [
        (replace(SPLIT, train_device="cuda:1"), "train_device"),
        (replace(SPLIT, protocol=replace(ON_GPU, device="cuda:1"), train_device="cpu"), "device"),
    ],
)
def test_gpus_are_dealt_out_by_ray(evaluation: EvaluationSettings, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{name} cuda:1: Ray deals out the GPUs; use {name} cuda"):
        plan_search(searched(evaluation), tmp_path / "run")


# ---------------------------------------------------------------- leases


class Recorded:
    """A device's lease that tells when it is held."""

    def __init__(self, device: str, events: list[str]) -> None:
        self.device, self.events = device, events

    @contextmanager
    def shared(self) -> Iterator[None]:
        self.events.append(f"{self.device} shared")
        yield
        self.events.append(f"{self.device} free")

    @contextmanager
    def exclusive(self) -> Iterator[Grant]:
        self.events.append(f"{self.device} alone")
        yield Grant(contended=False, waited_s=0.0)
        self.events.append(f"{self.device} free")


def test_a_trial_has_the_cpu_alone_while_measured_there_and_trains_under_the_lease_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network itself trains on the CPU here, which has no GPU: what is looked at is who holds which lease."""
    events: list[str] = []
    for module in (nas.latency.at_work, nas.search.evaluate):
        monkeypatch.setattr(module, "lease_for", lambda device: Recorded(device, events))
    monkeypatch.setenv("NAS_LATENCY_CACHE", "off")
    digits = load_data("digits", channels=1).without_test()
    few = replace(digits, train=digits.train.subset(np.arange(64)), validation=digits.validation.subset(np.arange(64)))
    steps = evaluate_steps(SPACE.smallest, DeviceData(few, "cpu"), SPLIT)
    epoch = next(steps)
    assert epoch.latency is not None
    assert epoch.latency.protocol == QUICK
    with pytest.raises(StopIteration) as ended:
        next(steps)
    assert ended.value.value.evaluation.outcome is Outcome.DONE
    measured = events.index("cpu alone")
    trained = events.index("cuda shared")
    assert measured < trained
    assert set(events[trained:]) == {"cuda shared", "cuda free"}
    held = 0
    for event in events:  # one lease at a time, given back before the next
        held += -1 if event.endswith("free") else 1
        assert 0 <= held <= 1
    assert held == 0
