"""The objectives a search may have: name, direction, unit, and where a record holds the value.

One is the task's score, under its name; all others are costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas.common.errors import InputError, arg
from nas.common.text import amount_text, quoted
from nas.latency.result import Latency
from nas.runs.record import Evaluation
from nas.tasks.base import DEFAULT, TASKS, Direction, task_of


class Objective(str):
    """One objective: a text, which is its name, and how its values are read.

    `unit` is ms, bytes, % for a share of 1, empty for a count or a bare number, or a score's own.
    """

    direction: Direction
    unit: str

    def __new__(cls, name: str, direction: Direction = "minimize", unit: str = "") -> Objective:
        made = super().__new__(cls, name)
        made.direction, made.unit = direction, unit
        return made

    def loss(self, value: float) -> float:
        """The value with its sign turned so that less is better."""
        return value if self.direction == "minimize" else -value

    def show(self, value: float) -> str:
        """The value as people read it: percent, ms, kB or MB, or a count in thousands, millions or billions."""
        if self.unit == "ms":
            return f"{value:.3f} ms"
        if self.unit == "bytes":
            return bytes_text(value)
        return count_text(value) if is_cost(self) else amount_text(value, unit=self.unit)


COSTS = {
    name: Objective(name, unit=unit)
    for name, unit in (("latency", "ms"), ("macs", ""), ("params", ""), ("memory", "bytes"))
}
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


_TARGET = "latency:"


def target_objective(target: str) -> str:
    """Name of the objective that is the latency of a further target."""
    return _TARGET + target


def target_of(name: str) -> str | None:
    """The further target whose latency the objective is; None where it is no such objective."""
    return name.removeprefix(_TARGET) if name.startswith(_TARGET) else None


def is_cost(name: str) -> bool:
    """Whether the objective is a cost, rather than the score of a task."""
    return name in COSTS or target_of(name) is not None


def is_score(name: str) -> bool:
    """Whether the name is the score of a task; of other packages' and users' tasks, whether it is their objective."""
    return not is_cost(name) and (
        isinstance(name, Objective) or name in [str(score_objective(task)) for task in TASKS.own]
    )


def score_objective(task: str) -> Objective:
    """The objective that is the score of a task."""
    score = task_of(task).score
    return Objective(score.name, score.direction, score.unit)


def score_of(objectives: Iterable[str]) -> Objective:
    """The one of some objectives that is the task's score."""
    return next(objective(name) for name in objectives if not is_cost(name))


def objective(name: str) -> Objective:
    """The objective of a name that was checked; `latency:TARGET` is one of each further target.

    A name alone is enough for costs and for the scores of our own tasks.
    """
    if isinstance(name, Objective):
        return name
    if target_of(name):
        return Objective(name, unit="ms")
    return COSTS[name] if name in COSTS else {str(one): one for one in map(score_objective, TASKS.own)}[name]


def named_objectives(names: Iterable[str], task: str) -> tuple[str, ...]:
    """Names with what they mean for a task; one that means nothing is left as it is (`check_objectives`)."""
    score = score_objective(task)
    return tuple(score if name == score else objective(name) if is_cost(name) else name for name in names)


def check_objectives(names: Sequence[str], targets: Sequence[str] = (), task: str = DEFAULT) -> tuple[str, ...]:
    """The names as given; raises `InputError` unless they are two or more known ones, the task's score among them.

    Those of `targets` are known beside the others.
    """
    score = score_objective(task)
    known = [score, *COSTS, *map(target_objective, targets)]
    for name in names:
        if name not in known:
            raise InputError(f"{arg('objectives')}: unknown objective {quoted(name)}: choose from {', '.join(known)}")
    if len(set(names)) != len(names):
        raise InputError(f"{arg('objectives')} {','.join(names)}: one is listed twice")
    if score not in names or len(names) < 2:
        raise InputError(f"{arg('objectives')} {','.join(names)}: needs {score} and at least one of {', '.join(COSTS)}")
    return named_objectives(names, task)


def measured_latency(evaluation: Evaluation, name: str) -> Latency | None:
    """What was measured for a latency objective, the run's own or a target's."""
    target = target_of(name)
    return evaluation.latencies.get(target) if target else evaluation.latency


def objective_values(evaluation: Evaluation, names: Sequence[str]) -> dict[str, float]:
    """Values of the named objectives that the evaluation has; the score is the run's metric at the last epoch."""
    values = ((name, _value(evaluation, name)) for name in names)
    return {name: float(value) for name, value in values if value is not None}


def _value(evaluation: Evaluation, name: str) -> float | None:
    match name:
        case "macs":
            return evaluation.cost.macs if evaluation.cost else None
        case "params":
            return evaluation.cost.params if evaluation.cost else None
        case "memory":
            return peak_memory(evaluation)
    if is_score(name):
        return evaluation.history[-1].score if evaluation.history else None
    latency = measured_latency(evaluation, name)
    return latency.ms if latency else None


def peak_memory(evaluation: Evaluation) -> int | None:
    """Peak bytes of an inference pass under the protocol of its latency; None where they are not known.

    Weights as stored (batch norm among them), and the most of images and activations that is alive at one time, for
    the protocol's batch and precision. What a runtime and its kernels need beside them is not counted.
    """
    cost, latency = evaluation.cost, evaluation.latency
    if latency is None or cost is None or cost.size_bytes is None or cost.peak_activation_bytes is None:
        return None
    in_float32 = cost.size_bytes + latency.protocol.batch_size * cost.peak_activation_bytes
    return in_float32 * _ITEM_BYTES[latency.protocol.dtype] // 4


def count_text(count: float) -> str:
    """A count in k, M or G, a thousand, a million and a thousand million, in at most four digits from a million on."""
    if count < 1e6:
        return f"{count / 1e3:.1f} k"
    scaled, unit = (count / 1e9, "G") if count >= 1e9 else (count / 1e6, "M")
    return f"{scaled:.{3 if scaled < 10 else 2 if scaled < 100 else 1}f} {unit}"


def bytes_text(count: float) -> str:
    """Bytes in kB or MB, a thousand and a million of them."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
