"""Spaces of mobile networks, for tests that look into them."""

from __future__ import annotations

from pathlib import Path

from nas.spaces.files import load_space
from nas.spaces.mobile.space import SearchSpace


def mobile_space(name_or_path: str | Path) -> SearchSpace:
    """A shipped space by name, or any by its path."""
    space = load_space(name_or_path)
    assert isinstance(space, SearchSpace)
    return space
