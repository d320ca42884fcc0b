"""The settings of a search, as values. Nothing here imports torch, so that reading a run stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AliasChoices, Field

from nas.common.errors import about
from nas.common.kinds import check_fields
from nas.latency.protocol import LatencyProtocol
from nas.models.sources import SCRATCH
from nas.runs.objectives import named_objectives, score_objective
from nas.spaces.families import AnySpace
from nas.tasks.base import DEFAULT, Score, task_of
from nas.training.recipe import LONGER, Recipe


@dataclass(frozen=True)
class LatencyTarget:
    """A latency that a run asks for, under `protocol`: the objective `latency:NAME`, at most `max_ms`, or both.

    A Ray `accelerator` type (T4) and custom Ray `resources` (name and amount) say which nodes have the device; without
    them a device of the trial's own kind, or a CPU, is the one of the trial's own worker.
    """

    name: str
    protocol: LatencyProtocol
    max_ms: float | None = None
    accelerator: str | None = None
    resources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Budgets:
    """Hard limits on a candidate, checked before any training; None is no limit."""

    max_macs: int | None = None
    max_params: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """All that decides how one candidate is evaluated; `init` is `scratch` or the weights to inherit from.

    `metric` is the score of the `task` that counts, by default the task's own. `protocol` is that of the first latency, the
    objective `latency`; `targets` are further ones. Candidates train on `train_device`, by default where the first latency is measured.
    """

    recipe: Recipe = field(default_factory=Recipe)
    protocol: LatencyProtocol = field(default_factory=LatencyProtocol)
    budgets: Budgets = field(default_factory=Budgets)
    metric: str = ""
    seed: int = 0
    init: str = SCRATCH
    targets: tuple[LatencyTarget, ...] = ()
    task: str = DEFAULT
    train_device: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.metric:
            with about("task"):
                object.__setattr__(self, "metric", task_of(self.task).score.name)

    @property
    def score(self) -> Score:
        """The score that counts, with what it means."""
        return task_of(self.task).metric(self.metric)

    def load_metric(self) -> Score:
        """The same, loaded where it is a function of the user's; raises `InputError` where that fails."""
        with about("task"):
            task = task_of(self.task)
        with about("metric"):
            return task.load_metric(self.metric)

    @property
    def device(self) -> str:
        """The device that candidates train on."""
        return self.train_device or self.protocol.device

    @property
    def latencies(self) -> tuple[LatencyTarget, ...]:
        """Every latency that is asked for, the first one without a name."""
        return (LatencyTarget("", self.protocol, self.budgets.max_latency_ms), *self.targets)

    @property
    def limits(self) -> dict[str, float]:
        """The hard limits that are set, by the name of the objective, in its unit."""
        budgets = self.budgets
        limits = {"latency": budgets.max_latency_ms, "macs": budgets.max_macs, "params": budgets.max_params}
        limits |= {f"latency:{target.name}": target.max_ms for target in self.targets}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def has_budgets(self) -> bool:
        """Whether any limit is set that a candidate may be over."""
        return bool(self.limits)


@dataclass(frozen=True)
class Resources:
    """What a trial takes and how many run at once; on a GPU 0 is a whole one, and 0 at once is as many as fit.

    On a cluster trials run only on nodes with this Ray `accelerator` type (T4) and these `custom` resources.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int = 0
    accelerator: str | None = None
    custom: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchSettings:
    """Everything that a search is told; times are in seconds.

    With `allow_seen_images` initial weights may have been trained on images that score (nas/training/unseen.py).
    `trials` is the budget in proxy trainings, each of another candidate but for the share `confirm`, for which members
    of the front are trained again, longer (nas/runs/confirmation.py).
    `objectives` are by default the task's score and latency. `sampler` is a name of the door of samplers (nas/search/samplers). `stop_early` ends trainings whose candidates fall behind
    (nas/search/rungs.py); `skip_dominated` trains none that are nearly certainly dominated, given their exact costs
    (nas/search/dominated.py). A trial that takes longer than `trial_timeout_s` has failed; where a member of the front is
    trained again, it may take longer in proportion. `enqueue` names networks to try first, as `nas search --enqueue` does
    (nas/spaces/known.py), and `warm_start` run directories whose trials are imported (nas/workflows/warm_start.py);
    `plan_search` writes both out in full. What decides no result: `replica` is the URI that the run directory is copied to
    (nas/runs/replica.py), and `storage` the URL of the database that holds its study, without a password
    (nas/search/storage.py).
    """

    space: AnySpace
    data: str
    split_seed: int = 0
    objectives: tuple[str, ...] = ()
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    trials: int = 30
    time_budget_s: float | None = None
    seed: int = 0
    sampler: str = "front"
    confirm: float = 0.0
    stop_early: bool = False
    skip_dominated: Annotated[bool, Field(validation_alias=AliasChoices("skip_dominated", "skip_hopeless"))] = False
    max_failures: int = 20
    trial_timeout_s: float | None = None
    resources: Resources = field(default_factory=Resources)
    enqueue: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()
    replica: Annotated[str | None, Field(validation_alias=AliasChoices("replica", "mirror"))] = None
    storage: str | None = None
    allow_seen_images: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        task = self.evaluation.task
        names = self.objectives or (score_objective(task), "latency")
        object.__setattr__(self, "objectives", named_objectives(names, task))

    @property
    def confirmations(self) -> int:
        """Trainings that confirm members of the front."""
        return int(self.confirm * self.trials / LONGER + 1e-9)

    @property
    def candidates(self) -> int:
        """Distinct candidates to train."""
        return self.trials - LONGER * self.confirmations

    @property
    def device(self) -> str:
        """The device that trials train on."""
        return self.evaluation.device

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The devices that a trial's worker is given: to train on, and for the first latency. A CPU there is anyway."""
        return tuple(dict.fromkeys((self.device, self.evaluation.protocol.device)))

    @property
    def on_gpu(self) -> bool:
        """Whether a trial takes a GPU, to train or to be measured."""
        return any(device != "cpu" for device in self.worker_devices)


def terms(settings: SearchSettings) -> dict[str, float | int | str | None]:
    """The settings that a resumed search may be given again and that decide how it ends, by name."""
    budgets = settings.evaluation.budgets
    return {
        "trials": settings.trials,
        "time_budget_s": settings.time_budget_s,
        "confirm": settings.confirm,
        "max_failures": settings.max_failures,
        "trial_timeout_s": settings.trial_timeout_s,
        "max_macs": budgets.max_macs,
        "max_params": budgets.max_params,
        "max_latency_ms": budgets.max_latency_ms,
        **{f"target {target.name} max_ms": target.max_ms for target in settings.evaluation.targets},
    }


def is_limit(term: str) -> bool:
    """Whether one of the `terms` is a hard limit on candidates."""
    return term in ("max_macs", "max_params", "max_latency_ms") or term.startswith("target ")
