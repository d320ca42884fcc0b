"""Finding, reading and checking the YAML file of a search space, with errors that name file and line."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nas.errors import InputError
from nas.space import SearchSpace

_MAX_BYTES = 1_000_000


def spaces_folder() -> Path:
    """Where the shipped spaces lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def list_spaces() -> list[str]:
    """Names of the shipped spaces."""
    return sorted(path.stem for path in spaces_folder().glob("*.yaml"))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A shipped space by name, or any space by the path of its file.

    Raises `InputError` when there is none or the file does not hold a valid space.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in list_spaces():
        return read_space(spaces_folder() / f"{text}.yaml")
    path = Path(name_or_path)
    try:
        exists = path.is_file()
    except (OSError, ValueError):
        exists = False
    if exists:
        return read_space(path)
    if "/" in text or path.suffix in (".yaml", ".yml"):
        raise InputError(f"{text}: no such file")
    raise InputError(
        f"unknown search space {text!r}: use one of {', '.join(list_spaces())}, or the path of a YAML file"
    )


def read_space(path: Path) -> SearchSpace:
    """The space in one file; raises `InputError`."""
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no search space is")
    try:
        source = path.read_text(encoding="utf-8")
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        data = yaml.safe_load(source)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a search space is a mapping with the keys name, input, stem, stages")
    lines: dict[tuple[str | int, ...], int] = {}
    _collect_lines(path, root, (), lines, set())
    return validate_space(data, str(path), lines)


def validate_space(data: Any, source: str, lines: dict[tuple[str | int, ...], int] | None = None) -> SearchSpace:
    """A space from plain data; `source` names it in errors, `lines` gives the line of each key path."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        raise InputError(_sentence(error, source, lines or {})) from error


def _collect_lines(
    path: Path,
    node: yaml.Node | None,
    at: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    seen: set[int],
) -> None:
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            if here in lines:
                raise InputError(f"{path}:{key.start_mark.line + 1}: the key {key.value!r} is given twice")
            lines[here] = key.start_mark.line + 1
            _collect_lines(path, value, here, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(path, value, (*at, index), lines, seen)


def _sentence(error: ValidationError, source: str, lines: dict[tuple[str | int, ...], int]) -> str:
    """One sentence for the first problem: file, line, key path, what is wrong, the value, what is allowed."""
    problem = error.errors()[0]
    location = tuple(problem["loc"])
    named = re.match(r"(backbone\.\w+|stages\.\d+\.stride)", problem["msg"].removeprefix("Value error, "))
    if named:
        parts = [int(p) if p.isdigit() else p for p in named[1].split(".")]
        location = (*location, *parts)
    # Pydantic counts a lone value as the first of a list and appends the branch of a union; the file has neither.
    while location and location not in lines and len(location) > 1 and lines:
        location = location[:-1]
    line = lines.get(location) or lines.get(location[:-1]) or lines.get(())
    where = f"{source}:{line}" if line else source
    key = ".".join(str(part) for part in location)
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            where_known = problem["loc"][:-1]
            message = f"unknown key {problem['loc'][-1]!r}; allowed here: {', '.join(_allowed_keys(where_known))}"
            key = ".".join(str(part) for part in where_known)
        case "missing":
            message = f"the key {problem['loc'][-1]!r} is missing"
            key = ".".join(str(part) for part in problem["loc"][:-1])
        case "too_short":
            message = "an empty choice; give one value or a list of at least one"
        case "tuple_type":
            message = "a list is expected"
        case "model_type" | "dict_type" | "model_attributes_type":
            message = f"{_shown(problem['input'])} is not allowed: a mapping with keys of its own is expected"
        case "int_type" | "float_type" | "int_from_float" | "int_parsing" if "expansion" in key or "backbone" in key:
            message = f"{_shown(problem['input'])} is not allowed: a number is expected"
        case "invalid_key":
            message = f"{_shown(problem['input'])} is not allowed: keys are words"
        case _ if not isinstance(problem.get("input"), dict | SearchSpace):
            message = f"{_shown(problem['input'])} is not allowed: {message[0].lower()}{message[1:]}"
    return f"{where}: {key}: {message}" if key else f"{where}: {message}"


def _shown(value: Any) -> str:
    """A value as YAML spells it, shortened."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else reprlib.repr(value)


def _allowed_keys(location: tuple[str | int, ...]) -> list[str]:
    """Keys of the section at a key path."""
    section: Any = SearchSpace
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        section = arguments[0] if arguments else annotation
    return [field.alias or name for name, field in section.model_fields.items()]
