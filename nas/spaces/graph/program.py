"""A network as plain data: its layers by their constructors' arguments, and what is called, in order.

Nothing of it is code, and every name in it is a plain word, so that reading one runs nothing; which functions and layers
the words may mean, `nas.models.graph.operators` says.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from nas.common.errors import InputError
from nas.common.text import quoted

Op = Literal["input", "tensor", "module", "function", "method", "output"]

_NAME = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"[\w-]+(\.[\w-]+)*")
_TEXT = re.compile(r"[\w ,.>-]*")
"""Texts among arguments: `bilinear`, or einsum's `bchw,bc->bhw`."""


@dataclass(frozen=True)
class Ref:
    """The result of a node, as an argument."""

    node: str


@dataclass(frozen=True)
class Named:
    """A constant of torch's as an argument: a dtype, or a memory format."""

    name: str


@dataclass(frozen=True)
class Node:
    """One call: of a layer by its path, of a function by its whole name, of a tensor's method; or a stored tensor."""

    name: str
    op: Op
    target: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def inputs(self) -> Iterator[str]:
        """Names of the nodes whose results it takes, as often as it does."""
        yield from refs_in((self.args, tuple(value for _, value in self.kwargs)))

    def renamed(self, new: Callable[[str], str]) -> Node:
        """The same with other nodes as arguments."""
        kwargs = tuple((key, _renamed(value, new)) for key, value in self.kwargs)
        return replace(self, args=_renamed(self.args, new), kwargs=kwargs)


@dataclass(frozen=True)
class Part:
    """A layer: a class of `torch.nn`, or a leaf of ours, and its constructor's arguments."""

    kind: str
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def with_(self, **changes: Any) -> Part:
        """The same with other arguments."""
        return replace(self, arguments={**self.arguments, **changes})


@dataclass(frozen=True)
class Stored:
    """A tensor that belongs to no layer: its shape, dtype, and whether it is trained."""

    shape: tuple[int, ...]
    dtype: str
    trained: bool


@dataclass(frozen=True)
class Program:
    """Nodes in the order of calls, one input first, the output last; layers and tensors by path."""

    nodes: tuple[Node, ...]
    parts: Mapping[str, Part]
    tensors: Mapping[str, Stored]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    def is_of_layer(self, path: str) -> bool:
        """Whether a stored tensor is a layer's own, which something reads beside it."""
        return path.rpartition(".")[0] in self.parts

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """Of each node those that take its result, each once."""
        users: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs()):
                users[name].append(node.name)
        return users

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back."""
        return {
            "nodes": [
                [n.name, n.op, n.target, [_plain(a) for a in n.args], {key: _plain(value) for key, value in n.kwargs}]
                for n in self.nodes
            ],
            "parts": {
                path: [part.kind, {key: _plain(value) for key, value in part.arguments.items()}]
                for path, part in self.parts.items()
            },
            "tensors": {path: [list(t.shape), t.dtype, t.trained] for path, t in self.tensors.items()},
        }

    @staticmethod
    def from_json(data: Any) -> Program:
        """Read what `to_json` wrote; raises `InputError` where it is anything else."""
        try:
            nodes = tuple(
                Node(name, op, target, tuple(map(_value, args)), tuple((k, _value(v)) for k, v in kwargs.items()))
                for name, op, target, args, kwargs in data["nodes"]
            )
            parts = {
                path: Part(kind, {key: _value(value) for key, value in arguments.items()})
                for path, (kind, arguments) in data["parts"].items()
            }
            tensors = {
                p: Stored(tuple(shape), dtype, trained) for p, (shape, dtype, trained) in data["tensors"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a network: {type(error).__name__}: {error}") from error
        _check(nodes, parts, tensors)
        return Program(nodes, parts, tensors)


def refs_in(value: Any) -> Iterator[str]:
    """Names of the nodes whose results are within an argument."""
    if isinstance(value, Ref):
        yield value.node
    elif isinstance(value, tuple | list):
        for each in value:
            yield from refs_in(each)
    elif isinstance(value, dict):
        yield from refs_in(list(value.values()))
    elif isinstance(value, slice):
        yield from refs_in((value.start, value.stop, value.step))


def mapped(value: Any, of_ref: Callable[[Ref], Any], of_name: Callable[[Named], Any] = lambda name: name) -> Any:
    """An argument with results in the place of nodes, and objects in that of torch's constants."""
    if isinstance(value, Ref):
        return of_ref(value)
    if isinstance(value, Named):
        return of_name(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(each, of_ref, of_name) for each in value)
    if isinstance(value, dict):
        return {key: mapped(each, of_ref, of_name) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(*(mapped(each, of_ref, of_name) for each in (value.start, value.stop, value.step)))
    return value


def _renamed(value: Any, new: Callable[[str], str]) -> Any:
    return mapped(value, lambda ref: Ref(new(ref.node)))


def _plain(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"node": value.node}
    if isinstance(value, Named):
        return {"torch": value.name}
    if isinstance(value, tuple):
        return {"tuple": [_plain(each) for each in value]}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {"dict": {key: _plain(each) for key, each in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_plain(each) for each in (value.start, value.stop, value.step)]}
    if value is ...:
        return {"ellipsis": True}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{quoted(value)} of the kind {type(value).__name__} cannot be written down")


def _value(data: Any) -> Any:
    if isinstance(data, list):
        return [_value(each) for each in data]
    if isinstance(data, dict):
        ((kind, held),) = data.items()
        match kind:
            case "node":
                return Ref(held)
            case "torch":
                return Named(held)
            case "tuple":
                return tuple(map(_value, held))
            case "dict":
                return {key: _value(each) for key, each in held.items()}
            case "slice":
                return slice(*map(_value, held))
            case "ellipsis":
                return ...
            case "float":
                return float(held)
        raise ValueError(f"unknown argument {quoted(data)}")
    return data


def _check(nodes: tuple[Node, ...], parts: Mapping[str, Part], tensors: Mapping[str, Stored]) -> None:
    """Raise `InputError` unless all names are plain words, and what a node takes stands before it."""
    known: set[str] = set()
    for node in nodes:
        _must_be(node.op in get_args(Op), node.op)
        _must_be(bool(_NAME.fullmatch(node.name)) and node.name not in known, node.name)
        _must_be(node.op != "module" or node.target in parts, node.target)
        _must_be(node.op != "tensor" or node.target in tensors, node.target)
        _must_be(bool(_PATH.fullmatch(node.target)), node.target)
        for name in node.inputs():
            _must_be(name in known, name)
        for key, value in node.kwargs:
            _must_be(bool(_NAME.fullmatch(key)), key)
            _check_texts(value)
        _check_texts(node.args)
        known.add(node.name)
    ends = [node.op for node in nodes if node.op in ("input", "output")]
    _must_be(ends == ["input", "output"] and nodes[0].op == "input" and nodes[-1].op == "output", ends)
    for path, part in parts.items():
        _must_be(bool(_PATH.fullmatch(path)) and bool(_NAME.fullmatch(part.kind)), path)
        for key, value in part.arguments.items():
            _must_be(bool(_NAME.fullmatch(key)), key)
            _check_texts(value)
    for path in tensors:
        _must_be(bool(_PATH.fullmatch(path)), path)


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        _must_be(bool(_TEXT.fullmatch(value)), value)
    elif isinstance(value, Named):
        _must_be(bool(_NAME.fullmatch(value.name)), value.name)
    elif isinstance(value, tuple | list):
        for each in value:
            _check_texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            _must_be(bool(_NAME.fullmatch(key)), key)
            _check_texts(each)
    elif isinstance(value, slice):
        _check_texts((value.start, value.stop, value.step))


def _must_be(right: bool, what: object) -> None:
    if not right:
        raise InputError(f"not a network: {quoted(what)} is not expected there")
