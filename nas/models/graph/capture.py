"""A network of the user's as a `Program`: traced once, normalised, and proven to be the same network.

`torch.fx` follows the forward pass with torch's layers as leaves. What would bake the training flag into the trace is
exchanged before (`nas.models.graph.parts`). `torch.export` is not used: its graphs cannot be trained.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.models.graph.build import build_program
from nas.models.graph.errors import line_of_error, line_of_trace
from nas.models.graph.operators import is_method, name_of
from nas.models.graph.parts import SAME_PAD, StandIn, is_torchs, part_of, stand_ins
from nas.models.graph.selftest import check_same
from nas.spaces.graph.program import Named, Node, Part, Program, Ref, Stored

_ROOT = "network"
_ANY_LAYOUT = {"view": "reshape", "view_as": "reshape_as"}
"""Methods that need values in one order in memory, and those that do the same in any: networks are run channels last."""
_DROPOUTS: dict[Any, str] = {
    nn.functional.dropout: "Dropout",
    nn.functional.dropout1d: "Dropout1d",
    nn.functional.dropout2d: "Dropout2d",
    nn.functional.alpha_dropout: "AlphaDropout",
}


@dataclass(frozen=True)
class Captured:
    """A network as data, and its weights by path; `any_size` says whether it takes images of other sizes too.

    `notes` are sentences on what was left out.
    """

    program: Program
    state: dict[str, torch.Tensor]
    any_size: bool
    notes: tuple[str, ...] = ()


def capture(model: nn.Module, image: tuple[int, int, int], keep: Sequence[str] = ()) -> Captured:
    """The network of a module that takes one batch of images of shape `image` (C, H, W).

    Layers below the prefixes `keep` are not looked into. The module is left as it was. Raises `InputError`, one sentence, where
    it cannot be followed, or what was captured is not the same network.
    """
    check_kind(model)
    own = _copy(model)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(2, *image, generator=generator)
    root = _OneInput(own)
    own.eval()
    try:
        with torch.no_grad():
            own(batch)
    except Exception as error:
        where = line_of_error(error)
        at = f"{where}: " if where else ""
        raise InputError(
            f"{at}the network does not take images of {'x'.join(map(str, image))}: {type(error).__name__}: {_brief(error)}"
        ) from error
    instead = stand_ins(own, batch)
    evaluating = _traced(root.eval(), instead, keep)
    training = _traced(root.train(), instead, keep)
    notes = _settle_modes(evaluating, training)
    program = _Writer(root.eval(), evaluating, instead).program()
    if not any(part.kind == "Conv2d" for part in program.parts.values()):
        raise InputError(f"the network {type(model).__name__} has no convolution, so that there is nothing to vary")
    state = _state(root, program)
    module = build_program(program)
    module.load_state_dict(state)
    any_size = check_same(own, module, image)
    return Captured(program, state, any_size, notes)


def check_kind(model: object) -> None:
    """Raise `InputError` for what cannot be traced or trained as it is: scripted, compiled, quantised, meta, half, shared."""
    if not isinstance(model, nn.Module):
        raise InputError(f"a torch.nn.Module is needed, not {quoted(model)} of the kind {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "the network is TorchScript, of which no layer can be changed: give the module that it was made from"
        )
    if hasattr(model, "_orig_mod"):
        raise InputError("the network is compiled (torch.compile): give the module that it was made from")
    for path, module in model.named_modules():
        if ".quantized" in type(module).__module__:
            raise InputError(f"layer {path} is quantised, and cannot be trained: give the network as it was before")
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(f"the weights {path} have no shape yet: run the network once, then give it")
        if tensor.is_meta:
            raise InputError(f"the weights {path} are on the meta device, and have no values: load them first")
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InputError(
                f"the weights {path} are of {tensor.dtype}: give the network in float32, as model.float() makes it"
            )
    _check_unshared(model)


def _check_unshared(model: nn.Module) -> None:
    first: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if any(True for _ in module.parameters(recurse=False)):
            other = first.setdefault(id(module), path)
            if other != path:
                raise InputError(
                    f"the layers {other} and {path} are one and the same, so that neither can change alone"
                )
    tensors: dict[int, str] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        other = tensors.setdefault(id(parameter), path)
        if other != path:
            raise InputError(
                f"the weights {other} and {path} are one and the same, so that neither layer can change alone"
            )


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).cpu()
    except Exception as error:
        raise InputError(f"the network {type(model).__name__} cannot be copied: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


class _OneInput(nn.Module):
    """Calls a network with images alone, its other arguments at their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        needed = [
            name
            for name, parameter in inspect.signature(network.forward).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        if len(needed) > 1:
            raise InputError(
                f"the network {type(network).__name__} takes several inputs ({', '.join(needed)}), not images alone"
            )
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        return self.network(images)


class _Tracer(fx.Tracer):
    """Torch's layers are leaves, and so is what stands in for others' or is kept whole."""

    def __init__(self, instead: dict[str, StandIn], keep: Sequence[str]) -> None:
        super().__init__()
        self.record_stack_traces = True
        self._instead, self._keep = instead, tuple(keep)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_torchs(m) and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.path_of_module(m)
        instead = self._instead.get(path.removeprefix(f"{_ROOT}."))
        if instead is None:
            return super().call_module(m, forward, args, kwargs)
        if instead.pad is not None:
            args = (self.create_proxy("call_module", f"{path}.{SAME_PAD}", args, kwargs), *args[1:])
        result = self.create_proxy("call_module", path, args, kwargs)
        for child in instead.after:
            result = m.get_submodule(child)(result)
        return result


@dataclass(frozen=True)
class _Trace:
    graph: fx.Graph
    root: nn.Module

    def nodes(self) -> list[fx.Node]:
        """Those on which the output depends, in order."""
        used: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):
            if node.op == "output" or node in used:
                used |= set(node.all_input_nodes)
        return [node for node in self.graph.nodes if node in used or node.op in ("output", "placeholder")]


def _traced(root: nn.Module, instead: dict[str, StandIn], keep: Sequence[str]) -> _Trace:
    tracer = _Tracer(instead, keep)
    try:
        return _Trace(tracer.trace(root), root)
    except Exception as error:  # the network's own code, which meets proxies in the place of tensors
        where = line_of_error(error) or type(root.network).__name__
        raise InputError(
            f"{where}: what is done here depends on values that are not known before images come, and cannot be followed "
            f"({type(error).__name__}: {_brief(error)}); write it with torch's operators alone"
        ) from error


def _settle_modes(evaluating: _Trace, training: _Trace) -> tuple[str, ...]:
    """Turn functions that were told the training flag into layers, which know it; returns notes.

    Raises `InputError` where the network does something else in training.
    """
    pairs: dict[fx.Node, fx.Node] = {}
    rest = training.nodes()
    for own in evaluating.nodes():
        place = next((at for at, other in enumerate(rest) if _is_same_call(own, other, pairs)), None)
        if place is None:
            other = next((each for each in rest if each.op not in ("placeholder", "output")), rest[-1])
            raise InputError(f"{line_of_trace(other.stack_trace)}: the network does something else in training here")
        pairs[own], rest = rest[place], rest[place + 1 :]
    for own in [own for own, other in pairs.items() if _constants(own) != _constants(other) and own.op != "output"]:
        _as_layer(evaluating, own)
    is_more = len(pairs) < len(training.nodes())
    return ("outputs that the network has in training alone are left out",) if is_more else ()


def _is_same_call(own: fx.Node, other: fx.Node, pairs: Mapping[fx.Node, fx.Node]) -> bool:
    """Whether both call the same with the same nodes' results; in training an output may give more."""
    if (own.op, own.target) != (other.op, other.target):
        return False
    ours, theirs = [pairs[node] for node in own.all_input_nodes], other.all_input_nodes
    if own.op != "output":
        return ours == theirs
    held = [node for node in theirs if isinstance(node.target, type)]  # a named tuple
    return set(ours) <= {*theirs, *(inner for node in held for inner in node.all_input_nodes)}


def _constants(node: fx.Node) -> str:
    """What a node is given beside others' results."""
    return repr(fx.node.map_arg((node.args, dict(node.kwargs)), lambda each: "a node"))


def _as_layer(trace: _Trace, own: fx.Node) -> None:
    kind = _DROPOUTS.get(own.target) if own.op == "call_function" else None
    if own.op == "call_function" and own.target is nn.functional.scaled_dot_product_attention:
        raise InputError(f"{line_of_trace(own.stack_trace)}: attention with dropout is not known here")
    if kind is None:
        raise InputError(
            f"{line_of_trace(own.stack_trace)}: whether the network is in training is a constant here, so that what is captured "
            "would not follow it; use a layer of torch.nn, which does"
        )
    assert callable(own.target)
    signature = inspect.signature(own.target).bind(*own.args, **own.kwargs)
    path = own.name
    trace.root.add_module(path, getattr(nn, kind)(signature.arguments.get("p", 0.5)))
    own.op, own.target, own.args, own.kwargs = "call_module", path, (signature.arguments["input"],), {}


class _Writer:
    """Writes a trace down as a program."""

    def __init__(self, root: nn.Module, trace: _Trace, instead: dict[str, StandIn]) -> None:
        self._root, self._trace, self._instead = root, trace, instead
        self._parts: dict[str, Part] = {}
        self._tensors: dict[str, Stored] = {}
        self._alias: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def program(self) -> Program:
        nodes: list[Node] = []
        used = self._trace.nodes()
        taken = {node.name for node in used}
        for node in used:
            short = node.name.removeprefix(f"{_ROOT}_")
            if short != node.name and short.isidentifier() and short not in taken:
                self._names[node.name] = short
                taken.add(short)
        for node in used:
            written = self._node(node)
            if written is not None:
                nodes.append(replace(written.renamed(self._called), name=self._called(written.name)))
        program = Program(tuple(nodes), self._parts, self._tensors)
        return Program.from_json(program.to_json())

    def _followed(self, name: str) -> str:
        return self._alias.get(name, name)

    def _called(self, name: str) -> str:
        followed = self._followed(name)
        return self._names.get(followed, followed)

    def _node(self, node: fx.Node) -> Node | None:
        if node.op == "placeholder":
            return Node(node.name, "input", node.name)
        args = tuple(self._value(node, each) for each in node.args)
        kwargs = tuple((key, self._value(node, each)) for key, each in node.kwargs.items())
        if node.op == "output":
            return Node("output", "output", "output", args[:1])
        if node.op == "call_method":
            if not is_method(str(node.target)):
                raise self._unknown(node, f"the method {node.target}")
            return Node(node.name, "method", _ANY_LAYOUT.get(str(node.target), str(node.target)), args, kwargs)
        if node.op == "call_function":
            name = name_of(node.target)
            if name is None:
                called = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', node.target)}"
                raise self._unknown(node, called)
            return Node(node.name, "function", name, args, kwargs)
        path = str(node.target).removeprefix(f"{_ROOT}.")
        if node.op == "get_attr":
            tensor = _attribute(self._root, str(node.target))
            self._tensors[path] = Stored(
                tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), isinstance(tensor, nn.Parameter)
            )
            return Node(node.name, "tensor", path)
        return self._layer(node, path, args, kwargs)

    def _layer(
        self, node: fx.Node, path: str, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]
    ) -> Node | None:
        if path.endswith(f".{SAME_PAD}") and (own := self._instead.get(path.removesuffix(f".{SAME_PAD}"))):
            part = own.pad
            assert part is not None
        elif path in self._instead:
            part = self._instead[path].part
        else:
            part = part_of(path, self._root.get_submodule(str(node.target)))
        nothing = part.kind == "Identity" or (part.kind in ("DropPath", "Dropout") and part.arguments.get("p") == 0)
        if nothing and len(args) == 1 and isinstance(args[0], Ref):
            self._alias[node.name] = self._followed(args[0].node)
            return None
        self._parts[path] = part
        return Node(node.name, "module", path, args, kwargs)

    def _value(self, node: fx.Node, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return Ref(value.name)
        if isinstance(value, torch.dtype | torch.memory_format):
            return Named(str(value).removeprefix("torch."))
        if isinstance(value, tuple):
            return tuple(self._value(node, each) for each in value)
        if isinstance(value, list):
            return [self._value(node, each) for each in value]
        if isinstance(value, dict):
            return {key: self._value(node, each) for key, each in value.items()}
        if isinstance(value, slice):
            return slice(*(self._value(node, each) for each in (value.start, value.stop, value.step)))
        if value is None or value is ... or isinstance(value, bool | int | float | str):
            return value
        raise self._unknown(node, f"an argument of the kind {type(value).__name__}")

    def _unknown(self, node: fx.Node, what: str) -> InputError:
        return InputError(
            f"{line_of_trace(node.stack_trace)}: {what} is none of torch's operators on tensors and numbers"
        )


def _attribute(root: nn.Module, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    found = getattr(root.get_submodule(owner), name)
    assert isinstance(found, torch.Tensor)
    return found


def _state(root: nn.Module, program: Program) -> dict[str, torch.Tensor]:
    """The weights of all that the program holds, by its paths."""
    wanted = build_program(program).state_dict()
    return dict(_found(root, wanted))


def _found(root: nn.Module, wanted: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for path in wanted:
        full = path if hasattr(root, path) else f"{_ROOT}.{path}"
        yield path, _attribute(root, full).detach().clone().contiguous()
