"""Runtimes of somebody else's: one that runs the network twice, and one whose device tells the time itself."""

from __future__ import annotations

import math

import torch
from torch import nn

from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes.base import Run, Runtime, Session


class Twice(Runtime):
    """Whatever the network gives, it gives a second time."""

    devices = ("cpu",)
    precisions = ("float32",)

    def check(self, protocol: LatencyProtocol) -> None:
        if protocol.threads > 2:
            raise InputError(f"mode {protocol.mode} has two threads, not {protocol.threads}: buy the larger one")

    def software(self) -> dict[str, str]:
        return {"twice": "1.0"}

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        def run() -> object:
            network(images)
            return network(images)

        return Session(run, run, artefact=b"twice")


TWICE = Twice()


class Board(Runtime):
    """A device elsewhere: each run takes 2 ms there."""

    def prepare(self, network: nn.Module, images: torch.Tensor, protocol: LatencyProtocol) -> Session:
        def time_block(run: Run, runs: int) -> tuple[float, float]:
            return 2.0 * runs, math.nan

        return Session(lambda: None, lambda: network(images), time_block=time_block)


BOARD = Board()
