"""Bringing any network into the form in which it is measured: what is done, what is left out, and that each is said."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import COMPILE
from test_latency import QUICK, everything, trained_like
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.mkldnn import to_mkldnn

from nas.common.errors import CandidateError
from nas.latency.folding import fold, fold_batch_norm
from nas.latency.measuring import measure
from nas.latency.prepare import Prepared, normal_images, prepared
from nas.latency.protocol import LatencyProtocol
from nas.views.terminal.latency import protocol_lines

SHAPE = (3, 16, 16)
ONCE = replace(QUICK, attempts=1, min_blocks=2, max_s=0.02)


def ready(module: nn.Module, protocol: LatencyProtocol = QUICK) -> Prepared:
    with prepared(module, normal_images(protocol, SHAPE), protocol) as found:
        return found


def left_out(module: nn.Module, protocol: LatencyProtocol = QUICK) -> dict[str, str]:
    return ready(module, protocol).preparation.left_out


def pair(convolution: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, norm)


# -------------------------------------------------------------------- what folding would change


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def both(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class KernelUsedTwice(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) + functional.conv2d(x, self.conv.weight, padding=2, dilation=2)


class KernelInAList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.kernels = {"small": [self.conv.weight]}

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) + functional.conv2d(x, self.kernels["small"][0], padding=1)


class KernelTied(Base):
    """The kernel is a parameter of the network's own too, and read through the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) * self.conv.weight.mean()


class ReadsScale(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) * self.norm.weight.abs().mean()


class ReadsStatistics(Base):
    def forward(self, x: Tensor) -> Tensor:
        assert self.norm.running_mean is not None
        return self.both(x) - self.norm.running_mean.mean()


class ReadsEpsilon(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) / (1 + self.norm.eps)


class AsksForBias(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.both(x) if self.conv.bias is None else self.both(x) + 1


class AlsoInAList(Base):
    """The layers are called through a list that torch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.conv, self.norm]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Hooked(Base):
    """The output of another layer is changed by a hook that reads the kernel, which no graph shows."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.act.register_forward_hook(self.add)

    def add(self, act: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output + self.conv.weight.sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.both(x))


class Patched(Base):
    """Its forward was replaced, as libraries do, and no longer runs the convolution once."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.instead  # type: ignore[method-assign, assignment]

    def instead(self, x: Tensor) -> Tensor:
        return self.both(x) + self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)


class NormPatched(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm.forward = functools.partial(torch.mul, 2)  # type: ignore[method-assign, assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)


def norm_in_training() -> nn.Module:
    module = pair(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    module[1].train()
    return module


def old_weight_norm() -> nn.Module:
    return pair(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8)).eval()


UNFOLDABLE: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        KernelUsedTwice, KernelInAList, KernelTied, ReadsScale, ReadsStatistics, ReadsEpsilon, AsksForBias, AlsoInAList,
        Patched, NormPatched,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_folding_that_would_change_the_function_is_not_done(name: str) -> None:
    torch.manual_seed(0)
    module = trained_like(UNFOLDABLE[name]()).eval()
    x = torch.randn(2, *SHAPE)
    before = module(x)
    assert not fold_batch_norm(module)
    assert torch.equal(module(x), before)
    assert type(module.norm) is nn.BatchNorm2d


@pytest.mark.parametrize("make", [old_weight_norm, norm_in_training])
def test_layers_that_compute_their_weights_or_train_are_not_folded(make: Callable[[], nn.Module]) -> None:
    module = make()
    assert not fold_batch_norm(module)
    assert isinstance(module[1], nn.BatchNorm2d)  # type: ignore[index]


def test_what_no_graph_shows_is_found_by_a_forward_pass_of_an_untrained_network_too() -> None:
    reason = left_out(Hooked())["fold"]
    assert "folding changes its output" in reason
    assert "fold" not in left_out(pair(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: pair(nn.Conv1d(3, 8, 3, groups=1), nn.BatchNorm1d(8)), (2, 3, 20)),
        (lambda: pair(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8, affine=False)), (2, 3, 6, 6, 6)),
        (lambda: pair(nn.ConvTranspose2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)), (2, 3, 6, 6)),
        (
            lambda: pair(nn.Conv2d(3, 9, 3, groups=3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(9)),
            (2, 3, 6, 6),
        ),
    ],
)
def test_batch_norm_is_folded_behind_every_kind_of_convolution(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    x = torch.randn(shape)
    before = module(x)
    assert fold_batch_norm(module)
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)


def test_grouped_transposed_convolutions_keep_their_batch_norm() -> None:
    module = pair(nn.ConvTranspose2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)).eval()
    assert not fold_batch_norm(module)


def test_why_not_all_of_it_is_folded_is_said() -> None:
    network = torchvision.models.densenet121().eval()
    assert fold(network) == (
        "62 batch norms not behind a convolution of its own alone: features.denseblock1.denselayer1.norm1, "
        "features.denseblock1.denselayer2.norm1, features.denseblock1.denselayer3.norm1, ..."
    )


@pytest.mark.filterwarnings("ignore")
def test_batch_norm_that_no_graph_shows_is_not_said_to_be_folded() -> None:
    network = pair(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    scripted = torch.jit.script(network)
    for module in (
        scripted,
        nn.Sequential(scripted, nn.ReLU()),
        torch.jit.trace(network, torch.randn(1, *SHAPE)),
        exported(),
    ):
        assert left_out(module)["fold"] == "its forward calls batch norm as a function"
    for module in (torch.jit.freeze(scripted), torch.jit.script(small()), nn.InstanceNorm2d(3)):
        assert "fold" not in left_out(module)


# -------------------------------------------------------------------- networks that are something else


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()


class Outputs(nn.Module):
    """Gives what `make` puts its one tensor into."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.make = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.norm(self.conv(x)))


@dataclass
class Boxed:
    logits: Tensor
    name: str = "boxed"


class Complex(nn.Module):
    """Its output is what the imaginary part of its weight gives."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 1), 2j))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).imag


class Views(nn.Module):
    """Its channels must lie contiguous in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).view(x.shape[0], -1)


class Gradients(nn.Module):
    """Gives a derivative by its input, which inference mode does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.conv(x).square().sum(), x)[0]


class InHalf(nn.Module):
    """Has a constant of float32 in it, so that it cannot run in another precision."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.float())


class Dropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, training=True)


class Restless(nn.Module):
    """Never gives the same twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.calls = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(self.conv(x)) * self.calls


class Holds(nn.Module):
    """Holds an open file, as far as copying goes, and keeps notes of its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.register_buffer("count", torch.zeros(1))
        self.count: Tensor
        self.last: Tensor | None = None

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("holds an open file")

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        self.last = self.norm(self.conv(x))
        return self.last


class CopiesToItself(Holds):
    def __deepcopy__(self, memo: object) -> nn.Module:
        return self


class CopiesToAnother(Holds):
    """A copy draws its weights again."""

    def __deepcopy__(self, memo: object) -> nn.Module:
        return CopiesToAnother()


def old_spectral() -> nn.Module:
    module = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)))
    module(torch.randn(1, *SHAPE))  # from now on its weight is computed, and cannot be copied
    return module


def exported() -> nn.Module:
    program = torch.export.export(pair(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval(), (torch.randn(1, *SHAPE),))
    return program.module()


def around_exported() -> nn.Module:
    return nn.Sequential(exported(), nn.ReLU())


def quantised() -> nn.Module:
    return torchvision.models.quantization.mobilenet_v2(weights=None, quantize=True)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4, 3 * SHAPE[1] * SHAPE[2]).to_sparse(), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight, images.flatten(1).T)


class Mkldnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = to_mkldnn(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval())

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.to_mkldnn()).to_dense()  # type: ignore[no-any-return]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(small()),
    "traced": lambda: torch.jit.trace(small(), torch.randn(2, *SHAPE)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(small())),
    "old weight norm": old_weight_norm,
    "old spectral norm": old_spectral,
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10)),
    "exported": exported,
    "around exported": around_exported,
    "graph": lambda: torch.fx.symbolic_trace(small()),
    "data parallel": lambda: nn.DataParallel(small()),
    "views": Views,
    "gradients": Gradients,
    "dropping": Dropping,
    "restless": Restless,
    "holds": Holds,
    "itself": CopiesToItself,
    "another": CopiesToAnother,
    "complex": Complex,
    "nan": lambda: Outputs(lambda x: x / 0),
    "none": lambda: Outputs(lambda x: None),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_that_runs_has_a_latency_and_stays_as_it_was(name: str) -> None:
    torch.manual_seed(0)
    module = NETWORKS[name]()
    lazy = name == "lazy"
    before = None if lazy or isinstance(module, torch.jit.ScriptModule) else everything(module)
    latency = measure(module, SHAPE, ONCE)
    assert latency.median_ms > 0
    assert set(latency.left_out) <= {"copy", "eval", "fold", "layout", "dtype", "inference"}
    if before is not None:
        assert everything(module) == before
    if lazy:
        assert any(map(torch.nn.parameter.is_lazy, module.parameters()))
        assert "lazy layers" in latency.notes[0]
    text = "\n".join(protocol_lines([latency]))
    for reason in (*latency.left_out.values(), *latency.notes):
        assert reason in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [Sparse, Mkldnn])
def test_weights_that_do_not_lie_one_after_another_are_no_obstacle(make: Callable[[], nn.Module]) -> None:
    module = make()
    image = torch.randn(1, *SHAPE)
    before = module(image)
    assert measure(module, SHAPE, ONCE).median_ms > 0
    assert torch.equal(module(image), before)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network_stays_in_its_own_precision() -> None:
    protocol = replace(ONCE, dtype="bfloat16")
    torch.backends.quantized.engine = "x86"
    latency = measure(quantised(), (3, 32, 32), protocol)
    assert "stays in float32" in latency.left_out["dtype"]
    assert "bfloat16 where possible" in "\n".join(protocol_lines([latency]))


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (Views, {"layout"}),
        (InHalf, {"dtype"}),
        (Gradients, {"inference"}),
        (Holds, {"copy", "fold", "layout", "dtype"}),
        (CopiesToItself, {"copy", "fold", "layout", "dtype"}),
        (CopiesToAnother, {"copy", "fold", "layout", "dtype"}),
        (Restless, {"fold"}),
        (lambda: Outputs(lambda x: x * float("nan")), {"fold"}),
        (lambda: Outputs(lambda x: {"a": [x], "b": (x, "text")}), set()),
        (lambda: Outputs(Boxed), set()),
        (small, set()),
    ],
)
def test_a_step_that_does_not_hold_is_left_out_and_no_other(make: Callable[[], nn.Module], steps: set[str]) -> None:
    torch.manual_seed(1)
    protocol = replace(QUICK, dtype="bfloat16")
    assert set(left_out(make(), protocol)) == steps


def test_complex_weights_keep_their_imaginary_part() -> None:
    found = ready(Complex(), replace(QUICK, dtype="bfloat16"))
    torch.testing.assert_close(found.network(found.images).float(), 2 * found.images.float())


def test_rounding_that_changes_much_is_said_and_done() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * 1e6

    preparation = ready(Large(), replace(QUICK, dtype="float16")).preparation
    assert preparation.left_out == {}
    assert preparation.notes == ("float16 changes its output from that in float32, beyond comparing",)


def test_a_network_that_cannot_run_at_all_is_a_candidates_error() -> None:
    with pytest.raises(CandidateError, match="expected input"):
        measure(nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)), SHAPE, QUICK)


# -------------------------------------------------------------------- images that are written into


class Normalises(nn.Module):
    """Writes into its images, and keeps the largest pixel that it was given in each run."""

    seen: list[float] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(float(x.abs().max()))
        return self.conv(x.sub_(0.45).div_(0.225))


class Reshapes(nn.Module):
    """Changes the shape of its images, and no value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose_(2, 3))


def test_each_run_has_the_same_images_and_that_is_said() -> None:
    Normalises.seen.clear()
    latency = measure(Normalises(), SHAPE, QUICK)
    assert len(Normalises.seen) > 20
    assert len(set(Normalises.seen)) == 1
    assert "each run starts with a copy of them" in latency.notes[0]


@pytest.mark.parametrize("mode", ["eager", COMPILE])
def test_images_that_are_written_into_are_fresh_in_every_mode(mode: Any) -> None:
    protocol = replace(ONCE, mode=mode)
    for module in (nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 8, 3)), Reshapes()):
        latency = measure(module, (3, 16, 12), protocol)
        assert "each run starts with a copy of them" in latency.notes[0]
    assert measure(small(), SHAPE, protocol).notes == ()


def test_a_file_is_closed_again(tmp_path: Path) -> None:
    """What cannot be copied is measured as it is, with what it holds."""

    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.log = nn.Conv2d(3, 8, 3), (tmp_path / "log").open("w")

        def forward(self, x: Tensor) -> Tensor:
            self.log.write("run\n")
            return self.conv(x)

    module = Logs()
    with contextlib.closing(module.log):
        latency = measure(module, SHAPE, ONCE)
        assert "pickle" in latency.left_out["copy"]
        assert module.training
