"""Picking candidates of a run: by what they are known for, by a limit, or by digest. The grammar of every `pick`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from nas.common.errors import InputError, arg
from nas.common.kinds import checks_kinds
from nas.common.text import quoted
from nas.latency.compare import groups
from nas.runs.front import knee, pareto_front, primary_cost, trained
from nas.runs.objectives import (
    COSTS,
    Objective,
    measured_latency,
    objective,
    objective_values,
    score_objective,
    score_of,
    target_objective,
)
from nas.runs.record import TrialRecord
from nas.tasks.base import DEFAULT

PICKS = ("knee", "most-accurate", "fastest")


def grammar(score: Objective) -> str:
    """What a pick of a run with that score may be, within a sentence."""
    limit = "'latency<=2ms'" + (f" or '{score}>=93%'" if score.unit == "%" and score.direction == "maximize" else "")
    return f"{', '.join(PICKS)}, a limit like {limit}, or a digest of `nas front`"


GRAMMAR = grammar(score_objective(DEFAULT))
_LIMIT = re.compile(r"(?P<name>[^<>=\s]+)\s*(?P<relation><=|>=|<|>|=)\s*(?P<value>\S+)")
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>[a-zA-Z%]*)")
_UNITS = {
    "ms": {"": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "%": {"": 1.0, "%": 1e-2},
}


@checks_kinds
def pick(records: Sequence[TrialRecord], objectives: Sequence[str], which: str) -> TrialRecord:
    """One trained candidate: `knee`, `most-accurate`, `fastest`, a limit, or a digest (its first four or more digits).

    `latency<=2ms`, or any other cost, gives the candidate of the best score within it, and a limit of the score the cheapest one that reaches it. `fastest` goes by measured latency, also where latency is no objective. Among latencies that do not
    differ the candidate of the best score is taken. Raises `InputError` when there is none.
    """
    front = pareto_front(records, objectives)
    if not front:
        raise InputError("the run has no trained candidate yet, so there is nothing to pick from")
    match which:
        case "knee":
            return knee(front, objectives)
        case "most-accurate":
            return _most_accurate(front, objectives)
        case "fastest":
            return fastest(front, objectives)
    limit = _LIMIT.fullmatch(which.strip())
    if limit is not None:
        return _within(trained(records), objectives, which.strip(), **limit.groupdict())
    found = [record for record in trained(records) if len(which) >= 4 and record.digest.startswith(which)]
    if not found:
        raise InputError(f"{arg('pick')} {quoted(which)}: is no trained candidate; use {grammar(score_of(objectives))}")
    if len({record.digest for record in found}) > 1:
        raise InputError(
            f"{arg('pick')}: the digest {quoted(which)} fits {len(found)} candidates: give more of its digits"
        )
    return found[0]


def known_as(records: Sequence[TrialRecord], objectives: Sequence[str]) -> dict[str, list[str]]:
    """By which words of `PICKS` each member of the front that has one is picked, by digest."""
    front = pareto_front(records, objectives)
    timed = any(record.evaluation.latency or "latency" in record.objectives for record in front)
    words = [word for word in PICKS if front and (timed or word != "fastest")]
    names: dict[str, list[str]] = {}
    for word in words:
        names.setdefault(pick(front, objectives, word).digest, []).append(word)
    return names


@checks_kinds
def pick_all(records: Sequence[TrialRecord], objectives: Sequence[str], which: Sequence[str]) -> list[TrialRecord]:
    """The candidates of several picks, in their order, each once; one text may hold several, with commas between.

    Raises `InputError` where one of them fits none.
    """
    picked = (pick(records, objectives, text) for text in pick_texts(which))
    return list({record.digest: record for record in picked}.values())


def pick_texts(which: Sequence[str]) -> list[str]:
    """Each pick by itself, of texts that may hold several with commas between; raises `InputError` where there is none."""
    texts = [text.strip() for given in which for text in given.split(",") if text.strip()]
    if not texts:
        raise InputError(f"{arg('pick')} is empty: use {GRAMMAR}")
    return texts


def _within(
    records: Sequence[TrialRecord], objectives: Sequence[str], text: str, name: str, relation: str, value: str
) -> TrialRecord:
    """The best candidate within a limit: of the score the cheapest, of a cost that of the best score."""
    targets = [target_objective(target) for target in (records[0].evaluation.latencies if records else ())]
    score = score_of(objectives)
    known = {str(each): objective(each) for each in (score, *COSTS, *targets)}
    if name not in known:
        raise InputError(f"{arg('pick')} {quoted(text)}: {name} is not one of {', '.join(known)}")
    limited = known[name]
    wanted = ">=" if limited.direction == "maximize" else "<="
    if relation != wanted:
        raise InputError(f"{arg('pick')} {quoted(text)}: write {name}{wanted}{value}")
    limit = _amount(text, limited, value)
    values = {r.number: (objective_values(r.evaluation, [limited]) | r.objectives).get(name) for r in records}
    measured = {number: value for number, value in values.items() if value is not None}
    loss = limited.loss
    fits = [r for r in records if r.number in measured and loss(measured[r.number]) <= loss(limit)]
    if not fits:
        best = min(measured.values(), key=loss, default=None)
        closest = "it is not known of any" if best is None else f"the closest has {limited.show(best)}"
        raise InputError(f"{arg('pick')} {quoted(text)}: no trained candidate is within it; {closest}")
    if limited == score:
        cost = primary_cost(objectives)
        if objective(cost).unit == "ms":
            return fastest(fits, objectives, cost)
        return min(fits, key=lambda record: (record.objectives.get(cost, math.inf), record.number))
    return _most_accurate(fits, objectives)


def _amount(text: str, limited: Objective, value: str) -> float:
    units = _UNITS.get(limited.unit, {"": 1.0, limited.unit: 1.0})
    amount = _AMOUNT.fullmatch(value)
    if amount is None or amount["unit"] not in units:
        raise InputError(
            f"{arg('pick')} {quoted(text)}: {quoted(value)} is not a number with a unit of {', '.join(filter(None, units))}"
        )
    number = float(amount["number"]) * units[amount["unit"]]
    if limited.unit == "%" and number > 1:
        raise InputError(f"{arg('pick')} {quoted(text)}: {limited} is a share of 1, or has a % behind it")
    return number


def _most_accurate(records: Sequence[TrialRecord], objectives: Sequence[str]) -> TrialRecord:
    cost = primary_cost(objectives)
    return min(records, key=lambda r: (score_loss(r, objectives), r.objectives.get(cost, math.inf)))


def score_loss(record: TrialRecord, objectives: Sequence[str]) -> float:
    """A record's score, its sign turned so that less is better; infinite where it has none."""
    score = score_of(objectives)
    return score.loss(record.objectives[score]) if score in record.objectives else math.inf


def fastest(records: Sequence[TrialRecord], objectives: Sequence[str], name: str = "latency") -> TrialRecord:
    """The best score of those whose latency does not differ from the smallest: noise must not decide between them."""
    measured = [measured_latency(record.evaluation, name) for record in records]
    known = [(record, latency) for record, latency in zip(records, measured, strict=True) if latency is not None]
    if not known:
        return min(records, key=lambda record: record.objectives.get(name, math.inf))
    group = groups([latency for _, latency in known])[0]
    return min((known[index] for index in group), key=lambda each: (score_loss(each[0], objectives), each[1].ms))[0]
