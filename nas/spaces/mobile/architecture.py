"""One network as a value: `Architecture`, its canonical form, digest, compact string and JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from nas.common.errors import InputError
from nas.common.jsonl import fields_of
from nas.common.problems import allowed
from nas.common.text import quoted
from nas.spaces.mobile.geometry import Padding, effective_kernel, output_size, receptive_field

Positive = Annotated[int, Field(ge=1, le=999_999)]
Taps = Annotated[int, Field(ge=1, le=999)]
Activation = Literal["relu", "relu6"]

REMEMBERED = 100_000
"""Layers, each where it stands, of which canonical form and cost are remembered: a space's networks are made of few."""

_NUMBER = r"[1-9]\d{0,5}"
_TAPS = r"[1-9]\d{0,2}"
_KERNEL = r"\d{0,2}[13579]"
_LAYER = re.compile(rf"k({_KERNEL})(?:d({_TAPS}))?e(\d{{1,6}}(?:\.\d+)?)([sf])({_NUMBER})(?:/({_TAPS}))?")
_STEM = re.compile(rf"c({_NUMBER})k({_KERNEL})(?:/({_TAPS}))?")
_INPUT = re.compile(rf"r({_NUMBER})")
_HEAD = re.compile(r"h(\d{1,6})")


@dataclass(frozen=True)
class StemSpec:
    """The first convolution: dense, padded, followed by BN and the activation."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    kernel_size: Taps
    stride: Taps
    out_channels: Positive


@dataclass(frozen=True)
class LayerSpec:
    """One inverted residual.

    Separable: pointwise expansion (absent at expansion 1), depthwise kernel, pointwise projection
    (Sandler et al., MobileNetV2, 2018). Fused: a dense kernel that expands, then the projection
    (fused, Tan & Le, EfficientNetV2, 2021).
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    kernel_size: Taps
    dilation: Taps
    expansion: Annotated[float, Field(gt=0, le=999_999)]
    separable: bool
    out_channels: Positive
    stride: Taps

    def hidden_channels(self, in_channels: int) -> int:
        """Channels between expansion and projection."""
        return max(1, round(in_channels * self.expansion))

    def __str__(self) -> str:
        dilation = f"d{self.dilation}" if self.dilation > 1 else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        kind = "s" if self.separable else "f"
        return f"k{self.kernel_size}{dilation}e{self.expansion:.12g}{kind}{self.out_channels}{stride}"


@dataclass(frozen=True)
class LayerShape:
    """Where a layer stands: channels and side of the map that it reads."""

    in_channels: int
    in_size: int


@dataclass(frozen=True)
class Architecture:
    """A whole network but for the number of classes, which the data set decides.

    `head_channels` is the width of the 1x1 convolution before pooling; 0 leaves it out.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")
    family: ClassVar[str] = "mobile"
    input_channels: Positive
    input_size: Positive
    stem: StemSpec
    layers: tuple[LayerSpec, ...]
    head_channels: Annotated[int, Field(ge=0, le=999_999)]
    padding: Padding = "symmetric"
    activation: Activation = "relu6"
    norm_eps: float = 1e-5

    def shapes(self) -> Iterator[tuple[LayerSpec, LayerShape]]:
        """Each layer with the map it reads."""
        channels, size = self.stem.out_channels, output_size(self.input_size, self.stem.stride)
        for layer in self.layers:
            yield layer, LayerShape(channels, size)
            channels, size = layer.out_channels, output_size(size, layer.stride)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image that the network takes."""
        return self.input_channels, self.input_size, self.input_size

    @property
    def output_shape(self) -> LayerShape:
        """Channels and side of the map that the last layer writes."""
        size = output_size(self.input_size, self.stem.stride)
        for layer in self.layers:
            size = output_size(size, layer.stride)
        channels = self.layers[-1].out_channels if self.layers else self.stem.out_channels
        return LayerShape(channels, size)

    @property
    def receptive_field(self) -> int:
        """Side in input pixels of the square that one position of the last feature map depends on."""
        convolutions = [(self.stem.kernel_size, 1, self.stem.stride)]
        convolutions += [(layer.kernel_size, layer.dilation, layer.stride) for layer in self.layers]
        return receptive_field(convolutions)

    @cached_property
    def canonical(self) -> Architecture:
        """The same function with everything that cannot change it normalised away.

        Kernels shrink to the taps that some output position reads inside the map, a 1x1 kernel has dilation
        1, and the expansion is the ratio of the channels that it really gives.
        """
        return replace(
            self,
            stem=canonical_stem(self.stem, self.input_size, self.padding),
            layers=tuple(canonical_layer(layer, shape, self.padding) for layer, shape in self.shapes()),
        )

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that are equal for equal canonical forms."""
        text = json.dumps(self.canonical.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        stride = f"/{self.stem.stride}" if self.stem.stride > 1 else ""
        parts = [f"r{self.input_size}", f"c{self.stem.out_channels}k{self.stem.kernel_size}{stride}"]
        parts += [str(layer) for layer in self.layers]
        return "-".join([*parts, f"h{self.head_channels}"])

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back."""
        parts = {"stem": fields_of(self.stem), "layers": tuple(map(fields_of, self.layers))}
        return fields_of(self) | parts

    @staticmethod
    def from_json(data: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote; raises `InputError` when a key is missing, unknown or of a wrong type."""
        try:
            return _adapter().validate_python(data)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise InputError(f"not an architecture: {where}: {allowed(problem)}") from error


@cache
def _adapter() -> TypeAdapter[Architecture]:
    return TypeAdapter(Architecture)


@lru_cache(REMEMBERED)
def canonical_layer(layer: LayerSpec, shape: LayerShape, padding: Padding) -> LayerSpec:
    """A layer's canonical form where it stands (see `Architecture.canonical`)."""
    kernel_size, dilation = effective_kernel(shape.in_size, layer.kernel_size, layer.dilation, layer.stride, padding)
    ratio = layer.hidden_channels(shape.in_channels) / shape.in_channels
    expansion = int(ratio) if ratio.is_integer() else ratio
    return replace(layer, kernel_size=kernel_size, dilation=dilation, expansion=expansion)


def canonical_stem(stem: StemSpec, input_size: int, padding: Padding) -> StemSpec:
    """The stem's canonical form (see `Architecture.canonical`)."""
    kernel_size, _ = effective_kernel(input_size, stem.kernel_size, 1, stem.stride, padding)
    return replace(stem, kernel_size=kernel_size)


def parse_architecture(text: str, like: Architecture) -> Architecture:
    """Read a compact string such as `r8-c16k3-k3e2s16-k5d2e4f24/2-h64`.

    `r` is the input size, `c`/`k` the stem's channels and kernel, each `k…` a layer (`s` separable, `f` fused,
    then the output channels, `/` the stride), `h` the head's channels. What the string leaves out (input
    channels, padding, activation) is taken from `like`. Raises `InputError` naming the part that does not fit.
    """
    parts = text.strip().split("-")
    size, head = _INPUT.fullmatch(parts[0]), _HEAD.fullmatch(parts[-1])
    if len(parts) < 4 or size is None or head is None:
        raise InputError(f"architecture {quoted(text)} is not of the form {like}")
    stem = _STEM.fullmatch(parts[1])
    if stem is None:
        raise InputError(
            f"architecture {quoted(text)}: the stem {quoted(parts[1])} is not of the form c16k3 or c16k3/2"
        )
    layers = []
    for part in parts[2:-1]:
        match = _LAYER.fullmatch(part)
        if match is None or not float(match[3]):
            raise InputError(f"architecture {quoted(text)}: the layer {quoted(part)} is not of the form k5d2e4s24/2")
        kernel_size, dilation, expansion, kind, channels, stride = match.groups()
        layers.append(
            LayerSpec(
                kernel_size=int(kernel_size),
                dilation=int(dilation or 1),
                expansion=float(expansion) if "." in expansion else int(expansion),
                separable=kind == "s",
                out_channels=int(channels),
                stride=int(stride or 1),
            )
        )
    return replace(
        like,
        input_size=int(size[1]),
        stem=StemSpec(int(stem[2]), int(stem[3] or 1), int(stem[1])),
        layers=tuple(layers),
        head_channels=int(head[1]),
    )
