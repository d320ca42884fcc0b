"""What changes make of a base: the program of another network, and which layers are left. Plain data on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas.spaces.graph.base import Base, Layer, Segment
from nas.spaces.graph.program import Node, Part, Program, Ref

Changes = Mapping[str, int]
"""By the name of a site its choice, where that is not the base's."""

DEPTHWISE, POINTWISE = "depthwise", "pointwise"
"""Names of the two layers within a dense one that became separable."""


@dataclass(frozen=True)
class Changed:
    """Changes by what they concern: paths of layers, groups, and nodes that are gone; `alias` says what stands for one."""

    kernels: dict[str, int] = field(default_factory=dict)
    dilations: dict[str, int] = field(default_factory=dict)
    separable: set[str] = field(default_factory=set)
    fused: set[str] = field(default_factory=set)
    widths: dict[int, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    alias: dict[str, str] = field(default_factory=dict)

    def count(self, base: Base, row: tuple[Segment, ...]) -> int:
        """Channels of a row of groups."""
        return sum(self.widths.get(each.group, base.groups[each.group].size) * each.repeat for each in row)

    def source(self, node: str) -> str:
        """The node whose result stands for that of one that is gone."""
        while node in self.alias:
            node = self.alias[node]
        return node


def changed(base: Base, changes: Changes) -> Changed:
    """Sort changes by what they concern. Of layers that are gone none is left."""
    found = Changed()
    for site in map(base.site.__getitem__, changes):
        if site.key == "drop":
            skip = base.skip[site.target]
            found.gone.update((skip.node, *skip.branch))
            found.alias[skip.node] = skip.shortcut
    for name, value in changes.items():
        site = base.site[name]
        if site.key == "w":
            found.widths[site.group] = value
        elif site.key != "drop" and base.layer[site.target].node not in found.gone:
            if site.key in ("k", "d"):
                (found.kernels if site.key == "k" else found.dilations)[site.target] = value
            else:
                (found.separable if site.key == "sep" else found.fused).add(site.target)
    for path in found.fused:
        pointwise, norm, activation = base.fusion[path].nodes
        found.gone.update((pointwise, norm, activation))
        found.alias[activation] = next(base.program.by_name[pointwise].inputs())
    return found


def rewritten(base: Base, changes: Changes, classes: int | None = None) -> Program:
    """The program of the base with changes, for so many classes (by default the base's own)."""
    what = changed(base, changes)
    parts = dict(base.program.parts)
    for layer in base.layers:
        if layer.node not in what.gone and layer.kind != "other":
            parts[layer.path] = _part(base, layer, what, classes or base.classes)
            if layer.pad and (layer.path in what.kernels or layer.path in what.dilations):
                own = parts[layer.path]
                parts[layer.pad] = parts[layer.pad].with_(
                    kernel_size=own["kernel_size"], dilation=own.arguments.get("dilation", (1, 1))
                )
    nodes: list[Node] = []
    for node in base.program.nodes:
        if node.name in what.gone:
            continue
        moved = node.renamed(what.source)
        if moved != node:
            moved = _out_of_place(moved, parts)
        node = moved
        if node.op == "module" and node.target in what.separable:
            nodes += _separated(node, parts)
        else:
            nodes.append(node)
    return _without_unused(Program(tuple(nodes), parts, base.program.tensors))


_IN_PLACE = {"operator.iadd": "operator.add", "operator.imul": "operator.mul", "operator.isub": "operator.sub"}


def _out_of_place(node: Node, parts: dict[str, Part]) -> Node:
    """The node without writing into what it is given: that is now another's result, which may be needed for gradients."""
    if node.op == "module":
        if parts[node.target].arguments.get("inplace"):
            parts[node.target] = parts[node.target].with_(inplace=False)
        return node
    target = _IN_PLACE.get(node.target, node.target.removesuffix("_"))
    kwargs = tuple((key, False if key == "inplace" else value) for key, value in node.kwargs)
    return replace(node, target=target, kwargs=kwargs)


def _part(base: Base, layer: Layer, what: Changed, classes: int) -> Part:
    part = base.part(layer.path)
    changes: dict[str, Any] = {}
    read, written = what.count(base, layer.ins), what.count(base, layer.outs)
    if layer.path == base.head:
        written = classes
    if layer.kind == "conv":
        sizes = {
            "in_channels": read,
            "out_channels": written,
            "groups": read if layer.depthwise else part.arguments.get("groups", 1),
        }
        if layer.path in what.fused:
            sizes |= {"in_channels": what.count(base, base.layer[base.fusion[layer.path].pointwise].ins), "groups": 1}
        changes = {name: value for name, value in sizes.items() if part.arguments.get(name, 1) != value}
        if layer.path in what.kernels or layer.path in what.dilations:
            changes |= _filter(part, layer, what)
    elif layer.kind == "linear":
        changes = {"in_features": read, "out_features": written}
    else:
        changes = {"num_features": read}
    return part.with_(**changes) if changes else part


def _filter(part: Part, layer: Layer, what: Changed) -> dict[str, Any]:
    kernel = what.kernels.get(layer.path, _first(part["kernel_size"]))
    dilation = what.dilations.get(layer.path, _first(part.arguments.get("dilation", 1)))
    padding = 0 if layer.pad else dilation * (kernel - 1) // 2
    return {"kernel_size": (kernel, kernel), "dilation": (dilation, dilation), "padding": (padding, padding)}


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)


def _separated(node: Node, parts: dict[str, Part]) -> list[Node]:
    """A depthwise and a pointwise convolution in the place of a dense one, whose node the latter takes over."""
    part = parts.pop(node.target)
    channels = part["in_channels"]
    filters = {key: value for key, value in part.arguments.items() if key not in ("bias", "out_channels")}
    parts[f"{node.target}.{DEPTHWISE}"] = Part(
        "Conv2d", {**filters, "out_channels": channels, "groups": channels, "bias": False}
    )
    own = {"in_channels": channels, "out_channels": part["out_channels"], "kernel_size": (1, 1)}
    bias = {"bias": part["bias"]} if "bias" in part.arguments else {}
    parts[f"{node.target}.{POINTWISE}"] = Part("Conv2d", own | bias)
    before = Node(f"{node.name}_{DEPTHWISE}", "module", f"{node.target}.{DEPTHWISE}", node.args, node.kwargs)
    return [before, Node(node.name, "module", f"{node.target}.{POINTWISE}", (Ref(before.name),))]


def _without_unused(program: Program) -> Program:
    """Without nodes on which nothing depends (a shape that a branch asked for), and layers that no node calls."""
    used = {"output"}
    for node in reversed(program.nodes):
        if node.name in used:
            used.update(node.inputs())
    nodes = tuple(node for node in program.nodes if node.name in used or node.op == "input")
    called = {node.target for node in nodes}
    parts = {path: part for path, part in program.parts.items() if path in called}
    return Program(nodes, parts, {path: each for path, each in program.tensors.items() if path in called})
