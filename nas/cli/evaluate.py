"""`nas evaluate` and `nas recipe`: one candidate in this process, and how it is trained."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from nas.cli.groups import grouped
from nas.cli.options import (
    AllowSeenImages,
    Assignments,
    BatchSize,
    Data,
    Device,
    Epochs,
    Init,
    LearningRate,
    Metric,
    OwnInit,
    RecipeFile,
    Seed,
    SplitSeed,
    Task,
    TrainingOptions,
    absolute_init,
    chosen_recipe,
    data_name,
)
from nas.common.errors import InputError, about
from nas.common.jsonl import fields_of
from nas.common.text import plural, time_text
from nas.latency.device import resolve_device
from nas.latency.protocol import default_protocol
from nas.models.sources import BACKBONES, SCRATCH
from nas.models.weights import load_weights, own_weights
from nas.runs.objectives import bytes_text
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings
from nas.spaces.known import chosen_architecture
from nas.tasks.base import DEFAULT, task_of
from nas.training.recipe import Recipe, default_recipe, recipe_text
from nas.views.terminal.console import plain_console

if TYPE_CHECKING:
    from nas.runs.record import AnyReport, Evaluation
    from nas.spaces.base import Architecture
    from nas.training.history import EpochMetrics

console = plain_console()
errors = plain_console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of `nas evaluate`, in the order of its help."""

    arch: Annotated[
        str,
        typer.Argument(metavar="ARCH", help="A compact architecture string, or smallest, middle, backbone, largest."),
    ]
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_PATH",
            help="The space it belongs to; by default one that fits the data.",
            show_default=False,
        ),
    ] = None
    data: Data = None
    task: Task = DEFAULT
    metric: Metric = ""
    seed: Seed = 0
    init: OwnInit = None
    device: Device = "auto"
    training: TrainingOptions
    split_seed: SplitSeed = 0
    allow_seen_images: AllowSeenImages = False
    test: Annotated[
        bool, typer.Option("--test", help="Report on the test split too, before and after the fine-tune.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON.")] = False

    @property
    def weights(self) -> str:
        """The word for the initial weights."""
        return own_weights(self.space) if self.init is None else self.init

    def settings(self, device: str) -> EvaluationSettings:
        """What they mean on a device of this machine; raises `InputError`."""
        init = absolute_init(self.weights)
        settings = EvaluationSettings(
            recipe=self.training.recipe(init),
            protocol=default_protocol(device),
            task=self.task,
            metric=self.metric,
            seed=self.seed,
            init=init,
        )
        settings.load_metric()
        return settings


@grouped
def evaluate(options: EvaluateOptions) -> None:
    """Evaluate one candidate in this process, without Ray: cost, latency, fine-tune, score.

    Example: nas evaluate r8-c8k3-k3e2s16-k5d2e4f32/2-h32 --space digits --epochs 20 --test
    """
    from nas.search.evaluate import before_and_after, evaluate_candidate
    from nas.training.images import load_images
    from nas.training.metric_check import check_metric
    from nas.training.optim import check_recipe
    from nas.workflows.space_choice import chosen_space, warn_unfit

    with about("space"):
        space, why = chosen_space(options.space, options.data, options.weights)
    if why is not None:
        errors.print(why, highlight=False, soft_wrap=True)
    architecture = chosen_architecture(space, options.arch)
    settings = options.settings(resolve_device(options.device))
    check_recipe(settings.recipe, settings.device, least_epochs=0)
    data = data_name(options.data, space)
    with about("data"):
        warn_unfit(space, data)
    images = load_images(
        space, data, options.split_seed, settings.init, options.task, allow_seen=options.allow_seen_images
    )
    check_metric(settings.load_metric(), images)
    if options.test and images.test is None:
        raise InputError(f"--test: the data set {images.name} has no test split")
    if not options.as_json:
        console.print(f"{architecture.canonical}  digest {architecture.digest}", highlight=False, soft_wrap=True)

    def show_epoch(epoch: EpochMetrics) -> None:
        if not options.as_json:
            _print_epoch(epoch, settings)

    evaluated = evaluate_candidate(architecture, images, settings, show_epoch)
    evaluation, reports = evaluated.evaluation, None
    if options.test and evaluated.network is not None:
        reports = before_and_after(architecture, images, settings, evaluated.network)
    if options.as_json:
        _print_json(architecture, evaluation, reports)
    else:
        _print_costs(evaluation)
        if reports:
            _print_reports(*reports)
    if evaluation.outcome is not Outcome.DONE:
        errors.print(
            f"nas: the candidate {evaluation.outcome.value}: {evaluation.reason}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(1)


def _print_epoch(epoch: EpochMetrics, settings: EvaluationSettings) -> None:
    task, metric = task_of(settings.task), settings.metric
    others = {task.title(name): value for name, value in epoch.scores.items() if name != metric}
    scores = {metric: epoch.score, **others}
    shown = "  ".join(f"{name} {settings.score.show(value)}" for name, value in scores.items())
    text = f"validation loss {epoch.validation_loss:.4f}  {shown}"
    if epoch.train_loss is None:
        text = f"without fine-tuning  {text}"
    else:
        text = (
            f"epoch {epoch.epoch:3}  training loss {epoch.train_loss:.4f}  {text}  {epoch.images_per_s:,.0f} images/s"
        )
    console.print(text, highlight=False, soft_wrap=True)


def _print_costs(evaluation: Evaluation) -> None:
    from nas.views.terminal.latency import latency_text

    cost, measured = evaluation.cost, evaluation.latency
    if cost:
        memory = f"  weights {bytes_text(cost.size_bytes)}" if cost.size_bytes else ""
        if cost.peak_activation_bytes:
            memory += f"  peak activations {bytes_text(cost.peak_activation_bytes)} an image"
        console.print(f"MACs {cost.macs:,}  parameters {cost.params:,}{memory}", highlight=False)
    if measured:
        looked_up = f" (cached, measured {time_text(measured.measured)})" if measured.cached else ""
        looked_up += f" (measured again: {measured.doubted})" if measured.doubted else ""
        console.print(
            f"latency {latency_text(measured)} ms on {measured.device_name}, batch {measured.protocol.batch_size}, "
            f"{measured.protocol.dtype}, {measured.protocol.mode}, {measured.blocks} blocks, "
            f"{measured.estimator}{looked_up}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if evaluation.fresh:
        console.print(f"not inherited: {', '.join(evaluation.fresh)}", highlight=False, soft_wrap=True)


def _print_reports(before: AnyReport, after: AnyReport) -> None:
    from nas.views.terminal.split_report import split_tables

    console.print(Text.assemble("\n", ("Test split", "bold"), f", {plural(after.images, 'image')}"))
    for table in split_tables(before, after):
        console.print(table)


def _print_json(
    architecture: Architecture, evaluation: Evaluation, reports: tuple[AnyReport, AnyReport] | None
) -> None:
    content = {"architecture": str(architecture.canonical), "digest": architecture.digest} | fields_of(evaluation)
    if reports:
        content["test"] = {"before": reports[0], "after": reports[1]}
    print(json.dumps(content, default=fields_of))


def recipe(
    init: Init = SCRATCH,
    recipe_file: RecipeFile = None,
    assignments: Assignments = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
) -> None:
    """The recipe that candidates are trained by, as YAML: what --recipe reads and --set changes.

    Example: nas recipe --set optimizer=sgd > mine.yaml
    """
    if init not in (SCRATCH, *BACKBONES):
        with about("init"):
            load_weights(init)  # is it there at all?
    chosen = chosen_recipe(absolute_init(init), recipe_file, assignments, epochs, batch_size, learning_rate)
    explained = (inspect.getdoc(Recipe) or "").replace("`", "")
    print("".join(f"# {line}".rstrip() + "\n" for line in explained.splitlines()))
    print(recipe_text(chosen, default_recipe(inherits=init != SCRATCH).learning_rate), end="")
