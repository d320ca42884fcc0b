"""Architectures that a user names: by a compact string or a reference network's name, or many of them in a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.common.errors import InputError, arg
from nas.common.jsonl import parse_json
from nas.common.text_file import read_text
from nas.common.trust import note_opened
from nas.spaces.base import Architecture, Space
from nas.spaces.families import read_architecture


def chosen_architecture(space: Space, text: str) -> Architecture:
    """A network of the space by its compact string, or by the name of a reference network."""
    return space.references.get(text) or space.parse(text)


def known_architectures(space: Space, given: str) -> list[Architecture]:
    """The networks of the space that `enqueue` names: one as `chosen_architecture` takes it, or those of a file.

    A file is text with one a line (`#` begins a comment), what `nas front` prints with --csv or --json, or the folder
    that `nas export` makes. Raises `InputError` naming the value, and the line of the file.
    """
    if not given:
        raise InputError(f"{arg('enqueue')} '': names no architecture")
    path = Path(given)
    if given in space.references or not os.path.exists(path):
        try:
            return [chosen_architecture(space, given)]
        except InputError as error:
            raise InputError(f"{arg('enqueue')} {given[:200]}: {error.marked}, and there is no such file") from error
    found = []
    for where, named in _entries(path):
        try:
            if isinstance(named, str):
                found.append(chosen_architecture(space, named))
            else:
                architecture = read_architecture(named)
                space.locate(architecture)
                found.append(architecture)
        except InputError as error:
            raise InputError(f"{arg('enqueue')} {given}: {where}: {error.marked}") from error
    if not found:
        raise InputError(f"{arg('enqueue')} {given}: names no architecture")
    return found


def tried_first(space: Space, given: Sequence[str]) -> tuple[str, ...]:
    """The compact strings of all networks that `enqueue` names, each once."""
    known = [architecture for each in given for architecture in known_architectures(space, each)]
    return tuple(dict.fromkeys(str(architecture.canonical) for architecture in known))


def _entries(path: Path) -> Iterator[tuple[str, str | dict[str, object]]]:
    """Where in the file, and the compact string or the architecture as JSON that is there."""
    file = path / "model.json" if path.is_dir() else path
    try:
        text = read_text(file, f"{arg('enqueue')} {path}")
    except FileNotFoundError as error:
        hint = f"; trials of a run are imported by {arg('warm_start')}" if (path / "run.yaml").is_file() else ""
        raise InputError(
            f"{arg('enqueue')} {path}: not a folder that nas export made (no model.json there){hint}"
        ) from error
    if text.lstrip().startswith("{"):
        note_opened(path)
        return _of_json(path, text)
    lines = text.splitlines()
    if lines and "architecture" in (header := next(csv.reader(lines[:1]), [])):
        column = header.index("architecture")
        rows = csv.reader(lines[1:])
        return ((f"line {number}", row[column] if column < len(row) else "") for number, row in enumerate(rows, 2))
    stripped = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return ((f"line {number}", line) for number, line in stripped if line)


def _of_json(path: Path, text: str) -> Iterator[tuple[str, str | dict[str, object]]]:
    try:
        data = parse_json(text)
    except ValueError as error:
        raise InputError(f"{arg('enqueue')} {path}: not valid JSON: {' '.join(str(error).split())}") from error
    members = data.get("front", [data])
    if not isinstance(members, list):
        raise InputError(f"{arg('enqueue')} {path}: front is not a list, as it is in what nas front --json prints")
    for number, member in enumerate(members, 1):
        named = member.get("architecture") if isinstance(member, dict) else None
        where = f"member {number} of the front" if "front" in data else "architecture"
        if not isinstance(named, str | dict):
            raise InputError(f"{arg('enqueue')} {path}: {where}: there is no architecture")
        yield where, named
