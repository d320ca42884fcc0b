"""The layers of a network as a table: what each is, what it sees, and its share of the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nas.spaces.base import LayerRow
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.cost import part_costs
from nas.spaces.mobile.geometry import output_size


@dataclass(frozen=True)
class _Part:
    """A convolution, or the classifier, which reads the mean over the map as a kernel of the map's size would."""

    name: str
    kind: str
    kernel_size: int
    in_channels: int
    out_channels: int
    size_in: int
    size_out: int
    dilation: int = 1
    expansion: float | None = None
    stride: int = 1

    @property
    def text(self) -> str:
        """k5 d2 e4 /2."""
        parts = [f"k{self.kernel_size}"]
        parts += [f"d{self.dilation}"] if self.dilation > 1 else []
        parts += [f"e{self.expansion:.3g}"] if self.expansion is not None else []
        return " ".join([*parts, *([f"/{self.stride}"] if self.stride > 1 else [])])

    @property
    def details(self) -> str:
        """The same in whole words."""
        text = f"kernel {self.kernel_size}×{self.kernel_size}"
        text += f", dilation {self.dilation}" if self.dilation > 1 else ""
        text += f", expansion {self.expansion:.3g}" if self.expansion is not None else ""
        return f"{text}, stride {self.stride}"


def layer_rows(architecture: Architecture, num_classes: int) -> list[LayerRow]:
    """The layers of the canonical form, stem first; the head is there where it has channels."""
    costs = part_costs(architecture, num_classes)
    whole = sum(macs for macs, _, _ in costs)
    rows, field, jump = [], 1, 1
    for part, (macs, params, _) in zip(_parts(architecture.canonical, num_classes), costs, strict=True):
        field += part.dilation * (part.kernel_size - 1) * jump
        jump *= part.stride
        is_chosen = part.kind != "classifier"
        rows.append(
            LayerRow(
                part.name, part.kind, part.text if is_chosen else "", part.details if is_chosen else "",
                part.in_channels, part.out_channels, part.size_in, part.size_out, macs, params, macs / whole, field,
            )
        )  # fmt: skip
    return rows


def _parts(arch: Architecture, num_classes: int) -> Iterator[_Part]:
    stem, features = arch.stem, arch.output_shape
    side = output_size(arch.input_size, stem.stride)
    yield _Part(
        "stem", "stem", stem.kernel_size, arch.input_channels, stem.out_channels, arch.input_size, side,
        stride=stem.stride,
    )  # fmt: skip
    for number, (layer, shape) in enumerate(arch.shapes(), 1):
        yield _Part(
            str(number), "separable" if layer.separable else "fused", layer.kernel_size, shape.in_channels,
            layer.out_channels, shape.in_size, output_size(shape.in_size, layer.stride), layer.dilation, layer.expansion,
            layer.stride,
        )  # fmt: skip
    last, end = features.in_channels, features.in_size
    if arch.head_channels:
        yield _Part("head", "head", 1, last, arch.head_channels, end, end)
        last = arch.head_channels
    yield _Part("classifier", "classifier", end, last, num_classes, end, 1)
