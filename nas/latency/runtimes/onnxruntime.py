"""ONNX Runtime on the CPU, and the export to ONNX that it takes."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import Runtime, Session

if TYPE_CHECKING:
    import torch
    from torch import nn

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxRuntime(Runtime):
    """The network exported for these images."""

    devices = ("cpu",)
    precisions = ("float32",)
    converts = True

    def check(self, protocol: LatencyProtocol) -> None:
        check_onnx("mode onnxruntime")

    def software(self) -> dict[str, str]:
        return {"onnxruntime": metadata.version("onnxruntime")}

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        model = onnx_program(network, images).model_proto.SerializeToString()
        return onnx_session(model, images, protocol.threads)


ONNXRUNTIME = OnnxRuntime()


def check_onnx(what: str) -> None:
    """Raise `InputError` when packages are not installed that `what` needs, all of the extra `onnx`."""
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"{what} needs {', '.join(missing)}: pip install 'pareto-nas[onnx]'")


def onnx_program(network: nn.Module | torch.export.ExportedProgram, images: torch.Tensor) -> torch.onnx.ONNXProgram:
    """The network in ONNX, its input named `images` and its output `logits`; raises what the exporter raises."""
    import torch

    try:
        with redirect_stderr(io.StringIO()):  # where a failing export prints the graph
            program = torch.onnx.export(
                network, (images,), dynamo=True, verbose=False, input_names=["images"], output_names=["logits"]
            )
    except torch.onnx.errors.OnnxExporterError as error:  # whose message is advice; its cause says what is wrong
        raise error.__cause__ or error from None
    assert program is not None
    return program


def onnx_session(model: bytes, images: torch.Tensor, threads: int) -> Session:
    """An ONNX model on these images (N, C, H, W) in ONNX Runtime on the CPU, bound once."""
    import onnxruntime
    import torch

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

    def run() -> Any:
        session.run_with_iobinding(binding)
        return binding  # which holds the outputs; copying them out takes time

    return Session(run, lambda: [torch.from_numpy(each) for each in run().copy_outputs_to_cpu()], model)
