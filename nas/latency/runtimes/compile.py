"""torch.compile: through Inductor, for the shapes of the images alone; on a GPU captured as a graph."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from types import FunctionType
from typing import TYPE_CHECKING

from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import Run, Runtime, Session
from nas.latency.runtimes.cudagraph import captured

if TYPE_CHECKING:
    import torch
    from torch import nn


class Compile(Runtime):
    """Needs a C++ compiler on a CPU, and Triton on a GPU."""

    launches = False

    def check(self, protocol: LatencyProtocol) -> None:
        if protocol.device.partition(":")[0] == "cuda":
            if find_spec("triton") is None:
                raise InputError("mode compile needs Triton on a CUDA device: pip install triton")
            return
        compilers = [os.environ.get("CXX"), "g++", "clang++"]
        if not any(name and shutil.which(name) for name in compilers):
            raise InputError("mode compile needs a C++ compiler on the CPU: install g++, or let CXX name one")

    def begin(self) -> None:
        import torch

        torch.compiler.reset()  # what Dynamo keeps of the networks before

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        run = _compiled(network, images)
        if images.device.type == "cuda":
            run = captured(run)
        return Session(run, run)


COMPILE = Compile()


def _compiled(network: nn.Module, images: torch.Tensor) -> Run:
    import torch

    def forward(images: torch.Tensor) -> object:
        return network(images)

    # Dynamo keeps a few compilations for each code object, then gives up; this one is nobody else's.
    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    compiled = torch.compile(own, dynamic=False)
    return lambda: compiled(images)
