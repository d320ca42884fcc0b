"""What every family of networks has: what a network costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Multiply-adds for one image, parameters, and bytes of memory in float32; None where they are not known.

    `size_bytes` is the weights as stored, batch norm and its statistics among them; `peak_activation_bytes` the most
    that is alive of one image and its activations at one time, batch norm folded.
    """

    macs: int
    params: int
    size_bytes: int | None = None
    peak_activation_bytes: int | None = None
