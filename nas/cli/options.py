"""Arguments and options that several commands share, and the units that their values may carry."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from nas.common.errors import InputError, about
from nas.common.problems import allowed
from nas.common.text import LONGEST_S, duration_text, quoted
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.runtimes import RUNTIMES
from nas.models.sources import SCRATCH
from nas.models.weights import source_of
from nas.runs.settings import LatencyTarget
from nas.tasks.base import DEFAULT, task_of
from nas.tasks.classification_metrics import METRICS
from nas.training.recipe import INHERITED_RATE, SCRATCH_RATE, Recipe, default_recipe, read_recipe

if TYPE_CHECKING:
    from nas.spaces import base


SCORE = task_of(DEFAULT).score.name
"""The score that examples name."""

FLAGS = {
    "assignments": "--set",
    "example": "--input",
    "formats": "--format",
    "freeze": "--fix",
    "max_latency_ms": "--max-latency",
    "measure=False": "--no-measure",
    "recipe.epochs": "--epochs/--finetune",
    "recipe.steps": "--set steps=N",
    "start": "--from",
    "time_budget_s": "--time-budget",
    "trial_timeout_s": "--trial-timeout",
    "with_ray": "--ray",
}
"""Arguments that errors name whose flag has another name."""


def flag_of(argument: str) -> str:
    """What an argument that an error names is called on the command line."""
    return FLAGS.get(argument, f"--{argument.replace('_', '-')}")


@contextlib.contextmanager
def named_here(**flags: str) -> Iterator[None]:
    """Errors raised meanwhile call these arguments by these flags: those of one command that are others elsewhere."""
    try:
        yield
    except InputError as error:
        raise InputError(error.named(lambda name: flags.get(name, flag_of(name)))) from error


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `2h` or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{quoted(text)} is not a duration: write 90s, 30m or 2h")
    seconds = float(match[1]) * {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds > LONGEST_S:
        raise typer.BadParameter(f"{quoted(text)} is too long: at most {duration_text(LONGEST_S)}")
    return seconds


def parse_milliseconds(text: str) -> float:
    """`2.5ms`, `800us` or plain milliseconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)?", text.strip())
    if match is None or float(match[1]) <= 0:
        raise typer.BadParameter(f"{quoted(text)} is not a latency: write 2.5ms or 800us")
    return float(match[1]) * {None: 1, "us": 1e-3, "ms": 1, "s": 1e3}[match[2]]


def parse_count(text: str) -> int:
    """`300M`, `1.5G`, `20k` or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG])?", text.strip())
    count = float(match[1]) * {None: 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]] if match else 0
    if not 1 <= count < 1e18:
        raise typer.BadParameter(f"{quoted(text)} is not a count: write 300M, 20k or a plain number, at least 1")
    return int(count)


def chosen_recipe(
    init: str,
    file: Path | None,
    assignments: list[str] | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    inherited_rate: float = INHERITED_RATE,
) -> Recipe:
    """The recipe that the flags ask for; a flag of its own overrides the file, and --set overrides both.

    `inherited_rate` is the learning rate of inherited weights where nothing is said.
    """
    recipe = read_recipe(default_recipe(init != SCRATCH, inherited_rate), file)
    flags = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    recipe = replace(recipe, **{key: value for key, value in flags.items() if value is not None})  # type: ignore[arg-type]
    return read_recipe(recipe, None, assignments or ())


MODES = f"{', '.join(RUNTIMES.names)}, or module:name of yours"
"""What a latency's mode may be."""

_PROTOCOL = TypeAdapter(LatencyProtocol)
_PROTOCOL_KEYS = {key: key for key in ("device", "mode", "dtype", "threads", "channels_last", "attempts")} | {
    "batch": "batch_size",
    "warmup": "warmup_s",
    "seconds": "max_s",
}
_TARGET_KEYS = (*_PROTOCOL_KEYS, "max", "accelerator", "resource")


def parse_target(text: str, device: str, before: LatencyTarget | None = None) -> LatencyTarget:
    """A further target from `NAME=key:value,...`, by default on `device`; `resource` may be there several times.

    What is not given is as `before`, where there is such a target already. Raises `InputError` naming the key and the value.
    """
    name, equals, rest = text.partition("=")
    flag = f"--target {name.strip()}"
    if not equals:
        raise InputError(f"{flag}: write NAME=key:value,... with the keys {', '.join(_TARGET_KEYS)}")
    pairs = _pairs(flag, rest, _TARGET_KEYS)
    resources = parse_amounts(f"{flag}:", "resource:", pairs.pop("resource", []), "=")
    values = {key: given[0] for key, given in pairs.items()}
    try:
        max_ms = parse_milliseconds(values["max"]) if "max" in values else None
    except typer.BadParameter as error:
        raise InputError(f"{flag}: max: {error.message}") from error
    protocol = _protocol(flag, values, before.protocol if before else default_protocol(values.get("device", device)))
    if before is not None:
        max_ms, resources = max_ms or before.max_ms, resources or before.resources
    accelerator = values.get("accelerator", before.accelerator if before else None)
    return LatencyTarget(name.strip(), protocol, max_ms, accelerator, resources)


def parse_amounts(flag: str, key: str, texts: Sequence[str], separator: str) -> dict[str, float]:
    """Custom resources of Ray from `NAME` or `NAME`, separator, `AMOUNT`; raises `InputError` naming the flag and the text."""
    amounts: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.partition(separator)
        try:
            amounts[name] = float(amount or 1)
        except ValueError as error:
            raise InputError(f"{flag} {key}{text}: write {key}NAME or {key}NAME{separator}AMOUNT") from error
    return amounts


def parse_protocol(text: str, device: str, before: LatencyProtocol | None = None) -> LatencyProtocol:
    """The protocol of the first latency from `key:value,...`, the rest as `before` or by default.

    It is on `device`, which is what `latency_device` means here. Raises `InputError` naming the key and the value.
    """
    values = _latency_values(text)
    values.pop("device", None)
    return _protocol("--latency", values, before or default_protocol(device))


def latency_device(text: str) -> str | None:
    """The device that `--latency` names, if it does; raises as `parse_protocol` does."""
    return _latency_values(text).get("device")


def _latency_values(text: str) -> dict[str, str]:
    return {key: given[0] for key, given in _pairs("--latency", text, list(_PROTOCOL_KEYS)).items()}


def _pairs(flag: str, text: str, keys: Sequence[str]) -> dict[str, list[str]]:
    pairs: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key not in keys or not value:
            raise InputError(f"{flag}: {quoted(part)} is not key:value with a key of {', '.join(keys)}")
        if key in pairs and key != "resource":
            raise InputError(f"{flag}: {key} is given twice")
        pairs.setdefault(key, []).append(value)
    return pairs


def _protocol(flag: str, values: Mapping[str, str], base: LatencyProtocol) -> LatencyProtocol:
    given = {field: values[key] for key, field in _PROTOCOL_KEYS.items() if key in values}
    try:
        protocol = _PROTOCOL.validate_python(asdict(base) | given)
    except ValidationError as error:
        problem = error.errors()[0]
        key = next(key for key, field in _PROTOCOL_KEYS.items() if field == problem["loc"][0])
        raise InputError(f"{flag}: {key}:{values[key]}: {allowed(problem)}") from error
    if "mode" in values:
        check_mode(f"{flag}: mode:{protocol.mode}", protocol.mode)
    return protocol


def check_mode(where: str, mode: str) -> None:
    """Raise `InputError`, which begins with `where` it was given, unless the mode is known."""
    try:
        RUNTIMES.check(mode)
    except InputError as error:
        raise InputError(f"{where}: {error.marked}") from error


def data_name(given: str | None, space: base.Space) -> str:
    """The data set asked for, or the space's own; raises `InputError` when there is none."""
    name = given or space.data
    if name is None:
        raise InputError(f"space {space.name} has no data set of its own: give --data NAME_OR_PATH")
    return name


def absolute_init(init: str) -> str:
    """A folder of weights by its absolute path, since workers have another working directory; a name as it is."""
    with about("init"):
        return source_of(init).absolute()


Space = Annotated[
    str, typer.Argument(metavar="SPACE", help="A space by name (see nas space list) or the path of its YAML file.")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The run directory of a search.")]
Picks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHICH",
        help=f"knee (the default), most-accurate, fastest, a limit like 'latency<=2ms' or '{SCORE}>=93%', or a digest of nas "
        "front; several with commas between, or repeated.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME_OR_PATH",
        help="A data set by name, a folder or archive of images, or module:function; by default the space's own.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
TrainDevice = Annotated[
    str | None,
    typer.Option(
        "--train-device",
        metavar="DEVICE",
        help="Where candidates train, where that is not --device: cuda, to train on a GPU for --latency device:cpu.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random but the split.")]
SplitSeed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Seed of the split in training, validation and test images.")
]
AllowSeenImages = Annotated[
    bool,
    typer.Option(
        "--allow-seen-images",
        help="Take initial weights that were trained on images which score here: scores are then too good.",
    ),
]
Task = Annotated[
    str, typer.Option(help="What is learnt: classification, a task of an installed package, or module:name.")
]
Metric = Annotated[
    str,
    typer.Option(
        help="The score that counts, by default the task's own; for classification "
        f"{', '.join(METRICS)}, or module:function(labels, predictions).",
        show_default=False,
    ),
]
Init = Annotated[
    str,
    typer.Option(
        help="Initial weights: scratch, efficientnet_lite0, mobilenet_v2, a folder that nas export made, or supernet:FOLDER."
    ),
]
OwnInit = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="Initial weights: scratch (by default), efficientnet_lite0, mobilenet_v2, a folder that nas export made, or "
        "supernet:FOLDER. A space that nas space from made has its own network's by default.",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        "--finetune",
        min=0,
        help="Epochs of the proxy training; by default 10. 0 scores what --init supernet:FOLDER gives as it is.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=2, help="Images a training step; by default 64.", show_default=False)
]


def rate_option(inherited_rate: float) -> Any:
    """--learning-rate of a command whose default with inherited weights is this."""
    help_text = f"Peak of the schedule; by default {SCRATCH_RATE}, and {inherited_rate} with --init."
    return typer.Option(min=1e-8, help=help_text, show_default=False)


LearningRate = Annotated[float | None, rate_option(INHERITED_RATE)]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="A recipe in YAML; nas recipe prints one to start from.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One value of the recipe, e.g. optimizer=sgd; may be repeated."),
]


@dataclass(frozen=True)
class TrainingOptions:
    """How a candidate is trained."""

    epochs: Epochs = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    recipe_file: RecipeFile = None
    assignments: Assignments = None

    def recipe(self, init: str) -> Recipe:
        """The recipe that they ask for, for these initial weights."""
        return chosen_recipe(init, self.recipe_file, self.assignments, self.epochs, self.batch_size, self.learning_rate)

    @property
    def fixes_length(self) -> bool:
        """Whether the length of a training was asked for."""
        assigned = {text.partition("=")[0].strip() for text in self.assignments or ()}
        return bool(self.epochs is not None or self.recipe_file or assigned & {"epochs", "steps", "seconds"})


Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME=KEY:VALUE,...",
        help="A further latency, the objective latency:NAME, e.g. edge=device:cpu,batch:8,mode:onnxruntime,max:5ms; "
        "accelerator:TYPE or resource:NAME place it in a Ray cluster. May be repeated.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        "--latency",
        metavar="KEY:VALUE,...",
        help="How latency is measured, as it will be deployed, e.g. mode:onnxruntime,batch:8,threads:2; device:cpu says on what, by "
        "default --device.",
    ),
]
Logs = Annotated[str, typer.Option("--log", help="tensorboard, mlflow, or both with a comma between.")]
MaxLatency = Annotated[
    float | None, typer.Option(parser=parse_milliseconds, metavar="MS", help="Hard latency budget, e.g. 2.5ms.")
]
MaxMacs = Annotated[
    int | None, typer.Option(parser=parse_count, metavar="COUNT", help="Hard budget of MACs, e.g. 300M.")
]
MaxParams = Annotated[
    int | None, typer.Option(parser=parse_count, metavar="COUNT", help="Hard budget of parameters, e.g. 5M.")
]
