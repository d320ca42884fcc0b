"""A family of networks in one file, as another package would bring it: convolutions one after another, of one width.

Nothing of torch is imported before a network is built.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nas.common.errors import InputError
from nas.spaces.base import Choice, Cost, LayerRow, Slot, Space, Values

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas.models.networks import Backbone, Inheritance

NAME = "toy"


@dataclass(frozen=True)
class Stack:
    """So many convolutions as there are kernel sizes, each to `width` channels; then the mean over the map."""

    channels: int
    side: int
    width: int
    kernels: tuple[int, ...]
    family: ClassVar[str] = NAME

    @property
    def canonical(self) -> Stack:
        return self

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side

    @property
    def input_size(self) -> int:
        return self.side

    def to_json(self) -> dict[str, Any]:
        numbers = {"channels": self.channels, "side": self.side, "width": self.width}
        return {"kind": NAME, **numbers, "kernels": list(self.kernels)}

    def __str__(self) -> str:
        return f"toy-w{self.width}-k{'.'.join(map(str, self.kernels))}"


@dataclass(frozen=True)
class ToySpace(Space):
    """Every `width` and `depth`, and for each layer every kernel size, those of layers that are left out too."""

    name: str
    side: int
    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: int = 1
    data: str | None = "digits"
    summary: str = "convolutions one after another"
    family: ClassVar[str] = NAME

    @property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        layers = {f"kernel{number}": self.kernel for number in range(max(self.depth))}
        return {"width": self.width, "depth": self.depth, **layers}

    @property
    def input_channels(self) -> int:
        return self.channels

    @property
    def input_sizes(self) -> tuple[int, ...]:
        return (self.side,)

    def slot(self, name: str) -> Slot:
        if not name.startswith("kernel"):
            return Slot(name)
        layer = int(name.removeprefix("kernel"))
        return Slot("kernel", layer=layer, optional=layer >= min(self.depth))

    def is_active(self, name: str, values: Values) -> bool:
        layer = self.slot(name).layer
        return layer is None or layer < values["depth"]

    def architecture(self, values: Values) -> Stack:
        for name, choices in self.parameters.items():
            if values.get(name) not in choices:
                raise InputError(f"parameter {name} is {values.get(name)}; space {self.name} allows {list(choices)}")
        kernels = tuple(int(values[f"kernel{number}"]) for number in range(int(values["depth"])))
        return Stack(self.channels, self.side, int(values["width"]), kernels)

    def locate(self, architecture: Any) -> dict[str, Choice]:
        depth = len(architecture.kernels) if isinstance(architecture, Stack) else 0
        kernels = {
            f"kernel{n}": architecture.kernels[n] if n < depth else self.kernel[0] for n in range(max(self.depth))
        }
        values = {"width": architecture.width if depth else 0, "depth": depth, **kernels}
        try:
            if depth and self.architecture(values) == architecture:
                return values
        except InputError:
            pass
        raise InputError(f"architecture {architecture} is not in the space {self.name}")

    def parse(self, text: str) -> Stack:
        found = re.fullmatch(r"toy-w(\d+)-k(\d+(?:\.\d+)*)", text.strip())
        if found is None:
            raise InputError(f"architecture {text!r} is not of the form toy-w8-k3.3")
        stack = Stack(self.channels, self.side, int(found[1]), tuple(map(int, found[2].split("."))))
        self.locate(stack)
        return stack

    @property
    def smallest(self) -> Stack:
        return Stack(self.channels, self.side, min(self.width), (min(self.kernel),) * min(self.depth))

    @property
    def largest(self) -> Stack:
        return Stack(self.channels, self.side, max(self.width), (max(self.kernel),) * max(self.depth))

    @property
    def backbone(self) -> Stack:
        return Stack(self.channels, self.side, max(self.width), (max(self.kernel),) * min(self.depth))

    def to_json(self) -> dict[str, Any]:
        lists = {"width": list(self.width), "depth": list(self.depth), "kernel": list(self.kernel)}
        return {"family": NAME, "name": self.name, "channels": self.channels, "side": self.side, **lists}


def _parts(stack: Stack, num_classes: int) -> list[tuple[int, int, int]]:
    """Of each layer the kernel size, multiply-adds and parameters; the classifier's kernel is the whole map."""
    widths = itertools.pairwise([stack.channels, *[stack.width] * len(stack.kernels)])
    convolutions = [
        (kernel, own * width * kernel**2 * stack.side**2, own * width * kernel**2 + width)
        for kernel, (own, width) in zip(stack.kernels, widths, strict=True)
    ]
    return [*convolutions, (stack.side, stack.width * num_classes, stack.width * num_classes + num_classes)]


class ToyFamily:
    """See `nas.spaces.base.Family`."""

    networks = f"{__name__}:NETWORKS"

    def space(self, data: dict[str, Any], source: str, lines: Any = None) -> ToySpace:
        lists = {key: tuple(data[key]) for key in ("width", "depth", "kernel") if isinstance(data.get(key), list)}
        if len(lists) < 3 or set(data) - {*lists, "name", "side", "channels"}:
            raise InputError(f"{source}: a toy space has name, channels, side, and lists of width, depth and kernel")
        numbers = int(data["side"]), lists["width"], lists["depth"], lists["kernel"], int(data.get("channels", 1))
        return ToySpace(str(data["name"]), *numbers)

    def architecture(self, data: dict[str, Any]) -> Stack:
        try:
            return Stack(data["channels"], data["side"], data["width"], tuple(data["kernels"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"not a toy architecture: {error}") from error

    def cost(self, architecture: Stack, num_classes: int) -> Cost:
        _, macs, params = map(sum, zip(*_parts(architecture, num_classes), strict=True))
        return Cost(macs, params, 4 * params)

    def layer_rows(self, architecture: Stack, num_classes: int) -> list[LayerRow]:
        parts = _parts(architecture, num_classes)
        whole, rows = sum(macs for _, macs, _ in parts), []
        for number, (kernel, macs, params) in enumerate(parts, 1):
            is_last = number == len(parts)
            channels = architecture.channels if number == 1 else architecture.width
            name, kind = ("classifier", "classifier") if is_last else (str(number), "convolution")
            out, end = (num_classes, 1) if is_last else (architecture.width, architecture.side)
            text = "" if is_last else f"k{kernel}"
            rows.append(
                LayerRow(name, kind, text, text, channels, out, architecture.side, end, macs, params, macs / whole)
            )
        return rows


class ToyNetworks:
    """See `nas.models.networks.Networks`."""

    def build(self, architecture: Stack, num_classes: int, seed: int = 0) -> nn.Module:
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layers: list[nn.Module] = []
            channels = architecture.channels
            for kernel in architecture.kernels:
                layers += [nn.Conv2d(channels, architecture.width, kernel, padding=kernel // 2), nn.ReLU()]
                channels = architecture.width
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))

    def inherit(self, backbone: Backbone, architecture: Stack, num_classes: int, seed: int = 0) -> Inheritance:
        """What has the name and shape there; the rest keeps its random values."""
        from nas.models.networks import Inheritance

        own = self.build(architecture, num_classes, seed).state_dict()
        taken = {n: t for n, t in backbone.state.items() if n in own and own[n].shape == t.shape}
        fresh = tuple(sorted({name.partition(".")[0] for name in own if name not in taken}))
        return Inheritance(own | taken, fresh, changed=False, inherited=len(taken), reinitialized=len(fresh))

    def refit(
        self,
        network: nn.Module,
        architecture: Stack,
        backbone: Backbone,
        batches: Sequence[torch.Tensor],
        lease: Any = None,
    ) -> None:
        """There is no batch norm to recalibrate."""


FAMILY = ToyFamily()
NETWORKS = ToyNetworks()
