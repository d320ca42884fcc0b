"""YAML files that users write: their values, the line of each key, and what no parser could read as a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from nas.common.errors import InputError

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]
"""The line of each key, and of each entry of a list."""

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError on a date that does not exist, RecursionError on brackets without end."""


def read_yaml(path: Path, shown: str) -> tuple[Any, Lines]:
    """What a file holds, and the lines of its keys; raises `InputError`, which calls the file as `shown`.

    A key that is given twice is refused, since YAML takes the last of them without a word.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: cannot be read: not a UTF-8 text file") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    lines: Lines = {}
    twice: list[str] = []
    try:
        loader = yaml.SafeLoader(source)
        root = loader.get_single_node()
        _collect(root, (), lines, twice, set())  # before values are made, which merges what `<<` names into mappings
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{shown}{line}: not valid YAML: {error.problem}") from error
    except UNREADABLE as error:
        raise InputError(f"{shown}: not valid YAML: {' '.join(str(error).split())[:300]}") from error
    if twice:
        raise InputError("\n".join(f"{shown}:{each}" for each in twice))
    return data, lines


def _collect(node: yaml.Node | None, at: KeyPath, lines: Lines, twice: list[str], seen: set[int]) -> None:
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no value can be made of it: PyYAML refuses it then
            here = (*at, key.value)
            line = key.start_mark.line + 1
            if here in lines:
                twice.append(f"{line}: the key {key.value!r} is given twice")
            lines[here] = line
            _collect(value, here, lines, twice, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*at, index), lines, twice, seen)
