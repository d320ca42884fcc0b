"""Spaces around networks of users: what may change, what a change costs and inherits, and the command that makes them."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BRIEF
from own_networks import Dense, Mobile, Residual, Twice, seeded
from torch import nn

from nas.cli.app import main
from nas.common.errors import InputError
from nas.models.flops import count
from nas.models.graph.analyse import About
from nas.models.graph.given import given_network
from nas.models.graph.inherit import rank_one
from nas.models.graph.make import Made, load_base, make_space, space_from, write_space
from nas.models.graph.prove import Wanted
from nas.models.networks import Backbone, build
from nas.models.weights import load_weights
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.spaces.base import Cost
from nas.spaces.families import architecture_cost, layer_rows, read_architecture, read_space
from nas.spaces.files import load_space
from nas.spaces.graph.base import Base
from nas.spaces.graph.space import GraphSpace

OLD = Path(__file__).with_name("fixtures") / "own_network.json"
IMAGE = (3, 16, 16)
KINDS = (Mobile, Residual, Dense, Twice)
WANTED = Wanted(kernels=(1, 3, 5), dilations=(1, 2), widths=(0.25, 0.5, 1.5))


@pytest.fixture(scope="module")
def made() -> dict[type[nn.Module], Made]:
    """The space around each network."""
    return {kind: make_space(seeded(kind), IMAGE, About(kind.__name__.lower()), WANTED, (24,)) for kind in KINDS}


def weights(made: Made) -> Backbone:
    base = made.space.base
    return Backbone("theirs", made.space.backbone, made.state, base.classes, None, None)


def network(made: Made, text: str, classes: int = 5) -> nn.Module:
    """A network of the space with its inherited weights."""
    architecture = made.space.parse(f"{made.space.base.title}{{{text}}}")
    found = build(architecture, classes)
    found.load_state_dict(weights(made).inherit(architecture, classes).state)
    return found.eval()


# ---------------------------------------------------------------- what may change


def test_each_layer_has_the_choices_that_it_can_have(made: dict[type[nn.Module], Made]) -> None:
    assert dict(made[Mobile].space.parameters) == {
        "size": (16, 24),
        "s0.k": (1, 3, 5),
        "s0.sep": (False, True),
        "s0.w": (8, 16, 24),
        "b0.w": (16, 24, 48, 72),
        "b0.k": (1, 3, 5),
        "b0.fused": (False, True),
        "b1.w": (16, 32, 64, 96),
        "b1.drop": (False, True),
        "b1.k": (1, 3, 5),
        "b1.d": (1, 2),
        "b1.fused": (False, True),
    }
    left_out = {(each.where, each.what): each.why for each in made[Mobile].space.left_out}
    assert left_out["blocks.0.squeeze", "width"] == "a gate's own width"
    assert left_out["blocks.0.project", "width"] == "an addition ties them to others"
    assert left_out["classifier", "width"] == "the classes"


def test_flattened_places_and_concatenated_layers_have_widths(made: dict[type[nn.Module], Made]) -> None:
    assert {name for name in made[Residual].space.parameters if name.endswith(".w")} == {"l1.0.w", "l1.1.w", "l.w"}
    assert {name for name in made[Residual].space.parameters if name.endswith(".drop")} == {"l1.0.drop", "l1.1.drop"}
    dense = made[Dense].space
    wide = {dense.base.site[name].where for name in dense.parameters if name.endswith(".w")}
    assert wide == {"one", "two", "four"}
    assert any(each.where == "three" and "reshape" in each.why for each in dense.left_out)  # it fails closed


def test_a_layer_that_is_called_twice_stays_as_it_is(made: dict[type[nn.Module], Made]) -> None:
    space = made[Twice].space
    assert {space.base.site[name].where for name in space.choices} == {"one", "last"}
    assert {name for name in space.choices if name.endswith(".w")} == {"l.w"}


@pytest.mark.slow
def test_what_is_fixed_is_no_choice() -> None:
    space = make_space(seeded(Mobile), IMAGE, About("mine"), Wanted(fix=("stem", "blocks.0"))).space
    assert all(space.base.site[name].where.startswith("blocks.1") for name in space.choices)
    with pytest.raises(
        InputError, match=r"nothing of the network mine can change \(blocks\.0\.squeeze: no width, a gate's own width; "
    ):
        make_space(seeded(Mobile), IMAGE, About("mine"), Wanted(fix=("stem", "blocks")))


# ---------------------------------------------------------------- what a change is


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_with_nothing_changed_is_the_network(made: dict[type[nn.Module], Made], kind: type[nn.Module]) -> None:
    model, images = seeded(kind), torch.randn(4, *IMAGE)
    inheritance = weights(made[kind]).inherit(made[kind].space.backbone, 5)
    assert (inheritance.changed, inheritance.fresh) == (False, ())
    with torch.no_grad():
        assert torch.allclose(network(made[kind], "")(images), model(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_change_and_all_together_cost_what_is_counted(
    made: dict[type[nn.Module], Made], kind: type[nn.Module]
) -> None:
    space, rng = made[kind].space, random.Random(0)
    own = space.locate(space.backbone)
    of_each_key = {name.rpartition(".")[2]: name for name in space.parameters}
    alone = [space.mutate(own, rng) | {name: space.parameters[name][-1]} for name in of_each_key.values()]
    for values in [own, *alone, *(space.sample(rng) for _ in range(4))]:
        architecture = space.architecture(values)
        found = build(architecture, 7)
        found.load_state_dict(weights(made[kind]).inherit(architecture, 7).state)
        logits = found(torch.randn(4, *architecture.input_shape))
        assert logits.shape == (4, 7)
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in found.parameters()), architecture
        cost, counted = architecture_cost(architecture, 7), count(found.eval(), architecture.input_shape)
        assert (cost.macs, cost.params) == (counted.macs, counted.params), architecture
        assert cost.size_bytes == sum(value.numel() * value.element_size() for value in found.state_dict().values())
        rows = layer_rows(architecture, 7)
        assert (sum(row.macs for row in rows), sum(row.params for row in rows)) == (cost.macs, cost.params)


@pytest.mark.parametrize("kind", KINDS)
def test_an_architecture_is_read_back_from_text_json_and_values(
    made: dict[type[nn.Module], Made], kind: type[nn.Module]
) -> None:
    space, rng = made[kind].space, random.Random(1)
    for _ in range(30):
        drawn = space.architecture(space.sample(rng))
        canonical = drawn.canonical
        assert canonical.canonical == canonical
        assert drawn.digest == canonical.digest == space.parse(str(drawn)).digest
        assert read_architecture(json.loads(json.dumps(drawn.to_json()))) == drawn
        assert space.architecture(space.locate(drawn)).canonical == canonical
    assert read_space(json.loads(json.dumps(space.to_json())), "run.yaml") == space


def test_choices_without_effect_vanish(made: dict[type[nn.Module], Made]) -> None:
    space = made[Mobile].space

    def shown(text: str) -> str:
        return str(space.parse(f"{space.base.title}{{{text}}}").canonical).partition("{")[2].rstrip("}")

    assert shown("b1.k5 b1.d2 b1.w32 b1.fused b1.drop") == "b1.drop"
    assert shown("b1.k1 b1.d2") == "b1.k1"  # one tap has no dilation
    assert shown("b1.k5 b1.d2") == "b1.d2"  # on a map of four pixels its outer taps lie beyond
    assert shown("r24 b1.k5 b1.d2") == "r24 b1.k5 b1.d2"  # on one of six they do not
    assert shown("s0.k3 s0.w16") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r8-c8k3-h0", "is not of the form"),
        ("other@0000{{}}", "is of another base than mobile@"),
        ("{title}{{b9.k3}}", "has nothing to change called 'b9.k3'"),
        ("{title}{{b1.drop3}}", "has nothing to change called 'b1.drop3'"),
        ("{title}{{b1.w33}}", "is not in the space mobile"),
        ("{title}{{b1.k7}}", "is not in the space mobile"),
        ("{title}{{r32}}", "takes images of 16, 24 px, not of 32"),
    ],
)
def test_a_text_that_is_none_of_the_space_is_refused(
    made: dict[type[nn.Module], Made], text: str, message: str
) -> None:
    space = made[Mobile].space
    with pytest.raises(InputError, match=message):
        space.parse(text.format(title=space.base.title))


# ---------------------------------------------------------------- what is inherited


def test_the_strongest_channels_stay_the_same_ones_everywhere(made: dict[type[nn.Module], Made]) -> None:
    state = made[Mobile].state
    strength = state["blocks.1.project.weight"].abs().sum((0, 2, 3)) + state["blocks.1.squeeze.weight"].abs().sum(
        (0, 2, 3)
    )
    kept = strength.topk(16).indices.sort().values
    narrow = network(made[Mobile], "b1.w16").state_dict()
    for name in ("expand.weight", "filter.weight", "norm1.running_var", "norm2.bias", "excite.bias"):
        assert torch.equal(narrow[f"blocks.1.{name}"], state[f"blocks.1.{name}"][kept])
    assert torch.equal(narrow["blocks.1.project.weight"], state["blocks.1.project.weight"][:, kept])


def test_added_channels_leave_the_function_as_it_was(made: dict[type[nn.Module], Made]) -> None:
    images = torch.randn(4, *IMAGE)
    for kind, text in ((Residual, "l1.0.w24 l.w48"), (Dense, "f.w24")):
        with torch.no_grad():
            assert torch.allclose(network(made[kind], text)(images), network(made[kind], "")(images), atol=1e-5)


def test_a_flattened_map_keeps_the_places_of_the_kept_channels(made: dict[type[nn.Module], Made]) -> None:
    state = made[Residual].state
    kept = state["fc.weight"].abs().sum(0).view(32, 4).sum(1).topk(16).indices.sort().values
    narrow = network(made[Residual], "l.w16").state_dict()
    assert torch.equal(narrow["last.weight"], state["last.weight"][kept])
    assert torch.equal(narrow["fc.weight"], state["fc.weight"].view(5, 32, 4)[:, kept].flatten(1))


def test_a_larger_kernel_is_the_same_function_and_a_smaller_one_its_centre(made: dict[type[nn.Module], Made]) -> None:
    images = torch.randn(4, *IMAGE)
    state = made[Residual].state
    with torch.no_grad():
        assert torch.allclose(
            network(made[Residual], "l1.0.c1.k5")(images), network(made[Residual], "")(images), atol=1e-5
        )
    small = network(made[Residual], "c1.k3").state_dict()
    assert torch.equal(small["conv1.weight"], state["conv1.weight"][:, :, 2:5, 2:5])


def test_a_separable_layer_is_the_closest_of_its_kind() -> None:
    pointwise, depthwise = torch.randn(6, 4, 1, 1), torch.randn(1, 4, 3, 3)
    dense = pointwise * depthwise  # of rank one for each input channel
    found = rank_one(dense)
    assert torch.allclose(found[1] * found[0].transpose(0, 1), dense, atol=1e-5)
    noisy = dense + 0.1 * torch.randn_like(dense)
    close = rank_one(noisy)
    assert (noisy - close[1] * close[0].transpose(0, 1)).norm() <= (noisy - dense).norm()


def test_a_fused_layer_is_pointwise_and_depthwise_but_for_what_lay_between(made: dict[type[nn.Module], Made]) -> None:
    fused = network(made[Mobile], "b1.fused")
    block = seeded(Mobile).get_submodule("blocks.1")
    x = torch.randn(2, 24, 6, 6)
    with torch.no_grad():
        filtered = block.get_submodule("norm2")(
            block.get_submodule("filter")(block.get_submodule("norm1")(block.get_submodule("expand")(x)))
        )
        found = fused.get_submodule("blocks.1.norm2")(fused.get_submodule("blocks.1.filter")(x))
    assert torch.allclose(found[..., 1:-1, 1:-1], filtered[..., 1:-1, 1:-1], atol=1e-4)  # borders are padded otherwise


def test_other_classes_begin_with_a_fresh_head(made: dict[type[nn.Module], Made]) -> None:
    inheritance = weights(made[Mobile]).inherit(made[Mobile].space.backbone, 9, seed=3)
    assert inheritance.fresh == ("classifier",)
    assert inheritance.state["classifier.weight"].shape == (9, 24)
    again = weights(made[Mobile]).inherit(made[Mobile].space.backbone, 9, seed=4)
    assert not torch.equal(inheritance.state["classifier.weight"], again.state["classifier.weight"])
    before = torch.random.get_rng_state()
    build(made[Mobile].space.backbone, 9, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_of_another_base_are_refused(made: dict[type[nn.Module], Made]) -> None:
    with pytest.raises(InputError, match=r"the weights are of mobile@\w+, and the network is of dense@"):
        weights(made[Mobile]).inherit(made[Dense].space.backbone, 5)


# ---------------------------------------------------------------- folders


def test_a_folder_is_the_space_and_its_weights(made: dict[type[nn.Module], Made], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_space(made[Mobile], folder)
    space = load_space(folder)
    assert isinstance(space, GraphSpace)
    assert (space, space.left_out) == (made[Mobile].space, made[Mobile].space.left_out)
    found = load_weights(str(folder))
    found.check_fits(space)
    inherited = found.inherit(space.backbone, 5)
    assert inherited is not None
    assert all(torch.equal(inherited.state[name], value) for name, value in made[Mobile].state.items())
    with pytest.raises(InputError, match="is there already"):
        write_space(made[Mobile], folder)
    (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-4] + b"abcd")
    with pytest.raises(InputError, match="does not hold the weights of the base mobile@"):
        load_base(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda space, base: space["choices"].update({"b1.k": [1, 5]}),
            r"b1\.k: \[1, 5\] is not allowed: the base's own \(3\)",
        ),
        (
            lambda space, base: space["choices"].update({"b7.k": [3]}),
            r"choices: b7\.k: the base mobile@\w+ has nothing",
        ),
        (lambda space, base: space["choices"].update({"b1.k": [3, 4]}), r"b1\.k: 4 is not allowed"),
        (lambda space, base: space.update(sizes=[32]), r"sizes: 32 is not allowed: one of \[16, 24\]"),
        (lambda space, base: space.pop("sizes"), "has the keys base, choices, name, sizes"),
        (lambda space, base: base.update(head="nothing"), "the parts of mobile do not fit each other"),
        (lambda space, base: base["groups"].clear(), "the parts of mobile do not fit each other"),
        (lambda space, base: base.update(size="large"), "not the base of a space: size"),
    ],
)
def test_a_folder_that_was_changed_is_refused_by_what_is_wrong(
    made: dict[type[nn.Module], Made], tmp_path: Path, change: Any, message: str
) -> None:
    folder = tmp_path / "mine"
    write_space(made[Mobile], folder)
    space, base = (json.loads((folder / name).read_text()) for name in ("space.json", "base.json"))
    change(space, base)
    (folder / "space.json").write_text(json.dumps(space))
    (folder / "base.json").write_text(json.dumps(base))
    with pytest.raises(InputError, match=message):
        load_space(folder)


def test_an_architecture_stands_for_itself(made: dict[type[nn.Module], Made]) -> None:
    written = json.loads(json.dumps(made[Mobile].space.backbone.to_json()))
    assert Base.unpacked(written["network"]) == made[Mobile].space.base
    with pytest.raises(InputError, match="is not what lies beside it"):
        read_architecture(written | {"base": "0" * 16})
    for value in (10**30, -1, 4, "3", None):
        with pytest.raises(InputError, match=r"not an architecture of a network|is no choice for b1\.k"):
            read_architecture(written | {"changes": {"b1.k": value}})
    with pytest.raises(InputError, match="not the base of a space"):
        read_architecture(written | {"base": "0" * 16, "network": "nothing"})


@pytest.mark.slow
def test_python_makes_the_same_space(made: dict[type[nn.Module], Made], tmp_path: Path) -> None:
    model = seeded(Mobile)
    options: dict[str, Any] = {"kernel": (1, 3, 5), "width": (0.25, 0.5, 1.5), "sizes": (24,), "name": "mobile"}
    space = space_from(model, IMAGE, out=tmp_path / "mine", **options)
    assert space == load_space(tmp_path / "mine")
    assert (space.base, space.choices) == (made[Mobile].space.base, made[Mobile].space.choices)
    frozen = space_from(model, IMAGE, freeze=["stem", "blocks.0"], name="mobile")
    assert {frozen.base.site[name].where.partition(".")[0] for name in frozen.choices} == {"blocks"}
    with pytest.raises(InputError, match="example \\(3, 16\\): channels, height and width"):
        space_from(model, IMAGE[:2])


def test_spaces_and_networks_of_earlier_versions_stay_what_they_were() -> None:
    space = read_space(json.loads(OLD.read_text()), "old")
    assert isinstance(space, GraphSpace)
    network = space.parse("small@fadf{0.k5 0.sep}")
    assert (space.base.digest, network.digest) == ("fadf74fb2b5d27f9", "b0f9f8e1bf496e07")
    assert architecture_cost(network, 3) == Cost(14_960, 340, 1_504)
    assert [name for name, _ in build(network, 3).named_parameters()][:2] == [
        "0.depthwise.weight",
        "0.pointwise.weight",
    ]


# ---------------------------------------------------------------- the command


def nas(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


NET = Path(__file__).with_name("own_networks.py")


@pytest.mark.slow
@pytest.mark.usefixtures("brief_measurements")
def test_from_a_users_file_to_a_candidate_that_needs_it_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = tmp_path / "net.py"
    net.write_text(NET.read_text())
    torch.save({"state_dict": seeded(Mobile).state_dict()}, "best.pt")
    options = ("--load", "best.pt", "--input", "3x16x16", "--kernel", "3,5", "--fix", "stem", "--data", "digits")
    assert nas("space", "from", "net.py:Mobile", "--out", "space", *options) == 0
    assert "Mobile@" in capsys.readouterr().out
    net.unlink()
    assert nas("space", "show", "space", "--no-measure") == 0
    shown = capsys.readouterr().out
    assert "blocks.1.filter" in shown
    assert "fixed" in shown
    assert nas("evaluate", "base", "--space", "space", "--epochs", 1, "--device", "cpu", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["architecture"].startswith("Mobile@")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet18",), "unknown network 'resnet18': use torchvision:NAME"),
        (("torchvision:resnet81",), "torchvision has no network 'resnet81' (did you mean 'resnet18'?)"),
        (("timm:resnet81",), "timm has no network 'resnet81'"),
        (("net.py:Mobil",), "net.py: has no 'Mobil' (did you mean 'Mobile'?)"),
        (("nothing.py:Mobile",), "nothing.py: no such file"),
        (("net.py:Inverted",), "could not be made: TypeError"),
        (("net.py:seeded",), "could not be made: TypeError"),
        (("net.py:Mobile", "--load", "none.pt"), "--load none.pt: no such file of weights"),
        (("net.py:Mobile", "--kernel", "4"), "--kernel 4: odd sizes up to 99 are expected"),
        (("net.py:Mobile", "--width", "a"), "--width 'a': numbers are expected"),
        (
            ("net.py:Mobile", "--mean", "0.5", "--std", "0.5"),
            "--mean: mean and std have to have one value for each of the 3",
        ),
        (("net.py:Mobile", "--input", "16"), "--input '16': channels, height and width are expected"),
        (("net.py:Branching", "--input", "3x16x16"), "if x.mean() > 0: what is done here depends"),
    ],
)
def test_what_is_no_network_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET.read_text())
    assert nas("space", "from", *words, "--out", "space") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "space").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "sites"),
    [
        ("torchvision:mobilenet_v3_small", {"k": 12, "w": 14, "drop": 6, "fused": 10, "d": 7, "sep": 1}),
        ("timm:resnet18", {"k": 17, "w": 8, "drop": 5, "d": 13, "sep": 17}),
        ("efficientnet_lite0", {"k": 12, "w": 19, "drop": 9, "d": 12, "fused": 11}),
    ],
)
def test_networks_of_others_become_spaces(network: str, sites: dict[str, int]) -> None:
    given = given_network(network)
    space = make_space(given.model, (3, 64, 64), given.about, Wanted()).space  # which holds the base to the network
    assert Counter(site.key for site in space.base.sites) == sites
    assert given.trained == (network == "efficientnet_lite0") == ("Apache-2.0" in space.base.licence)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_it_is_searched_from_its_own_weights_and_resumed(
    own_ray: None, made: dict[type[nn.Module], Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "mine", tmp_path / "run"
    write_space(made[Mobile], folder)
    assert nas("search", folder, "--data", "digits", "--trials", 3, *BRIEF, "--confirm", 0, "--out", out) == 0
    assert nas("search", "--resume", out, "--trials", 5) == 0
    run = open_run(out)
    assert [record.outcome for record in run.records()].count(Outcome.DONE) == 5
    assert run.settings.evaluation.init == str(folder)
    assert run.settings.space == made[Mobile].space
    assert nas("front", out, "--json") == 0
    assert made[Mobile].space.base.title in capsys.readouterr().out
