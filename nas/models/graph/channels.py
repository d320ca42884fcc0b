"""Which channels of a network have to be as many: a union-find over its graph.

Each layer that writes channels of its own begins a group; an addition, product or concatenation that meets two joins
them. It fails closed: what an operator that is not known here takes or gives is frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.models.graph.build import Shape
from nas.models.graph.operators import words
from nas.spaces.graph.base import Group, Segment
from nas.spaces.graph.program import Node, Part, Program, Ref, refs_in

_ELEMENTWISE = frozenset(
    words(
        "relu relu_ relu6 silu mish gelu elu celu selu hardswish hardsigmoid hardtanh leaky_relu sigmoid sigmoid_ "
        "tanh softplus softsign logsigmoid clamp clamp_ clip dropout dropout1d dropout2d contiguous clone detach "
        "float abs neg exp sqrt square max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d interpolate "
        "lp_pool2d to"
    )
)
_LAYERS = frozenset(
    words(
        "ReLU ReLU6 SiLU Mish GELU ELU CELU SELU Hardswish Hardsigmoid Hardtanh LeakyReLU Sigmoid Tanh Softplus "
        "Softsign LogSigmoid Identity Dropout Dropout1d Dropout2d AlphaDropout DropPath SamePad2d ZeroPad2d "
        "ConstantPad2d ReflectionPad2d ReplicationPad2d MaxPool2d AvgPool2d AdaptiveAvgPool2d AdaptiveMaxPool2d "
        "LPPool2d Upsample UpsamplingNearest2d UpsamplingBilinear2d"
    )
)
_ACTIVATIONS = frozenset(
    words(
        "ReLU ReLU6 SiLU Mish GELU ELU CELU SELU Hardswish Hardsigmoid Hardtanh LeakyReLU Sigmoid Tanh Softplus relu "
        "relu_ relu6 silu mish gelu elu celu selu hardswish hardsigmoid hardtanh leaky_relu sigmoid tanh softplus"
    )
)
_ADD = frozenset(words("add add_ sub sub_ iadd isub"))
_MULTIPLY = frozenset(words("mul mul_ imul div div_ truediv itruediv"))
_RESHAPE = frozenset(words("flatten view reshape squeeze unsqueeze Flatten"))
_POOLS = frozenset(("AdaptiveAvgPool2d", "torch.nn.functional.adaptive_avg_pool2d", "mean", "torch.mean"))
_SHAPES_ONLY = frozenset(words("size dim numel getattr"))


@dataclass(frozen=True)
class Row:
    """The channels of a tensor: on which axis, and the groups along it."""

    axis: int
    segments: tuple[Segment, ...]


@dataclass
class Channels:
    """Of each layer what it reads and writes, and the groups; made by `channels_of`."""

    ins: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    outs: dict[str, tuple[Segment, ...]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)


def is_activation(program: Program, node: Node) -> bool:
    """Whether a node is an activation of one tensor, value by value."""
    word = program.parts[node.target].kind if node.op == "module" else node.target.rpartition(".")[2]
    return word in _ACTIVATIONS and len(list(node.inputs())) == 1


def channels_of(program: Program, shapes: Mapping[str, Shape | None]) -> Channels:
    """The groups of a program whose nodes give tensors of these shapes, for a batch of two or more."""
    return _Walk(program, shapes).done()


class _Walk:
    def __init__(self, program: Program, shapes: Mapping[str, Shape | None]) -> None:
        self._program, self._shapes = program, shapes
        self._calls = Counter(node.target for node in program.nodes if node.op == "module")
        self._calls.update(path.rpartition(".")[0] for path in program.tensors)  # whose weights something reads as well
        self._parent: list[int] = []
        self._groups: list[Group] = []
        self._rows: dict[str, Row | None] = {}
        self._ins: dict[str, tuple[Segment, ...]] = {}
        self._outs: dict[str, tuple[Segment, ...]] = {}
        self._written: dict[str, int] = {}  # by a layer's node, the group that it began
        self._gates: list[tuple[str, str]] = []

    def done(self) -> Channels:
        for node in self._program.nodes:
            self._rows[node.name] = self._row(node)
        for gate, gated in self._gates:
            self._mark_squeeze(gate, gated)
        roots = {root: number for number, root in enumerate(dict.fromkeys(map(self._root, range(len(self._parent)))))}
        groups = [self._groups[root] for root in roots]

        def settled(row: tuple[Segment, ...]) -> tuple[Segment, ...]:
            return tuple(Segment(roots[self._root(each.group)], each.repeat) for each in row)

        ins = {path: settled(row) for path, row in self._ins.items()}
        return Channels(ins, {path: settled(row) for path, row in self._outs.items()}, groups)

    # ---------------------------------------------------------------- groups

    def _new(self, size: int, frozen: str = "") -> Segment:
        self._parent.append(len(self._parent))
        self._groups.append(Group(size, frozen))
        return Segment(len(self._parent) - 1)

    def _root(self, group: int) -> int:
        while self._parent[group] != group:
            self._parent[group] = self._parent[self._parent[group]]
            group = self._parent[group]
        return group

    def _join(self, one: int, other: int, tied: bool) -> None:
        one, other = self._root(one), self._root(other)
        a, b = self._groups[one], self._groups[other]
        self._groups[one] = Group(a.size, a.frozen or b.frozen, a.tied or b.tied or tied, a.squeeze or b.squeeze)
        self._parent[other] = one

    def _freeze(self, row: Row | None, why: str) -> None:
        for segment in row.segments if row else ():
            root = self._root(segment.group)
            old = self._groups[root]
            self._groups[root] = Group(old.size, old.frozen or why, old.tied, old.squeeze)

    def _size(self, row: Row) -> int:
        return sum(self._groups[self._root(each.group)].size * each.repeat for each in row.segments)

    # ---------------------------------------------------------------- nodes

    def _row(self, node: Node) -> Row | None:
        shape = self._shapes[node.name]
        given = [name for name in node.inputs() if self._shapes[name] is not None]
        rows = [self._rows[name] for name in given]
        word = self._program.parts[node.target].kind if node.op == "module" else node.target.rpartition(".")[2]
        if node.op == "input":
            assert shape is not None
            return Row(1, (self._new(shape[1], "the image"),))
        if node.op == "output":
            for row in rows:
                self._freeze(row, "the classes")
            return None
        if node.op == "tensor":
            return None
        if node.op == "module" and len(given) == 1 and shape is not None:
            row = self._layer(node, self._program.parts[node.target], rows[0], shape)
            if row is not None:
                return row
        elif shape is not None and word in _ELEMENTWISE and len(given) == 1 and self._is_whole(rows[0], shape):
            return rows[0]
        if shape is not None and len(given) >= 1:
            row = self._known(node, word, given, rows, shape)
            if row is not None:
                return row
        if shape is None and word in _SHAPES_ONLY:
            return None
        for row in rows:
            self._freeze(row, f"{word} mixes or counts them")
        if shape is None or len(shape) < 2:
            return None
        axis = next((row.axis for row in rows if row and row.axis < len(shape)), 1)
        return Row(axis, (self._new(shape[axis], f"{word} gives them"),))

    def _is_whole(self, row: Row | None, shape: Shape) -> bool:
        return row is not None and row.axis < len(shape) and self._size(row) == shape[row.axis]

    def _known(self, node: Node, word: str, given: list[str], rows: list[Row | None], shape: Shape) -> Row | None:
        first, before = rows[0], self._shapes[given[0]]
        assert before is not None
        if len(given) == 1 and first is not None:
            if word in _ADD | _MULTIPLY | {"pow", "rsub"} and before == shape:  # with a number
                return first
            if word == "pad" and first.axis == 1 and before[:2] == shape[:2]:
                return first
            if word == "mean" and first.axis == 1 and shape[:2] == before[:2] and len(before) == 4:
                return first
            if word in _RESHAPE:
                return self._reshaped(first, before, shape)
            if word in ("permute", "Permute") and self._moved(node) is not None:
                order = self._moved(node)
                return Row(order.index(first.axis), first.segments) if order else None
        if len(given) == 2 and None not in rows and word in _ADD | _MULTIPLY:
            return self._met(word, given, rows[0], rows[1], shape)  # type: ignore[arg-type]
        if word in ("cat", "concat") and None not in rows:
            return self._joined(node, [row for row in rows if row], shape)
        return None

    def _reshaped(self, row: Row, before: Shape, shape: Shape) -> Row | None:
        if row.axis != 1 or len(shape) < 2 or before[0] != shape[0]:
            return None
        if before[1] == shape[1]:
            return row
        places = 1
        for side in before[2:]:
            places *= side
        if len(shape) == 2 and shape[1] == before[1] * places:
            return Row(1, tuple(Segment(each.group, each.repeat * places) for each in row.segments))
        return None

    def _moved(self, node: Node) -> list[int]:
        order = node.args[1:] if node.op != "module" else self._program.parts[node.target].arguments.get("dims", ())
        if len(order) == 1 and isinstance(order[0], tuple | list):
            order = order[0]
        flat = [each for each in order if isinstance(each, int)]
        count = len(self._shapes[next(node.inputs())] or ())
        return [each % count for each in flat] if len(flat) == count else []

    def _met(self, word: str, given: list[str], one: Row, other: Row, shape: Shape) -> Row | None:
        a, b = self._shapes[given[0]], self._shapes[given[1]]
        assert a is not None
        assert b is not None
        if len(a) != len(b) or one.axis != other.axis:
            return None
        if 1 in (a[one.axis], b[one.axis]) and a[one.axis] != b[one.axis]:  # a gate on places, of one channel
            wide, narrow = (one, other) if b[one.axis] == 1 else (other, one)
            self._freeze(narrow, "one channel for all")
            return wide
        alike = [each.repeat for each in one.segments] == [each.repeat for each in other.segments]
        if not alike or self._sizes(one) != self._sizes(other):
            return None
        for left, right in zip(one.segments, other.segments, strict=True):
            self._join(left.group, right.group, word in _ADD)
        if word in _MULTIPLY:
            self._gates += [(given[0], given[1]), (given[1], given[0])]
        return one

    def _sizes(self, row: Row) -> list[int]:
        return [self._groups[self._root(each.group)].size for each in row.segments]

    def _joined(self, node: Node, rows: list[Row], shape: Shape) -> Row | None:
        dim = dict(node.kwargs).get("dim", node.args[1] if len(node.args) > 1 else 0)
        axes = {row.axis for row in rows}
        if not isinstance(dim, int) or axes != {dim % len(shape)} or len(list(refs_in(node.args[0]))) != len(rows):
            return None
        return Row(axes.pop(), tuple(each for row in rows for each in row.segments))

    def _layer(self, node: Node, part: Part, row: Row | None, shape: Shape) -> Row | None:
        path = node.target
        if row is None or (
            part.kind not in _LAYERS and self._calls[path] > 1
        ):  # one that is called twice serves two rows
            return None
        if part.kind == "Conv2d" and row.axis == 1:
            return self._convolution(path, node, part, row, shape)
        if part.kind == "Linear" and row.axis == len(shape) - 1:
            self._ins[path] = row.segments
            out = self._new(shape[-1])
            self._outs[path], self._written[node.name] = (out,), out.group
            return Row(row.axis, (out,))
        if part.kind in ("BatchNorm2d", "BatchNorm1d") and row.axis == 1:
            self._ins[path] = self._outs[path] = row.segments
            return row
        if part.kind in _LAYERS and self._is_whole(row, shape):
            return row
        return None

    def _convolution(self, path: str, node: Node, part: Part, row: Row, shape: Shape) -> Row:
        groups = part.arguments.get("groups", 1)
        self._ins[path] = row.segments
        if groups == 1:
            out = self._new(shape[1])
            self._written[node.name] = out.group
        elif groups == part["in_channels"] == part["out_channels"]:
            self._outs[path] = row.segments
            return row
        else:
            self._freeze(row, f"{path} is in groups")
            out = self._new(shape[1], f"{path} is in groups")
        self._outs[path] = (out,)
        return Row(1, (out,))

    # ---------------------------------------------------------------- gates

    def _mark_squeeze(self, gate: str, gated: str) -> None:
        """Mark what a factor narrows channels to on its way from a pooled map, where it is such a gate."""
        row = self._rows[gate]
        own = {self._root(each.group) for each in row.segments} if row else set()
        seen, waiting, narrow, is_pooled = set[str](), [gate], set[int](), False
        while waiting:
            name = waiting.pop()
            node = self._program.by_name[name]
            if name == gated or node.op == "input":
                return
            if name in seen:
                continue
            seen.add(name)
            word = self._program.parts[node.target].kind if node.op == "module" else node.target
            if word in _POOLS:
                is_pooled = True
                continue
            waiting += node.inputs()
            if name in self._written:
                narrow.add(self._root(self._written[name]))
        for root in narrow - own if is_pooled else ():
            old = self._groups[root]
            self._groups[root] = Group(old.size, old.frozen, old.tied, squeeze=True)


def takes(node: Node) -> list[str]:
    """Nodes given as they are, not within lists."""
    return [each.node for each in node.args if isinstance(each, Ref)]


def only_input(node: Node) -> str | None:
    """The one node that a node takes; None where it takes several."""
    names = list(node.inputs())
    return names[0] if len(names) == 1 else None


def arguments_of(part: Part, **defaults: Any) -> dict[str, Any]:
    """Arguments of a layer with torch's defaults where it names none."""
    return {**defaults, **part.arguments}
