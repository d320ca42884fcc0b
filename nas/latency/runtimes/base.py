"""What a runtime is: one way to run a network as it is deployed.

Modules of runtimes import torch where they prepare a network, so that what a mode is can be told without it.
"""

from __future__ import annotations

import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nas.latency.protocol import LatencyProtocol, Precision

if TYPE_CHECKING:
    import torch
    from torch import nn

Run = Callable[[], object]
BlockTime = tuple[float, float]
"""Milliseconds of a block of runs by the wall clock, and of the CPU (not a number where that is not known)."""
TimeBlock = Callable[[Run, int], BlockTime]
"""Runs a network so many times."""


@dataclass(frozen=True)
class Session:
    """A network that is ready to run on fixed images, and all that it needs.

    `run` runs it once. `outputs` runs it too, and gives what the network gives, as tensors. `artefact` is the file that was
    made of it, where one was. `time_block` times a block of runs where the clocks of this machine cannot (nas/latency/timing.py).
    """

    run: Run
    outputs: Callable[[], object]
    artefact: bytes | None = None
    time_block: TimeBlock | None = None


@runtime_checkable
class Runtime(Protocol):
    """A mode of `LatencyProtocol`. Subclass it, and change what differs.

    `devices` are the kinds that it runs on, `precisions` those of its weights and images. `converts` says that a network is made
    into something else, which has a memory format of its own and leaves its images as they are; it is prepared outside of torch's
    inference mode. `launches` says that on a GPU each run takes work of the CPU, which is then measured alone too.
    """

    devices: tuple[str, ...] = ("cpu", "cuda")
    precisions: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
    converts: bool = False
    launches: bool = True

    def check(self, protocol: LatencyProtocol) -> None:
        """Raise `InputError`, a sentence, when something is missing here: what, and how to get it."""
        return

    def software(self) -> dict[str, str]:
        """Versions that a latency depends on beside torch's and the device's; called after `check`."""
        return {}

    def begin(self) -> None:
        """Called before the networks are prepared that are measured together."""
        return

    @abstractmethod
    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        """The network (eval mode, on its device, in its precision) on these images (N, C, H, W); may raise anything."""


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
