"""A network as it would be deployed: a copy in eval mode, batch norm folded, in a protocol's layout and precision.

Each step is optional. It is proved by one forward pass against the network as it was given, on the same images, and
left out where it does not hold; the result says what was left out and why:

- copy: of what cannot be copied the original is measured as it is, and all else is left out; afterwards its mode,
  device, attributes and values are as they were.
- eval: a network that has no such mode stays in the one that it has.
- fold: batch norm into convolutions (nas/latency/folding.py).
- layout: channels last, or contiguous.
- dtype: real floating tensors into the protocol's precision; complex ones keep their imaginary part. Rounding is no
  reason to leave this out, since it was asked for: what it changes is noted.
- inference: torch's inference mode, weights without gradients.

A network that writes into its images gets a copy of them for each run, which is timed with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from nas.common.errors import CandidateError
from nas.latency.folding import fold
from nas.latency.outputs import difference, kept
from nas.latency.protocol import LatencyProtocol, Precision
from nas.latency.runtimes import runtime_of
from nas.latency.runtimes.base import quiet

_TOLERANCE = {"cpu": 1e-3, "cuda": 2e-2}
"""By how much a step may change an output in float32, as a share of the largest value; GPUs multiply in TF32."""
_ROUGH = 5e-2
"""The same in half precision."""
_WORTH_SAYING = 0.1
"""By how much rounding to the protocol's precision may change the output before that is noted."""
_CONVERT: dict[Precision, Callable[[nn.Module], nn.Module]] = {
    "float32": nn.Module.float,
    "float16": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
}


@dataclass(frozen=True)
class Preparation:
    """What was done to a network before it was measured; `left_out` holds the steps that were not, each with why."""

    bn_folded: bool
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A network that is ready, and its images (N, C, H, W): on the protocol's device, in the precision it takes."""

    network: nn.Module
    images: Tensor
    preparation: Preparation


def normal_images(protocol: LatencyProtocol, input_shape: tuple[int, int, int]) -> Tensor:
    """Images (N, *`input_shape`) of unit normal distribution, always the same, as the protocol has them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(protocol.batch_size, *input_shape, generator=generator, device="cpu", dtype=torch.float32)
    return images.to(device=protocol.device, dtype=getattr(torch, protocol.dtype), memory_format=layout(protocol))


def layout(protocol: LatencyProtocol) -> torch.memory_format:
    """The memory format of images and weights, before a runtime converts them."""
    channels_last = protocol.channels_last and not runtime_of(protocol).converts
    return torch.channels_last if channels_last else torch.contiguous_format


@contextmanager
def _plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode: tensors that are made in that could not be trained on any more."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _running_mode(protocol: LatencyProtocol) -> AbstractContextManager[object]:
    """Inference mode, but for a runtime that converts."""
    return torch.no_grad() if runtime_of(protocol).converts else torch.inference_mode()


@contextmanager
def prepared(module: nn.Module, images: Tensor, protocol: LatencyProtocol) -> Iterator[Prepared]:
    """The module ready to be measured on `images`, which are as the protocol has them; afterwards it is as it was.

    Raises what the network's own code raises where it cannot run.
    """
    with ExitStack() as held:
        with quiet(), _plain_mode():
            steps = _Steps(protocol, images.clone())
            if not steps.copied(module):
                if _is_lazy(module):
                    raise CandidateError("it has lazy layers, which running it would change, and cannot be copied")
                steps.as_it_is(held.enter_context(borrowed(module, images.device)))
        yield steps.done()


class _Steps:
    """The network so far, with what is known of it; each step runs it once."""

    def __init__(self, protocol: LatencyProtocol, images: Tensor) -> None:
        self._protocol, self._wanted = protocol, images
        self._left_out: dict[str, str] = {}
        self._notes: list[str] = []
        self._writes = False
        self._expected: list[Tensor] | None = None  # what it gives; None where that is not known or cannot be compared

    def copied(self, module: nn.Module) -> bool:
        """Take a copy through all steps; False where there is none that does what the module does."""
        lazy = _is_lazy(module)
        if not lazy and device_of(module) in (None, self._wanted.device):
            with borrowed(module):
                self._expected = self._try(module)
        try:
            self.network = copy_of(module)
            self._evaluating(self.network)
            self.network = self.network.to(self._wanted.device)
            if lazy:
                self._run(self.network, self._wanted.float())
                self._notes.append("lazy layers got their shapes from a first forward pass")
            self.images = _own(self.network, self._wanted)
            self._compare_copy()
        except Exception as error:  # as the classes of its parts please
            self._left_out["copy"] = reason_of(error)
            return False
        self._fold()
        self._convert()
        self._lay_out()
        self._infer()
        return True

    def as_it_is(self, network: nn.Module) -> None:
        """The network itself, unchanged."""
        self._evaluating(network)
        self.network, self.images = network, _own(network, self._wanted)
        self._expected = self._try(network)
        self._left_out["fold"] = "no copy"
        if self.images.dtype != self._wanted.dtype:
            self._left_out["dtype"] = f"no copy, stays in {_name(self.images.dtype)}"
        if layout(self._protocol) is torch.channels_last:
            self._left_out["layout"] = "no copy"
        with _running_mode(self._protocol):
            inferred = self._try(network)
        if inferred is None and self._expected is not None:
            self._left_out["inference"] = "it cannot run in inference mode"

    def done(self) -> Prepared:
        """What came of it."""
        network = self.network
        if "inference" in self._left_out:
            network = _InPlainMode(network)
        if self._writes and not runtime_of(self._protocol).converts:
            network = _OnCopies(network)
            self._notes.append("it writes into its images: each run starts with a copy of them, which is timed with it")
        preparation = Preparation("fold" not in self._left_out, self._left_out, tuple(self._notes))
        return Prepared(network, self.images, preparation)

    def _compare_copy(self) -> None:
        """Hold the copy against the original; where an output says nothing, nothing is expected any more."""
        first = self._try(self.network) if self._expected is None else self._run(self.network, self.images)
        if first is None:  # neither runs; in another precision it may
            return
        expected = first if self._expected is None else self._expected
        again = self._run(self.network, self.images)
        if not self._agree(first, again):
            self._notes.append("its output differs from run to run, so that nothing could be compared")
            self._expected = None
        elif difference(first, again) is None:
            self._notes.append("its output has nothing finite to compare")
            self._expected = None
        elif not self._agree(expected, first):
            raise ValueError("a copy computes something else")
        else:
            self._expected = first

    def _fold(self) -> None:
        output = (lambda: self._run(self.network, self.images)) if self._expected is not None else list
        reason = fold(self.network, output, self._tolerance)
        if reason is not None:
            self._left_out["fold"] = reason

    def _convert(self) -> None:
        """To the protocol's precision; from there on that is what is expected."""
        dtype, before = self._wanted.dtype, self.images.dtype
        tensors = (*self.network.parameters(), *self.network.buffers())
        if dtype == before and all(tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point()):
            return
        try:
            network = _CONVERT[self._protocol.dtype](copy.deepcopy(self.network))
            images = self.images.to(dtype)
            found = self._run(network, images)
        except Exception as error:  # the network's own code
            self._left_out["dtype"] = f"stays in {_name(before)}: {reason_of(error)}"
            return
        change = difference(self._expected, found) if self._expected is not None else None
        if change is not None and change > _WORTH_SAYING:
            share = f"by {100 * change:.0f} % of its largest value" if change < float("inf") else "beyond comparing"
            self._notes.append(f"{_name(dtype)} changes its output from that in {_name(before)}, {share}")
        if self._expected is not None:
            self._expected = found
        self.network, self.images = network, images

    def _lay_out(self) -> None:
        form = layout(self._protocol)
        self._attempt("layout", lambda network: network.to(memory_format=form), self.images.to(memory_format=form))

    def _infer(self) -> None:
        def without_gradients(network: nn.Module) -> nn.Module:
            for parameter in network.parameters():
                parameter.requires_grad_(False)
            return network

        with _running_mode(self._protocol):
            self._attempt("inference", without_gradients, self.images)

    def _attempt(self, step: str, change: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
        """Take a step with a copy of the network, unless it raises or gives something else."""
        try:
            network = change(copy.deepcopy(self.network))
            found = self._run(network, images)
        except Exception as error:  # the network's own code
            self._left_out[step] = reason_of(error)
            return
        if self._expected is not None and not self._agree(self._expected, found):
            self._left_out[step] = "it changes the output"
            return
        self.network, self.images = network, images

    def _evaluating(self, network: nn.Module) -> None:
        reason = to_eval(network)
        if reason is not None:
            self._left_out["eval"] = reason

    def _try(self, network: nn.Module) -> list[Tensor] | None:
        """What it gives on images in its own precision; None where it cannot run."""
        try:
            return self._run(network, _own(network, self._wanted))
        except Exception:  # the network's own code; a later step may help, and if none does the measurement says why
            return None

    def _run(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """What it gives, with the same random draws each time."""
        torch.default_generator.manual_seed(0)  # of the CPU alone; torch.manual_seed would seed every GPU
        if images.device.type == "cuda":
            torch.cuda.manual_seed(0)
        given = images.clone()
        found = kept(network(given))
        self._writes |= given.shape != images.shape or not torch.equal(given, images)
        return found

    def _agree(self, first: list[Tensor], second: list[Tensor]) -> bool:
        change = difference(first, second)
        return change is None or change <= self._tolerance

    @property
    def _tolerance(self) -> float:
        exact = self.images.dtype in (torch.float32, torch.float64)
        return _TOLERANCE[self.images.device.type] if exact else _ROUGH


class _InPlainMode(nn.Module):
    """A network that cannot run in inference mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> object:
        with torch.inference_mode(False), torch.no_grad():
            return self.network(images)


class _OnCopies(nn.Module):
    """A network that is given a copy of its images each time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> object:
        return self.network(images.clone())


def _own(network: nn.Module, images: Tensor) -> Tensor:
    """Images as the network has its weights."""
    return images.to(device_of(network) or images.device, dtype_of(network)).contiguous()


def copy_of(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own; raises whatever copying raises."""
    lazy = [buffer for buffer in module.buffers() if is_lazy(buffer)]  # which torch cannot copy
    fresh = {id(buffer): UninitializedBuffer(device=buffer.device, dtype=buffer.dtype) for buffer in lazy}  # type: ignore[call-arg]
    copied = copy.deepcopy(module, fresh)
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    if copied is module or any(id(tensor) in own for tensor in (*copied.parameters(), *copied.buffers())):
        raise ValueError("a copy has the same weights")
    return copied


def _is_lazy(module: nn.Module) -> bool:
    return any(map(is_lazy, (*module.parameters(), *module.buffers())))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def device_of(module: nn.Module) -> torch.device | None:
    """Where the first of its tensors is; None of a module without any."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)


def dtype_of(module: nn.Module) -> torch.dtype:
    """The precision of its first real floating tensor, float32 without one."""
    tensors = (*module.parameters(), *module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


@contextmanager
def borrowed(module: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """The module itself in eval mode, on another device where one is given; afterwards it is as it was.

    That is: the mode and the attributes of each part, its device, and the values of its tensors.
    """
    parts = [(part, getattr(part, "training", None), dict(vars(part))) for part in module.modules()]
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if not is_lazy(tensor)]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    home = device_of(module)
    try:
        to_eval(module)
        yield module if device is None or home in (None, device) else module.to(device)
    finally:
        with _plain_mode():
            if device_of(module) != home:
                module.to(home)
            for part, training, attributes in parts:
                if training is not None:
                    part.training = training
                vars(part).clear()
                vars(part).update(attributes)
            for tensor, value in values:
                if not _equal(tensor, value):
                    tensor.copy_(value)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.is_meta:  # without values
        return True
    if one.layout is not torch.strided:  # sparse, or of MKLDNN's, which torch does not compare
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other)


def to_eval(module: nn.Module) -> str | None:
    """Eval mode; why it could not be had by the module's own means, None where it could."""
    try:
        module.eval()
    except Exception as error:  # exported programs refuse; the flag does for whatever parts of them have it
        for part in module.modules():
            part.training = False
        return reason_of(error)
    return None


def reason_of(error: Exception) -> str:
    """An error of the network's own code in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]
