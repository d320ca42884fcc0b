"""The recipe of a fine-tune: its values, their limits, and how a file or `KEY=VALUE` changes them. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from nas.common.errors import InputError, arg, did_you_mean
from nas.common.kinds import checks_kinds
from nas.common.problems import allowed
from nas.common.text import quoted
from nas.common.yaml_file import UNREADABLE, parse_yaml, read_yaml, yaml_text

Precision = Literal["auto", "float32", "bfloat16", "float16"]

MOST_EPOCHS, MOST_STEPS, MOST_BATCH = 10**6, 10**9, 10**6
_Epochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
_Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
_Share = Annotated[float, Field(ge=0, le=1)]
_BelowOne = Annotated[float, Field(ge=0, lt=1)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Alpha = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained. The training ends with the first of `epochs`, `steps` and `seconds` to be reached.

    Length
        epochs: 0 trains nothing: a candidate is scored with the weights that it inherits from a supernet. steps, seconds
            and all below mean nothing then.
        seconds: of training alone; validation and waiting for the device lease do not count.
        patience: epochs without a better score after which training ends; 0 is never. The last epoch counts, not
            the best one, since picking the best of noisy scores flatters.
    Optimiser
        momentum: of SGD (Nesterov's). weight_decay: spares batch norm and biases.
        schedule: onecycle (Smith & Topin, 2018) or cosine (Loshchilov & Hutter, 2017); `warmup` is the share of the
            training in which the learning rate rises.
        clip_norm: largest norm of the gradient; 0 is no limit. ema: decay of an average of the weights that is
            scored and kept in their place; 0 is none.
    Regularisation
        dropout: before the classifier. balance: for uneven classes, by weights in the loss or by sampling.
    What is trained
        trainable: all, head (what follows the last stage), head+K (and the last K stages), or gradual (from the head
            backwards, all from half of the training on: Howard & Ruder, ULMFiT, 2018, section 3.3). Batch norm of what
            is frozen keeps its statistics.
    Speed
        precision: of the training steps; auto is bfloat16 or float16 on CUDA, and on a CPU whichever of float32 and
            bfloat16 takes less time. Scores are always those of the float32 network. compile: by torch.compile, which
            pays off in long trainings only.
    Augmentation, drawn for each image on the device
        hflip: flipped left to right, every other image (torchvision's word); None is as the data say. crop_share: by how much of the side a crop of the padded image may shift.
        resized_crop: smallest share of the area that a random crop keeps before it is resized; 0 is none.
        cutout: side of a blanked square as a share of the image's (DeVries & Taylor, 2017).
        colour: how far brightness, contrast and saturation may change, as a share.
        mixup, cutmix: alpha of the Beta distribution (Zhang et al., 2018; Yun et al., 2019); with both, each batch
            draws one of them.
    """

    epochs: _Epochs = 10
    steps: _Steps | None = None
    seconds: _Positive | None = None
    patience: _Epochs = 0
    batch_size: Annotated[int, Field(ge=2, le=MOST_BATCH)] = 64

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: _Positive = 0.01
    momentum: _BelowOne = 0.9
    weight_decay: _NotNegative = 0.01
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup: _BelowOne = 0.25
    clip_norm: _NotNegative = 0.0
    ema: _BelowOne = 0.0

    label_smoothing: _BelowOne = 0.1
    dropout: _BelowOne = 0.0
    balance: Literal["none", "loss", "sampling"] = "none"

    trainable: Annotated[str, Field(pattern=r"^(all|head|head\+[1-9]\d*|gradual)$")] = "all"

    precision: Precision = "auto"
    compile: bool = False

    hflip: Annotated[bool | None, Field(validation_alias=AliasChoices("hflip", "mirror"))] = None
    crop_share: _Share = 0.125
    resized_crop: _Share = 0.0
    cutout: _Share = 0.0
    colour: _BelowOne = 0.0
    mixup: _Alpha = 0.0
    cutmix: _Alpha = 0.0


LONGER = 2
"""How many times as long a candidate is trained that is confirmed."""


def longer(recipe: Recipe, times: float = LONGER) -> Recipe:
    """The recipe with a training so many times as long."""
    return replace(
        recipe,
        epochs=math.ceil(recipe.epochs * times),
        steps=recipe.steps and math.ceil(recipe.steps * times),
        seconds=recipe.seconds and recipe.seconds * times,
        patience=math.ceil(recipe.patience * times),
    )


_RECIPE = TypeAdapter(Recipe)
_KEYS = tuple(field.name for field in fields(Recipe))
_ONCE: dict[Any, str] = {"mirror": "hflip"}
"""Keys of older recipes, and what they are called now."""
SCRATCH_RATE, INHERITED_RATE = 0.01, 0.002
SUPERNET_RATE = 0.005
"""Of a supernet that begins with inherited weights (docs/supernet.md)."""


@checks_kinds
def default_recipe(inherits: bool, inherited_rate: float = INHERITED_RATE) -> Recipe:
    """The recipe where nothing is said: inherited weights want a lower learning rate than random ones."""
    return replace(Recipe(), learning_rate=inherited_rate if inherits else SCRATCH_RATE)


def read_recipe(base: Recipe, file: Path | None = None, assignments: Sequence[str] = ()) -> Recipe:
    """`base`, changed by a YAML file of recipe keys, then by `KEY=VALUE` texts.

    Raises `InputError` with all that is wrong in them, a line each.
    """
    base = _validated(base, {})
    changes: dict[Any, Any] = {}
    problems: list[str] = []
    if file is not None:
        content, lines = read_yaml(file, f"{arg('recipe')} {file}")
        if not isinstance(content, dict):
            raise InputError(f"{arg('recipe')} {file}: needs lines of KEY: VALUE, with keys of {', '.join(_KEYS)}")
        for given, value in content.items():
            line, key = lines.get((given,), lines.get((str(given),))), _ONCE.get(given, given)
            problems += _problems(base, key, value, f"{arg('recipe')} {file}" + (f":{line}" if line else ""))
            changes[key] = value
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign:
            problems.append(f"{arg('assignments')} {text}: write KEY=VALUE, with a KEY of {', '.join(_KEYS)}")
            continue
        try:
            parsed = parse_yaml(value)
        except UNREADABLE:
            problems.append(f"{arg('assignments')} {text}: {quoted(value)} is not a value")
            continue
        key = _ONCE.get(key.strip(), key.strip())
        problems += _problems(base, key, parsed, f"{arg('assignments')} {text}")
        changes[key] = parsed
    if problems:
        raise InputError("\n".join(problems))
    return _validated(base, changes)


def recipe_text(recipe: Recipe, default_rate: float | None = None) -> str:
    """The recipe as YAML, as `read_recipe` reads it.

    A learning rate of `default_rate` becomes a comment, so that the file goes with any initial weights.
    """
    text = yaml_text(asdict(recipe))
    line = f"learning_rate: {recipe.learning_rate}\n"
    if recipe.learning_rate == default_rate:
        text = text.replace(
            line, f"# learning_rate: {SCRATCH_RATE} from scratch, {INHERITED_RATE} with inherited weights\n"
        )
    return text


def _problems(base: Recipe, key: Any, value: Any, source: str) -> list[str]:
    """What is wrong with one value, in a sentence, if anything is."""
    if key not in _KEYS:
        return [f"{source}: unknown key {quoted(key)}{did_you_mean(key, _KEYS)}; a recipe has {', '.join(_KEYS)}"]
    try:
        _validated(base, {key: value}, f"{source}: ")
    except InputError as error:
        return [error.marked]
    if isinstance(value, bool) and key not in ("hflip", "compile"):  # pydantic takes true for 1
        return [f"{source}: {key} {quoted(value)}: must be a number"]
    return []


def _validated(base: Recipe, changes: Mapping[str, Any], where: str = "") -> Recipe:
    values = asdict(base) | dict(changes)
    try:
        return _RECIPE.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        raise InputError(f"{where}{key if where else arg(key)} {quoted(values[key])}: {_allowed(problem)}") from error


def _allowed(problem: Any) -> str:
    if problem["type"] == "string_pattern_mismatch":
        return "use all, head, head+K or gradual"
    return allowed(problem)
