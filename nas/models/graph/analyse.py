"""From a captured network to a `Base`: the layers' table, the groups, residual additions, what can be fused, the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.models.graph.build import Shape, Shapes, make_part, shape_of
from nas.models.graph.capture import Captured
from nas.models.graph.channels import Channels, channels_of, is_activation, only_input
from nas.models.networks import state_fingerprint
from nas.spaces.graph.base import Base, Fusion, Layer, LayerKind, Skip
from nas.spaces.graph.program import Node, Program
from nas.spaces.graph.sites import LeftOut, sites_of

_BATCH = 2
_KINDS: dict[str, LayerKind] = {"Conv2d": "conv", "Linear": "linear", "BatchNorm2d": "norm", "BatchNorm1d": "norm"}


@dataclass(frozen=True)
class About:
    """What is said of a base beside its network: the normalisation and licence of its weights, and where it is from."""

    name: str
    origin: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str = ""


@dataclass(frozen=True)
class _Look:
    """A pass without values at one input size: shapes, and the multiply-adds of one image by node."""

    shapes: Mapping[str, Shape | None]
    macs: Mapping[str, int]


def base_of(
    captured: Captured, image: tuple[int, int, int], about: About, sizes: Sequence[int] = ()
) -> tuple[Base, tuple[LeftOut, ...]]:
    """The base of a captured network for images (C, H, W), and what of it cannot change.

    Raises `InputError` where it is no classifier.

    `sizes` are other sides of images that it may be looked at with.
    """
    channels, height, width = image
    if height != width:
        raise InputError(f"images of {height}x{width}: square ones are needed")
    own_sizes = (height, *(size for size in dict.fromkeys(sizes) if size != height))
    program = captured.program
    looks = [_look(program, channels, size) for size in own_sizes]
    shapes = looks[0].shapes
    classes = _classes(shapes, program)
    found = channels_of(program, shapes)
    layers = tuple(_layers(program, looks, found))
    base = Base(
        name=about.name,
        channels=channels,
        sizes=own_sizes,
        classes=classes,
        head=_head(program),
        program=program,
        layers=layers,
        groups=tuple(found.groups),
        skips=tuple(_skips(program, shapes, {layer.node for layer in layers if layer.kind in ("conv", "linear")})),
        fusions=tuple(_fusions(program, {layer.path: layer for layer in layers})),
        sites=(),
        weights=state_fingerprint("", captured.state),
        mean=about.mean,
        std=about.std,
        licence=about.licence,
        origin=about.origin,
        notes=captured.notes,
    )
    sites, left_out = sites_of(base)
    return replace(base, sites=sites), left_out


def _look(program: Program, channels: int, size: int) -> _Look:
    macs: dict[str, int] = {}

    def watch(node: Node, call: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = call()
        macs[node.name] = counter.get_total_flops() // 2 // _BATCH
        return result

    try:
        results = Shapes().run(program, (_BATCH, channels, size, size), watch)
    except InputError:
        raise
    except Exception as error:  # what torch says of shapes
        raise InputError(f"images of {size}x{size}: {' '.join(str(error).split())[:200]}") from error
    return _Look({name: shape_of(result) for name, result in results.items()}, macs)


def _classes(shapes: Mapping[str, Shape | None], program: Program) -> int:
    shape = shapes["output"]
    if shape is None or len(shape) != 2 or shape[0] != _BATCH:
        what = "several tensors" if shape is None else f"a tensor of shape (N, {', '.join(map(str, shape[1:]))})"
        raise InputError(f"the network gives {what}; to tell classes apart it has to give (N, classes)")
    return shape[1]


def _layers(program: Program, looks: Sequence[_Look], channels: Channels) -> Iterator[Layer]:
    seen: set[str] = set()
    for node in program.nodes:
        part = program.parts[node.target] if node.op == "module" else None
        macs = tuple(look.macs[node.name] for look in looks)
        is_first = node.target not in seen  # several nodes may read a tensor, or call a layer
        params, buffer_bytes = _weights(program, node) if is_first else (0, 0)
        if part or node.op == "tensor":
            seen.add(node.target)
        kind = _KINDS.get(part.kind, "other") if part and node.target in channels.ins else "other"
        if kind == "other" and not any(macs) and not params and not buffer_bytes:
            continue
        before = only_input(node)
        sides = tuple(_side(look.shapes[before]) if before else 0 for look in looks)
        ins, outs = channels.ins.get(node.target, ()), channels.outs.get(node.target, ())
        yield Layer(
            path=node.target if is_first and (part or node.op == "tensor") else node.name,
            node=node.name,
            kind=kind,
            ins=ins if kind != "other" else (),
            outs=outs if kind != "other" else (),
            positions=tuple(_positions(look.shapes[node.name], kind) for look in looks),
            sides=sides,
            out_sides=tuple(_side(look.shapes[node.name]) for look in looks),
            macs=macs,
            params=params,
            buffer_bytes=buffer_bytes,
            depthwise=kind == "conv" and part is not None and part.arguments.get("groups", 1) > 1 and ins == outs,
            pad=_pad(program, before) if kind == "conv" else None,
        )


def _weights(program: Program, node: Node) -> tuple[int, int]:
    """Parameters, and bytes of buffers."""
    if node.op == "tensor":
        if program.is_of_layer(node.target):
            return 0, 0
        stored = program.tensors[node.target]
        count = torch.Size(stored.shape).numel()
        return (count, 0) if stored.trained else (0, 4 * count)
    if node.op != "module":
        return 0, 0
    with torch.device("meta"):
        layer = make_part(program.parts[node.target])
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())
    return sum(parameter.numel() for parameter in layer.parameters()), buffers


def _positions(shape: Shape | None, kind: LayerKind) -> int:
    """Outputs of one channel for one image: of a map (N, C, H, W) H·W; of a linear layer all axes before its channels."""
    if shape is None:
        return 0
    return torch.Size(shape[1:-1] if kind == "linear" else shape[2:]).numel()


def _side(shape: Shape | None) -> int:
    return max(shape[2:]) if shape is not None and len(shape) == 4 else 0


def _pad(program: Program, before: str | None) -> str | None:
    """The padding of TensorFlow's SAME that a convolution alone takes."""
    node = program.by_name[before] if before else None
    is_pad = node is not None and node.op == "module" and program.parts[node.target].kind == "SamePad2d"
    return node.target if node and is_pad and len(program.users[node.name]) == 1 else None


def _head(program: Program) -> str:
    """The layer that gives the classes: the last one with weights on the way to the output."""
    name = next(program.by_name["output"].inputs())
    while True:
        node = program.by_name[name]
        if node.op == "module" and program.parts[node.target].kind in ("Linear", "Conv2d"):
            return node.target
        before = only_input(node)
        if before is None or (node.op == "module" and program.parts[node.target].kind in _KINDS):
            raise InputError(
                f"the classes come from {quoted(node.target)}, where a linear layer or a convolution is needed, that other "
                "classes can have one of their own"
            )
        name = before


# ---------------------------------------------------------------- residual additions


def _skips(program: Program, shapes: Mapping[str, Shape | None], working: set[str]) -> Iterator[Skip]:
    for node in program.nodes:
        word = node.target.rpartition(".")[2]
        given = list(node.inputs())
        if node.op not in ("function", "method") or word not in ("add", "add_", "iadd") or len(given) != 2:
            continue
        for shortcut, branch in (given, given[::-1]):
            inside = _branch(program, shortcut, branch, node.name)
            if inside and shapes[shortcut] == shapes[node.name] and inside & working:
                yield Skip(node.name, shortcut, tuple(each.name for each in program.nodes if each.name in inside))
                break


def _branch(program: Program, shortcut: str, branch: str, addition: str) -> set[str]:
    """Nodes that only the branch needs, all of which begin at the shortcut; none where it is no branch from there."""
    inside, waiting = set[str](), [branch]
    while waiting:
        name = waiting.pop()
        if name == shortcut or name in inside:
            continue
        node = program.by_name[name]
        if node.op == "input":
            return set()
        inside.add(name)
        waiting += node.inputs()
    if any(user not in inside and user != addition for name in inside for user in program.users[name]):
        return set()
    return inside


# ---------------------------------------------------------------- what can be fused


def _fusions(program: Program, layers: Mapping[str, Layer]) -> Iterator[Fusion]:
    for layer in layers.values():
        part = program.parts[layer.path] if layer.depthwise else None
        if part is None or part["kernel_size"] in (1, (1, 1)) or len(layer.ins) != 1:
            continue
        chain = _before(program, layer)
        behind = _only_user(program, layer.node)
        if chain and behind and behind.op == "module" and program.parts[behind.target].kind == "BatchNorm2d":
            pointwise, norm, activation = chain
            yield Fusion(
                layer.path, pointwise.target, norm.target, behind.target, (pointwise.name, norm.name, activation.name)
            )


def _before(program: Program, layer: Layer) -> tuple[Node, Node, Node] | None:
    """Pointwise convolution, batch norm and activation that a depthwise layer alone reads, through its padding."""
    activation = _sole_source(program, layer.node)
    if activation is not None and layer.pad and activation.target == layer.pad:
        activation = _sole_source(program, activation.name)
    if activation is None or not is_activation(program, activation):
        return None
    norm = _sole_source(program, activation.name)
    pointwise = _sole_source(program, norm.name) if norm else None
    if norm is None or pointwise is None or norm.op != "module" or pointwise.op != "module":
        return None
    part, kind = program.parts[pointwise.target], program.parts[norm.target].kind
    plain = part.kind == "Conv2d" and all(
        part.arguments.get(name, default) in (default, (default, default))
        for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("groups", 1))
    )
    return (pointwise, norm, activation) if plain and kind == "BatchNorm2d" else None


def _sole_source(program: Program, name: str) -> Node | None:
    """The one node that a node takes, where nobody else does."""
    before = only_input(program.by_name[name])
    return program.by_name[before] if before and len(program.users[before]) == 1 else None


def _only_user(program: Program, name: str) -> Node | None:
    users = program.users[name]
    return program.by_name[users[0]] if len(users) == 1 else None
