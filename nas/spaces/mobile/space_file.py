"""Checking what the YAML file of a search space says, with errors that name file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from nas.common.errors import InputError, did_you_mean, nearest
from nas.common.problems import allowed
from nas.common.text import quoted
from nas.common.yaml_file import KeyPath, Lines
from nas.spaces.mobile.sections import Section
from nas.spaces.mobile.space import SearchSpace

_MOST_TOLD = 30
"""Problems of one file that are told; a file with more of them is of another kind."""
_NAMED = re.compile(r"(backbone\.\w+|stages\.\d+\.stride|stages)")
"""The key that a problem of several keys together begins with."""


def validate_space(data: Any, source: str, lines: Lines | None = None) -> SearchSpace:
    """A space from plain data; `source` names it in errors, `lines` gives the line of each key path.

    Raises `InputError` with all problems, a line each.
    """
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        found = _problems(error, source, lines or {})
        known, unknown_keys = data, [each for each in error.errors() if each["type"] == "extra_forbidden"]
        if unknown_keys and len(unknown_keys) == error.error_count():
            # What disagrees among several keys is found only once each is right, and unknown keys change none of it.
            for each in unknown_keys:
                known = _without(known, each["loc"])
            try:
                SearchSpace.model_validate(known)
            except ValidationError as further:
                found += _problems(further, source, lines or {})
        told = list(dict.fromkeys(found))
        more = [f"{source}: and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        raise InputError("\n".join(told[:_MOST_TOLD] + more)) from error


def _without(data: Any, at: KeyPath) -> Any:
    """A copy of nested mappings and lists without the key at a path."""
    first, *rest = at
    if not rest:
        return {key: value for key, value in data.items() if key != first}
    inner = _without(data[first], tuple(rest))
    if isinstance(data, dict):
        return data | {first: inner}
    return [inner if index == first else value for index, value in enumerate(data)]


def _problems(error: ValidationError, source: str, lines: Lines) -> list[str]:
    """A sentence for each problem, by line: file, line, key path, what is wrong, the value, what is allowed."""
    return [text for _, text in sorted(_told(error, source, lines), key=lambda told: told[0])]


def _told(error: ValidationError, source: str, lines: Lines) -> Iterator[tuple[int, str]]:
    problems = error.errors()
    meant = {
        (*each["loc"][:-1], nearest(each["loc"][-1], _allowed_keys(each["loc"][:-1])))
        for each in problems
        if each["type"] == "extra_forbidden"
    }
    told: set[KeyPath] = set()
    for problem in problems:
        at = tuple(problem["loc"])
        if problem["type"] == "missing" and at in meant:
            continue  # it is there, under the unknown key that was told
        if problem["type"] == "too_short" and problem["input"]:
            continue  # what is in the list is wrong, and told
        message = problem["msg"].removeprefix("Value error, ")
        for part in message.split("\n"):
            location = at
            if named := _NAMED.match(part) if part != problem["msg"] else None:
                location = (*at, *(int(word) if word.isdigit() else word for word in named[1].split(".")))
            # Pydantic counts a lone value as the first of a list and appends the branch of a union; the file has neither.
            while location and location not in lines and len(location) > 1 and lines:
                location = location[:-1]
            if problem["type"] not in ("missing", "extra_forbidden", "value_error"):
                if location in told:
                    continue  # the other branch of a union
                told.add(location)
            line = lines.get(location) or lines.get(location[:-1]) or lines.get((), 0)
            where = f"{source}:{line}" if line else source
            key, text = _described(problem, location, part)
            text = text.removeprefix(f"{key}: ")  # which checks of several keys say themselves
            yield line, f"{where}: {key}: {text}" if key else f"{where}: {text}"


def _described(problem: Any, location: KeyPath, message: str) -> tuple[str, str]:
    """The key that a problem is told of, and the problem in words."""
    at, value = tuple(problem["loc"]), problem.get("input")
    key = ".".join(str(part) for part in location)
    outer = ".".join(str(part) for part in at[:-1])
    described = _description(location)
    match problem["type"]:
        case "extra_forbidden":
            keys = _allowed_keys(at[:-1])
            return outer, f"unknown key {quoted(at[-1])}{did_you_mean(at[-1], keys)}; allowed here: {', '.join(keys)}"
        case "missing":
            return outer, f"the key {quoted(at[-1])} is missing"
        case "too_short":
            return key, "an empty choice; give one value or a list of at least one"
        case "tuple_type":
            return key, f"{_shown(value)} is not allowed: a list is expected"
        case "model_type" | "dict_type" | "model_attributes_type":
            return key, f"{_shown(value)} is not allowed: a mapping with keys of its own is expected"
        case "invalid_key":
            return key, f"{_shown(value)} is not allowed: keys are words"
        case "value_error" if isinstance(value, list | tuple):
            return key, f"{_shown(value)} is not allowed: {message}"
        case "value_error" if isinstance(value, dict | Section):
            return key, message
        case _ if described:
            return key, f"{_shown(value)} is not allowed: {described} is expected"
        case _ if "backbone" in key:
            return key, f"{_shown(value)} is not allowed: one of the choices is expected"
    told = message[:1].lower() + message[1:] if problem["type"] == "value_error" else allowed(problem)
    return key, f"{_shown(value)} is not allowed: {told}"


def _shown(value: Any) -> str:
    """A value as YAML spells it, shortened."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else quoted(value)


def _field(location: KeyPath) -> FieldInfo | None:
    """The field at a key path, or the one whose entry is there."""
    section: Any = SearchSpace
    field: FieldInfo | None = None
    for part in location:
        if isinstance(part, int):
            continue
        fields = {each.alias or name: each for name, each in getattr(section, "model_fields", {}).items()}
        field = fields.get(part)
        if field is None:
            return None
        arguments = getattr(field.annotation, "__args__", ())
        section = arguments[0] if arguments else field.annotation
    return field


def _description(location: KeyPath) -> str | None:
    """What is allowed at a key path, in words."""
    field = _field(location)
    return field.description if field else None


def _allowed_keys(location: KeyPath) -> list[str]:
    """Keys of the section at a key path."""
    field = _field(location)
    section: Any = SearchSpace
    if field is not None:
        arguments = getattr(field.annotation, "__args__", ())
        section = arguments[0] if arguments else field.annotation
    return [each.alias or name for name, each in section.model_fields.items()]
