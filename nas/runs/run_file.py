"""run.yaml: what a run was told, where it was started, and what was changed since."""

from __future__ import annotations

import hashlib
import json
import math
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.common.errors import InputError, arg
from nas.common.files import SCHEMA_VERSION, harmless, is_newer, write_yaml
from nas.common.plugins import code_folder, lies_in_folder
from nas.common.problems import allowed
from nas.common.redact import without_password
from nas.common.text import printable, quoted
from nas.common.trust import check_place, is_own, may_name, names_in, note_file, note_opened, note_own, other_owner
from nas.common.yaml_file import each_value, read_yaml
from nas.runs.layout import RUN_FILE
from nas.runs.objectives import check_objectives
from nas.runs.settings import SearchSettings


@dataclass(frozen=True)
class Provenance:
    """Where a run was started: time (UTC seconds), command, versions, hardware, and the data that it saw.

    `hardware` is the model of the device that its first latency is measured on, `train_hardware` of that which candidates train on,
    where a run tells it: see `trained_on`.
    `corrupt_files` are the image files that could not be read and were left out; `init_fingerprint` is that of the
    weights that candidates inherit from; `image_size` is the height and width of the data's images. `data_remarks` are
    sentences on what else of the data was left out and what was guessed; `init_licence` is what is known of the licence of
    the weights that candidates inherit from; `data_licence` is the file that tells the data's licence, and the title.
    `distinct` says whether an image is in one split only, which older runs did not see to; `test_fingerprint` is that of the
    test split, None where there is none or a run is older. `seen_images` says in a sentence which images that score the initial
    weights were trained on, where that was allowed.
    """

    created: float
    command: str
    versions: dict[str, str]
    host: str
    hardware: str
    cpu_cores: int
    git_commit: str | None
    data_fingerprint: str
    classes: tuple[str, ...]
    train_images: int
    validation_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    corrupt_files: tuple[str, ...] = ()
    init_fingerprint: str | None = None
    image_size: tuple[int, int] | None = None
    data_remarks: tuple[str, ...] = ()
    init_licence: str | None = None
    data_licence: str | None = None
    train_hardware: str | None = None
    distinct: bool = False
    test_fingerprint: str | None = None
    seen_images: str | None = None

    @property
    def trained_on(self) -> str:
        """The model of the device that candidates train on."""
        return self.train_hardware or self.hardware


@dataclass(frozen=True)
class Change:
    """Settings that a resumed search was given again, at a time (UTC seconds): the values `before`, by name.

    They held for the `trials` that were recorded by then, and were not in an earlier change.
    """

    when: float
    trials: int
    before: dict[str, float | int | str | None]


@dataclass(frozen=True)
class RunFile:
    """The content of run.yaml; `changes` are in the order made."""

    settings: SearchSettings
    provenance: Provenance
    schema: int = SCHEMA_VERSION
    changes: tuple[Change, ...] = ()


_RUN_FILE = TypeAdapter(RunFile)
_NAMES = ("classes", "corrupt_files")
"""Texts of a provenance that are compared with names of folders and files, and so are kept as they are."""


def write_run_file(path: Path, content: RunFile, *, new: bool = False) -> None:
    """Write run.yaml of a run directory; raises `InputError` where it cannot be written.

    The user's list is to know a `new` run as theirs.
    """
    data = _RUN_FILE.dump_python(content, mode="json", by_alias=True)
    write_yaml(path / RUN_FILE, data)
    if new:
        note_own(_mark(data))


def read_run_file(path: Path) -> RunFile:
    """run.yaml of a run directory; raises `InputError`, also where a newer version wrote it."""
    file = path / RUN_FILE
    data, _ = read_yaml(file, str(file))
    if is_newer(data):
        raise InputError(
            f"{file}: written by a newer version{_writer(data)}, whose settings would be lost here; update pareto-nas"
        )
    note_opened(path)
    note_file(
        "a run", file, _part(data, "settings"), _whose(file, data), _mark(data)
    )  # before anything that it names is loaded
    if provenance := _part(data, "provenance"):
        told = {key: value if key in _NAMES else harmless(value) for key, value in provenance.items()}
        data = {**data, "provenance": told}
    _check_numbers(_part(data, "settings"), f"{file}: settings")
    try:
        content = _RUN_FILE.validate_python(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{file}: {where}: {allowed(problem)}") from error
    settings = content.settings
    try:
        check_objectives(
            settings.objectives, [each.name for each in settings.evaluation.targets], settings.evaluation.task
        )
    except InputError as error:
        raise InputError(f"{file}: settings: {error}") from error
    return content


def check_destination(path: Path, name: str, instead: str) -> None:
    """Raise `InputError` where a run that is not this user's says where its `name` (replica, storage) is written to, and nobody
    says that it may be; `instead` is what else would do.
    """
    file = path / RUN_FILE
    data, _ = read_yaml(file, str(file))
    whose, place = _whose(file, data), _part(data, "settings").get(name)
    if whose is not None and isinstance(place, str):
        source = f"{file} ({whose}) is not a run of yours"
        check_place(arg(name), without_password(place), source, _place_mark(data, place), instead)


def note_destinations(path: Path) -> None:
    """The replica and the storage of a run that goes on are the user's word from now on."""
    file = path / RUN_FILE
    data, _ = read_yaml(file, str(file))
    if _whose(file, data) is not None:
        settings = _part(data, "settings")
        for place in (settings.get("replica"), settings.get("storage")):
            if isinstance(place, str):
                note_own(_place_mark(data, place))


def _check_numbers(data: Any, where: str) -> None:
    """Raise `InputError` for a number that no search was ever told: infinite, or of more than 64 bits."""
    for at, value in each_value(data, where):
        if isinstance(value, float) and math.isfinite(value):
            continue
        if isinstance(value, int | float) and not abs(value) < 2**63:
            raise InputError(f"{at}: {quoted(value)} is not allowed: a number of at most 64 bits is expected")


def _writer(data: Any) -> str:
    """The version that wrote it, where it says so."""
    version = _part(_part(data, "provenance"), "versions").get("pareto-nas")
    return f", {printable(str(version))[:40]}" if version else ""


def _whose(file: Path, data: Any) -> str | None:
    """Whose run it is where it is not this user's: all of it has to belong to them, and their list to know that they started it.

    Where there is no place for a list, or where it names no module, it is enough that it says to be from this host.
    """
    if (other := other_owner(file.parent, *sorted(file.parent.glob("*.jsonl")), file)) is not None:
        return other
    host = _part(data, "provenance").get("host")
    is_here, known = host == socket.gethostname(), is_own(_mark(data))
    if known or (is_here and (known is None or not may_name(_part(data, "settings")))):
        return None
    return "says that it was started here, of which nothing else knows" if is_here else f"started on {str(host)[:60]!a}"


def _mark(data: Any) -> str:
    """Of a run, the modules that it names, and the folder in which these would be found: a copy beside other modules is another run."""
    provenance, names = _part(data, "provenance"), sorted(names_in(_part(data, "settings")))
    folder = code_folder() if any(map(lies_in_folder, names)) else ""
    told = [provenance.get("created"), provenance.get("host"), names, folder]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:32]


def _place_mark(data: Any, place: str) -> str:
    """Of a run and a place that it is written to."""
    return hashlib.sha256(f"{_mark(data)} {place}".encode()).hexdigest()[:32]


def _part(data: Any, name: str) -> dict[str, Any]:
    """A mapping within a mapping; an empty one where there is none."""
    found = data.get(name) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}
