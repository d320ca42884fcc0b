"""The settings of a search, as values. Nothing here imports torch, so that reading a run stays quick."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Literal

from nas.recipe import LONGER, Recipe
from nas.space import SearchSpace

Mode = Literal["eager", "cudagraph", "compile", "onnxruntime"]
Precision = Literal["float32", "float16", "bfloat16"]
SamplerName = Literal["front", "tpe", "nsga2", "gp", "random"]
Estimator = Literal["median wall time", "lower quartile of wall time", "lower quartile of process time"]
"""What a latency is of the times of its blocks (nas/estimate.py)."""


STARTUP: dict[SamplerName, int] = {"front": 8, "tpe": 10, "gp": 10, "nsga2": 20}
"""Trials that a sampler draws before it goes by what it knows of them; random never does."""
SCRATCH = "scratch"
"""Initial weights: random ones, for each candidate its own."""
IMAGENET: Final = "imagenet"
"""Initial weights of reference networks: torchvision's own, version IMAGENET1K_V1."""
SUPERNET = "supernet:"
"""Before the folder of a supernet, where initial weights are asked for."""


@dataclass(frozen=True)
class LatencyProtocol:
    """How latency is measured (nas/latency.py says why each step is there).

    `warmup_s` seconds of runs come first (clocks and caches settle); then blocks of at least `block_ms`, so
    that the timer's own cost vanishes; at least `min_blocks` of them, and on until the 95 % interval of the value is
    narrower than `max_spread` of it or `max_s` seconds are spent. The value is what `estimator` names; of wall time
    where CPU time is no latency (nas/timing.py). All of it again, `attempts` times at most, while a reference network
    timed before and after drifts by more than `max_drift` or other processes use the device. Three times `max_spread`
    or `max_drift` mark a result noisy. `cold` empties the caches before each run, which is then a block of its own.
    `threads` applies to the CPU; onnxruntime has a memory format of its own.
    """

    device: str = "cpu"
    batch_size: int = 1
    mode: Mode = "eager"
    dtype: Precision = "float32"
    channels_last: bool = True
    threads: int = 1
    warmup_s: float = 0.5
    block_ms: float = 1.0
    min_blocks: int = 30
    max_s: float = 1.0
    max_spread: float = 0.03
    max_drift: float = 0.03
    attempts: int = 2
    cold: bool = False
    estimator: Estimator = "median wall time"

    @property
    def noisy_width(self) -> float:
        """The share of its value from which on an interval marks a latency noisy: three times what is asked for."""
        return 3 * self.max_spread

    @property
    def noisy_drift(self) -> float:
        """The same of the drift of the reference network."""
        return 3 * self.max_drift

    @property
    def memory_format(self) -> str:
        """In which order the values of an image lie in memory, in words."""
        if self.mode == "onnxruntime":
            return "memory format its own"
        return "channels last" if self.channels_last else "channels first"


def default_protocol(device: str) -> LatencyProtocol:
    """Batch 1 in float32; eager on the CPU, a captured graph on CUDA (an eager loop would time the launches).

    On a CPU the value is what repeats best beside others (docs/latency.md).
    """
    if device == "cpu":
        return LatencyProtocol(device=device, mode="eager", estimator="lower quartile of process time")
    return LatencyProtocol(device=device, mode="cudagraph")


@dataclass(frozen=True)
class LatencyTarget:
    """A further latency that a run asks for, under `protocol`: the objective `latency:NAME`, at most `max_ms`, or both.

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
    """All that decides how one candidate is evaluated; `init` is `scratch` or the weights to inherit from."""

    recipe: Recipe = field(default_factory=Recipe)
    protocol: LatencyProtocol = field(default_factory=LatencyProtocol)
    budgets: Budgets = field(default_factory=Budgets)
    metric: str = "accuracy"
    seed: int = 0
    init: str = SCRATCH
    targets: tuple[LatencyTarget, ...] = ()

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

    `trials` is the budget in brief trainings, each of another candidate but for the share `confirm`, for which members
    of the front are trained again, longer (nas/confirmation.py).
    `stop_early` ends trainings whose candidates fall behind (nas/search/rungs.py); `skip_hopeless` trains none that are
    nearly certainly dominated, given their exact costs (nas/search/hopeless.py). A trial that takes longer than
    `trial_timeout_s` has failed; where a member of the front is trained again, it may take longer in proportion. `enqueue` names networks to try
    first, as `nas search --enqueue` does (nas/known.py), and `warm_start` run directories whose trials are taken over
    (nas/search/warm_start.py); `plan_search` writes both out in full. What decides no result: `mirror` is the URI that the
    run directory is copied to (nas/mirror.py), and `storage` the URL of the database that holds its study, without a
    password (nas/search/storage.py).
    """

    space: SearchSpace
    data: str
    split_seed: int = 0
    objectives: tuple[str, ...] = ("accuracy", "latency")
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    trials: int = 30
    time_budget_s: float | None = None
    seed: int = 0
    sampler: SamplerName = "front"
    confirm: float = 0.0
    stop_early: bool = False
    skip_hopeless: bool = False
    max_failures: int = 20
    trial_timeout_s: float | None = None
    resources: Resources = field(default_factory=Resources)
    enqueue: tuple[str, ...] = ()
    warm_start: tuple[str, ...] = ()
    mirror: str | None = None
    storage: str | None = None

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
        """The device that trials train and measure on."""
        return self.evaluation.protocol.device


def terms(settings: SearchSettings) -> dict[str, float | int | str | None]:
    """The settings that a resumed search may be given anew and that decide how it ends, by name."""
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


def derive_seed(seed: int, *parts: object) -> int:
    """A 31-bit seed for one purpose, from the search's seed: all randomness flows from that one."""
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
