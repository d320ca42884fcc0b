"""Data sets: images and labels in three splits, from folders, archives, names and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.data.sets import load_data

__all__ = ["load_data"]


def __getattr__(name: str) -> Any:
    if name != "load_data":
        raise AttributeError(f"module 'nas.data' has no attribute {name!r}")
    from nas.data.sets import load_data  # when it is asked for: not every room needs numpy

    return load_data
