"""`nas supernet`: one network with the weights of a whole space, trained so that every candidate can start from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli.groups import grouped
from nas.cli.options import (
    AllowSeenImages,
    Assignments,
    BatchSize,
    Data,
    Device,
    Init,
    RecipeFile,
    Seed,
    Space,
    SplitSeed,
    Task,
    absolute_init,
    chosen_recipe,
    data_name,
    parse_duration,
    rate_option,
)
from nas.cli.search import STOPPED_EARLY
from nas.common.text import command_text, count_text, plural
from nas.latency.device import resolve_device
from nas.models.sources import SCRATCH, SUPERNET
from nas.tasks.base import DEFAULT, Score, task_of
from nas.training.recipe import SUPERNET_RATE, Recipe
from nas.views.terminal.console import plain_console
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.training.supernet import SupernetPlan
    from nas.training.supernet_file import SupernetEpoch

supernet_app = typer.Typer(no_args_is_help=True, help="Train the shared weights of a whole space.")

console = plain_console()


@dataclass(frozen=True)
class SupernetOptions:
    """The options of `nas supernet train`, in the order of its help."""

    space: Space
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the supernet is kept.")]
    data: Data = None
    init: Init = SCRATCH
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 60
    time_budget: Annotated[
        float | None,
        typer.Option(
            "--time-budget", parser=parse_duration, metavar="TIME", help="End after so much training, e.g. 2h."
        ),
    ] = None
    random: Annotated[int, typer.Option(min=0, help="Random networks a step, beside the largest and the smallest.")] = 2
    taps: Annotated[
        Literal["grid", "own"], typer.Option(help="Kernels: all dilations read one grid, or each has its own.")
    ] = "grid"
    batch_size: BatchSize = None
    learning_rate: Annotated[float | None, rate_option(SUPERNET_RATE)] = None
    recipe_file: RecipeFile = None
    assignments: Assignments = None
    device: Device = "auto"
    devices: Annotated[
        int, typer.Option(min=1, help="Processes of this machine that share each batch: on GPUs, one on each.")
    ] = 1
    task: Task = DEFAULT
    seed: Seed = 0
    split_seed: SplitSeed = 0
    allow_seen_images: AllowSeenImages = False

    def recipe(self) -> Recipe:
        """The recipe that they ask for."""
        recipe = chosen_recipe(
            self.init,
            self.recipe_file,
            self.assignments,
            self.epochs,
            self.batch_size,
            self.learning_rate,
            SUPERNET_RATE,
        )
        return recipe if self.time_budget is None else replace(recipe, seconds=self.time_budget)

    def plan(self) -> SupernetPlan:
        """What they ask for, all checked; raises `InputError`."""
        from nas.models.elastic import Sharing
        from nas.spaces.files import load_space
        from nas.workflows.supernet import plan_supernet

        space, recipe = load_space(self.space), self.recipe()
        return plan_supernet(
            self.out,
            space,
            data_name(self.data, space),
            recipe,
            init=absolute_init(self.init),
            device=resolve_device(self.device),
            split_seed=self.split_seed,
            seed=self.seed,
            random=self.random,
            devices=self.devices,
            sharing=Sharing(self.taps),
            task=self.task,
            allow_seen_images=self.allow_seen_images,
        )


@supernet_app.command("train")
@grouped
def supernet_train(context: typer.Context, options: SupernetOptions) -> None:
    """Train one network that holds the weights of all of a space's networks.

    What was stopped, or killed, goes on with the same command from its last whole epoch. Then nas search --init
    supernet:DIR has every candidate start from it.

    Example: nas supernet train digits --out supernets/digits
    """
    from nas.workflows.supernet import train_supernet

    pulse = context.with_resource(Pulse(console, "reading the data"))
    plan = options.plan()
    space, file = plan.file.space, plan.file
    by = task_of(file.task).score
    if not plan.done:
        pulse.say(
            f"Training a supernet of {space.name} ({count_text(space.size)} networks) on {file.data}, "
            f"{plural(len(plan.data.train), 'image')}, {plural(file.recipe.epochs, 'epoch')} at most, on {file.device}"
        )

    def epoch_ended(epoch: SupernetEpoch) -> None:
        pulse.say(_line(epoch, file.recipe.epochs, by))
        pulse.doing = f"after epoch {epoch.epoch} of {file.recipe.epochs}"

    pulse.doing = f"epoch 1 of {file.recipe.epochs}"
    ending = train_supernet(plan, epoch_ended)
    if ending is not None:
        pulse.say(f"Ended early: {ending}. The same command goes on.")
        raise typer.Exit(STOPPED_EARLY)
    for warning in _warnings(plan):
        pulse.say(f"Warning: {warning}")
    pulse.say(f"Weights: {options.out / 'weights.safetensors'}")
    pulse.say(f"Next:    {command_text('search', options.space, '--init', f'{SUPERNET}{options.out}')}")


def _warnings(plan: SupernetPlan) -> list[str]:
    """What makes the weights poor ones to rank candidates by."""
    from nas.training.supernet_file import cut_short, read_file

    file = read_file(plan.folder)
    found = []
    if short := cut_short(file):
        found.append(f"{short}: candidates that start from it may be ranked by luck; give a larger --time-budget")
    guess = task_of(file.task).guess(file.classes, len(plan.data.validation))
    guesses = [name for name, score in file.history[-1].scores.items() if guess and guess.covers(score)]
    if guess and guesses:
        who = f"{' and '.join(guesses)} {'network scores' if len(guesses) == 1 else 'networks score'}"
        found.append(
            f"its {who} no better than guessing would ({guess.text}), so that it ranks nothing yet; train it for longer"
        )
    return found


def _line(epoch: SupernetEpoch, epochs: int, by: Score) -> str:
    scores = ", ".join(f"{name} {by.show(score)}" for name, score in epoch.scores.items())
    told = f"training loss {epoch.train_loss:.4f}, validation {by.title} {scores}"
    return f"epoch {epoch.epoch}/{epochs}: {told}; {epoch.seconds:.1f} s"
