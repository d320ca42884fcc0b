"""Batch norm folded into the convolution before it, where that keeps the function.

What the graph of torch.fx shows is proved by tracing again afterwards; what it does not show (hooks, code beside the
tensors) by two forward passes with statistics of another kind, where there are images to run it on.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode

from nas.common.text import plural
from nas.latency.outputs import difference

_NORM_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NAMED = 3
"""So many batch norms that stay are named."""


def fold_batch_norm(module: nn.Module) -> bool:
    """Fold each batch norm of a module in eval mode into the convolution before it, in place; whether none is left.

    The module's own forward stays, so that what it does beside tensors is measured too. A module that `torch.fx`
    cannot trace is left as it is.
    """
    return fold(module) is None


def fold(module: nn.Module, output: Callable[[], object] | None = None, tolerance: float = 0.0) -> str | None:
    """Fold as `fold_batch_norm` does; why batch norm is left, None where none is.

    `output` runs the module. Where it is given, folding is undone if it changes that by more than `tolerance` (a share
    of the largest value), also with other statistics than those that the module has.
    """
    root = nn.Sequential(module)  # so that it is traced as it is called, with its hooks, on one input
    try:
        graph = _graph(root)
    except Exception as error:  # fx raises whatever the traced code raises on a symbolic value
        return f"torch.fx cannot trace it ({type(error).__name__})"
    pairs = _pairs(root, graph)
    if pairs and output is not None:
        reason = _disproved(root, pairs, output, tolerance)
        if reason is not None:
            return reason
    undo = _replace(root, pairs)
    if pairs and not _reads_alike(root, graph):
        undo()
        return "its code reads what folding changes"
    return _left(root, graph, output)


@dataclass(frozen=True)
class _Pair:
    """Names of a convolution and of the batch norm that alone reads it."""

    convolution: str
    norm: str


def _graph(root: nn.Module) -> fx.Graph:
    return fx.symbolic_trace(root).graph


def _pairs(root: nn.Module, graph: fx.Graph) -> list[_Pair]:
    """What can be folded: both called once, under their one name, and nothing else reads or changes what they hold."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    parts = dict(root.named_modules())
    names = Counter(id(part) for _, part in root.named_modules(remove_duplicate=False))
    read = {id(_attribute(root, str(node.target))) for node in graph.nodes if node.op == "get_attr"}

    def alone(node: fx.Node) -> bool:
        part = parts[str(node.target)]
        changed = part._forward_hooks or part._forward_pre_hooks or is_parametrized(part) or "forward" in vars(part)
        elsewhere = any(id(tensor) in read for tensor in (*part.parameters(), *part.buffers()))
        return calls[node.target] == 1 and names[id(part)] == 1 and not (changed or elsewhere or part.training)

    found = []
    for node in graph.nodes:
        norm = parts[str(node.target)] if node.op == "call_module" else None
        if norm is None or getattr(norm, "running_mean", None) is None or not alone(node):
            continue
        source = next(iter((*node.args, *node.kwargs.values())), None)
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1 or not alone(source):
            continue
        convolution = parts[str(source.target)]
        grouped = isinstance(convolution, _TRANSPOSED) and convolution.groups > 1  # whose weights lie otherwise
        if _NORM_AFTER.get(type(convolution)) is type(norm) and not grouped:
            found.append(_Pair(str(source.target), str(node.target)))
    return found


def _attribute(root: nn.Module, name: str) -> object:
    return functools.reduce(getattr, name.split("."), root)


def _replace(root: nn.Module, pairs: Sequence[_Pair]) -> Callable[[], None]:
    """Fold these; what is returned undoes it."""
    before = {name: root.get_submodule(name) for pair in pairs for name in (pair.convolution, pair.norm)}
    for pair in pairs:
        convolution, norm = before[pair.convolution], before[pair.norm]
        fused = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, _TRANSPOSED))  # type: ignore[type-var, arg-type]
        root.set_submodule(pair.convolution, fused)
        root.set_submodule(pair.norm, nn.Identity())

    def undo() -> None:
        for name, part in before.items():
            root.set_submodule(name, part)

    return undo


def _reads_alike(root: nn.Module, graph: fx.Graph) -> bool:
    """Whether the folded network does step by step what it did before.

    One that looks at a convolution's bias, or reads a batch norm's own attributes, does not.
    """

    def steps(graph: fx.Graph) -> list[object]:
        return [(node.op, node.target, str(node.args), str(node.kwargs)) for node in graph.nodes]

    try:
        return steps(_graph(root)) == steps(graph)
    except Exception:  # as above; an attribute that an identity lacks among it
        return False


def _disproved(root: nn.Module, pairs: Sequence[_Pair], output: Callable[[], object], tolerance: float) -> str | None:
    """Why folding does not hold, by a pass before and one after it; the network is left unfolded."""
    with _other_statistics([root.get_submodule(pair.norm) for pair in pairs]):
        before = output()
        undo = _replace(root, pairs)
        try:
            change = difference(before, output())
        except Exception as error:  # the network's own code
            return f"folded it cannot run ({type(error).__name__}: {error})"
        finally:
            undo()
    if change is None:
        return "its output cannot be compared"
    return None if change <= tolerance else f"folding changes its output, by {100 * change:.2g} % of the largest value"


@contextmanager
def _other_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms that are far from the identity, as those of an untrained network are not; restored after."""
    generator = torch.Generator().manual_seed(0)

    def around_one(tensor: Tensor) -> Tensor:
        return (0.5 + torch.rand(tensor.shape, generator=generator)).to(tensor)

    named = [(norm, dict([*norm.named_parameters(), *norm.named_buffers()])) for norm in norms]
    before = [(tensor, tensor.clone()) for _, tensors in named for tensor in tensors.values()]
    with torch.no_grad():
        for _, tensors in named:
            deviation = tensors["running_var"].sqrt()
            tensors["running_mean"].add_(deviation * (around_one(deviation) - 1))
            tensors["running_var"].mul_(around_one(deviation))
            if "weight" in tensors:
                weight = tensors["weight"]
                weight.copy_(torch.where(weight == 0, 1, weight) * around_one(weight))
                tensors["bias"].add_(around_one(weight) - 1)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)


def _left(root: nn.Module, graph: fx.Graph, output: Callable[[], object] | None) -> str | None:
    """Which batch norms are still there; None where there is none."""
    parts = root[0].named_modules()  # type: ignore[index]
    norms = [name for name, part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if norms:
        named = ", ".join(norms[:_NAMED]) + (", ..." if len(norms) > _NAMED else "")
        return f"{plural(len(norms), 'batch norm')} not behind a convolution of its own alone: {named}"
    called = any(node.target in (functional.batch_norm, torch.batch_norm) for node in graph.nodes)
    if called or (output is not None and _runs_batch_norm(output)):
        return "its forward calls batch norm as a function"
    return None


def _runs_batch_norm(output: Callable[[], object]) -> bool:
    """Whether a pass still normalises by fixed statistics, in TorchScript or an exported program, say."""
    with _Watch() as watch:
        output()
    return watch.seen


class _Watch(TorchDispatchMode):
    seen = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Instance norm is run as a batch norm in training, by the statistics of the image.
        self.seen |= "batch_norm" in str(func) and args[5:6] != (True,)
        return func(*args, **(kwargs or {}))
