"""A captured CUDA graph: no work of the CPU between the layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import Run, Runtime, Session

if TYPE_CHECKING:
    import torch
    from torch import nn


class CudaGraph(Runtime):
    """Captured once, then replayed."""

    devices = ("cuda",)
    launches = False

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        run = captured(lambda: network(images))
        return Session(run, run)


CUDAGRAPH = CudaGraph()


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
    that set themselves up again for each stream would do so while capturing.
    """
    import torch

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
