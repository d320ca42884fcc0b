"""What is known of a candidate: its cost, latency, learning curve, outcome, and the record kept of its trial."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import StringConstraints

from nas.common.files import SCHEMA_VERSION
from nas.latency.result import Latency, Predicted
from nas.runs.layout import NAME_PART
from nas.spaces.base import Choice, Cost
from nas.spaces.families import AnyArchitecture
from nas.tasks.classification_report import SplitReport
from nas.tasks.report import Example, ScoreReport
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe

NamePart = Annotated[str, StringConstraints(pattern=f"^{NAME_PART}$")]
"""A digest or a key, which may be part of a file's name."""


class Outcome(StrEnum):
    """How a trial ended (the table in docs/design.md says what each means for study and budget)."""

    DONE = "done"
    STOPPED = "stopped"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    REPEAT = "repeat"
    FAILED = "failed"
    LOST = "lost"

    @property
    def counts(self) -> bool:
        """Whether the trial counts towards the budget of trials."""
        return self in (Outcome.DONE, Outcome.STOPPED)


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one candidate gave; fields are None or empty where it ended before them.

    `latencies` are those of the run's further targets, by name. `fresh` names the parts of the network that could not
    inherit weights, where weights were inherited at all. `predicted` is what was predicted of its latency before it was
    measured.
    `violation` is by how much the worst hard budget is exceeded, as a share of it (0.1 is 10 % over).
    """

    outcome: Outcome
    reason: str | None = None
    cost: Cost | None = None
    latency: Latency | None = None
    history: tuple[EpochMetrics, ...] = ()
    violation: float = 0.0
    seconds: float = 0.0
    worker: str = ""
    fresh: tuple[str, ...] = ()
    predicted: Predicted | None = None
    latencies: dict[str, Latency] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs that it was trained for; 0 where it was scored, if at all, without."""
        return self.history[-1].epoch if self.history else 0


@dataclass(frozen=True)
class Confirmation:
    """One line of confirmations.jsonl: a candidate trained again, longer and from another seed.

    `trial` is the number of the trial that trained it first; `epochs` those of the longer recipe. Times are UTC seconds
    since the epoch.
    """

    digest: NamePart
    trial: int
    seed: int
    epochs: int
    evaluation: Evaluation
    started: float = 0.0
    finished: float = 0.0
    schema: int = SCHEMA_VERSION

    @property
    def score(self) -> float | None:
        """The run's metric after the last epoch; None where the training failed."""
        evaluation = self.evaluation
        return evaluation.history[-1].score if evaluation.outcome is Outcome.DONE and evaluation.history else None


AnyReport = SplitReport | ScoreReport
"""How a network does on the test split."""
Start = Literal["search", "init", "scratch"]
"""Weights that a full training begins with: those that the search kept, what its candidates inherited, or random ones."""


@dataclass(frozen=True)
class TrainingRecord:
    """One line of trainings.jsonl: the candidate of trial `number`, trained in full by a recipe and a seed of its own.

    One `with_validation` was trained on the validation split too: nothing was left to score it by, and its evaluation has
    no history. `losses` are those of the training by epoch. `before` and `after` are what the network got on the test
    split at its start and at its end; None where the data have none, or it failed. `hardest` are the validation images
    of the greatest loss at its end, the greatest first. `key` is in the names of its files.
    """

    number: int
    digest: NamePart
    recipe: Recipe
    seed: int
    start: Start
    with_validation: bool
    key: NamePart
    evaluation: Evaluation
    losses: tuple[float, ...] = ()
    before: AnyReport | None = None
    after: AnyReport | None = None
    hardest: tuple[Example, ...] = ()
    started: float = 0.0
    finished: float = 0.0
    schema: int = SCHEMA_VERSION

    @property
    def score(self) -> float | None:
        """The run's metric after the last epoch; None where it failed or nothing was left to score it by."""
        history = self.evaluation.history
        return history[-1].score if self.evaluation.outcome is Outcome.DONE and history else None

    @property
    def tested(self) -> tuple[float | None, float | None]:
        """The task's score on the test split before and after; None where it was not looked at."""
        return self.before.score if self.before else None, self.after.score if self.after else None


@dataclass(frozen=True)
class BaselineRecord:
    """One line of baselines.jsonl: a reference network, measured and perhaps trained as the run's candidates are.

    An evaluation that is done without a history was measured and not trained. `init` is its initial weights: scratch,
    imagenet, or what the run's candidates inherit from; `note` is what else to know when it is compared.
    """

    name: str
    evaluation: Evaluation
    objectives: dict[str, float]
    init: str
    note: str = ""
    started: float = 0.0
    finished: float = 0.0
    schema: int = SCHEMA_VERSION

    @property
    def trained(self) -> bool:
        """Whether it was trained to the end, so that it can be compared with the front."""
        return self.evaluation.outcome is Outcome.DONE and bool(self.evaluation.history)


@dataclass(frozen=True)
class InitialWeights:
    """What a training begins with: `scratch`, a name or a folder; the fingerprint tells its weights from others there."""

    name: str
    fingerprint: str | None = None


@dataclass(frozen=True)
class AuditRecord:
    """One line of audit.jsonl: a further training of the candidate of trial `number`, by a recipe and a seed of its own.

    It began with the weights `init`; None is those of the run.
    """

    number: int
    digest: NamePart
    recipe: Recipe
    seed: int
    evaluation: Evaluation
    started: float = 0.0
    finished: float = 0.0
    schema: int = SCHEMA_VERSION
    init: InitialWeights | None = None


@dataclass(frozen=True)
class LatencyRecord:
    """One line of latencies.jsonl: the latency of a candidate, measured again in turn with others near the front.

    `trial` is the number of the trial that measured it first; `target` the further target, None for the run's own latency.
    The latency says which measurement it is of. `finished` is UTC seconds since the epoch.
    """

    digest: NamePart
    trial: int
    target: str | None
    latency: Latency
    finished: float = 0.0
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True)
class TrialRecord:
    """One line of trials.jsonl: a trial of the study, from question to outcome.

    `objectives` holds the values by name where the candidate has them all; `started` and `finished` are UTC
    seconds since the epoch; `repeat_of` is the number of the trial that answered a repeat; `imported_from` names the
    earlier run, and the trial there, that it was imported from (`nas search --warm-start`).
    """

    number: int
    digest: NamePart
    text: str
    architecture: AnyArchitecture
    parameters: dict[str, Choice]
    evaluation: Evaluation
    objectives: dict[str, float] = field(default_factory=dict)
    repeat_of: int | None = None
    started: float = 0.0
    finished: float = 0.0
    schema: int = SCHEMA_VERSION
    imported_from: str | None = None

    def repeated(self) -> Evaluation:
        """The evaluation of a later trial of the same network, which is not evaluated again."""
        reason = f"the same network as trial {self.number} ({self.outcome})"
        return replace(self.evaluation, outcome=Outcome.REPEAT, reason=reason, history=(), seconds=0.0)

    @property
    def counts(self) -> bool:
        """Whether this run trained it, so that it counts towards the budget of trials."""
        return (self.outcome.counts or self.over_limit) and self.imported_from is None

    @property
    def over_limit(self) -> bool:
        """Whether it was trained and is over a hard limit of now, as others held before (nas/runs/limits.py)."""
        return self.outcome is Outcome.REJECTED and bool(self.evaluation.history)

    @property
    def outcome(self) -> Outcome:
        """How the trial ended."""
        return self.evaluation.outcome


def count_outcomes(records: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials ended how, where any did, and how many were imported "from earlier runs"."""
    own = [record.outcome for record in records if record.imported_from is None]
    counts = {outcome.value: own.count(outcome) for outcome in Outcome} | {"from earlier runs": len(records) - len(own)}
    return {what: count for what, count in counts.items() if count}


def known_digests(records: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    """The record that answers for each digest: the first with an outcome of its own."""
    answers: dict[str, TrialRecord] = {}
    for record in records:
        if record.outcome not in ("repeat", "lost"):
            answers.setdefault(record.digest, record)
    return answers
