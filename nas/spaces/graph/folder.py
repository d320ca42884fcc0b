"""The folder of a space around somebody's network: `space.json` and `base.json`, beside the base's weights.

space.json            the choices that proved themselves, and what was left out and why
base.json             the base: its network as plain data, and what was worked out of it
weights.safetensors   its weights
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.common.errors import InputError
from nas.common.jsonl import parse_json
from nas.spaces.graph.sites import LeftOut
from nas.spaces.graph.space import GraphSpace, read_graph_space

SPACE, BASE, WEIGHTS = "space.json", "base.json", "weights.safetensors"
_MOST_BYTES = 50_000_000


def is_space_folder(path: Path) -> bool:
    """Whether a folder is one of these."""
    try:
        return (path / SPACE).is_file()
    except (OSError, ValueError):
        return False


def read_space_folder(folder: Path) -> GraphSpace:
    """The space of a folder; raises `InputError` where a file is missing or not right."""
    data, base = _read(folder / SPACE), _read(folder / BASE)
    left_out = data.pop("left_out", [])
    own = {key: value for key, value in data.items() if key != "family"}
    space = read_graph_space({**own, "base": base}, str(folder / SPACE))
    try:
        told = tuple(LeftOut(*map(str, each)) for each in left_out)
    except TypeError as error:
        raise InputError(f"{folder / SPACE}: left_out: {error}") from error
    return replace(space, left_out=told)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: larger than {_MOST_BYTES:,} bytes, which no space is")
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a file of a space that nas space from made ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a mapping is expected")
    return data


def space_texts(space: GraphSpace) -> dict[str, str]:
    """The contents of the two files, by their names."""
    data = space.to_json() | {"left_out": [[each.where, each.what, each.why] for each in space.left_out]}
    del data["base"]
    return {
        SPACE: json.dumps(data, indent=1) + "\n",
        BASE: json.dumps(space.base.to_json(), separators=(",", ":")) + "\n",
    }
