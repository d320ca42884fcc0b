"""Each mode really runs the network, says what stops it in a sentence, and is refused where it cannot be had."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import COMPILE
from torch import nn

from nas.common.errors import CandidateError, InputError
from nas.latency.measuring import measure
from nas.latency.outputs import tensors_of
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes import check_protocol, prepare, software
from nas.latency.runtimes.base import Session

CPU = LatencyProtocol()


def network(seed: int, width: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def output(session: Session) -> torch.Tensor:
    """The first tensor that a run gives."""
    return next(tensors_of(session.outputs()))


@pytest.mark.parametrize("mode", ["eager", COMPILE, "onnxruntime"])
def test_a_mode_runs_the_network_one_after_another(mode: str) -> None:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for seed in (0, 1):  # of one class and one shape, so that a stale compiled network would be mistaken for it
        module = network(seed, 4)
        expected = module(images)
        session = prepare(module, images, replace(CPU, mode=mode))
        torch.testing.assert_close(output(session), expected, rtol=1e-4, atol=1e-5)
        images.mul_(2)  # the images are read again in each run
        torch.testing.assert_close(output(session), module(images), rtol=1e-4, atol=1e-5)


class Branches(nn.Module):
    """Can run, and be compiled in parts; cannot be exported, since what it does hangs on a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum().item() > 0 else x - 1


def test_a_failing_export_is_one_sentence_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CandidateError) as error:
        measure(Branches(), (1, 4, 4), replace(CPU, mode="onnxruntime"))
    message = str(error.value)
    assert message.startswith("latency could not be measured in mode onnxruntime: ")
    assert "data-dependent" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["eager", COMPILE, "onnxruntime"])
def test_a_network_that_does_not_run_says_the_same_in_every_mode(mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CandidateError, match=r"RuntimeError: Given groups=1.*expected input\[1, 3, 4, 4\]"):
        measure(nn.Conv2d(1, 4, 3), (3, 4, 4), replace(CPU, mode=mode))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mode": "graph"},
            "unknown mode 'graph' .did you mean 'cudagraph'.*: use one of eager, cudagraph, compile, onnxruntime",
        ),
        ({"dtype": "fp16"}, "unknown dtype 'fp16': use float32, float16, bfloat16"),
        ({"batch_size": 0}, "batch size 0: must be at least 1"),
        ({"max_s": float("nan")}, "max_s nan: must be a number of at least 0"),
        ({"warmup_s": float("inf")}, "warmup_s inf: must be a number"),
        ({"min_blocks": 0}, "min_blocks 0: must be a number of at least 1"),
        ({"threads": 0}, "threads 0: must be at least 1"),
        ({"threads": 10**14}, "threads 100000000000000: must be at most 1,024"),
        ({"mode": "cudagraph"}, "needs a CUDA device, not cpu"),
        ({"mode": "onnxruntime", "device": "cuda:1"}, "on the CPU alone, not cuda:1"),
        ({"mode": "onnxruntime", "dtype": "bfloat16"}, "float32 alone, not bfloat16"),
    ],
)
def test_a_protocol_that_cannot_be_had_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_protocol(replace(CPU, **changes))


@pytest.mark.parametrize(
    ("changes", "package", "message"),
    [
        ({"mode": "onnxruntime"}, "onnxscript", r"needs onnxscript: pip install 'pareto-nas\[onnx\]'"),
        ({"mode": "compile", "device": "cuda"}, "triton", "needs Triton"),
    ],
)
def test_a_package_that_a_mode_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], package: str, message: str
) -> None:
    module = importlib.import_module(f"nas.latency.runtimes.{changes['mode']}")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(InputError, match=message):
        check_protocol(replace(CPU, **changes))


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        check_protocol(replace(CPU, mode="compile"))


def test_software_names_what_the_number_depends_on() -> None:
    assert software(CPU)["torch"] == torch.__version__
    assert "onnxruntime" in software(replace(CPU, mode="onnxruntime"))
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    on_gpu = replace(CPU, device="cuda")
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "tf32"
        assert "convolutions" in software(on_gpu)["tf32"]
        convolutions.fp32_precision = "ieee"  # from here on the older allow_tf32 cannot even be read
        assert "convolutions" not in software(on_gpu)["tf32"]
    finally:
        convolutions.fp32_precision = before
    assert "tf32" not in software(replace(on_gpu, dtype="float16"))
