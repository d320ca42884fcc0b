"""The families of networks by name, and what follows from an architecture's or a space's: how it is read, what it costs."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from nas.common.doors import Door
from nas.common.errors import InputError
from nas.common.text import quoted
from nas.common.trust import FAMILY
from nas.common.yaml_file import Lines
from nas.spaces.base import Architecture, Cost, Family, LayerRow, Space

MOBILE = "mobile"
"""The family of what names none: spaces and architectures written before there were others."""

GRAPH = "graph"
"""The family of what is made around somebody's own network."""

_OURS = {MOBILE: "nas.spaces.mobile.family:FAMILY", GRAPH: "nas.spaces.graph.family:FAMILY"}
FAMILIES: Door[Family] = Door(FAMILY, "nas.spaces", _OURS, Family)


@functools.cache
def family_of(name: str) -> Family:
    """A family by name; raises `InputError` where there is none, or it cannot be loaded."""
    return FAMILIES.get(name)


def read_space(data: Any, source: str, lines: Lines | None = None) -> Space:
    """A space of any family from what a file or a run says; `source` names it in errors, `lines` gives the line of each key.

    Raises `InputError` with all that is wrong, a line each.
    """
    if not isinstance(data, dict):
        raise InputError(f"{source}: a search space is a mapping with the keys name, input, stem, stages")
    name = data.get("family", MOBILE)
    line = f":{lines['family',]}" if lines and ("family",) in lines else ""
    if not isinstance(name, str):
        raise InputError(
            f"{source}{line}: family: {quoted(name)} is not allowed: the name of a family of networks is expected"
        )
    try:
        family = family_of(name)
    except InputError as error:
        raise InputError(f"{source}{line}: family: {error}") from error
    own = {key: value for key, value in data.items() if key != "family"}
    space = family.space(own, source, lines)
    if space.family != name:  # by which what is written of it would be read
        raise InputError(
            f"{source}{line}: family: its spaces say that they are of {quoted(space.family)}, not {quoted(name)}"
        )
    return space


def read_architecture(data: Any) -> Architecture:
    """An architecture of any family from what its `to_json` gave; raises `InputError`."""
    kind = data.get("kind", MOBILE) if isinstance(data, dict) else None
    if not isinstance(kind, str):
        raise InputError("not an architecture: a mapping is expected, and a word as its kind")
    own = {key: value for key, value in data.items() if key != "kind"} if "kind" in data else data
    return family_of(kind).architecture(own)


def architecture_cost(architecture: Architecture, num_classes: int) -> Cost:
    """Cost in closed form, without building the network (microseconds, for samplers and space statistics).

    Peak activations, which have no such form, are left out.
    """
    try:
        family = architecture.family
    except AttributeError as error:
        raise InputError(
            f"architecture {quoted(architecture)}: is of the kind {type(architecture).__name__}, and needs to be an "
            "Architecture, as a space's parse(text) gives"
        ) from error
    return family_of(family).cost(architecture, num_classes)


def layer_rows(architecture: Architecture, num_classes: int) -> list[LayerRow]:
    """The layers of the canonical form, from the image on; their costs add up to the network's."""
    return family_of(architecture.family).layer_rows(architecture, num_classes)


def _space(value: Any) -> Space:
    return value if isinstance(value, Space) else read_space(value, "space")


def _architecture(value: Any) -> Architecture:
    of_json = value is None or isinstance(value, dict | list | str | int | float)
    return read_architecture(value) if of_json else value


AnySpace = Annotated[Space, PlainValidator(_space), PlainSerializer(lambda space: space.to_json())]
"""A space of any family as a field of what pydantic reads and writes."""

AnyArchitecture = Annotated[Architecture, PlainValidator(_architecture), PlainSerializer(lambda each: each.to_json())]
"""An architecture of any family as a field of what pydantic reads and writes."""
