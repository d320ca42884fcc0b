"""`nas search`: start a search, or go on with one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperOption

from nas.cli.groups import grouped
from nas.cli.options import flag_of
from nas.cli.search_options import SearchOptions
from nas.common.errors import about, named
from nas.common.text import command_text, count_text, duration_text, plural, resume_line
from nas.models.weights import source_of
from nas.runs.objectives import objective
from nas.views.terminal.console import plain_console
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.runs.record import TrialRecord
    from nas.runs.settings import SearchSettings
    from nas.runs.store import RunDirectory
    from nas.views.trackers import Progresses
    from nas.workflows.plan import SearchPlan
    from nas.workflows.search import Finished

STOPPED_EARLY = 75
"""Exit code of a search that was told to stop before its end and can go on: EX_TEMPFAIL of sysexits.h, for scripts that
then queue it again."""

console = plain_console()


class SearchCommand(TyperCommand):
    """The command, whose help names the samplers that are here when it is asked for: other packages may bring more."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As any command's."""
        from nas.search.samplers import SAMPLERS, described

        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name == "sampler":
                parameter.help = f"Who proposes candidates: {', '.join(map(described, SAMPLERS.names))}."
        super().format_help(ctx, formatter)


@grouped
def search(context: typer.Context, options: SearchOptions) -> None:
    """Search a space for the networks that are accurate and fast.

    Example: nas search cifar --data my_images/ --trials 100 --time-budget 2h
    """
    began = time.monotonic()
    from nas.views.trackers import check_trackers

    pulse = context.with_resource(Pulse(console, "getting ready", flag_of))
    logs = [name.strip() for name in options.log.split(",") if name.strip()]
    check_trackers(logs)
    if options.run.resume is not None:
        _end_of_search(_resumed(context, options.run.resume, options, logs, pulse))
    else:
        _end_of_search(_started(options, logs, pulse, began))


def _resumed(context: typer.Context, resume: str, options: SearchOptions, logs: list[str], pulse: Pulse) -> Finished:
    """Go on with a run, or with its replica in a new folder."""
    from nas.cli.resume import renewal
    from nas.runs.replica import fetch_run, is_uri
    from nas.runs.store import open_run
    from nas.search.renewal import renewal_notes
    from nas.views.reported import resume_search
    from nas.workflows.plan import check_new_folder

    folder, replica = Path(resume), options.run.replica
    if is_uri(resume):
        name = resume.partition("?")[0].rstrip("/").rpartition("/")[2]
        folder, replica = options.run.out or Path("results") / name, replica or resume
        check_new_folder(folder)
        fetch_run(resume, folder, goes_on_there=replica == resume)
        console.print(f"Copied {resume} to {folder}", highlight=False, soft_wrap=True)
    with about("resume"):
        run = open_run(folder)
    renewed = renewal(context, run)
    pulse.doing = "reading the data, and starting Ray and its workers"
    progress = _progress(pulse, logs, folder, renewal_notes(run, renewed))
    return resume_search(folder, renewed, options.hardware.address, progress, replica, options.run.storage)


def _started(options: SearchOptions, logs: list[str], pulse: Pulse, began: float) -> Finished:
    """Plan a search, say what it will do, and do it."""
    from nas.views.reported import run_search
    from nas.workflows.forecast import planned
    from nas.workflows.plan import cluster_address, plan_search
    from nas.workflows.space_choice import chosen_space

    space, why = chosen_space(options.problem.space, options.problem.data, options.weights)
    address = cluster_address(options.hardware.address)
    settings = options.settings(space, address)
    pulse.doing = "reading the data and looking at this machine"
    plan = plan_search(settings, options.run.out, address, began)
    forecast: list[str] = []
    if address is None:
        plan, forecast = planned(plan, _at_once(settings), options.fixed_length)
    if why is not None:
        console.print(why, highlight=False, soft_wrap=True)
    console.print(_announcement(plan), highlight=False, soft_wrap=True)
    if short := _cut_short(plan.settings.evaluation.init):
        pulse.say(f"Warning: {short}")
    for line in (*plan.notes, *forecast):
        pulse.say(line)
    pulse.doing = "starting Ray and its workers"
    return run_search(plan, _progress(pulse, logs, plan.out))


def _progress(pulse: Pulse, logs: list[str], folder: Path, notes: Sequence[str] = ()) -> Progresses:
    """What is told while a search runs: on the terminal, `notes` first, and by the trackers."""
    from nas.views.terminal.progress import LineProgress, LiveProgress, NotesFirst
    from nas.views.trackers import Progresses, make_trackers

    display = LiveProgress(console) if console.is_terminal else LineProgress(pulse)
    return Progresses([NotesFirst(console, notes), display, *make_trackers(logs, folder)])


def _at_once(settings: SearchSettings) -> int:
    """How many trials run at once on this machine."""
    resources = settings.resources
    if settings.device != "cpu":
        return 1
    return resources.max_concurrent or max(1, int(len(os.sched_getaffinity(0)) // resources.cpus_per_trial))


def _announcement(plan: SearchPlan) -> str:
    """What will be searched, on what, for how long."""
    settings, data = plan.settings, plan.data
    epochs = settings.evaluation.recipe.epochs
    training = f"of at most {plural(epochs, 'epoch')}" if epochs else "scored without fine-tuning"
    fewer = ", fewer where they fall behind" if settings.stop_early else ""
    again = f", {plural(settings.confirmations, 'training')} to confirm the front" if settings.confirmations else ""
    return (
        f"Searching {settings.space.name} ({count_text(settings.space.size)} networks) on {settings.data}: "
        f"{len(data.train):,} training and {len(data.validation):,} validation images, "
        f"{plural(settings.candidates, 'candidate')} {training}{fewer}{again}"
    )


def _cut_short(init: str) -> str | None:
    """Why a supernet that candidates start from is not what it was to be, in a sentence."""
    from nas.training.supernet_file import cut_short, read_file

    source = source_of(init)
    theirs = source.trained_on()
    short = cut_short(read_file(theirs.folder)) if theirs else None
    return f"{source.title} is not what it was to be, {short}: candidates may be ranked by luck" if short else None


def _end_of_search(finished: Finished) -> None:
    """What came out, and what to do next; ends the command by its exit code."""
    from nas.runs.front import pareto_front
    from nas.runs.pace import time_spent
    from nas.views.terminal.front import no_front_text, outcome_counts

    run = finished.run
    records, judged, budget = run.records(), run.judged(), run.settings.time_budget_s
    if budget is not None and (spent := time_spent(run.state(), records, run.confirmations())):
        console.print(f"\nTime budget of {duration_text(budget)}: {spent}", highlight=False, soft_wrap=True)
    ended = f"\nEnded after {duration_text(finished.seconds)}: {finished.reason} ({outcome_counts(records)})"
    console.print(ended, highlight=False, soft_wrap=True)
    if finished.resumable:
        console.print(f"To go on: {resume_line(run.path)}", highlight=False, soft_wrap=True)
    if not pareto_front(judged, run.settings.objectives):
        why = f"{no_front_text(records)} Look into {run.report_path} for the reasons."
        console.print(why, highlight=False, soft_wrap=True)
        raise typer.Exit(STOPPED_EARLY if finished.interrupted and finished.resumable else 1)
    _print_front(run, records, judged)
    if run.report_path.exists():  # else a warning has said why not
        console.print(f"\nReport: {run.report_path}", highlight=False, soft_wrap=True)
    export = command_text("export", run.path, "--pick", "knee", "--to", "model")
    console.print(f"Next:   {export}", highlight=False, soft_wrap=True)
    if finished.interrupted and finished.resumable:
        raise typer.Exit(STOPPED_EARLY)


def _print_front(run: RunDirectory, records: list[TrialRecord], judged: list[TrialRecord]) -> None:
    """The front of a run, how good it is, and what to keep in mind about it."""
    from nas.runs.front import hypervolume, reference_point
    from nas.views.chance import chance_note
    from nas.views.front_latency import crowded_text
    from nas.views.terminal.front import front_table

    objectives = run.settings.objectives
    reference = reference_point(records, objectives)
    volume = hypervolume(records, objectives, reference)
    if reference and volume is not None:
        worst = zip(objectives, reference.worst, strict=True)
        corner = ", ".join(f"{name} {objective(name).show(value)}" for name, value in worst)
        console.print(f"Hypervolume {volume:.3f}, reference point {corner}", highlight=False, soft_wrap=True)
    if note := chance_note(run.settings, run.provenance, records):
        console.print(f"Warning: {named(note, flag_of)}", highlight=False, soft_wrap=True)
    if seen := run.provenance.seen_images:
        console.print(f"Warning: {seen}: scores are too good", highlight=False, soft_wrap=True)
    console.print("\nPareto front", style="bold")
    console.print(front_table(run, judged))
    if crowded := crowded_text(records, run.latencies()):
        console.print(crowded, highlight=False, soft_wrap=True)
