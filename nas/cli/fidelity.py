"""`nas fidelity`: can the run's proxy training rank candidates?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.groups import grouped
from nas.cli.options import Assignments, Directory, absolute_init
from nas.common.text import done_word, duration_text, plural
from nas.runs.record import Outcome
from nas.training.recipe import read_recipe
from nas.views.terminal.console import plain_console
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.runs.record import AuditRecord
    from nas.search.candidate import Candidate
    from nas.tasks.base import Score
    from nas.training.history import EpochMetrics
    from nas.views.terminal.pulse import Pulse
    from nas.workflows.fidelity.auditing import AuditPlan

console = plain_console()


@dataclass(frozen=True)
class FidelityOptions:
    """The options of `nas fidelity`, in the order of its help."""

    count: Annotated[int, typer.Option(min=1, help="Candidates, of the front and behind it; at least 8.")] = 30
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of a full training; by default 4 times the run's.", show_default=False),
    ] = None
    recipe_file: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="FILE", help="The full recipe in YAML; what it leaves out is the run's, longer."
        ),
    ] = None
    assignments: Assignments = None
    inits: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            metavar="WEIGHTS",
            help="Compare with proxy trainings from these initial weights, as nas search --init takes them; may be repeated.",
        ),
    ] = None
    max_concurrent: Annotated[int, typer.Option(min=0, help="Trainings at once; 0 is as many as fit.")] = 0
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, without progress.")] = False


@grouped
def fidelity(context: typer.Context, directory: Directory, options: FidelityOptions) -> None:
    """Can the run's proxy training rank candidates? Some are trained again, by a longer recipe, and compared.

    Each is trained twice by the full recipe and once more by the proxy one, with new seeds. What is recorded already is
    not trained again, so that a fidelity check that was stopped goes on with the same command. With --init each is trained by the
    proxy recipe from other initial weights too, and compared: which of them rank better, and at what cost?

    Example: nas fidelity results/digits-20261124-070000 --count 20
    """
    from nas.runs.store import open_run
    from nas.search.conditions import settings_here
    from nas.views.reported import run_audit
    from nas.views.terminal.audit import audit_json, audit_table
    from nas.workflows.fidelity.audit import audit_of, full_recipe
    from nas.workflows.fidelity.auditing import audited_data, plan_audit

    run, as_json = open_run(directory), options.as_json
    full = full_recipe(settings_here(run).evaluation.recipe, options.epochs)
    full = read_recipe(full, options.recipe_file, options.assignments or ())
    plan = plan_audit(run, options.count, full, options.max_concurrent, [*map(absolute_init, options.inits or ())])
    pulse = Pulse(console, "reading the data and starting Ray")
    if not as_json:
        context.with_resource(pulse)
    data = None
    if plan.missing:
        with run.locked():  # where a search runs, that is what to say, before anything is read
            data = audited_data(run)
    if as_json:
        ending = run_audit(plan, data=data)
    else:
        progress = _Lines(pulse, len(plan.missing), run.settings.evaluation.score)
        for line in _announcement(plan):
            pulse.say(line)
        ending = run_audit(plan, progress.record, progress.epoch, data=data)
    found = audit_of(run, plan.full)
    if found is not None and as_json:
        print(audit_json(run, found))
    elif found is not None:
        console.print()
        console.print(audit_table(found, run.settings.evaluation.score))
        console.print(f"\nReport: {run.report_path}", highlight=False, soft_wrap=True)
    if ending is not None:
        plain_console(stderr=as_json).print(
            f"Ended early: {ending}. The same command goes on.", highlight=False, soft_wrap=True
        )
    if found is None or not found.audited:
        raise typer.Exit(1)


def _announcement(plan: AuditPlan) -> list[str]:
    """What will be trained, and what that takes."""
    from nas.workflows.fidelity.inits import short_names

    brief, full, missing = plan.settings.evaluation.recipe, plan.full, plan.missing
    if brief.epochs:
        beside = f", {full.epochs / brief.epochs:g} times the run's {brief.epochs}, and once more by the proxy one"
    else:
        beside = "; the search scored them without fine-tuning"
    lines = [
        f"Training {plan.candidates} of {plural(plan.trained, f'{done_word(brief.epochs)} candidate')} again: each twice by the "
        f"full recipe of {plural(full.epochs, 'epoch')}{beside}"
    ]
    own = plan.settings.evaluation.init
    names = short_names([own, *(weights.name for weights in plan.inits)])
    lines += [
        f"And once by the proxy recipe from {names[weights.name]}, with learning rate {recipe.learning_rate:g}, to be compared "
        f"with {names[own]}"
        for weights, recipe in plan.inits.items()
    ]
    if len(missing) < len(plan.trainings):
        lines.append(f"{len(plan.trainings) - len(missing)} of {len(plan.trainings)} trainings are recorded already")
    if missing and brief.epochs:
        seconds = sum(
            sum(epoch.seconds for epoch in training.trial.evaluation.history) * training.recipe.epochs / brief.epochs
            for training in missing
        )
        lines.append(f"{plural(len(missing), 'training')}, {duration_text(seconds)} of training at the search's pace")
    elif missing:
        lines.append(f"{plural(len(missing), 'training')}; the search, which trained nothing, does not tell how long")
    return lines


class _Lines:
    """A line for every training that ended, with the time left at the pace so far, and while one is long."""

    def __init__(self, pulse: Pulse, trainings: int, score: Score) -> None:
        self.pulse, self.score = pulse, score
        self._trainings, self._done = trainings, 0
        self._start = time.monotonic()
        self._epochs: dict[tuple[int, int, str], str] = {}  # of the trainings that run

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a training ended."""
        settings = candidate.settings
        told = f"trial {candidate.number} at epoch {metrics.epoch}/{settings.recipe.epochs}"
        self._epochs[candidate.number, settings.seed, settings.init] = told
        self.pulse.doing = lambda: f"{'; '.join(list(self._epochs.values())) or 'trainings begin'}; {self._left()}"

    def record(self, record: AuditRecord) -> None:
        """Print one line."""
        from nas.workflows.fidelity.inits import short_names

        lost, done = record.evaluation.outcome is Outcome.LOST, record.evaluation.outcome is Outcome.DONE
        self._done += not lost
        for key in [key for key in self._epochs if key[:2] == (record.number, record.seed)]:
            self._epochs.pop(key)
        what = self.score.show(record.evaluation.history[-1].score) if done else record.evaluation.reason
        begun = f" from {short_names([record.init.name])[record.init.name]}" if record.init else ""
        self.pulse.say(
            f"[{self._done}/{self._trainings}] trial {record.number}, {plural(record.recipe.epochs, 'epoch')}{begun}, "
            f"{record.evaluation.outcome}: {what}; {self._left()}"
        )

    def _left(self) -> str:
        from nas.runs.pace import left_text

        if not self._done:
            return left_text(None)
        return left_text((time.monotonic() - self._start) / self._done * (self._trainings - self._done))
