"""What the files of a run directory are called; the only place that makes paths below one.

run.yaml         settings, versions, hardware: everything needed to run it again
trials.jsonl     one complete record a line, appended and fsynced: the source of truth
images.npz       hashes of the images that candidates were trained on and scored by (nas/runs/run_images.py)
study.journal    the Optuna study (`optuna-dashboard` opens it), told only what is recorded
latencies.jsonl  latencies of the front and what is near it, measured again in turn, a line each
confirmations.jsonl  members of the front trained again, longer, a line each
baselines.jsonl  reference networks that `nas baseline` measured, a line each; the latest of a name counts
audit.jsonl      further trainings of candidates by `nas fidelity`, a line each
trainings.jsonl  candidates trained in full by `nas train`, a line each
weights/         DIGEST.safetensors of the front and the most recent few
trained/         DIGEST-KEY.safetensors of what `nas train` trained, DIGEST-KEY.hardest.png the images that it found hardest;
                 of what it has not ended yet KEY.start, the weights to begin with, and KEY.checkpoint, what to go on from
report.html      the report
front.png        the front as a picture for slides (`nas report --png`)
state.json       what the driver of a search tells of itself, every few seconds and at its end
stop             there while a search is asked to stop (`nas stop`)
exports/         a folder for each candidate that `nas browse` exported
tensorboard/, mlflow/  what `--log` tells those
.lock            held by the search or fidelity check that runs on the directory

In a replica alone:
mirror.json      which run it holds, and which driver copies to it (nas/runs/remote_folder.py)
parts/           NAME/START-END, the bytes by which a file that only grows is longer than there (nas/runs/parts.py)

Digests and keys become parts of paths here alone, and are checked before, since records may come from anywhere.
"""

import re
import time
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from nas.common.errors import InputError

RUN_FILE = "run.yaml"
TRIALS = "trials.jsonl"
STUDY = "study.journal"
LATENCIES = "latencies.jsonl"
CONFIRMATIONS = "confirmations.jsonl"
BASELINES = "baselines.jsonl"
AUDITS = "audit.jsonl"
TRAININGS = "trainings.jsonl"
WEIGHTS = "weights"
TRAINED = "trained"
EXPORTS, TENSORBOARD, MLFLOW = "exports", "tensorboard", "mlflow"
IMAGES = "images.npz"
REPORT = "report.html"
PICTURE = "front.png"
LOCK = ".lock"
STATE, STOP = "state.json", "stop"
"""Files of the driver that runs, or ran last: no part of what a search leaves."""
READ = (RUN_FILE, TRIALS, LATENCIES, CONFIRMATIONS, BASELINES, AUDITS, TRAININGS, STATE)
"""Files that a run is read from."""
FOLDERS = (WEIGHTS, TRAINED, EXPORTS, TENSORBOARD, MLFLOW)
SAFETENSORS, HARDEST, CHECKPOINT, START = ".safetensors", ".hardest.png", ".checkpoint", ".start"
"""How the names of weights end, of pictures of what a network found hardest, and of what a training keeps until it has ended."""
GROWING = frozenset({TRIALS, STUDY, LATENCIES, CONFIRMATIONS, BASELINES, AUDITS, TRAININGS})
"""Files that are only ever appended to, a line at a time."""
PARTS = "parts"
"""Where a replica keeps what such files came to hold since they were last copied whole."""

NAME_PART = "[0-9A-Za-z_-]{1,64}"
"""What a digest or a key may be, so that it can be part of a file's name: a pattern."""
_PART = re.compile(NAME_PART)
_PLAIN = re.compile("[0-9A-Za-z_][0-9A-Za-z_.+-]{0,254}")
_FILES = {RUN_FILE, *GROWING, IMAGES, REPORT, PICTURE}
WRITTEN = frozenset({*_FILES, *FOLDERS, LOCK, STATE, STOP})
"""All that a run writes directly in its directory."""
_BELOW = {
    WEIGHTS: re.compile(rf"{NAME_PART}{re.escape(SAFETENSORS)}"),
    TRAINED: re.compile(rf"{NAME_PART}-{NAME_PART}({re.escape(SAFETENSORS)}|{re.escape(HARDEST)})"),
}
_PART_FILE = re.compile(rf"{PARTS}/([a-z.]+)/([0-9]{{15}})-([0-9]{{15}})")


def default_run_path(space_name: str) -> Path:
    """results/SPACE-DATE-TIME, in the working directory; a number is added when two start in one second."""
    stem = Path("results") / f"{space_name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = stem, 2
    while path.exists():
        path, count = stem.with_name(f"{stem.name}-{count}"), count + 1
    return path


def weights_file(digest: str) -> str:
    """Where a candidate's weights lie, from the run directory; raises `InputError` where that is no digest."""
    return f"{WEIGHTS}/{_checked(digest)}{SAFETENSORS}"


def trained_file(digest: str, key: str, ending: str = SAFETENSORS) -> str:
    """Where something of a full training lies; raises `InputError` where that is no digest or key."""
    return f"{TRAINED}/{_checked(digest)}-{_checked(key)}{ending}"


def checkpoint_file(key: str) -> str:
    """Where a full training that has not ended keeps what it goes on from; raises `InputError` where that is no key."""
    return f"{TRAINED}/{_checked(key)}{CHECKPOINT}"


def start_file(key: str) -> str:
    """Where a full training that has not ended keeps the weights to begin with; raises `InputError` where that is no key."""
    return f"{TRAINED}/{_checked(key)}{START}"


def training_lock(key: str) -> str:
    """What the process holds that is at a full training; raises `InputError` where that is no key."""
    return f"{TRAINED}/.{_checked(key)}.lock"


class PartName(NamedTuple):
    """A part of a file that grows: of which, and its bytes from `start` up to `end`."""

    name: str
    start: int
    end: int


def part_file(name: str, start: int, end: int) -> str:
    """Where such a part lies, from the folder of a replica."""
    return f"{PARTS}/{name}/{start:015}-{end:015}"


def part_of(path: str) -> PartName | None:
    """Which part a path from the folder of a replica is that of, if it is one."""
    found = _PART_FILE.fullmatch(path)
    return PartName(found[1], int(found[2]), int(found[3])) if found and found[1] in GROWING else None


def _checked(part: str) -> str:
    if not _PART.fullmatch(part):
        raise InputError(f"{part[:80]!r} cannot be part of a file's name: it takes up to 64 letters, digits, - and _")
    return part


def is_kept(name: str) -> bool:
    """Whether a path from the run directory is that of a file which is part of what a run leaves, and which a copy of it holds."""
    folder, _, rest = name.partition("/")
    if folder in (EXPORTS, TENSORBOARD, MLFLOW) and rest:
        return len(parts := rest.split("/")) <= 8 and all(map(_PLAIN.fullmatch, parts))
    return name in _FILES if not rest else folder in _BELOW and _BELOW[folder].fullmatch(rest) is not None


def stays_below(name: str) -> bool:
    """Whether a path from a folder leads to a place below it."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name and "\\" not in name
