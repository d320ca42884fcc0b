"""YAML files that users write: their values, the line of each key, and what no parser could read as a sentence.

Read and written by libyaml where PyYAML has it, as its wheels do: ten times as fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.common.text_file import read_text

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]
"""The line of each key, and of each entry of a list."""

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError on a date that does not exist, RecursionError on brackets without end."""


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_yaml(text: str) -> Any:
    """The value that a text stands for; raises one of `UNREADABLE`."""
    loader, root = _parsed(text)
    return None if root is None else loader.construct_document(root)


def yaml_text(data: Any) -> str:
    """Plain values as YAML, keys in the order given."""
    try:
        return _text(data, yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper)
    except UnicodeEncodeError:  # a name of a file that is no UTF-8
        return _text(data, yaml.SafeDumper)


def _text(data: Any, dumper: type[Any]) -> str:
    return str(yaml.dump(data, Dumper=dumper, sort_keys=False, width=120))


def _parsed(text: str) -> tuple[Any, yaml.Node | None]:
    """A loader, and the root of what it read; lone surrogates, by which Python tells names of files that are no UTF-8, libyaml refuses."""
    is_plain = yaml.__with_libyaml__ and not _SURROGATE.search(text)
    loader: Any = yaml.CSafeLoader(text) if is_plain else yaml.SafeLoader(text)
    return loader, loader.get_single_node()


def read_yaml(path: Path, shown: str) -> tuple[Any, Lines]:
    """What a file holds, and the lines of its keys; raises `InputError`, which calls the file as `shown`.

    A key that is given twice is refused, since YAML takes the last of them without a word.
    """
    try:
        source = read_text(path, shown)
    except FileNotFoundError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    lines: Lines = {}
    twice: list[str] = []
    try:
        loader, root = _parsed(source)
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


def each_value(data: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """What is neither list nor mapping in plain data, with where it is, each list and mapping looked through once: YAML may have one hold
    itself, or hold thousands of the same.
    """
    left, seen = [(at, data)], set()
    while left:
        where, value = left.pop()
        if not isinstance(value, dict | list):
            yield where, value
        elif id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            left += ((f"{where}.{key}", part) for key, part in parts)


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
                twice.append(f"{line}: the key {quoted(key.value)} is given twice")
            lines[here] = line
            _collect(value, here, lines, twice, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*at, index), lines, twice, seen)
