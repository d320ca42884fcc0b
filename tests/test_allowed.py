"""Limits that can be computed: nothing over them is proposed, whoever proposes, and an impossible one is said at once."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answers import search
from conftest import RunFactory
from mobile import mobile_space

from nas.cli.options import flag_of
from nas.common.errors import InputError, named
from nas.runs.record import Outcome
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.search.allowed import Allowed
from nas.search.broker import Broker
from nas.search.reachable import check_computed, left_out_text
from nas.search.samplers import SAMPLERS, sampler_kind
from nas.spaces.families import architecture_cost
from nas.spaces.mobile.space import SearchSpace
from nas.workflows.plan import plan_search

DIGITS, CIFAR, LITE = mobile_space("digits"), mobile_space("cifar"), mobile_space("lite0")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def allowed(space: SearchSpace, **limits: int) -> Allowed:
    def costs(values: Any) -> tuple[float, float]:
        cost = architecture_cost(space.architecture(values), 10)
        return float(cost.macs), float(cost.params)

    return Allowed(space, {name: float(limit) for name, limit in limits.items()}, costs)


def limited(space: SearchSpace, sampler: str, budgets: Budgets, **changes: Any) -> SearchSettings:
    evaluation = EvaluationSettings(budgets=budgets)
    return replace(SearchSettings(space, "digits", evaluation=evaluation), sampler=sampler, **changes)


def least(space: SearchSpace, name: str) -> int:
    cheapest = allowed(space, **{name: 1}).cheapest
    return int(getattr(architecture_cost(space.architecture(cheapest), 10), name))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS.own)
@pytest.mark.parametrize(
    ("space", "limit", "times"), [(DIGITS, "macs", 8), (CIFAR, "params", 1.2)], ids=["macs", "params"]
)
def test_no_sampler_proposes_what_is_over_a_limit(
    make_run: RunFactory, sampler: str, space: SearchSpace, limit: str, times: float
) -> None:
    most = int(times * least(space, limit))
    rng = random.Random(0)
    assert sum(space.sample(rng) in allowed(space, **{limit: most}) for _ in range(200)) < 50
    count = (sampler_kind(sampler).startup or 10) + (1 if sampler == "gp" else 4)  # past what each of them begins with
    run = make_run(limited(space, sampler, Budgets(**{f"max_{limit}": most}), trials=count))
    assert len(search(run, count)) == count
    records = run.records()
    assert {record.outcome for record in records} <= {Outcome.DONE, Outcome.REPEAT}
    assert all(getattr(architecture_cost(record.architecture, 10), limit) <= most for record in records)
    assert len({record.digest for record in records if record.outcome is Outcome.DONE}) == count


@pytest.mark.parametrize(
    "sampler", [pytest.param("front", marks=pytest.mark.slow), pytest.param("tpe", marks=pytest.mark.slow), "random"]
)
def test_the_same_records_and_limits_give_the_same_proposals(make_run: RunFactory, sampler: str) -> None:
    budgets = Budgets(max_macs=100_000, max_params=6_000)
    whole = search(make_run(limited(DIGITS, sampler, budgets, trials=14), "whole"), 14)
    run = make_run(limited(DIGITS, sampler, budgets, trials=14), "resumed")
    first = search(run, 11)
    run.study_path.unlink()
    assert first + search(open_run(run.path), 3) == whole


def test_a_setting_is_brought_within_by_as_few_changes_as_the_way_allows() -> None:
    space, limit = LITE, int(1.2 * least(LITE, "macs"))
    few = allowed(space, macs=limit)
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(200)]
    assert not any(values in few for values in drawn)  # far less than one of 200
    for values in drawn[:50]:
        within = few.brought_within(values, rng)
        assert within in few
        assert set(within) == set(values)
        changed = [name for name in values if within[name] != values[name]]
        assert all(within[name] == few.cheapest[name] for name in changed)
    assert len({space.architecture(few.sample(rng)).digest for _ in range(100)}) > 80
    kept = few.sample(rng)
    assert few.brought_within(kept, rng) == kept


@pytest.mark.slow
def test_a_space_of_which_few_networks_are_allowed_is_exhausted_and_says_so(make_run: RunFactory) -> None:
    space = SearchSpace.model_validate(
        {
            "name": "small",
            "input": {"channels": 1, "size": 8},
            "stem": {"out_channels": [8, 16]},
            "stages": [{"out_channels": [8, 16, 32], "kernel_size": [3, 5], "expansion": [1, 2, 4]}],
        }
    )
    networks = {space.architecture(values).digest for values in space.all_values()}
    macs = sorted({architecture_cost(space.architecture(v), 10).macs for v in space.all_values()})
    limit = macs[4]
    within = {
        space.architecture(v).digest
        for v in space.all_values()
        if architecture_cost(space.architecture(v), 10).macs <= limit
    }
    assert 0 < len(within) < len(networks)
    samplers: tuple[str, ...] = ("random", "front")
    for sampler in samplers:
        run = make_run(limited(space, sampler, Budgets(max_macs=limit), trials=100), sampler)
        assert set(search(run, 100)) == within
        broker = Broker(run)
        assert broker.ask() is None
        assert broker.ending == f"the space has nothing new within {limit:,} MACs"


def test_networks_to_try_first_that_are_over_a_limit_are_left_out_and_named(make_run: RunFactory) -> None:
    text = str(DIGITS.largest.canonical)
    settings = limited(DIGITS, "random", Budgets(max_macs=60_000), trials=4, enqueue=(text,))
    told = left_out_text(settings, 10)
    assert told is not None
    assert named(told, flag_of).startswith("Over --max-macs, and so not among what is tried first: ")
    assert "largest (" in told
    assert "smallest" not in told
    run = make_run(settings)
    assert DIGITS.largest.digest not in search(run, 4)
    assert DIGITS.smallest.digest in {record.digest for record in run.records()}
    assert left_out_text(limited(DIGITS, "random", Budgets()), 10) is None


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        (Budgets(max_macs=1_000), "--max-macs 1,000 cannot be met: the smallest network of the space digits has "),
        (Budgets(max_params=10), "--max-params 10 cannot be met: the smallest network of the space digits has "),
    ],
)
def test_an_impossible_limit_is_said_before_anything_is_loaded(budgets: Budgets, told: str, tmp_path: Path) -> None:
    settings = replace(limited(DIGITS, "front", budgets), data="nowhere at all")
    with pytest.raises(InputError) as refused:
        plan_search(settings, tmp_path / "out")
    assert refused.value.named(flag_of).startswith(told)
    assert refused.value.named(flag_of).endswith(
        ("MACs with 2 classes", "parameters with 2 classes")
    )  # no data set has fewer


def test_limits_that_exclude_each_other_are_said_to() -> None:
    space = SearchSpace.model_validate(
        {
            "name": "opposed",
            "input": {"channels": 1, "size": 16},
            "stem": {"out_channels": 8},
            "stages": [
                # left out it saves parameters, and makes the maps of the next one larger
                {"depth": [0, 1], "out_channels": 8, "stride": 2, "kernel_size": 3, "expansion": 1},
                {"out_channels": 64, "kernel_size": 3, "expansion": 4},
            ],
        }
    )
    costs = [architecture_cost(space.architecture(values), 2) for values in space.all_values()]
    macs, params = min(cost.macs for cost in costs), min(cost.params for cost in costs)
    assert not any(cost.macs == macs and cost.params == params for cost in costs)
    check_computed(limited(space, "front", Budgets(max_macs=macs)), 2)
    check_computed(limited(space, "front", Budgets(max_params=params)), 2)
    with pytest.raises(InputError, match=r"max_macs .* and max_params .* cannot be met together: of the space opposed"):
        check_computed(limited(space, "front", Budgets(max_macs=macs, max_params=params)), 2)
