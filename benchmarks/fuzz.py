"""Files that nobody would write: does everything that reads them answer with one sentence, and touch nothing else?

    python benchmarks/fuzz.py --seconds 120 [--seed 0] [--only run]

Takes what `tests/fixtures` and `search_spaces` hold, changes a few bytes or values of it, and gives it to whatever reads such a file. What is read
may be refused by `InputError`; any other exception, a file that is written or removed outside the case's own folder, or a reader that takes over
`MOST_S` is printed with the seed of its case, which `--case SEED` repeats, and the exit code is 1. So it is where the process grew by more than
`MOST_GROWTH` after the first tenth of the time. Cases are drawn from their seeds alone.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import os
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.common.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
MOST_S = 20.0
MOST_GROWTH = 300 * 2**20
"""Bytes."""
_CHANGES = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
)
_changed: list[str] = []
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**30, 1e308, -0.0, float("inf"), float("nan"), "", " ", "\0", "\x1b[2J", "a" * 5000, "../../x", "/etc/passwd",
    "é\u202e", "1e999", [], {}, [[]], {"": 0}, [None] * 50, {"kind": "os:system"}, "os:system", "=1+1", "0" * 16, [1, [2, [3]]],
)  # fmt: skip
_TOKENS = (
    b"null",
    b"1e999",
    b"-1",
    b"[" * 300,
    b"{" * 300,
    b"\0",
    b"\xff\xfe",
    b"\n\n",
    b"&a",
    b"*a",
    b"!!python/object:x",
    b"9" * 400,
    b'"',
    b": ",
    b"- ",
)


@dataclass(frozen=True)
class Target:
    """Something that reads files: the file that is changed, how, and the call that reads it, given its path."""

    seeds: tuple[Path, ...]
    place: Callable[[Path, bytes], Path]
    read: Callable[[Path], object]


def beside(name: str, folder: Path) -> Callable[[Path, bytes], Path]:
    """A copy of a folder of the fixtures with one file's content changed."""

    def place(scratch: Path, content: bytes) -> Path:
        copy = Path(shutil.copytree(folder, scratch / "copy"))
        (copy / name).write_bytes(content)
        return copy

    return place


def alone(suffix: str) -> Callable[[Path, bytes], Path]:
    """A file by itself."""

    def place(scratch: Path, content: bytes) -> Path:
        path = scratch / f"file{suffix}"
        path.write_bytes(content)
        return path

    return place


def _note_changes(event: str, arguments: tuple[Any, ...]) -> None:
    """Keep the path of whatever is written, made or removed."""
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, int) and (
            set("wax+") & set(mode or "") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            _changed.append(os.fsdecode(path))
    elif event in _CHANGES:
        folders = [
            os.readlink(f"/proc/self/fd/{each}") for each in arguments if isinstance(each, int) and 2 < each < 0o400
        ]
        for each in arguments[:2]:
            if isinstance(each, str | bytes | os.PathLike):
                _changed.append(os.path.join(*folders[:1], os.fsdecode(each)))


class _HangsError(BaseException):
    """A reader does not come back; nothing that it catches."""


def _give_up(*_: object) -> None:
    raise _HangsError


def _outside(folders: Sequence[str]) -> list[str]:
    """What was changed since the last call outside of some folders; what Python compiles is no change."""
    found = [os.path.realpath(each) for each in _changed if each != os.devnull and "__pycache__" not in each]
    _changed.clear()
    inside = tuple(os.path.realpath(folder) + os.sep for folder in folders)
    return [each for each in found if not (each + os.sep).startswith(inside)]


def _resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _read_run(path: Path) -> None:
    from nas.runs.front import pareto_front
    from nas.runs.status import status_of
    from nas.runs.store import open_run
    from nas.views.report.findings import find
    from nas.views.report.html import report_page
    from nas.views.terminal.front import front_csv, front_json

    run = open_run(path)
    records = run.judged()
    pareto_front(records, run.settings.objectives)
    status_of(run)
    front_csv(run, records)
    front_json(run, records)
    report_page(find(run))


def _read_replica(path: Path) -> None:
    from nas.runs.replica import fetch_run

    fetch_run(path.as_uri(), path.parent / "fetched")
    _read_run(path.parent / "fetched")


def _read_space(path: Path) -> None:
    from nas.spaces.files import load_space

    space = load_space(str(path))
    space.architecture(space.sample(random.Random(0)))


def _read_recipe(path: Path) -> None:
    from nas.training.recipe import Recipe, read_recipe

    read_recipe(Recipe(), path)


def _read_known(path: Path) -> None:
    from nas.spaces.files import load_space
    from nas.spaces.known import known_architectures

    known_architectures(load_space("digits"), str(path))


def _read_backbone(path: Path) -> None:
    from nas.models.backbones import load_backbone

    load_backbone(str(path))


def _read_supernet(path: Path) -> None:
    from nas.models.supernet import read_info

    read_info(path)


def _read_images(path: Path) -> None:
    from nas.data.sets import load_data

    load_data(str(path), channels=3, size=8, split_seed=0)


def _read_texts(path: Path) -> None:
    from nas.common.redact import without_password
    from nas.runs.picks import pick
    from nas.runs.store import open_run
    from nas.spaces.files import load_space

    text = path.read_text(encoding="utf-8", errors="replace")
    without_password(text)
    run = open_run(FIXTURES / "3950bf8" / "run")
    for read in (load_space("digits").parse, lambda given: pick(run.judged(), run.settings.objectives, given)):
        try:
            read(text)
        except InputError:
            continue


def targets(scratch: Path) -> dict[str, Target]:
    """All of them, by name; archives to begin with are made in `scratch`."""
    run, supernet, export = (FIXTURES / "3950bf8" / name for name in ("run", "supernet", "export"))
    spaces = tuple(sorted((ROOT / "search_spaces").glob("*.yaml")))
    text = scratch / "architecture.txt"
    text.write_text("r8-c8k3-k3e2s16-k5d2e4f32/2-h32")
    picked, uri = scratch / "pick.txt", scratch / "uri.txt"
    picked.write_text("accuracy>=93%")
    uri.write_text("s3://me:secret@bucket/run?region=eu&sig=x#token=y")
    replica = Path(shutil.copytree(run, scratch / "replica"))
    part = cut(replica / "trials.jsonl", replica)
    recipe = scratch / "recipe.yaml"
    recipe.write_text("epochs: 3\nbatch_size: 64\noptimizer: sgd\nprecision: float32\nmixup: 0.2\n")
    known = scratch / "known.csv"
    known.write_text("digest,architecture\nabcd,r8-c8k3-k3e2s16-k5d2e4f32/2-h32\n")
    found = {
        "run.yaml": Target((run / "run.yaml",), beside("run.yaml", run), _read_run),
        "trials.jsonl": Target((run / "trials.jsonl",), beside("trials.jsonl", run), _read_run),
        "trainings.jsonl": Target((run / "trainings.jsonl",), beside("trainings.jsonl", run), _read_run),
        "state.json": Target((run / "state.json",), beside("state.json", run), _read_run),
        "replica": Target((part,), beside(str(part.relative_to(replica)), replica), _read_replica),
        "model.json": Target((export / "model.json",), beside("model.json", export), _read_backbone),
        "supernet.yaml": Target((supernet / "supernet.yaml",), beside("supernet.yaml", supernet), _read_supernet),
        "space": Target(spaces, alone(".yaml"), _read_space),
        "recipe": Target((recipe,), alone(".yaml"), _read_recipe),
        "known": Target((known,), alone(".csv"), _read_known),
        "text": Target((text, picked, uri), alone(".txt"), _read_texts),
        **{f"archive{each.suffix}": Target((each,), alone(each.suffix), _read_images) for each in archives(scratch)},
    }
    return {name: target for name, target in found.items() if all(seed.is_file() for seed in target.seeds)}


def cut(path: Path, replica: Path) -> Path:
    """Leave the first line of a file that grows, and make a part of the others."""
    from nas.runs.layout import part_file

    content = path.read_bytes()
    first = content.index(b"\n") + 1
    part = replica / part_file(path.name, first, len(content))
    part.parent.mkdir(parents=True)
    part.write_bytes(content[first:])
    path.write_bytes(content[:first])
    return part


def archives(scratch: Path) -> tuple[Path, ...]:
    """A tar and a zip of a few images of two classes."""
    from PIL import Image

    files = {}
    for number in range(12):
        file = io.BytesIO()
        Image.new("RGB", (10, 12), (number * 20, 0, 0)).save(file, "PNG" if number % 2 else "JPEG")
        files[f"{'cat' if number < 6 else 'dog'}/{number}.{'png' if number % 2 else 'jpg'}"] = file.getvalue()
    tar, zipped = scratch / "images.tar", scratch / "images.zip"
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return tar, zipped


def changed(content: bytes, name: str, rng: random.Random) -> bytes:
    """The content with a few bytes or, of JSON and YAML, a few values changed."""
    structured = name.endswith((".yaml", ".json", ".jsonl"))
    return _values(content, name, rng) if structured and rng.random() < 0.7 else _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0:
                del found[at : at + rng.randint(1, 60)]
            case 1:
                found[at:at] = rng.choice(_TOKENS)
            case 2 if found:
                found[min(at, len(found) - 1)] = rng.randrange(256)
            case 3:
                found[at:at] = found[at : at + rng.randint(1, 200)]
            case _:
                found = found[: at or 1]
    return bytes(found)


def _values(content: bytes, name: str, rng: random.Random) -> bytes:
    if name.endswith(".jsonl"):
        lines = content.splitlines()
        at = rng.randrange(len(lines)) if lines else 0
        if lines:
            data = json.loads(lines[at])
            _change(data, rng)
            lines[at] = json.dumps(data).encode()
        return b"\n".join(lines) + b"\n"
    data = yaml.safe_load(content) if name.endswith(".yaml") else json.loads(content)
    for _ in range(rng.randint(1, 3)):
        _change(data, rng)
    return (yaml.safe_dump(data) if name.endswith(".yaml") else json.dumps(data)).encode()


def _change(data: Any, rng: random.Random) -> None:
    """Put something odd in the place of a value anywhere within, take one away, or add one."""
    while isinstance(data, dict | list) and data:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = rng.choice(keys)
        inner = data[key]
        if not (isinstance(inner, dict | list) and inner) or rng.random() < 0.15:
            match rng.randrange(4):
                case 0:
                    del data[key]
                case 1 if isinstance(data, dict):
                    data[rng.choice(("", "x", "kind", "schema", "a" * 300))] = copy.deepcopy(rng.choice(_ODD))
                case _:
                    data[key] = copy.deepcopy(rng.choice(_ODD))
            return
        data = inner


def run_case(seed: int, known: dict[str, Target], only: str | None) -> tuple[str, str | None]:
    """The target of a case, and what was wrong with it."""
    rng = random.Random(seed)
    name = rng.choice([each for each in known if only is None or only in each])
    target = known[name]
    source = rng.choice(target.seeds)
    content = changed(source.read_bytes(), source.name, rng)
    return name, problem_of(target, content)


def problem_of(target: Target, content: bytes) -> str | None:
    """What is wrong with how a content was read."""
    with tempfile.TemporaryDirectory() as folder:
        path = target.place(Path(folder), content)
        begun = time.monotonic()
        _changed.clear()
        try:
            target.read(path)
        except InputError as error:
            if "\n\n" in str(error) or "Traceback" in str(error):
                return f"no sentence: {error}"
        except (Exception, _HangsError):
            return traceback.format_exc()
        took = time.monotonic() - begun
        if outside := _outside((folder, os.environ["NAS_DATA"])):
            return f"changed outside: {', '.join(outside[:5])}"
    return f"took {took:.0f} s" if took > MOST_S else None


def main() -> int:
    """Run cases until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    parser.add_argument("--case", type=int, help="one case alone")
    parser.add_argument("--only", help="targets whose name has this in it")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ["NAS_DATA"] = tempfile.mkdtemp()
    os.environ.pop("NAS_TRUST", None)
    sys.addaudithook(_note_changes)
    signal.signal(signal.SIGALRM, _give_up)
    wrong, resident = 0, None
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        known = targets(Path(scratch))
        for target in known.values():  # what reading them imports is there from now on
            problem_of(target, target.seeds[0].read_bytes())
        begun, seed = time.monotonic(), given.seed if given.case is None else given.case
        while (passed := time.monotonic() - begun) < given.seconds:
            if resident is None and passed > given.seconds / 10:
                resident = _resident()
            signal.alarm(round(3 * MOST_S))
            name, problem = run_case(seed, known, given.only)
            signal.alarm(0)
            counts[name] += 1
            if problem is not None:
                wrong += 1
                print(f"case {seed} ({name}):\n{problem}", flush=True)
            if given.case is not None:
                break
            seed += 1
    shutil.rmtree(os.environ["NAS_DATA"], ignore_errors=True)
    print(
        f"{sum(counts.values())} cases, {wrong} wrong; "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
    )
    grown = 0 if resident is None else _resident() - resident
    print(f"memory: {_resident() / 2**20:.0f} MiB, {grown / 2**20:+.0f} MiB since a tenth of the time")
    return int(wrong > 0 or grown > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
