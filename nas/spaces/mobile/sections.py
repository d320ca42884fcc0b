"""The parts of a search space as its YAML file writes them: which values each key takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from nas.common.errors import did_you_mean
from nas.spaces.base import Choice


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a choice is listed twice")
    return tuple(sorted(values))


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("a kernel size must be odd, from 1 to 15")
    return value


def plain_name(name: str) -> str:
    """A name that can be part of a path; raises `ValueError` for others."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError("use lower-case letters, digits, - and _")
    return name


def raise_all(problems: Iterable[str]) -> None:
    """Raise `ValueError` with all problems, one a line, if there are any."""
    told = "\n".join(problems)
    if told:
        raise ValueError(told)


def unchosen(backbone: Mapping[str, Choice], choices: Mapping[str, Sequence[Choice]]) -> Iterator[str]:
    """What is wrong with the marks of a backbone, of which each names one of the choices of its key."""
    for key, value in backbone.items():
        if key not in choices:
            yield f"backbone.{key} is not one of {', '.join(choices)}{did_you_mean(key, choices)}"
        elif not is_among(value, choices[key]):
            yield f"backbone.{key} is {value}, which is not among the choices {list(choices[key])}"


def is_among(value: Any, choices: Sequence[Choice]) -> bool:
    """Whether a value is one of the choices, and of its type."""
    # Python holds 1 == 1.0 == True; as choices they would be three spellings with three digests. A loop, as samplers
    # ask for this some 50,000 times a proposal.
    for choice in choices:  # noqa: SIM110
        if value is choice or (value == choice and type(value) is type(choice)):
            return True
    return False


def _choices(what: str, allowed: str) -> tuple[Any, ...]:
    """One value or a list of different ones, and what a message says is allowed."""
    return (
        BeforeValidator(_as_tuple),
        Field(min_length=1, description=f"{what} or a list of them, {allowed},"),
        AfterValidator(_distinct),
    )


def _whole(least: int, most: int) -> tuple[Any, ...]:
    return _choices("a whole number", f"from {least} to {most}")


Kernel = Annotated[StrictInt, Field(ge=1, le=15), AfterValidator(_odd)]
Channels = Annotated[StrictInt, Field(ge=1, le=8192)]
Stride = Annotated[StrictInt, Field(ge=1, le=4)]
Expansion = Annotated[StrictInt | StrictFloat, Field(gt=0, le=16)]

Kernels = Annotated[tuple[Kernel, ...], *_choices("an odd whole number", "from 1 to 15")]
Widths = Annotated[tuple[Channels, ...], *_whole(1, 8192)]
HeadWidths = Annotated[tuple[Annotated[StrictInt, Field(ge=0, le=8192)], ...], *_whole(0, 8192)]
Strides = Annotated[tuple[Stride, ...], *_whole(1, 4)]
Sizes = Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=2048)], ...], *_whole(1, 2048)]
Dilations = Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=8)], ...], *_whole(1, 8)]
Depths = Annotated[tuple[Annotated[StrictInt, Field(ge=0, le=16)], ...], *_whole(0, 16)]
Expansions = Annotated[tuple[Expansion, ...], *_choices("a number", "above 0 and up to 16")]
Flags = Annotated[tuple[StrictBool, ...], *_choices("true or false", "each once")]


class Section(BaseModel):
    """A part of a space file: no key but the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpace(Section):
    """Channels of the images and the side(s) they may be resized to, in pixels."""

    channels: Annotated[StrictInt, Field(ge=1, le=64, description="a whole number from 1 to 64")] = 3
    size: Sizes


class StemSpace(Section):
    """Choices of the first convolution."""

    kernel_size: Kernels = (3,)
    stride: Strides = (1,)
    out_channels: Widths


class StageSpace(Section):
    """Choices of one stage: depth, channels and stride once, the rest for each layer on its own.

    A stage of depth 0 is left out, its stride too.
    """

    depth: Depths = (1,)
    out_channels: Widths
    stride: Strides = (1,)
    kernel_size: Kernels
    dilation: Dilations = (1,)
    expansion: Expansions
    separable: Flags = (True,)
    backbone: dict[str, Choice] = {}

    @model_validator(mode="after")
    def _backbone_is_a_choice(self) -> StageSpace:
        raise_all(unchosen(self.backbone, {key: getattr(self, key) for key in STAGE_KEYS + LAYER_KEYS}))
        return self


STAGE_KEYS = ("depth", "out_channels", "stride")
LAYER_KEYS = ("kernel_size", "dilation", "expansion", "separable")
