"""`nas train`: chosen candidates trained in full, and what they get on the test split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli.groups import grouped
from nas.cli.options import Assignments, Device, Directory, Picks
from nas.cli.search import STOPPED_EARLY
from nas.common.text import duration_text, plural
from nas.latency.device import resolve_device
from nas.training.recipe import read_recipe
from nas.views.terminal.console import plain_console
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.runs.record import TrainingRecord
    from nas.runs.store import RunDirectory
    from nas.workflows.train import TrainingPlan

console = plain_console()


@dataclass(frozen=True)
class TrainOptions:
    """The options of `nas train`, in the order of its help."""

    pick: Picks = None
    epochs: Annotated[
        int | None, typer.Option(min=1, help="By default 4 times the epochs of the search.", show_default=False)
    ] = None
    recipe_file: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="A recipe in YAML; what it leaves out is the run's, longer."),
    ] = None
    assignments: Assignments = None
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each candidate.")] = 1
    start: Annotated[
        Literal["search", "init", "scratch"],
        typer.Option("--from", help="The weights that the search kept, those that it inherited, or random ones."),
    ] = "search"
    with_validation: Annotated[
        bool,
        typer.Option("--with-validation", help="Train on the validation split too; then only the test split scores."),
    ] = False
    device: Device = "auto"
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, without progress.")] = False


@grouped
def train(context: typer.Context, directory: Directory, options: TrainOptions) -> None:
    """Train chosen candidates in full, and report on the test split, once for each training.

    What is recorded already is not trained again. A training that was stopped, or killed, goes on with the same command
    from its last whole epoch. A search may run meanwhile.

    Example: nas train results/digits-20261124-070000 --pick knee,most-accurate --seeds 3
    """
    from nas.runs.picks import pick_all
    from nas.runs.store import open_run
    from nas.search.conditions import data_of
    from nas.views.reported import run_training
    from nas.views.terminal.training import trainings_json
    from nas.views.terminal.training_progress import BarProgress, FailureProgress, LineProgress
    from nas.workflows.train import plan_training, recipe_on

    run, as_json = open_run(directory), options.as_json
    trials = pick_all(run.judged(), run.settings.objectives, options.pick or ["knee"])
    recipe = recipe_on(run, resolve_device(options.device), options.epochs)
    plan = plan_training(
        run,
        trials,
        read_recipe(recipe, options.recipe_file, options.assignments or ()),
        seeds=options.seeds,
        start=options.start,
        with_validation=options.with_validation,
        device=options.device,
    )
    data = data_of(run) if plan.missing() else None
    errors = plain_console(stderr=True)
    pulse = Pulse(errors if as_json else console, "reading the data")
    progress = FailureProgress(pulse)
    if not as_json:
        context.with_resource(pulse)
        for line in _announcement(plan):
            pulse.say(line)
        kind = BarProgress if console.is_terminal else LineProgress
        progress = kind(pulse, plan.missing(), run.settings.evaluation)
    ending = run_training(plan, progress, data)
    records = plan.recorded()
    if as_json:
        print(trainings_json(run, records))
    elif records:
        _print_trainings(run, records)
    if ending is not None:
        (errors if as_json else console).print(
            f"Ended early: {ending}. The same command goes on.", highlight=False, soft_wrap=True
        )
        raise typer.Exit(STOPPED_EARLY)
    if len(records) < len(plan.trainings):
        raise typer.Exit(1)


def _print_trainings(run: RunDirectory, records: list[TrainingRecord]) -> None:
    from nas.views.terminal.training import reports_on_test_split, trainings_table

    console.print()
    console.print(trainings_table(run, records))
    console.print(reports_on_test_split(records))
    if not any(record.after for record in records):
        console.print("The data set has no test split, so there is no report on one", highlight=False)
    console.print(f"\nReport: {run.report_path}", highlight=False, soft_wrap=True)


def _announcement(plan: TrainingPlan) -> list[str]:
    """What will be trained, and what that takes."""
    from nas.runs.words import STARTS

    first, missing = plan.trainings[0], plan.missing()
    candidates = len({training.trial.digest for training in plan.trainings})
    seeds = len(plan.trainings) // candidates
    brief = plan.run.settings.evaluation.recipe.epochs
    lines = [
        f"Training {plural(candidates, 'candidate')}{f', each from {seeds} seeds,' if seeds > 1 else ''} by a recipe of "
        f"{plural(first.recipe.epochs, 'epoch')} (the search: {brief or 'none'}), from {STARTS[first.start]}, on {plan.device}"
    ]
    if first.with_validation:
        lines.append("On the training and the validation split: no score is left, and the last epoch counts")
    if recorded := len(plan.trainings) - len(missing):
        lines.append(f"{recorded} of {plural(len(plan.trainings), 'training')} recorded already, and not done again")
    if missing and brief:
        seconds = sum(
            sum(epoch.seconds for epoch in training.trial.evaluation.history)
            / max(1, len(training.trial.evaluation.history))
            * training.recipe.epochs
            for training in missing
        )
        lines.append(f"{plural(len(missing), 'training')}, {duration_text(seconds)} at the search's pace")
    elif missing:
        lines.append(f"{plural(len(missing), 'training')}; the search, which trained nothing, does not tell how long")
    return lines
