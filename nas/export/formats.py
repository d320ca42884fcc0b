"""The further formats of an exported network: written with a batch of any size, and run again to be measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nas.common.errors import ExportError, InputError, arg
from nas.export.check import FILES
from nas.latency.measuring import measure_ready
from nas.latency.prepare import Preparation
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.latency.runtimes.base import Session, quiet
from nas.latency.runtimes.cudagraph import captured
from nas.latency.runtimes.onnxruntime import check_onnx, onnx_program, onnx_session
from nas.workflows.measurable import named

SOURCE = "source"
"""model.py with model.pt: the format that every export has."""


def check_formats(formats: Collection[str]) -> None:
    """Raise `InputError` when one of the formats is unknown, or cannot be written here."""
    for form in formats:
        if form not in FILES:
            raise InputError(f"{arg('formats')} {form}: use {', '.join(FILES)}")
    if "onnx" in formats:
        check_onnx(f"{arg('formats')} onnx")
    if "torchscript" in formats and not hasattr(torch.jit, "trace"):
        raise InputError(
            f"{arg('formats')} torchscript: torch {torch.__version__} has no TorchScript any more: use pt2"
        )


def write_formats(
    network: nn.Module, images: torch.Tensor, folder: Path, formats: Collection[str], texts: Mapping[str, str]
) -> None:
    """Write a network in eval mode in each of the formats, with `texts` by name inside.

    `images` (N, C, H, W) are those that it is traced with: two or more, since a batch of one would be taken for the
    only size there is. Raises `ExportError` where an exporter cannot.
    """
    program = None
    for form in formats:
        path = folder / FILES[form]
        try:
            with quiet(), torch.no_grad():
                if form == "torchscript":
                    traced = torch.jit.trace(network, images)
                    torch.jit.save(traced, path, _extra_files={name: text.encode() for name, text in texts.items()})
                    continue
                if program is None:
                    batch = torch.export.Dim("batch")
                    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
                if form == "pt2":
                    torch.export.save(program, path, extra_files=dict(texts))
                else:
                    _write_onnx(program, images, path, texts)
        except Exception as error:  # exporters raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ExportError(f"{form} in {str(images.dtype)[6:]} cannot be written here: {reason}") from error


def _write_onnx(
    program: torch.export.ExportedProgram, images: torch.Tensor, path: Path, texts: Mapping[str, str]
) -> None:
    import onnx

    proto = onnx_program(program, images).model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"  # torch.export calls it s77
    onnx.helper.set_model_props(proto, dict(texts))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def measured(
    folder: Path, formats: Collection[str], shape: tuple[int, int, int], protocol: LatencyProtocol, fold_bn: bool
) -> dict[str, Latency]:
    """The latency of each format of an exported folder, the source among them, by device, batch and threads of `protocol`.

    Each as it lies there; on CUDA captured as a graph where the protocol says so, but ONNX Runtime is on the CPU.
    Raises `CandidateError`.
    """
    return {form: _measured(folder, form, shape, protocol, fold_bn) for form in (SOURCE, *formats)}


def _measured(
    folder: Path, form: str, shape: tuple[int, int, int], protocol: LatencyProtocol, fold_bn: bool
) -> Latency:
    if form == "onnx":
        path = folder / FILES[form]
        model = path.read_bytes()
        folded = b"BatchNormalization" not in model  # the exporter folds by itself
        on_cpu = replace(protocol, device="cpu", mode="onnxruntime")
        return measure_ready(
            lambda images: (onnx_session(model, images, protocol.threads), Preparation(folded)), shape, on_cpu
        )
    as_graph = protocol.device != "cpu" and protocol.mode == "cudagraph"
    network = _loaded(folder, form, shape)

    def ready(images: torch.Tensor) -> tuple[Session, Preparation]:
        network.to(images.device)

        def run() -> object:
            return network(images)

        run()
        ready_to_run = captured(run) if as_graph else run
        return Session(ready_to_run, ready_to_run), Preparation(fold_bn)

    return measure_ready(ready, shape, replace(protocol, mode="cudagraph" if as_graph else "eager"))


def _loaded(folder: Path, form: str, shape: tuple[int, int, int]) -> nn.Module:
    """The network of a format of PyTorch's."""
    with quiet():
        match form:
            case "pt2":
                return torch.export.load(folder / FILES[form]).module()
            case "torchscript":
                network: nn.Module = torch.jit.load(folder / FILES[form])
                return network
        with named(f"{folder / 'model.py'}:load", shape) as found:
            return found.module
