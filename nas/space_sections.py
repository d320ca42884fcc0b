"""The parts of a search space as its YAML file writes them: which values each key takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

Choice = int | float | bool
"""A value that a parameter can have."""


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


def is_among(value: Any, choices: Sequence[Choice]) -> bool:
    """Whether a value is one of the choices, and of its type."""
    # Python holds 1 == 1.0 == True; as choices they would be three spellings with three digests. A loop, as samplers
    # ask for this some 50,000 times a proposal.
    for choice in choices:  # noqa: SIM110
        if value is choice or (value == choice and type(value) is type(choice)):
            return True
    return False


Kernel = Annotated[StrictInt, Field(ge=1, le=15), AfterValidator(_odd)]
Channels = Annotated[StrictInt, Field(ge=1, le=8192)]
Stride = Annotated[StrictInt, Field(ge=1, le=4)]
Expansion = Annotated[StrictInt | StrictFloat, Field(gt=0, le=16)]

_one_or_many = (BeforeValidator(_as_tuple), Field(min_length=1), AfterValidator(_distinct))
Kernels = Annotated[tuple[Kernel, ...], *_one_or_many]
Widths = Annotated[tuple[Channels, ...], *_one_or_many]
HeadWidths = Annotated[tuple[Annotated[StrictInt, Field(ge=0, le=8192)], ...], *_one_or_many]
Strides = Annotated[tuple[Stride, ...], *_one_or_many]
Sizes = Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=2048)], ...], *_one_or_many]
Dilations = Annotated[tuple[Annotated[StrictInt, Field(ge=1, le=8)], ...], *_one_or_many]
Depths = Annotated[tuple[Annotated[StrictInt, Field(ge=0, le=16)], ...], *_one_or_many]
Expansions = Annotated[tuple[Expansion, ...], *_one_or_many]
Flags = Annotated[tuple[StrictBool, ...], *_one_or_many]


class Section(BaseModel):
    """A part of a space file: no key but the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpace(Section):
    """Channels of the images and the side(s) they may be resized to, in pixels."""

    channels: Annotated[StrictInt, Field(ge=1, le=64)] = 3
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
        for key, value in self.backbone.items():
            choices = getattr(self, key, None) if key in STAGE_KEYS + LAYER_KEYS else None
            if choices is None:
                raise ValueError(f"backbone.{key} is not one of {', '.join(STAGE_KEYS + LAYER_KEYS)}")
            if not is_among(value, choices):
                raise ValueError(f"backbone.{key} is {value}, which is not among the choices {list(choices)}")
        return self


STAGE_KEYS = ("depth", "out_channels", "stride")
LAYER_KEYS = ("kernel_size", "dilation", "expansion", "separable")
