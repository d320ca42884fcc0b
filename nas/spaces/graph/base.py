"""A base: the network that somebody brought, with what is worked out of it once, so that nothing here needs torch.

Its channels are in *groups*, which have to have one size everywhere; a layer reads and writes a row of groups. From the
layers' table costs follow in closed form, and from the groups which arguments a narrower network's layers have.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, InstanceOf, PlainSerializer, TypeAdapter, ValidationError

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.spaces.graph.program import Part, Program

LayerKind = Literal["conv", "linear", "norm", "other"]

_MOST_BYTES = 50_000_000


@dataclass(frozen=True)
class Segment:
    """The channels of a group where they lie in a row of channels, each `repeat` times (a flattened map's positions)."""

    group: int
    repeat: int = 1


@dataclass(frozen=True)
class Group:
    """Channels that have to be as many everywhere; `frozen` says why they cannot change, `tied` that an addition ties them.

    `squeeze` is the narrow part of a gate on channels (SE).
    """

    size: int
    frozen: str = ""
    tied: bool = False
    squeeze: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer with weights or multiply-adds. Of each of the base's input sizes: `positions` that it writes, the larger `side`
    of the map that it reads (0: no map), and its `macs` in the base.

    `params` and `buffer_bytes` are those in the base; `pad` is the path of a padding that belongs to it.
    """

    path: str
    node: str
    kind: LayerKind
    ins: tuple[Segment, ...]
    outs: tuple[Segment, ...]
    positions: tuple[int, ...]
    sides: tuple[int, ...]
    out_sides: tuple[int, ...]
    macs: tuple[int, ...]
    params: int
    buffer_bytes: int = 0
    depthwise: bool = False
    pad: str | None = None


@dataclass(frozen=True)
class Skip:
    """A residual addition, the node of its shortcut, and the nodes that only the branch needs."""

    node: str
    shortcut: str
    branch: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """A pointwise layer, its batch norm and activation before a depthwise layer, which a dense one can replace.

    `nodes` are theirs, `norm` is the layer behind the depthwise one.
    """

    layer: str
    pointwise: str
    inner_norm: str
    norm: str
    nodes: tuple[str, ...]


SiteKey = Literal["k", "d", "sep", "fused", "w", "drop"]


@dataclass(frozen=True)
class Site:
    """Something of the base that may change: by its `label` in texts, what of it, and where.

    `target` is the path of a layer, the first that writes the `group` for a width, or the node of a residual addition; `where` the
    name that the user knows it by.
    """

    label: str
    key: SiteKey
    target: str
    where: str
    base: int
    group: int = -1

    @property
    def name(self) -> str:
        """The name of the parameter: `f4.k`."""
        return f"{self.label}.{self.key}"

    @property
    def is_switch(self) -> bool:
        """Whether it is there or not."""
        return self.key in ("sep", "fused", "drop")

    def allows(self, value: object) -> bool:
        """Whether a value may be a choice, in some space."""
        if not isinstance(value, int):
            return False
        if self.is_switch:
            return value in (0, 1)
        return 1 <= value <= (999_999 if self.key == "w" else 99) and (self.key != "k" or value % 2 == 1)

    def word(self, value: int) -> str:
        """A choice as texts have it: `f4.k5`, `f7.drop`."""
        return self.name if self.is_switch else f"{self.name}{value}"


@dataclass(frozen=True)
class Base:
    """A network and what can be told of it; `sizes` are the sides of images that it was looked at with, its own first.

    `head` is the layer that gives the classes; `weights` sixteen hexadecimal digits of the weights; `mean` and `std` the
    normalisation that they were trained with, where that is known.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    channels: int
    sizes: tuple[int, ...]
    classes: int
    head: str
    program: Annotated[InstanceOf[Program], PlainSerializer(Program.to_json), Field(alias="network")]
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...]
    skips: tuple[Skip, ...]
    fusions: tuple[Fusion, ...]
    sites: tuple[Site, ...]
    weights: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str = ""
    origin: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """The side of its own images."""
        return self.sizes[0]

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the network by its name, its weights, and what of it may change."""
        names = [site.name for site in self.sites]
        text = json.dumps([self.name, self.program.digest, self.weights, self.channels, self.size, self.classes, names])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """How architectures call it: `resnet18@3fa2`."""
        return f"{self.name}@{self.digest[:4]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Base) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    # ---------------------------------------------------------------- looked up

    @cached_property
    def layer(self) -> Mapping[str, Layer]:
        """Layers by path."""
        return {layer.path: layer for layer in self.layers}

    @cached_property
    def skip(self) -> Mapping[str, Skip]:
        """Residual additions by their node."""
        return {skip.node: skip for skip in self.skips}

    @cached_property
    def fusion(self) -> Mapping[str, Fusion]:
        """Fusions by the path of the depthwise layer."""
        return {fusion.layer: fusion for fusion in self.fusions}

    @cached_property
    def site(self) -> Mapping[str, Site]:
        """Sites by the names of their parameters."""
        return {site.name: site for site in self.sites}

    @cached_property
    def of_group(self) -> Sequence[tuple[Layer, ...]]:
        """Of each group the layers that read or write it."""
        found: list[list[Layer]] = [[] for _ in self.groups]
        for layer in self.layers:
            for group in dict.fromkeys(segment.group for segment in (*layer.ins, *layer.outs)):
                found[group].append(layer)
        return [tuple(each) for each in found]

    def part(self, path: str) -> Part:
        """A layer's class and arguments."""
        return self.program.parts[path]

    def index(self, size: int) -> int:
        """Where an input size stands in the layers' tables; raises `InputError` where the base was not looked at with it."""
        if size not in self.sizes:
            raise InputError(
                f"the base {self.title} takes images of {', '.join(map(str, self.sizes))} px, not of {size}"
            )
        return self.sizes.index(size)

    # ---------------------------------------------------------------- files

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back."""
        plain: dict[str, Any] = _adapter().dump_python(self, mode="json", by_alias=True)
        return {"network": plain.pop("network"), **plain}

    @staticmethod
    def from_json(data: Any) -> Base:
        """Read what `to_json` wrote; raises `InputError` where it is anything else."""
        if not isinstance(data, dict) or "network" not in data:
            raise InputError("not the base of a space: a mapping with the key network is expected")
        program = Program.from_json(data["network"])
        try:
            base = _adapter().validate_python({**data, "network": program})
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise InputError(f"not the base of a space: {where}: {problem['msg']}") from error
        base._check()
        return base

    @cached_property
    def packed(self) -> str:
        """All of it as one short text, for what has to stand for itself: runs, records, and what workers are sent."""
        return base64.b85encode(zlib.compress(json.dumps(self.to_json(), separators=(",", ":")).encode(), 9)).decode()

    @staticmethod
    def unpacked(text: str) -> Base:
        """Read what `packed` wrote; raises `InputError`."""
        try:
            inflating = zlib.decompressobj()
            data = json.loads(inflating.decompress(base64.b85decode(text), _MOST_BYTES))
        except (ValueError, TypeError, zlib.error, RecursionError) as error:
            raise InputError(f"not the base of a space: {type(error).__name__}: {error}") from error
        return Base.from_json(data)

    def _check(self) -> None:
        """Raise `InputError` where the parts speak of layers, nodes or groups that there are not."""
        nodes, parts = self.program.by_name, self.program.parts
        paths = [self.head, *(layer.pad for layer in self.layers if layer.pad)]
        paths += [layer.path for layer in self.layers if layer.kind != "other"]
        for fusion in self.fusions:
            paths += [fusion.layer, fusion.pointwise, fusion.inner_norm, fusion.norm]
        paths += [site.target for site in self.sites if site.key != "drop"]
        named = [name for skip in self.skips for name in (skip.node, skip.shortcut, *skip.branch)]
        named += [name for fusion in self.fusions for name in fusion.nodes] + [layer.node for layer in self.layers]
        groups = [segment.group for layer in self.layers for segment in (*layer.ins, *layer.outs)]
        right = set(paths) <= set(parts) and set(named) <= set(nodes) and self.head in self.layer
        right = right and all(0 <= group < len(self.groups) for group in groups) and len(self.sizes) > 0
        right = right and all(site.target in self.skip for site in self.sites if site.key == "drop")
        right = right and all(site.target in self.fusion for site in self.sites if site.key == "fused")
        right = right and all(0 <= site.group < len(self.groups) for site in self.sites if site.key == "w")
        right = right and all(len(table) == len(self.sizes) for layer in self.layers for table in _tables(layer))
        if not right:
            raise InputError(f"not the base of a space: the parts of {self.name} do not fit each other")


def _tables(layer: Layer) -> tuple[tuple[int, ...], ...]:
    return layer.positions, layer.sides, layer.out_sides, layer.macs


@cache
def _adapter() -> TypeAdapter[Base]:
    return TypeAdapter(Base)


_known: dict[str, Base] = {}
"""By digest the bases that this process has read: those of many records are one."""


def note_base(base: Base) -> Base:
    """The one object that stands for a base in this process."""
    return _known.setdefault(base.digest, base)


def base_by(digest: str, packed: str) -> Base:
    """The base of a digest, unpacked where it is not known yet; raises `InputError` where that is another one."""
    if digest not in _known:
        base = Base.unpacked(packed)
        if base.digest != digest:
            raise InputError(
                f"the base {quoted(digest)} of an architecture is not what lies beside it, which is {base.title}"
            )
        note_base(base)
    return _known[digest]
