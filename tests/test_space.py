"""The search space: settings to networks and back, sizes, drawing, reference networks; and the shipped spaces' balance."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import optuna
import pytest
from mobile import mobile_space

from nas.common.errors import InputError
from nas.spaces.base import Choice
from nas.spaces.families import architecture_cost
from nas.spaces.files import list_spaces
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.space import SearchSpace
from nas.spaces.mobile.space_file import validate_space

shipped = pytest.mark.parametrize("space", [mobile_space(name) for name in list_spaces()], ids=list_spaces())


def tiny_space(stage: dict[str, Any], *more_stages: dict[str, Any], **top: Any) -> SearchSpace:
    """A space of one stage with these choices added to the plainest ones, and of more stages like it."""
    plain = {"out_channels": 8, "kernel_size": 3, "expansion": 1}
    data = {
        "name": "tiny",
        "input": {"channels": 1, "size": 8},
        "stem": {"out_channels": 8},
        "stages": [plain | stage, *(plain | other for other in more_stages)],
    }
    return validate_space(data | top, "test")


SMALL_SPACES = {
    "one network": tiny_space({}),
    "nothing collapses": tiny_space({"kernel_size": [3, 5], "expansion": [1, 2], "separable": [True, False]}),
    "1x1 with dilation": tiny_space({"kernel_size": [1, 3], "dilation": [1, 2, 3], "depth": [1, 2]}),
    "a stage that may be left out": tiny_space(
        {"depth": [0, 1, 2], "stride": [1, 2], "out_channels": [8, 12]}, {"kernel_size": [1, 3], "out_channels": 16}
    ),
    "depth hides layers": tiny_space({"depth": [1, 2, 3], "expansion": [1, 2, 4]}),
    "strides": tiny_space(
        {"stride": [1, 2], "kernel_size": [1, 3], "depth": [1, 2]}, {"stride": [2, 3], "out_channels": [8, 12]}
    ),
    "tiny maps": tiny_space(
        {"stride": [1, 2], "kernel_size": [3, 5, 7], "dilation": [1, 2]},
        {"kernel_size": [1, 3, 5]},
        input={"channels": 1, "size": 3},
    ),
    "two input sizes": tiny_space(
        {"kernel_size": [3, 5, 7], "dilation": [1, 2, 3]}, input={"channels": 1, "size": [2, 5]}
    ),
    "stems": tiny_space(
        {"kernel_size": [1, 3, 5], "dilation": [1, 2]},
        input={"channels": 1, "size": [2, 4]},
        stem={"kernel_size": [1, 3, 5, 7], "stride": [1, 2], "out_channels": [4, 8]},
    ),
    "stem kernels beyond the map": tiny_space(
        {}, input={"channels": 1, "size": [2, 5]}, stem={"kernel_size": [5, 7], "out_channels": 8}
    ),
    "heads": tiny_space({"expansion": [0.5, 1]}, head_channels=[0, 16, 32]),
    "expansions to the same channels": tiny_space(
        {"expansion": [0.1, 0.3, 0.5, 1, 1.1], "out_channels": [3, 8]}, stem={"out_channels": [3, 8]}
    ),
    "tf_same": tiny_space(
        {"stride": 2, "kernel_size": [1, 3, 5], "dilation": [1, 2], "depth": [1, 2]},
        padding="tf_same",
        input={"channels": 1, "size": [3, 4, 5]},
    ),
}
small = pytest.mark.parametrize("space", SMALL_SPACES.values(), ids=SMALL_SPACES.keys())

# Stages that agree in channels and stride: a layer may count to either, and `size` says that it is not exact there.
NEIGHBOURS = tiny_space({"depth": [1, 2, 3], "kernel_size": [3, 5]}, {"depth": [1, 2], "kernel_size": [3, 5]})


def digests(space: SearchSpace) -> set[str]:
    return {space.architecture(values).digest for values in space.all_values()}


def draw(space: SearchSpace, count: int) -> list[dict[str, Choice]]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def macs(architecture: Architecture) -> int:
    """Multiply-adds of the network that is built, which is that of the canonical form."""
    return architecture_cost(architecture.canonical, 10).macs


# -------------------------------------------------------------------- settings, networks, strings, indices


@shipped
def test_locate_finds_what_architecture_made(space: SearchSpace) -> None:
    for values in draw(space, 200):
        architecture = space.architecture(values)
        for spelling in (architecture, architecture.canonical):
            found = space.locate(spelling)
            assert list(found) == list(space.parameters)
            assert space.architecture(found).digest == architecture.digest


@pytest.mark.parametrize("space", [*SMALL_SPACES.values(), NEIGHBOURS], ids=[*SMALL_SPACES, "neighbours"])
def test_locate_finds_every_network_of_small_spaces(space: SearchSpace) -> None:
    for values in space.all_values():
        architecture = space.architecture(values)
        assert space.architecture(space.locate(architecture.canonical)).digest == architecture.digest


@shipped
def test_parse_reads_every_spelling(space: SearchSpace) -> None:
    for values in draw(space, 50):
        architecture = space.architecture(values)
        assert space.parse(str(architecture)).digest == architecture.digest
        assert space.parse(str(architecture.canonical)).digest == architecture.digest


OUTSIDE = tiny_space({"depth": [1, 2], "kernel_size": [3, 5], "stride": [1, 2]}, head_channels=[0, 16])


@pytest.mark.parametrize(
    "text",
    [
        "r9-c8k3-k3e1s8-h0",
        "r8-c9k3-k3e1s8-h0",
        "r8-c8k5-k3e1s8-h0",
        "r8-c8k3/2-k3e1s8-h0",
        "r8-c8k3-k7e1s8-h0",
        "r8-c8k3-k3d2e1s8-h0",
        "r8-c8k3-k3e2s8-h0",
        "r8-c8k3-k3e1f8-h0",
        "r8-c8k3-k3e1s16-h0",
        "r8-c8k3-k3e1s8/3-h0",
        "r8-c8k3-k3e1s8-k3e1s8/2-h0",
        "r8-c8k3-k3e1s8-k3e1s8-k3e1s8-h0",
        "r8-c8k3-k3e1s8-h8",
    ],
)
def test_parse_refuses_what_the_space_does_not_contain(text: str) -> None:
    assert OUTSIDE.parse("r8-c8k3-k3e1s8/2-k5e1s8-h16")
    with pytest.raises(InputError, match=f"architecture {text} is not in the space tiny"):
        OUTSIDE.parse(text)


def test_locate_refuses_what_no_string_shows() -> None:
    for foreign in (
        replace(OUTSIDE.smallest, padding="tf_same"),
        replace(OUTSIDE.smallest, activation="relu"),
        replace(OUTSIDE.smallest, norm_eps=1e-3),
        replace(OUTSIDE.smallest, input_channels=3),
        replace(OUTSIDE.smallest, layers=()),
    ):
        with pytest.raises(InputError, match="is not in the space tiny"):
            OUTSIDE.locate(foreign)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"s0.depth": 3}, r"parameter s0\.depth is 3; space tiny allows \[1, 2\]"),
        ({"s0.l1.kernel_size": None}, r"parameter s0\.l1\.kernel_size is None; space tiny allows \[3, 5\]"),
    ],
)
def test_settings_outside_the_choices_are_refused(changes: dict[str, Any], sentence: str) -> None:
    """Even where the parameter is inactive, as the second layer is at depth 1."""
    with pytest.raises(InputError, match=sentence):
        OUTSIDE.architecture(OUTSIDE.locate(OUTSIDE.smallest) | changes)


@pytest.mark.parametrize("wrong", [{"s0.l0.kernel_size": 3.0}, {"s0.stride": True}], ids=["3.0 for 3", "true for 1"])
def test_a_value_that_only_compares_equal_makes_no_second_network(wrong: dict[str, Any]) -> None:
    """Python holds 3.0 == 3 and True == 1; a digest of the text of either would make one network two."""
    right = OUTSIDE.locate(OUTSIDE.smallest) | {name: int(value) for name, value in wrong.items()}
    try:
        digest = OUTSIDE.architecture(right | wrong).digest
    except InputError:
        return
    assert digest == OUTSIDE.architecture(right).digest


@pytest.mark.parametrize("marked", [{"kernel_size": 5.0}, {"stride": True}], ids=["5.0 for 5", "true for 1"])
def test_a_backbone_that_only_compares_equal_makes_no_second_network(marked: dict[str, Any]) -> None:
    right = {name: int(value) for name, value in marked.items()}
    stage = {"kernel_size": [3, 5], "stride": [1, 2]}
    try:
        space = tiny_space(stage | {"backbone": marked})
    except InputError:
        return
    assert space.backbone.digest == tiny_space(stage | {"backbone": right}).backbone.digest


@shipped
def test_encode_and_decode_are_inverse(space: SearchSpace) -> None:
    for values in draw(space, 100):
        indices = space.encode(values)
        assert space.decode(indices) == values
        assert all(0 <= i < len(choices) for i, choices in zip(indices, space.parameters.values(), strict=True))


# -------------------------------------------------------------------- size


@small
def test_size_counts_the_distinct_networks(space: SearchSpace) -> None:
    assert space.size == len(digests(space))
    assert space.raw_size == sum(1 for _ in space.all_values())


@pytest.mark.parametrize(
    ("name", "raw_size", "size"),
    [
        ("nothing collapses", 2 * 2 * 2, 8),
        ("depth hides layers", 3 * 3**3, 3 + 3**2 + 3**3),
        ("1x1 with dilation", 2 * (2 * 3) ** 2, 4 + 4**2),  # a layer is a 1x1 or a k3 of three dilations
        ("heads", 2 * 3, 6),
    ],
)
def test_size_by_hand(name: str, raw_size: int, size: int) -> None:
    assert (SMALL_SPACES[name].raw_size, SMALL_SPACES[name].size) == (raw_size, size)


def test_size_where_neighbouring_stages_overlap_is_an_upper_bound() -> None:
    assert len(digests(NEIGHBOURS)) <= NEIGHBOURS.size <= NEIGHBOURS.raw_size


@shipped
def test_the_size_of_shipped_spaces_is_counted_at_once(space: SearchSpace) -> None:
    assert 1_000_000 < space.size <= space.raw_size


# -------------------------------------------------------------------- drawing

Item = TypeVar("Item")


class StuckRandom(random.Random):
    """A generator whose every draw is the first choice."""

    def choice(self, seq: Sequence[Item]) -> Item:  # type: ignore[override]
        return seq[0]


@shipped
@pytest.mark.parametrize("changes", [1, 3, 10_000])
def test_mutate_changes_exactly_the_asked_number(space: SearchSpace, changes: int) -> None:
    rng = random.Random(0)
    touched = set()
    for values in draw(space, 100):
        before = dict(values)
        mutant = space.mutate(values, rng, changes)
        changed = {name for name in values if mutant[name] != values[name]}
        assert len(changed) == min(changes, len(space.parameters))
        assert all(mutant[name] in choices for name, choices in space.parameters.items())
        assert values == before
        touched |= changed
    assert len(touched) > len(space.parameters) // 2


@shipped
def test_the_same_seed_draws_the_same(space: SearchSpace) -> None:
    assert draw(space, 20) == draw(space, 20)
    values = space.sample(random.Random(1))
    assert space.mutate(values, random.Random(2)) == space.mutate(values, random.Random(2))
    assert values != space.sample(random.Random(3))


@shipped
def test_samples_reach_every_choice(space: SearchSpace) -> None:
    values = draw(space, 200)
    for name, choices in space.parameters.items():
        assert {drawn[name] for drawn in values} == set(choices)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", ["digits", "lite0"])
def test_suggest_shows_every_trial_the_same_parameters(name: str) -> None:
    """Multivariate TPE models the parameters together only while all trials have the same ones."""
    space = mobile_space(name)
    suggested: list[Any] = []

    def objective(trial: optuna.Trial) -> float:
        suggested.append(space.suggest(trial))
        return float(macs(suggested[-1]))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=5, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=12)
    for trial, architecture in zip(study.trials, suggested, strict=True):
        assert list(trial.params) == list(space.parameters)
        assert trial.distributions == study.trials[0].distributions
        assert space.architecture(trial.params) == architecture


def test_unseen_finds_the_last_network_of_a_small_space() -> None:
    space = SMALL_SPACES["tiny maps"]
    everything = digests(space)
    for last in sorted(everything)[:3]:
        for rng in (random.Random(0), StuckRandom()):
            values = space.unseen(everything - {last}, rng)
            assert values is not None
            assert space.architecture(values).digest == last
    assert space.unseen(everything, random.Random(0)) is None


def test_unseen_of_a_large_space_is_new() -> None:
    space, rng = mobile_space("digits"), random.Random(0)
    known: set[str] = set()
    for _ in range(50):
        values = space.unseen(known, rng)
        assert values is not None
        digest = space.architecture(values).digest
        assert digest not in known
        known.add(digest)


# -------------------------------------------------------------------- reference networks and the shipped spaces


@shipped
def test_smallest_and_largest_bound_random_samples(space: SearchSpace) -> None:
    low, high = macs(space.smallest), macs(space.largest)
    assert all(low <= macs(space.architecture(values)) <= high for values in draw(space, 300))
    assert low < macs(space.middle) < high


@shipped
@pytest.mark.parametrize("reference", ["smallest", "largest"])
def test_no_single_choice_goes_beyond_smallest_and_largest(space: SearchSpace, reference: str) -> None:
    values = space.locate(getattr(space, reference))
    costs = {
        (name, choice): macs(space.architecture(values | {name: choice}))
        for name, choices in space.parameters.items()
        for choice in choices
    }
    bound = min(costs.values()) if reference == "smallest" else max(costs.values())
    best = [setting for setting, cost in costs.items() if cost == bound]
    assert macs(getattr(space, reference)) == bound, f"{best} give {bound:,} MACs"


@shipped
def test_reference_networks_are_in_the_space(space: SearchSpace) -> None:
    for reference in (space.smallest, space.middle, space.largest, space.backbone):
        assert space.architecture(space.locate(reference)).digest == reference.digest


@shipped
def test_uniform_samples_cost_about_as_much_as_the_backbone(space: SearchSpace) -> None:
    """A space whose typical network dwarfs its backbone would spend the search far from what it varies."""
    median = statistics.median(macs(space.architecture(values)) for values in draw(space, 1_000))
    assert median <= 2 * macs(space.backbone)


def test_the_backbone_of_lite0_is_efficientnet_lite0() -> None:
    """Published: 407M FLOPs, which count batch norm too, and 4.7M parameters."""
    backbone = mobile_space("lite0").backbone
    assert (backbone.input_size, backbone.padding, backbone.norm_eps) == (224, "tf_same", 1e-3)
    cost = architecture_cost(backbone, 1000)
    assert cost.macs == pytest.approx(384e6, rel=0.01)
    assert cost.params == pytest.approx(4.65e6, rel=0.01)


def test_backbone_takes_the_marked_choices_and_the_middle_ones_elsewhere() -> None:
    space = tiny_space(
        {"kernel_size": [3, 5, 7], "expansion": [1, 2, 4], "backbone": {"kernel_size": 7}},
        head_channels=[0, 16, 32],
        backbone={"head_channels": 32},
    )
    assert str(space.backbone) == "r8-c8k3-k7e2s8-h32"
    assert str(space.middle) == "r8-c8k3-k5e2s8-h16"


@pytest.mark.subprocess
def test_the_space_never_imports_torch() -> None:
    """The sampler and the command line read spaces without waiting seconds for torch."""
    program = (
        "import sys, nas.spaces.files; nas.spaces.files.load_space('digits').size; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
