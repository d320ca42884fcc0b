"""Finding and reading the YAML file of a search space, of whatever family it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nas
from nas.common.errors import InputError, did_you_mean
from nas.common.kinds import StrPath, checks_kinds
from nas.common.text import quoted
from nas.common.trust import may_name, note_file, other_owner
from nas.common.yaml_file import read_yaml
from nas.spaces.base import Space
from nas.spaces.families import read_space
from nas.spaces.graph.folder import is_space_folder, read_space_folder

_MAX_BYTES = 1_000_000


def spaces_folder() -> Path:
    """Where the shipped spaces lie: inside an installed wheel, or at the top of a checkout."""
    package = Path(nas.__file__).parent
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def list_spaces() -> list[str]:
    """Names of the shipped spaces."""
    return sorted(path.stem for path in spaces_folder().glob("*.yaml"))


@checks_kinds
def load_space(name_or_path: StrPath) -> Space:
    """A shipped space by name, or any space by the path of its file, or of the folder that `nas space from` made.

    Raises `InputError` when there is none or the file does not hold a valid space.
    """
    if str(name_or_path) not in list_spaces() and is_space_folder(Path(name_or_path)):
        return read_space_folder(Path(name_or_path))
    return _read(_file_of(str(name_or_path), isinstance(name_or_path, str)))


def check_space(path: str | Path, check_data: Callable[[str], None]) -> Space:
    """The space in a file of which the data set, too, can be used, as far as `check_data` raises no `InputError`; raises it."""
    return _read(_file_of(str(path)), check_data)


def _file_of(text: str, may_be_name: bool = True) -> Path:
    if may_be_name and text in list_spaces():
        return spaces_folder() / f"{text}.yaml"
    path = Path(text)
    try:
        exists = path.is_file()
    except (OSError, ValueError):
        exists = False
    if exists:
        return path
    if "/" in text or path.suffix in (".yaml", ".yml"):
        raise InputError(f"{text}: no such file")
    raise InputError(
        f"unknown search space {quoted(text)}{did_you_mean(text, list_spaces())}: use one of {', '.join(list_spaces())}, or "
        "the path of a YAML file"
    )


def _read(path: Path, check_data: Callable[[str], None] | None = None) -> Space:
    """The space in one file; raises `InputError` with all that is wrong in it, a line each."""
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES:,} bytes, which no search space is")
    data, lines = read_yaml(path, str(path))
    note_file("a file", path, data, other_owner(path, root_too=True) if may_name(data) else None)
    unusable = None
    if check_data is not None and isinstance(data, dict) and isinstance(data.get("data"), str):
        try:
            check_data(data["data"])
        except InputError as error:
            unusable = f"{path}:{lines['data',]}: data: {error}"
    try:
        space = read_space(data, str(path), lines)
    except InputError as error:
        raise (InputError(f"{error}\n{unusable}") if unusable else error) from error
    if unusable:
        raise InputError(unusable)
    return space
