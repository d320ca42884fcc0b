"""From a `Program` to the module that computes it, of torch's layers alone; and its shapes, without values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from nas.common.errors import InputError
from nas.models.graph.operators import ATTRIBUTES, check_method, constant_of, function_of, layer_class
from nas.spaces.graph.program import Node, Part, Program, mapped

Shape = tuple[int, ...]


def make_part(part: Part) -> nn.Module:
    """A layer with fresh weights; raises `InputError` where its class refuses the arguments."""
    arguments = {
        key: mapped(value, lambda ref: ref, lambda name: constant_of(name.name))
        for key, value in part.arguments.items()
    }
    try:
        return layer_class(part.kind)(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"not a network: {part.kind}({dict(part.arguments)}): {error}") from error


def build_program(program: Program) -> fx.GraphModule:
    """The module of a program, fresh weights drawn from torch's generator, in training mode.

    Its state dict has the paths of the program. Raises `InputError` where a name is none that may be called.
    """
    root = nn.Module()
    for path in sorted(program.parts, key=lambda path: path.count(".")):  # a layer may hold others
        _put(root, path, make_part(program.parts[path]))
    for path, stored in program.tensors.items():
        if program.is_of_layer(path):
            continue
        value = torch.zeros(stored.shape, dtype=constant_of(stored.dtype))
        _put(root, path, nn.Parameter(value) if stored.trained else value)
    graph, results = fx.Graph(), dict[str, fx.Node]()
    for node in program.nodes:
        results[node.name] = _add(graph, node, results)
    module = fx.GraphModule(root, graph, "Network")
    module.train()
    return module


def _put(root: nn.Module, path: str, value: nn.Module | nn.Parameter | torch.Tensor) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    if isinstance(value, nn.Module):
        root.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    else:
        root.register_buffer(name, value)


def _add(graph: fx.Graph, node: Node, results: Mapping[str, fx.Node]) -> fx.Node:
    args, kwargs = _arguments(node, results.__getitem__)
    if node.op == "input":
        return graph.placeholder(node.name)
    if node.op == "output":
        return graph.output(args[0])
    if node.op == "tensor":
        return graph.get_attr(node.target)
    if node.op == "module":
        return graph.create_node("call_module", node.target, args, kwargs, name=node.name)
    if node.op == "method":
        check_method(node.target)
        return graph.create_node("call_method", node.target, args, kwargs, name=node.name)
    _check_attribute(node)
    return graph.create_node("call_function", function_of(node.target), args, kwargs, name=node.name)


def _check_attribute(node: Node) -> None:
    if node.target == "getattr" and (len(node.args) != 2 or node.args[1] not in ATTRIBUTES):
        raise InputError(f"not a network: it reads {node.args[1:]} of a tensor")


def _arguments(node: Node, result: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def given(value: Any) -> Any:
        return mapped(value, lambda ref: result(ref.node), lambda name: constant_of(name.name))

    return given(node.args), {key: given(value) for key, value in node.kwargs}


class Shapes:
    """Runs programs on torch's meta device, which has shapes and no values.

    What a call gives is remembered by what is called and the shapes that it is given, since a space's networks share most calls.
    """

    def __init__(self) -> None:
        self._parts: dict[str, nn.Module] = {}
        self._given: dict[str, Any] = {}

    @torch.no_grad()
    def run(
        self,
        program: Program,
        image: Shape,
        watch: Callable[[Node, Callable[[], Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """Of each node its result on a batch of shape `image` (N, C, H, W), tensors without values; raises what torch raises.

        `watch` gets each node and its call, which is then made whether it is remembered or not.
        """
        results: dict[str, Any] = {}
        for node in program.nodes:
            args, kwargs = _arguments(node, results.__getitem__)
            call = functools.partial(self._call, program, node, args, kwargs, image)
            if watch is not None:
                results[node.name] = watch(node, call)
            elif node.op in ("module", "function", "method"):
                word = program.parts[node.target] if node.op == "module" else node.target
                key = f"{node.op} {_key(word)} {_key(args)} {_key(kwargs)}"
                if key not in self._given:
                    self._given[key] = call()
                results[node.name] = self._given[key]
            else:
                results[node.name] = call()
        return results

    def _call(self, program: Program, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], image: Shape) -> Any:
        if node.op == "input":
            return torch.empty(image, device="meta")
        if node.op == "tensor":
            stored = program.tensors[node.target]
            return torch.empty(stored.shape, dtype=constant_of(stored.dtype), device="meta")
        if node.op == "output":
            return args[0]
        if node.op == "module":
            return self._part(program.parts[node.target])(*args, **kwargs)
        if node.op == "method":
            check_method(node.target)
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        _check_attribute(node)
        with torch.device("meta"):  # for what makes tensors
            return function_of(node.target)(*args, **kwargs)

    def _part(self, part: Part) -> nn.Module:
        key = _key(part)
        if key not in self._parts:
            with torch.device("meta"):
                self._parts[key] = make_part(part).eval()
        return self._parts[key]


def _key(value: Any) -> str:
    """What of an argument decides the shape of a result."""
    if isinstance(value, torch.Tensor):
        return f"<{tuple(value.shape)} {value.dtype}>"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}[{','.join(map(_key, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_key(each)}' for key, each in value.items())}}}"
    if isinstance(value, Part):
        return f"{value.kind}{_key(dict(value.arguments))}"
    return repr(value)


def shape_of(result: Any) -> Shape | None:
    """The shape of a tensor; None of anything else."""
    return tuple(result.shape) if isinstance(result, torch.Tensor) else None
