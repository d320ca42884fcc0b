"""`nas search`: start a search, or go on with one."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperOption

from nas.cli.options import (
    SCORE,
    Assignments,
    BatchSize,
    Data,
    Device,
    Epochs,
    Init,
    LearningRate,
    Logs,
    MaxLatency,
    MaxMacs,
    MaxParams,
    Metric,
    Protocol,
    RecipeFile,
    Seed,
    SplitSeed,
    Targets,
    Task,
    TrainDevice,
    absolute_init,
    chosen_recipe,
    data_name,
    flag_of,
    latency_device,
    parse_amounts,
    parse_duration,
    parse_protocol,
    parse_target,
)
from nas.common.errors import InputError
from nas.models.sources import SCRATCH
from nas.models.weights import source_of
from nas.runs.settings import Budgets, EvaluationSettings, Resources, SearchSettings
from nas.tasks.base import DEFAULT
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.workflows.search import Finished

STOPPED_EARLY = 75
"""Exit code of a search that was told to stop before its end and can go on: EX_TEMPFAIL of sysexits.h, for scripts that
then queue it again."""

CONFIRM = 0.15
"""Share of the budget that confirmation has where nothing is said and candidates are fine-tuned."""

console = Console(emoji=False)


class SearchCommand(TyperCommand):
    """The command, whose help names the samplers that are here when it is asked for: other packages may bring more."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As any command's."""
        from nas.search.samplers import SAMPLERS, described

        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "sampler":
                parameter.help = f"Who proposes candidates: {', '.join(map(described, SAMPLERS.names))}."
        super().format_help(ctx, formatter)


def search(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE",
            help="A space by name (see nas space list) or the path of its YAML file; by default one that fits the data.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    trials: Annotated[
        int | None, typer.Option(help="Budget in proxy trainings, of a candidate each; by default 30.")
    ] = None,
    task: Task = DEFAULT,
    objectives: Annotated[
        str,
        typer.Option(
            help="The task's score and one or more of latency, macs, params, memory, latency:TARGET.",
            show_default=f"{SCORE},latency",
        ),
    ] = "",
    seed: Seed = 0,
    time_budget: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration, metavar="TIME", help="Wall time from the start of the command to its end, e.g. 30m."
        ),
    ] = None,
    metric: Metric = "",
    enqueue: Annotated[
        list[str] | None,
        typer.Option(metavar="ARCH|FILE", help="A network to try first, or a file of them; may be repeated."),
    ] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="An earlier run whose trials are imported; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory to make; by default results/SPACE-DATE-TIME.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URI",
            help="Go on with this run instead, or with its replica in a new --out; budgets, limits and --max-concurrent may be "
            "given again.",
        ),
    ] = None,
    replica: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Copy the run there as it grows, e.g. s3://bucket/prefix; off beside --resume."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep the study in this database, e.g. postgresql://user@host/studies."),
    ] = None,
    init: Init = SCRATCH,
    device: Device = "auto",
    train_device: TrainDevice = None,
    address: Annotated[
        str | None, typer.Option(metavar="RAY_ADDRESS", help="A running Ray cluster: auto or host:port.")
    ] = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="Who proposes candidates.")] = "front",
    confirm: Annotated[
        float | None,
        typer.Option(
            help="Share of the budget for training members of the front again, longer, from other seeds; by default "
            f"{CONFIRM}, and 0 with --finetune 0.",
            show_default=False,
        ),
    ] = None,
    stop_early: Annotated[
        bool, typer.Option(help="End trainings whose candidates fall behind in all objectives together.")
    ] = False,
    skip_dominated: Annotated[
        bool, typer.Option(help="Do not train candidates that are nearly certainly dominated, given their costs.")
    ] = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    recipe_file: RecipeFile = None,
    assignments: Assignments = None,
    log: Logs = "",
    split_seed: SplitSeed = 0,
    max_latency: MaxLatency = None,
    max_macs: MaxMacs = None,
    max_params: MaxParams = None,
    latency: Protocol = "",
    target: Targets = None,
    max_failures: Annotated[int, typer.Option(min=0, help="Failed candidates after which the search gives up.")] = 20,
    trial_timeout: Annotated[
        float | None,
        typer.Option(parser=parse_duration, metavar="TIME", help="A trial that takes longer has failed, e.g. 20m."),
    ] = None,
    max_concurrent: Annotated[
        int,
        typer.Option(
            min=0,
            help="Trials at once; 0 is as many as fit, more when nodes join. With --address more than fit may be asked "
            "for: they wait, and an autoscaler adds nodes only for what waits.",
        ),
    ] = 0,
    cpus_per_trial: Annotated[float, typer.Option(min=0.1, help="CPU cores of a trial.")] = 1.0,
    gpus_per_trial: Annotated[
        float, typer.Option(min=0.0, help="GPUs of a trial on cuda, parts allowed; 0 is one.")
    ] = 0.0,
    accelerator: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Run trials only on nodes of the cluster with this accelerator, e.g. T4."),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:AMOUNT]",
            help="Run trials only on nodes of the cluster with this custom resource, of which each takes the amount, by "
            "default 1; may be repeated.",
        ),
    ] = None,
) -> None:
    """Search a space for the networks that are accurate and fast.

    Example: nas search cifar --data my_images/ --trials 100 --time-budget 2h
    """
    began = time.time()
    from nas.common.text import count_text, plural
    from nas.runs.replica import fetch_run, is_uri
    from nas.views.reported import resume_search, run_search
    from nas.views.terminal.progress import LineProgress, LiveProgress
    from nas.views.trackers import Progresses, check_trackers, make_trackers
    from nas.workflows.forecast import planned
    from nas.workflows.plan import check_new_folder, check_pins, cluster_address, device_of, plan_search
    from nas.workflows.space_choice import chosen_space

    pulse = context.with_resource(Pulse(console, "getting ready"))
    display = LiveProgress(console) if console.is_terminal else LineProgress(pulse)
    logs = [name.strip() for name in log.split(",") if name.strip()]
    check_trackers(logs)
    if resume is not None:
        from nas.cli.resume import renewal
        from nas.runs.store import open_run
        from nas.search.renewal import renewal_notes

        folder = Path(resume)
        if is_uri(resume):
            folder, replica = out or Path("results") / resume.partition("?")[0].rstrip("/").rpartition("/")[2], resume
            check_new_folder(folder)
            fetch_run(resume, folder)
            console.print(f"Copied {resume} to {folder}", highlight=False, markup=False, soft_wrap=True)
        run = open_run(folder)
        renewed = renewal(context, run)
        for note in renewal_notes(run, renewed):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        pulse.doing = "reading the data, and starting Ray and its workers"
        progress = Progresses([display, *make_trackers(logs, folder)])
        _end_of_search(resume_search(folder, renewed, address, progress, replica, storage))
        return
    loaded, why = chosen_space(space, data, init)
    if why is not None:
        console.print(why, highlight=False, markup=False, soft_wrap=True)
    address = cluster_address(address)
    custom = parse_amounts("--resource", "", resource or (), ":")
    resources = Resources(cpus_per_trial, gpus_per_trial, max_concurrent, accelerator, custom)
    check_pins(resources, address)
    named_data = data_name(data, loaded)
    recipe = chosen_recipe(init, recipe_file, assignments, epochs, batch_size, learning_rate)
    modes = [parse_protocol(latency, "cpu").mode, *(parse_target(text, "cpu").protocol.mode for text in target or ())]
    here = functools.partial(
        device_of, address=address, resources=resources, functions=(metric, named_data, task, *dict.fromkeys(modes))
    )
    protocol = parse_protocol(latency, here(latency_device(latency) or device))
    trained_on = _trained_on(train_device, device, here) or protocol.device
    settings = SearchSettings(
        space=loaded,
        data=named_data,
        split_seed=split_seed,
        objectives=tuple(name.strip() for name in objectives.split(",")) if objectives else (),
        evaluation=EvaluationSettings(
            recipe=recipe,
            protocol=protocol,
            budgets=Budgets(max_macs, max_params, max_latency),
            task=task,
            metric=metric,
            seed=seed,
            init=absolute_init(init),
            targets=tuple(parse_target(text, protocol.device) for text in target or ()),
            train_device=None if trained_on == protocol.device else trained_on,
        ),
        trials=30 if trials is None else trials,
        time_budget_s=time_budget,
        seed=seed,
        sampler=sampler,
        confirm=(CONFIRM if recipe.epochs else 0.0) if confirm is None else confirm,
        stop_early=stop_early,
        skip_dominated=skip_dominated,
        max_failures=max_failures,
        trial_timeout_s=trial_timeout,
        resources=resources,
        enqueue=tuple(enqueue or ()),
        warm_start=tuple(warm_start or ()),
        replica=replica,
        storage=storage,
    )
    pulse.doing = "reading the data and looking at this machine"
    plan = plan_search(settings, out, address, began)
    forecast: list[str] = []
    if address is None:
        concurrent = max_concurrent or max(1, int(len(os.sched_getaffinity(0)) // cpus_per_trial))
        fixed = bool(epochs is not None or recipe_file or warm_start or _sets_length(assignments or ()))
        plan, forecast = planned(plan, concurrent if settings.device == "cpu" else 1, fixed)
        recipe = plan.settings.evaluation.recipe
    training = f"of at most {plural(recipe.epochs, 'epoch')}" if recipe.epochs else "scored without fine-tuning"
    fewer = ", fewer where they fall behind" if stop_early else ""
    again = f", {plural(settings.confirmations, 'training')} to confirm the front" if settings.confirmations else ""
    console.print(
        f"Searching {loaded.name} ({count_text(loaded.size)} networks) on {settings.data}: {len(plan.data.train):,} training and "
        f"{len(plan.data.validation):,} validation images, {plural(settings.candidates, 'candidate')} {training}{fewer}{again}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if short := _cut_short(plan.settings.evaluation.init):
        pulse.say(f"Warning: {short}")
    for note in plan.notes:
        pulse.say(note)
    for line in forecast:
        pulse.say(line)
    pulse.doing = "starting Ray and its workers"
    _end_of_search(run_search(plan, Progresses([display, *make_trackers(logs, plan.out)])))


def _trained_on(train_device: str | None, device: str, here: Callable[[str], str]) -> str | None:
    """The device that the flags name for training; None where it is that of the first latency."""
    if train_device is None:
        return None if device == "auto" else here(device)
    try:
        return here(train_device)
    except InputError as error:
        called = {"device": "--train-device"}
        raise InputError(error.said(lambda name: called.get(name, flag_of(name)))) from error


def _cut_short(init: str) -> str | None:
    """Why a supernet that candidates start from is not what it was to be, in a sentence."""
    from nas.training.supernet_file import cut_short, read_file

    source = source_of(init)
    theirs = source.trained_on()
    short = cut_short(read_file(theirs.folder)) if theirs else None
    return f"{source.title} is not what it was to be, {short}: candidates may be ranked by luck" if short else None


def _sets_length(assignments: Sequence[str]) -> bool:
    """Whether the length of a training was asked for."""
    return any(text.partition("=")[0].strip() in ("epochs", "steps", "seconds") for text in assignments)


def _end_of_search(finished: Finished) -> None:
    from nas.common.text import command_text, duration_text, resume_line
    from nas.runs.chance import chance_note
    from nas.runs.front import hypervolume, pareto_front, reference_point
    from nas.runs.objectives import objective
    from nas.runs.pace import time_spent
    from nas.views.front_latency import crowded_text
    from nas.views.terminal.front import front_table, no_front_text, outcome_counts

    run = finished.run
    records, objectives = run.records(), run.settings.objectives
    if run.settings.time_budget_s is not None and (spent := time_spent(run.state(), records, run.confirmations())):
        console.print(
            f"\nTime budget of {duration_text(run.settings.time_budget_s)}: {spent}", highlight=False, soft_wrap=True
        )
    console.print(
        f"\nEnded after {duration_text(finished.seconds)}: {finished.reason} ({outcome_counts(records)})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if finished.resumable:
        go_on = resume_line(run.path)
        console.print(f"To go on: {go_on}", highlight=False, markup=False, soft_wrap=True)
    judged = run.judged()
    if not pareto_front(judged, objectives):
        said = f"{no_front_text(records)} Look into {run.report_path} for the reasons."
        console.print(said, highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
    reference = reference_point(records, objectives)
    volume = hypervolume(records, objectives, reference)
    if reference and volume is not None:
        corner = ", ".join(
            f"{name} {objective(name).show(value)}" for name, value in zip(objectives, reference.worst, strict=True)
        )
        console.print(f"Hypervolume {volume:.3f}, reference point {corner}", highlight=False, soft_wrap=True)
    if note := chance_note(run.settings, run.provenance, records):
        console.print(f"Warning: {note}", highlight=False, markup=False, soft_wrap=True)
    console.print("\n[bold]Pareto front[/bold]")
    console.print(front_table(run, judged))
    if crowded := crowded_text(records, run.latencies()):
        console.print(crowded, highlight=False, soft_wrap=True)
    console.print(f"\nReport: {run.report_path}", highlight=False, markup=False, soft_wrap=True)
    export = command_text("export", run.path, "--pick", "knee", "--to", "model")
    console.print(f"Next:   {export}", highlight=False, markup=False, soft_wrap=True)
    if finished.interrupted and finished.resumable:
        raise typer.Exit(STOPPED_EARLY)
