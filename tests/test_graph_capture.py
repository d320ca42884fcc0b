"""Networks of users, captured: the same network as plain data, or one sentence that says why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_networks import Branching, Dense, Maps, Mobile, OtherInTraining, Residual, Shared, TwoInputs, seeded
from timm.layers import BatchNormAct2d, DropPath
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

from nas.common.errors import InputError
from nas.models.graph.analyse import About, base_of
from nas.models.graph.build import build_program
from nas.models.graph.capture import capture
from nas.models.graph.checkpoint import load_into, read_weights
from nas.spaces.graph.program import Program

IMAGE = (3, 16, 16)


class OfTimm(nn.Module):
    """What bakes the training flag or a size into a naive trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dSame(3, 8, 3, stride=2)
        self.norm = BatchNormAct2d(8, act_layer=nn.SiLU)
        self.pool = MaxPool2dSame(3, 2)
        self.branch = nn.Conv2d(8, 8, 3, padding="same", bias=False)  # type: ignore[arg-type]
        self.drop = DropPath(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)))
        return self.head((x + self.drop(self.branch(x))).mean((2, 3)))


def rebuilt(model: nn.Module) -> nn.Module:
    """Captured, written down, read again and built."""
    captured = capture(model, IMAGE)
    network = build_program(Program.from_json(json.loads(json.dumps(captured.program.to_json()))))
    network.load_state_dict(captured.state)
    return network


@pytest.mark.parametrize("kind", [Mobile, Residual, Dense, OfTimm])
@pytest.mark.parametrize("side", [16, 24])
def test_what_is_captured_gives_the_same_at_any_size(kind: type[nn.Module], side: int) -> None:
    model, images = seeded(kind), torch.randn(3, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(rebuilt(model).eval()(images), model(images), atol=1e-5)


@pytest.mark.parametrize("kind", [Mobile, OfTimm])
def test_in_training_it_does_what_the_original_does(kind: type[nn.Module]) -> None:
    model = seeded(kind)
    network, original = rebuilt(model).train(), copy.deepcopy(model).train()
    images = torch.randn(8, *IMAGE)
    outputs = []
    for each in (network, original):
        torch.manual_seed(1)  # what dropout and drop path draw
        outputs.append(each(images))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4)
    statistics = dict(original.named_buffers())
    moved = [name for name, value in network.named_buffers() if name.endswith("running_mean")]
    assert all(torch.allclose(network.get_buffer(name), statistics[name], atol=1e-5) for name in moved)
    outputs[0].sum().backward()
    assert not torch.allclose(network(images), outputs[0], atol=1e-4)  # others are dropped each time
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_users_module_is_left_as_it_was() -> None:
    model = seeded(Mobile)
    before = copy.deepcopy(model.state_dict())
    capture(model, IMAGE)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Branching(), r"own_networks\.py:\d+: if x\.mean\(\) > 0: what is done here depends on values"),
        (lambda: OtherInTraining(), r"own_networks\.py:\d+: the network does something else in training here"),
        (lambda: TwoInputs(), r"TwoInputs takes several inputs \(x, mask\)"),
        (lambda: Shared(), "the layers one and two are one and the same"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "has no convolution"),
        (lambda: Mobile().half(), "are of torch.float16: give the network in float32"),
        (lambda: Mobile().to("meta"), "are on the meta device"),
        (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 5, 3))), "is TorchScript"),
        (lambda: "resnet18", "a torch.nn.Module is needed, not 'resnet18' of the kind str"),
        (lambda: nn.LazyConv2d(8, 3), "have no shape yet"),
        (lambda: nn.Conv2d(4, 8, 3), "does not take images of 3x16x16: RuntimeError"),
    ],
)
def test_what_cannot_be_captured_is_said_in_one_sentence(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        capture(model(), IMAGE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Maps, r"gives a tensor of shape \(N, 5, 16, 16\); to tell classes apart it has to give \(N, classes\)"),
        (lambda: nn.Sequential(Mobile(), nn.BatchNorm1d(5)), "the classes come from '1', where a linear layer"),
    ],
)
def test_what_tells_no_classes_apart_is_refused(model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        base_of(capture(model(), IMAGE), IMAGE, About("mine"))


# ---------------------------------------------------------------- a file of it runs nothing


def changed(network: Callable[[dict[str, Any]], None]) -> Program:
    data = json.loads(json.dumps(capture(seeded(Dense), IMAGE).program.to_json()))
    network(data)
    return Program.from_json(data)


def _function(name: str, *args: object) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["nodes"].insert(1, ["evil", "function", name, list(args), {}])


@pytest.mark.parametrize(
    "network",
    [
        _function("torch.load", "x.pt"),
        _function("os.system", "ls"),
        _function("torch.hub.load", "a", "b"),
        _function("getattr", {"node": "images"}, "__class__"),
        lambda data: data["nodes"].insert(1, ["evil", "method", "apply_", [{"node": "images"}], {}]),
        lambda data: data["nodes"].insert(1, ["x = __import__('os')", "method", "abs", [{"node": "images"}], {}]),
        lambda data: data["nodes"].insert(1, ["evil", "method", "abs(); import os", [{"node": "images"}], {}]),
        lambda data: data["nodes"].insert(1, ["evil", "method", "abs", [{"node": "later"}], {}]),
        lambda data: data["parts"].update(one=["Sequential", {}]),
        lambda data: data["parts"].update(one=["__class__", {}]),
        lambda data: data["parts"].update(one=["Conv2d", {"in_channels": "__import__('os')"}]),
        lambda data: data.pop("nodes"),
    ],
)
def test_a_file_that_names_anything_else_is_refused(network: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(InputError, match="not a network"):
        build_program(changed(network))


# ---------------------------------------------------------------- weights


class Evil:
    """Would leave a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickled_module_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"model": Evil(tmp_path / "mark")}, tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"best\.pt: holds a pickled module") as raised:
        read_weights(tmp_path / "best.pt")
    assert "torch.save(network.state_dict()" in str(raised.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "held",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 0.1}},
        lambda state: {"ema": {f"_orig_mod.{name}": value for name, value in state.items()}},
    ],
)
def test_checkpoints_as_trainers_write_them_are_found(tmp_path: Path, held: Callable[[Any], Any]) -> None:
    trained, fresh = seeded(Mobile), Mobile()
    torch.save(held(trained.state_dict()), tmp_path / "last.pth")
    load_into(fresh, read_weights(tmp_path / "last.pth"), "last.pth")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("stem.0.weight"), "w: the weights lack stem.0.weight"),
        (lambda state: state.update(other=torch.zeros(1)), "w: the weights hold what the network has not: other"),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(9)}),
            r"w: classifier\.bias is of shape \(9,\); the network needs \(5,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Callable[[Any], Any], message: str) -> None:
    state = dict(Mobile().state_dict())
    change(state)
    with pytest.raises(InputError, match=message):
        load_into(Mobile(), state, "w")
