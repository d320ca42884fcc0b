"""How a network runs when it is deployed: as eager PyTorch, a captured CUDA graph, compiled, or by ONNX Runtime.

Each mode turns a network that is ready (eval mode, on its device, batch norm folded) into a function of nothing
that runs it once on fixed images.
"""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from types import FunctionType
from typing import get_args

import torch
from torch import nn

from nas.common.errors import CandidateError, InputError
from nas.latency.device import cpu_identity
from nas.latency.protocol import LatencyProtocol, Mode, Precision
from nas.latency.telemetry import driver_version

Run = Callable[[], object]

MOST_THREADS = 1024
"""Above, OpenMP may end the process where it cannot start so many."""
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_protocol(protocol: LatencyProtocol) -> None:
    """Raise `InputError` when a latency cannot be measured here in this way."""
    kind = protocol.device.partition(":")[0]
    for what, given, allowed in (("mode", protocol.mode, Mode), ("dtype", protocol.dtype, Precision)):
        if given not in get_args(allowed):
            raise InputError(f"unknown {what} {given!r}: use {', '.join(get_args(allowed))}")
    for flag, value in (("batch size", protocol.batch_size), ("threads", protocol.threads)):
        if value < 1:
            raise InputError(f"{flag} {value}: must be at least 1")
    for name, number, least in (
        ("warmup_s", protocol.warmup_s, 0.0),
        ("block_ms", protocol.block_ms, 1e-3),
        ("min_blocks", protocol.min_blocks, 1),
        ("max_s", protocol.max_s, 0.0),
        ("attempts", protocol.attempts, 1),
    ):
        if not least <= number < math.inf:  # it would measure for ever, and hold the device
            raise InputError(f"{name} {number}: must be a number of at least {least:g}")
    if protocol.threads > MOST_THREADS:
        raise InputError(f"threads {protocol.threads}: must be at most {MOST_THREADS:,}")
    if protocol.mode == "cudagraph" and kind != "cuda":
        raise InputError(
            f"mode cudagraph needs a CUDA device, not {protocol.device}: use eager, compile or onnxruntime"
        )
    if protocol.mode == "onnxruntime":
        if kind != "cpu":
            raise InputError(f"mode onnxruntime measures on the CPU alone, not {protocol.device}: use --device cpu")
        if protocol.dtype != "float32":
            raise InputError(f"mode onnxruntime measures float32 alone, not {protocol.dtype}")
        check_onnx("mode onnxruntime")
    if protocol.mode == "compile" and kind == "cpu":
        compilers = [os.environ.get("CXX"), "g++", "clang++"]
        if not any(name and shutil.which(name) for name in compilers):
            raise InputError("mode compile needs a C++ compiler on the CPU: install g++, or let CXX name one")
    if protocol.mode == "compile" and kind == "cuda" and find_spec("triton") is None:
        raise InputError("mode compile needs Triton on a CUDA device: pip install triton")


def check_onnx(what: str) -> None:
    """Raise `InputError` when packages are not installed that `what` needs, all of the extra `onnx`."""
    missing = [package for package in _ONNX_PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'pareto-nas[onnx]'")


@contextmanager
def candidates_errors(protocol: LatencyProtocol) -> Iterator[None]:
    """What goes wrong with the network itself, as a `CandidateError`."""
    try:
        yield
    except (InputError, CandidateError):
        raise
    except Exception as error:  # the network's own code, Inductor and the exporter raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CandidateError(f"latency could not be measured in mode {protocol.mode}: {reason}") from error


def runner(network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Run:
    """The network in the protocol's mode on these images (N, C, H, W), built and run once on return.

    What it returns holds all that it needs, the network and the images included, and gives the network's output. On
    CUDA the current device must be the images'. Raises `CandidateError` when the network cannot be brought into that
    mode.
    """

    def eager() -> object:
        return network(images)

    run: Run = eager
    with candidates_errors(protocol), quiet():
        eager()  # a network that does not run at all says so better than a compiler or an exporter would
        match protocol.mode:
            case "onnxruntime":
                run = _onnxruntime(network, images, protocol.threads)
            case "compile":
                run = _compiled(network, images)
        if images.device.type == "cuda" and protocol.mode != "eager":
            run = captured(run)
        run()
        if images.device.type == "cuda":
            torch.cuda.synchronize()  # before whoever calls gives its lease back
    return run


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, logs and advice of compilers and exporters; what matters is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@dataclass(frozen=True)
class _Captured:
    """A CUDA graph with what it reads and writes by address: nothing but this keeps that memory from being reused."""

    graph: torch.cuda.CUDAGraph
    run: Run
    output: object

    def __call__(self) -> object:
        self.graph.replay()
        return self.output


def captured(run: Run) -> Run:
    """A CUDA graph of one run; warm-up on a side stream, as capturing asks for (PyTorch's notes on CUDA graphs).

    That stream captures too: the default one belongs to the GPU that captured first in this process, and libraries
    that set themselves up anew for each stream would do so while capturing.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        output = run()
    return _Captured(graph, run, output)


def _compiled(network: nn.Module, images: torch.Tensor) -> Run:
    """The network through Inductor, for these shapes alone."""

    def forward(images: torch.Tensor) -> object:
        return network(images)

    # Dynamo keeps a few compilations for each code object, then gives up; this one is nobody else's.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    compiled = torch.compile(own, dynamic=False)
    return lambda: compiled(images)


def _onnxruntime(network: nn.Module, images: torch.Tensor, threads: int) -> Run:
    """The network exported to ONNX for these images, and run by ONNX Runtime."""
    program = onnx_program(network, images)
    return onnx_run(program.model_proto.SerializeToString(), images, threads)


def onnx_program(network: nn.Module | torch.export.ExportedProgram, images: torch.Tensor) -> torch.onnx.ONNXProgram:
    """The network in ONNX, its input named `images` and its output `logits`; raises what the exporter raises."""
    try:
        with redirect_stderr(io.StringIO()):  # where a failing export prints the graph
            program = torch.onnx.export(
                network, (images,), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
            )
    except torch.onnx.errors.OnnxExporterError as error:  # whose message is advice; its cause says what is wrong
        raise error.__cause__ or error from None
    assert program is not None
    return program


def onnx_run(model: bytes | str, images: torch.Tensor, threads: int) -> Run:
    """An ONNX model, as bytes or by its path, on these images (N, C, H, W) in ONNX Runtime on the CPU, bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between runs would disturb the trial that measures next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, images.contiguous().numpy())
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def run() -> object:
        session.run_with_iobinding(binding)
        return binding  # which holds the outputs; copying them out takes time

    return run


def software(protocol: LatencyProtocol) -> dict[str, str]:
    """Versions that a latency depends on."""
    versions = {"torch": str(torch.__version__)}
    if protocol.mode == "onnxruntime":
        versions["onnxruntime"] = metadata.version("onnxruntime")
    if protocol.device != "cpu":
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())
        versions["driver"] = driver_version() or "unknown"
        if protocol.dtype == "float32":
            # Not by allow_tf32, which raises where a caller has set precision by the newer names.
            precisions = {
                "convolutions": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
                "matrix products": torch.backends.cuda.matmul.fp32_precision,
            }
            versions["tf32"] = ", ".join(name for name, value in precisions.items() if value == "tf32") or "no"
    else:
        versions["kernel"] = os.uname().release
        versions["cpu"] = cpu_identity()
    return versions
