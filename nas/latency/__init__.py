"""Latency of any module, measured under a stated protocol on a device that nobody else uses meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.latency.folding import fold_batch_norm

__all__ = ["fold_batch_norm"]


def __getattr__(name: str) -> Any:
    if name != "fold_batch_norm":
        raise AttributeError(f"module 'nas.latency' has no attribute {name!r}")
    from nas.latency.folding import fold_batch_norm  # when it is asked for: not everybody needs torch

    return fold_batch_norm
