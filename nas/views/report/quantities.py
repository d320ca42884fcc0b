"""What can be put on an axis of a figure, or be told by a colour: quantities of a record, and choices, by name."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import scale_of
from nas.runs.objectives import COSTS, is_cost, is_score, objective, objective_values, target_objective
from nas.runs.record import BaselineRecord, TrialRecord
from nas.runs.words import score_axis
from nas.spaces.base import Choice, Space
from nas.tasks.base import DEFAULT, Score, task_of
from nas.views.text import cost_title

METRIC = task_of(DEFAULT).score
"""What a figure takes a score for that is not told what it is."""

_TITLES = {"trial": "Trial", "seconds": "Training time (s)"}
_UNITS = {"trial": "", "seconds": "s"}


def quantities(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[str]:
    """The quantities that any of the records has: objectives first, costs, latencies of further targets (`latency:TARGET`),
    the number of the trial, and seconds, the wall time of the training."""
    targets = [target_objective(name) for record in records for name in record.evaluation.latencies]
    names = dict.fromkeys((*map(objective, objectives), *COSTS, *targets, *_TITLES))
    return [name for name in names if any(value_of(record, name) is not None for record in records)]


def value_of(record: TrialRecord | BaselineRecord, name: str) -> float | None:
    """A quantity in the unit of its objective (ms, MACs, share of 1); None where the record lacks it.

    Only what was trained has a score: that of a rejected candidate is a stand-in.
    """
    evaluation = record.evaluation
    if name == "trial":
        return float(record.number) if isinstance(record, TrialRecord) else None
    if name == "seconds":
        return sum(epoch.seconds for epoch in evaluation.history) if evaluation.epochs else None
    if is_score(name) and not evaluation.outcome.counts:
        return None
    if name in record.objectives:
        return record.objectives[name]
    return objective_values(evaluation, [name]).get(name)


def colours(records: Sequence[TrialRecord], objectives: Sequence[str], space: Space) -> list[str]:
    """What a colour can tell: the quantities, then the parameters of the space that vary among the records."""
    names = dict.fromkeys(name for record in records for name in record.parameters)

    def varies(name: str) -> bool:  # told by the first few of thousands of records
        return any(choice_of(record, name, space) != choice_of(records[0], name, space) for record in records)

    return [*quantities(records, objectives), *filter(varies, names)]


def choice_of(record: TrialRecord, name: str, space: Space) -> Choice | None:
    """A parameter's value; None where its layer or stage is not in the network, so that it decides nothing."""
    return record.parameters.get(name) if space.is_active(name, record.parameters) else None


def choice_text(choice: Choice) -> str:
    """A parameter's value as people read it."""
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return f"{choice:g}"


def is_quantity(name: str) -> bool:
    """Whether the name is a quantity, rather than a parameter of the space."""
    return name in _TITLES or is_cost(name) or is_score(name)


def unit_of(name: str) -> str:
    """The unit of a quantity's values: ms, bytes, s, or empty."""
    return _UNITS[name] if name in _UNITS else objective(name).unit


def shown_scale(name: str) -> float:
    """What values of a quantity are multiplied by on an axis: 100 for shares, which stand there in percent."""
    return scale_of(unit_of(name))


def quantity_title(name: str, metric: Score = METRIC) -> str:
    """A quantity as the title of an axis, not escaped; `metric` is what the run scores by."""
    if is_score(name):
        return score_axis(metric)
    return _TITLES.get(name) or cost_title(name)


def quantity_text(name: str, value: float) -> str:
    """A value as people read it, with its unit."""
    if name == "trial":
        return f"{value:,.0f}"
    return f"{value:,.1f} s" if name == "seconds" else objective(name).show(value)
