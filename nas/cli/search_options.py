"""The options of `nas search`, in the order of its help, and the settings that they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import (
    SCORE,
    AllowSeenImages,
    Data,
    Device,
    Logs,
    MaxLatency,
    MaxMacs,
    MaxParams,
    Metric,
    OwnInit,
    Protocol,
    Seed,
    SplitSeed,
    Targets,
    Task,
    TrainDevice,
    TrainingOptions,
    absolute_init,
    data_name,
    latency_device,
    named_here,
    parse_amounts,
    parse_duration,
    parse_protocol,
    parse_target,
)
from nas.models.weights import own_weights
from nas.runs.settings import Budgets, EvaluationSettings, Resources, SearchSettings
from nas.spaces import base
from nas.tasks.base import DEFAULT

CONFIRM = 0.15
"""Share of the budget that confirmation has where nothing is said and candidates are fine-tuned."""


@dataclass(frozen=True)
class ProblemOptions:
    """What is searched, for what, and for how long."""

    space: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE",
            help="A space by name (see nas space list) or the path of its YAML file; by default one that fits the data.",
            show_default=False,
        ),
    ] = None
    data: Data = None
    trials: Annotated[
        int | None, typer.Option(help="Budget in proxy trainings, of a candidate each; by default 30.")
    ] = None
    task: Task = DEFAULT
    objectives: Annotated[
        str,
        typer.Option(
            help="The task's score and one or more of latency, macs, params, memory, latency:TARGET.",
            show_default=f"{SCORE},latency",
        ),
    ] = ""
    seed: Seed = 0
    time_budget: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration, metavar="TIME", help="Wall time from the start of the command to its end, e.g. 30m."
        ),
    ] = None
    metric: Metric = ""


@dataclass(frozen=True)
class KnownOptions:
    """What is known already."""

    enqueue: Annotated[
        list[str] | None,
        typer.Option(metavar="ARCH|FILE", help="A network to try first, or a file of them; may be repeated."),
    ] = None
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="An earlier run whose trials are imported; may be repeated."),
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """Where the run is kept."""

    out: Annotated[Path | None, typer.Option(help="The run directory to make; by default results/SPACE-DATE-TIME.")] = (
        None
    )
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URI",
            help="Go on with this run instead, or with its replica in a new --out; budgets, limits and --max-concurrent may be "
            "given again.",
        ),
    ] = None
    replica: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Copy the run there as it grows, e.g. s3://bucket/prefix; off beside --resume."
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep the study in this database, e.g. postgresql://user@host/studies."),
    ] = None


@dataclass(frozen=True)
class HardwareOptions:
    """What candidates are measured and trained on."""

    device: Device = "auto"
    train_device: TrainDevice = None
    address: Annotated[
        str | None, typer.Option(metavar="RAY_ADDRESS", help="A running Ray cluster: auto or host:port.")
    ] = None

    def trained_on(self, here: Callable[[str], str]) -> str | None:
        """The device that is named for training, as it is called `here`; None where it is that of the first latency."""
        if self.train_device is None:
            return None if self.device == "auto" else here(self.device)
        with named_here(device="--train-device"):
            return here(self.train_device)


@dataclass(frozen=True)
class StrategyOptions:
    """How candidates are proposed, and which of them are trained how far."""

    sampler: Annotated[str, typer.Option(metavar="NAME", help="Who proposes candidates.")] = "front"
    confirm: Annotated[
        float | None,
        typer.Option(
            help="Share of the budget for training members of the front again, longer, from other seeds; by default "
            f"{CONFIRM}, and 0 with --finetune 0.",
            show_default=False,
        ),
    ] = None
    stop_early: Annotated[
        bool, typer.Option(help="End trainings whose candidates fall behind in all objectives together.")
    ] = False
    skip_dominated: Annotated[
        bool, typer.Option(help="Do not train candidates that are nearly certainly dominated, given their costs.")
    ] = False


@dataclass(frozen=True)
class LimitOptions:
    """Hard limits."""

    max_latency: MaxLatency = None
    max_macs: MaxMacs = None
    max_params: MaxParams = None


@dataclass(frozen=True)
class LatencyOptions:
    """How latencies are measured."""

    latency: Protocol = ""
    target: Targets = None

    @property
    def modes(self) -> list[str]:
        """The modes of all of them, each once."""
        modes = [parse_protocol(self.latency, "cpu").mode]
        modes += [parse_target(text, "cpu").protocol.mode for text in self.target or ()]
        return list(dict.fromkeys(modes))


@dataclass(frozen=True)
class FailureOptions:
    """What counts as a failure, and how many end a search."""

    max_failures: Annotated[int, typer.Option(min=0, help="Failed candidates after which the search gives up.")] = 20
    trial_timeout: Annotated[
        float | None,
        typer.Option(parser=parse_duration, metavar="TIME", help="A trial that takes longer has failed, e.g. 20m."),
    ] = None


@dataclass(frozen=True)
class ResourceOptions:
    """What a trial takes, and how many run at once."""

    max_concurrent: Annotated[
        int,
        typer.Option(
            min=0,
            help="Trials at once; 0 is as many as fit, more when nodes join. With --address more than fit may be asked "
            "for: they wait, and an autoscaler adds nodes only for what waits.",
        ),
    ] = 0
    cpus_per_trial: Annotated[float, typer.Option(min=0.1, help="CPU cores of a trial.")] = 1.0
    gpus_per_trial: Annotated[
        float, typer.Option(min=0.0, help="GPUs of a trial on cuda, parts allowed; 0 is one.")
    ] = 0.0
    accelerator: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Run trials only on nodes of the cluster with this accelerator, e.g. T4."),
    ] = None
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:AMOUNT]",
            help="Run trials only on nodes of the cluster with this custom resource, of which each takes the amount, by "
            "default 1; may be repeated.",
        ),
    ] = None

    @property
    def settings(self) -> Resources:
        """Raises `InputError` for an amount that is none."""
        custom = parse_amounts("--resource", "", self.resource or (), ":")
        return Resources(self.cpus_per_trial, self.gpus_per_trial, self.max_concurrent, self.accelerator, custom)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """All of them."""

    problem: ProblemOptions
    known: KnownOptions
    run: RunOptions
    init: OwnInit = None
    hardware: HardwareOptions
    strategy: StrategyOptions
    training: TrainingOptions
    log: Logs = ""
    split_seed: SplitSeed = 0
    allow_seen_images: AllowSeenImages = False
    limits: LimitOptions
    latency: LatencyOptions
    failures: FailureOptions
    resources: ResourceOptions

    @property
    def weights(self) -> str:
        """The word for the initial weights."""
        return own_weights(self.problem.space) if self.init is None else self.init

    @property
    def fixed_length(self) -> bool:
        """Whether the length of a training was asked for."""
        return self.training.fixes_length or bool(self.known.warm_start)

    def settings(self, space: base.Space, address: str | None) -> SearchSettings:
        """What they mean for a space, on a cluster if there is an `address`; raises `InputError`."""
        from nas.workflows.plan import check_pins

        problem, strategy, failures = self.problem, self.strategy, self.failures
        resources = self.resources.settings
        check_pins(resources, address)
        data = data_name(problem.data, space)
        evaluation = self._evaluation(data, resources, address)
        confirm = CONFIRM if evaluation.recipe.epochs else 0.0
        objectives = problem.objectives
        return SearchSettings(
            space=space,
            data=data,
            split_seed=self.split_seed,
            allow_seen_images=self.allow_seen_images,
            objectives=tuple(name.strip() for name in objectives.split(",")) if objectives else (),
            evaluation=evaluation,
            trials=30 if problem.trials is None else problem.trials,
            time_budget_s=problem.time_budget,
            seed=problem.seed,
            sampler=strategy.sampler,
            confirm=confirm if strategy.confirm is None else strategy.confirm,
            stop_early=strategy.stop_early,
            skip_dominated=strategy.skip_dominated,
            max_failures=failures.max_failures,
            trial_timeout_s=failures.trial_timeout,
            resources=resources,
            enqueue=tuple(self.known.enqueue or ()),
            warm_start=tuple(self.known.warm_start or ()),
            replica=self.run.replica,
            storage=self.run.storage,
        )

    def _evaluation(self, data: str, resources: Resources, address: str | None) -> EvaluationSettings:
        from nas.workflows.plan import device_of

        problem, latency, limits = self.problem, self.latency, self.limits
        recipe = self.training.recipe(self.weights)
        functions = (problem.metric, data, problem.task, *latency.modes)
        here = functools.partial(device_of, address=address, resources=resources, functions=functions)
        own = latency_device(latency.latency)
        with named_here(device="--latency device" if own else "--device"):
            device = here(own or self.hardware.device)
        protocol = parse_protocol(latency.latency, device)
        trained_on = self.hardware.trained_on(here) or protocol.device
        return EvaluationSettings(
            recipe=recipe,
            protocol=protocol,
            budgets=Budgets(limits.max_macs, limits.max_params, limits.max_latency),
            task=problem.task,
            metric=problem.metric,
            seed=problem.seed,
            init=absolute_init(self.weights),
            targets=tuple(parse_target(text, protocol.device) for text in latency.target or ()),
            train_device=None if trained_on == protocol.device else trained_on,
        )
