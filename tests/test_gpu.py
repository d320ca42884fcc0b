"""What only a GPU can show: precisions, captured graphs, the lease of a device, a whole search. Skipped without one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.common.errors import InputError
from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.latency.lease import lease_for
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol, Precision
from nas.latency.runtimes.cudagraph import captured
from nas.models.networks import build
from nas.models.sources import SUPERNET
from nas.models.supernet import load_supernet
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings
from nas.runs.store import open_run
from nas.search.evaluate import starting_network
from nas.spaces.files import load_space
from nas.tasks.classification_metrics import METRICS
from nas.training.device_data import DeviceData
from nas.training.loop import finetune, predict
from nas.training.recipe import Recipe
from nas.training.supernet_file import read_file
from nas.workflows.supernet import plan_supernet, train_supernet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.timeout(300),
]
SPACE = load_space("digits")
QUICK = LatencyProtocol(device="cuda", mode="cudagraph", warmup_s=0.1, max_s=0.3, min_blocks=5)
RECIPE = Recipe(epochs=4, batch_size=32, learning_rate=0.01)
NAS = [sys.executable, "-m", "nas.cli"]


@pytest.fixture(scope="module")
def digits() -> DeviceData:
    return DeviceData(load_data("digits", channels=1), "cuda")


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_a_fine_tune_learns_in_every_precision(digits: DeviceData, precision: str) -> None:
    model = build(SPACE.backbone, 10)
    recipe = replace(RECIPE, epochs=10, precision=precision)  # type: ignore[arg-type]
    *_, last = finetune(model, digits, 8, recipe, METRICS["accuracy"], seed=0)
    assert last.score > 0.85
    for tensor in model.state_dict().values():
        assert tensor.device.type == "cuda"
        assert torch.isfinite(tensor).all()
        assert not tensor.is_floating_point() or tensor.dtype is torch.float32


def test_gpu_and_cpu_give_one_network_the_same_logits(digits: DeviceData) -> None:
    model = build(SPACE.largest, 10).eval()
    on_cpu = DeviceData(digits.data, "cpu")
    images = torch.from_numpy(digits.data.validation.images[:64].copy())
    with torch.inference_mode():
        there = model(on_cpu.prepare(images, 8))
        here = model.to("cuda").to(memory_format=torch.channels_last)(digits.prepare(images.to("cuda"), 8))
    torch.testing.assert_close(here.cpu(), there, atol=5e-3, rtol=5e-3)  # torch's convolutions use TF32


@pytest.mark.parametrize("mode", ["eager", "cudagraph", "compile"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_latency_in_every_mode_and_precision(mode: str, dtype: Precision) -> None:
    found = measure(build(SPACE.backbone, 10), (1, 8, 8), replace(QUICK, mode=mode, dtype=dtype))
    assert 0 < found.p10_ms <= found.median_ms <= found.p90_ms < 1000
    assert found.device_name == device_name("cuda")
    assert found.before is not None
    assert found.before.clock_mhz  # NVML answers
    assert found.before.power_w


def test_a_captured_graph_computes_what_the_network_does() -> None:
    model = build(SPACE.backbone, 10).eval().to("cuda")
    images = torch.rand(4, 1, 8, 8, device="cuda")
    with torch.inference_mode():
        run = captured(lambda: model(images))
        for _ in range(2):
            images.copy_(torch.rand_like(images))
            answer = run()
            assert isinstance(answer, torch.Tensor)
            torch.testing.assert_close(answer, model(images), atol=1e-3, rtol=1e-3)


_TRAINER = """
import sys
from nas.data.sets import load_data
from nas.training.device_data import DeviceData
from nas.latency.lease import lease_for
from nas.training.loop import finetune
from nas.tasks.classification_metrics import METRICS
from nas.models.networks import build
from nas.training.recipe import Recipe
from nas.spaces.files import load_space

data = DeviceData(load_data("digits", channels=1).without_test(), "cuda")
network = build(load_space("digits").backbone, 10)
for epoch in finetune(network, data, 8, Recipe(epochs=10**6), METRICS["accuracy"], seed=0, lease=lease_for("cuda")):
    print(epoch.epoch, flush=True)
"""


def test_a_measurement_has_the_gpu_to_itself_while_another_process_trains() -> None:
    trainer = subprocess.Popen([sys.executable, "-c", _TRAINER], stdout=subprocess.PIPE, text=True)
    try:
        assert trainer.stdout is not None
        assert trainer.stdout.readline()
        model = build(SPACE.backbone, 10)
        beside = [measure(model, (1, 8, 8), QUICK) for _ in range(3)]
        assert not any(found.contended for found in beside)
        assert any(found.waited_s > 0 for found in beside)
        assert trainer.poll() is None
        assert trainer.stdout.readline()  # it has gone on
    finally:
        trainer.kill()
        trainer.wait()
    assert lease_for("cuda").key == lease_for("cuda:0").key  # by the device's UUID, not by its number
    assert lease_for("cuda").key.startswith(("gpu-", "mig-"))


def test_a_supernet_that_was_killed_goes_on_and_serves_candidates(tmp_path: Path, digits: DeviceData) -> None:
    out = tmp_path / "supernet"
    flags = ["--epochs", "6", "--batch-size", "32", "--learning-rate", "0.01"]
    command = [*NAS, "supernet", "train", "digits", "--device", "cuda", "--out", str(out), *flags]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not ((out / "checkpoint.pt").is_file() and read_file(out).history):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = len(read_file(out).history)
    assert 1 <= begun < 6
    assert read_file(out).recipe.precision in ("bfloat16", "float16")
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(read_file(out).history) == 6
    assert all(torch.isfinite(tensor).all() for tensor in load_supernet(out).state.values())
    network, _ = starting_network(SPACE.largest, digits, EvaluationSettings(init=f"{SUPERNET}{out}"))
    said = predict(network, digits, digits.validation, SPACE.largest.input_size).predictions
    assert (said == digits.data.validation.labels).mean() > 0.7  # without training of its own


def test_more_devices_than_there_are_gpus_are_refused(tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    recipe = replace(RECIPE, batch_size=(count + 1) * 8)
    with pytest.raises(InputError, match=f"devices {count + 1}: torch sees {count} GPUs here"):
        plan_supernet(tmp_path / "many", SPACE, "digits", recipe, device="cuda", devices=count + 1)


def test_the_processes_of_ray_train_reach_the_gpu(tmp_path: Path) -> None:
    from nas.workflows.supernet_devices import train_on_devices

    plan = plan_supernet(tmp_path / "one", SPACE, "digits", replace(RECIPE, epochs=2), device="cuda")
    plan.folder.mkdir()
    told: list[int] = []
    train_on_devices(plan, lambda epoch: told.append(epoch.epoch), lambda: False)
    assert told == [1, 2]
    assert plan.done
    assert train_supernet(plan) is None


def test_a_whole_search_on_the_gpu(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*NAS, "search", "digits", "--device", "auto", "--trials", "6", "--epochs", "2", "--out", str(out)]
    done = subprocess.run([*command, "--max-concurrent", "2"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    records = open_run(out).records()
    assert not [record for record in records if record.outcome in (Outcome.FAILED, Outcome.LOST)]
    measured = [record.evaluation.latency for record in records if record.outcome is Outcome.DONE]
    assert len(measured) >= 6
    for latency in measured:
        assert latency is not None
        assert latency.device_name == device_name("cuda")
        assert latency.protocol.mode == "cudagraph"
    exported = tmp_path / "exported"
    export = subprocess.run(
        [*NAS, "export", str(out), "--to", str(exported)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert export.returncode == 0, export.stdout + export.stderr


def test_a_search_trains_on_the_gpu_for_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*NAS, "search", "digits", "--trials", "3", "--epochs", "1", "--confirm", "0", "--out", str(out)]
    command += ["--train-device", "cuda", "--latency", "device:cpu,mode:onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    run = open_run(out)
    assert run.provenance.hardware == device_name("cpu")
    assert run.provenance.trained_on == device_name("cuda")
    trained = [record.evaluation for record in run.records() if record.outcome is Outcome.DONE]
    assert len(trained) == 3
    for evaluation in trained:
        assert evaluation.latency is not None
        assert evaluation.latency.device_name == device_name("cpu")
        assert evaluation.latency.protocol.mode == "onnxruntime"
    assert run.settings.evaluation.recipe.precision in ("bfloat16", "float16")  # as settled on the GPU
