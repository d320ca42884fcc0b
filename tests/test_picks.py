"""`--pick`: what it gives, and what it says of nonsense, on hand-made records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_front import OBJECTIVES, record

from nas.common.errors import InputError
from nas.runs.front import pareto_front
from nas.runs.picks import pick, pick_all
from nas.runs.record import Outcome
from nas.spaces.base import Cost

RECORDS = [record(0, 0.5, 1.0), record(1, 0.88, 1.2), record(2, 0.9, 5.0), record(3, 0.6, 1.19)]


def test_nothing_trained_nothing_to_pick() -> None:
    with pytest.raises(InputError, match="no trained candidate yet"):
        pick([], OBJECTIVES, "knee")


def test_picks() -> None:
    records = RECORDS
    assert pick(records, OBJECTIVES, "fastest").number == 0
    assert pick(records, OBJECTIVES, "most-accurate").number == 2
    assert pick(records, OBJECTIVES, "knee").number == 1
    digest = records[3].digest
    assert pick(records, OBJECTIVES, digest[:6]).number == 3
    for nonsense in ("slowest", digest[:3], "zzzz"):
        with pytest.raises(InputError, match="most-accurate"):
            pick(records, OBJECTIVES, nonsense)


def test_fastest_goes_by_latency_whatever_the_order_of_objectives() -> None:
    records = []
    for number, (latency, params) in enumerate([(9.0, 1.0), (1.0, 9.0), (5.0, 5.0)]):
        made = record(number, 0.9, latency)
        records.append(replace(made, objectives={**made.objectives, "params": params}))
    objectives = ("accuracy", "params", "latency")
    assert pick(records, objectives, "fastest").number == 1
    assert [r.number for r in pareto_front(records, objectives)] == [1, 2, 0]


@pytest.mark.parametrize(
    ("which", "number"),
    [
        ("latency<=1.2ms", 1),
        ("latency <= 1199us", 3),
        ("latency<=0.0049s", 1),
        ("latency<=5", 2),
        ("accuracy>=60%", 3),
        ("accuracy>=0.88", 1),
        ("accuracy>=90", None),  # a share above 1
    ],
)
def test_a_limit_of_a_cost_gives_the_most_accurate_and_one_of_accuracy_the_cheapest(
    which: str, number: int | None
) -> None:
    if number is None:
        with pytest.raises(InputError, match="%"):
            pick(RECORDS, OBJECTIVES, which)
    else:
        assert pick(RECORDS, OBJECTIVES, which).number == number


def test_a_limit_may_be_of_a_cost_that_is_no_objective() -> None:
    costs = [Cost(macs=1000 * (4 - r.number), params=7) for r in RECORDS]
    records = [replace(r, evaluation=replace(r.evaluation, cost=cost)) for r, cost in zip(RECORDS, costs, strict=True)]
    assert pick(records, OBJECTIVES, "macs<=2k").number == 2
    assert pick(records, OBJECTIVES, "macs<=1000").number == 3  # dominated, and yet the only one


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("latency<=0.5ms", "the closest has 1.000 ms"),
        ("accuracy>=99%", "the closest has 90.00 %"),
        ("macs<=3M", "not known of any"),
        ("latency>=2ms", "write latency<=2ms"),
        ("accuracy<=0.5", "write accuracy>=0.5"),
        ("speed<=2ms", "speed is not one of accuracy, latency"),
        ("latency<=2parsecs", "us, ms, s"),
    ],
)
def test_a_limit_that_cannot_be_met_or_read(which: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        pick(RECORDS, OBJECTIVES, which)


def test_candidates_that_were_not_trained_are_never_picked() -> None:
    rejected = record(9, 0.99, 0.1, Outcome.REJECTED)
    assert pick([*RECORDS, rejected], OBJECTIVES, "latency<=1ms").number == 0
    with pytest.raises(InputError, match="no trained candidate"):
        pick([*RECORDS, rejected], OBJECTIVES, rejected.digest)


def test_several_at_once_in_their_order_each_once() -> None:
    found = pick_all(RECORDS, OBJECTIVES, ["most-accurate,knee", "latency<=1.2ms", RECORDS[3].digest])
    assert [r.number for r in found] == [2, 1, 3]
    for empty in ([], [" , "]):
        with pytest.raises(InputError, match="pick is empty"):
            pick_all(RECORDS, OBJECTIVES, empty)
