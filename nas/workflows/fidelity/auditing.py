"""The trainings of a fidelity check, run on Ray and recorded one by one, so that one that was killed goes on where it was."""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nas.common.errors import InputError, arg
from nas.common.kinds import checks_kinds
from nas.common.signals import gentle_signals, notices_kept
from nas.common.text import duration_text, plural
from nas.data.sets import ImageData
from nas.models.seen import unknown_text
from nas.models.sources import SCRATCH
from nas.models.weights import load_weights
from nas.runs.layout import RUN_FILE
from nas.runs.record import AuditRecord, Evaluation, InitialWeights, Outcome
from nas.runs.replica import replicated
from nas.runs.run_file import check_destination
from nas.runs.settings import Budgets, Resources, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.broker import MAX_LOSSES
from nas.search.candidate import Candidate, Losses, trained_again
from nas.search.conditions import check_scored_untrained, data_of, settings_here
from nas.search.ending import MAX_LOSSES_IN_A_ROW
from nas.search.ray.worker import worker_of
from nas.training.history import EpochMetrics
from nas.training.length import Length
from nas.training.optim import check_recipe
from nas.training.recipe import Recipe
from nas.training.unseen import check_unseen, seen_text
from nas.workflows.fidelity.audit import Training, choose, full_recipe, trainings_of
from nas.workflows.fidelity.inits import recipe_from
from nas.workflows.fidelity.proxy import MIN_NETWORKS
from nas.workflows.plan import started_resources
from nas.workflows.reporting import Report, no_report, write_or_warn

logger = logging.getLogger(__name__)

OnRecord = Callable[[AuditRecord], None]


class Auditor:
    """Asks for the trainings that a fidelity check misses, and records what they give. Not thread-safe.

    One whose worker died is asked for again, `MAX_LOSSES` times at most. `on_record` is called with every record after
    it is on disk.
    """

    def __init__(self, run: RunDirectory, trainings: Sequence[Training]) -> None:
        self.run = run
        self.running: dict[str, Candidate] = {}
        self.on_record: OnRecord = lambda record: None
        self.waiting = list(trainings)
        self._started: dict[str, Training] = {}
        self._losses: Counter[str] = Counter()
        self._in_a_row = Losses()
        self.ending: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to start and nothing runs."""
        return not self.running and (self.ending is not None or not self.waiting)

    def ask(self) -> Candidate | None:
        """The next training, as a candidate with settings of its own."""
        if self.ending is not None or not self.waiting:
            return None
        training = self.waiting.pop(0)
        own = self.run.settings.evaluation
        init = training.init.name if training.init else own.init
        evaluation = replace(own, recipe=training.recipe, seed=training.seed, init=init)
        candidate = trained_again(training.trial, evaluation)
        self.running[_name(candidate)] = candidate
        self._started[_name(candidate)] = training
        return candidate

    def should_stop(self, candidate: Candidate, so_far: Evaluation) -> None:
        """None is stopped: a fidelity check wants the whole training."""

    def finish(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Record what a training gave."""
        self._in_a_row.finished()
        self._record(candidate, evaluation)

    def report_lost(self, candidate: Candidate, reason: str) -> None:
        """Its worker died: record it, and ask for the training again."""
        training = self._record(candidate, Evaluation(Outcome.LOST, reason))
        self._losses[_name(candidate)] += 1
        self._in_a_row.lost(candidate)
        if self._in_a_row.in_a_row >= MAX_LOSSES_IN_A_ROW:
            self.stop(f"{MAX_LOSSES_IN_A_ROW} trainings in a row were lost: {reason}")
        elif self._losses[_name(candidate)] <= MAX_LOSSES:
            self.waiting.append(training)
        else:
            logger.warning(
                "a training of trial %d was lost %d times, not tried again", candidate.number, MAX_LOSSES + 1
            )

    def stop(self, reason: str) -> None:
        """Start nothing more; what runs may finish."""
        self.ending = self.ending or reason

    def _record(self, candidate: Candidate, evaluation: Evaluation) -> Training:
        self.running.pop(_name(candidate))
        training = self._started[_name(candidate)]
        record = AuditRecord(
            candidate.number,
            candidate.digest,
            training.recipe,
            training.seed,
            evaluation,
            candidate.started,
            time.time(),
            init=training.init,
        )
        self.run.append_audit(record)
        self.on_record(record)
        return training


def _name(candidate: Candidate) -> str:
    """Tells the trainings of one check apart: each of a candidate's has a seed or initial weights of its own."""
    return f"{candidate.digest}:{candidate.settings.seed}:{candidate.settings.init}"


@dataclass(frozen=True)
class AuditPlan:
    """A fidelity check that was checked and can start.

    `settings` are the run's for the trainings; `candidates` is how many were chosen, of `trained` that could be. `inits` are
    the initial weights beside the run's own, with their proxy recipes.
    """

    run: RunDirectory
    settings: SearchSettings
    full: Recipe
    trainings: tuple[Training, ...]
    candidates: int
    trained: int
    inits: Mapping[InitialWeights, Recipe]

    @property
    def missing(self) -> list[Training]:
        """The trainings that have no record yet; those whose worker died are missing."""
        records = self.run.audit_records()
        known = {(r.digest, r.seed, r.recipe, r.init) for r in records if r.evaluation.outcome is not Outcome.LOST}
        return [training for training in self.trainings if training.key not in known]


@checks_kinds
def plan_audit(
    run: RunDirectory,
    count: int = 30,
    recipe: Recipe | None = None,
    max_concurrent: int = 0,
    inits: Sequence[str] = (),
) -> AuditPlan:
    """Choose candidates and say what a fidelity check trains; `recipe` is the full one, by default the run's made longer.

    Proxy trainings from `inits` are compared with those from the run's own weights, which may be named too. Raises
    `InputError` when too few candidates are trained, the recipe is the run's own or cannot be followed here, or initial weights are
    not there, do not fit or are given twice.
    """
    settings = _of_trainings(settings_here(run), max_concurrent)
    evaluation = settings.evaluation
    evaluation.load_metric()
    brief = evaluation.recipe
    full = recipe or full_recipe(brief)
    if full.precision == "auto":  # settled once, by the search
        full = replace(full, precision=brief.precision)
    if count < MIN_NETWORKS:
        raise InputError(
            f"{arg('count')} {count}: with fewer than {MIN_NETWORKS} candidates a rank correlation says nothing"
        )

    check_recipe(full, settings.device)
    if full == brief:
        raise InputError(
            f"{run.path}: the recipe is the run's own; give more {arg('epochs')}, or another {arg('recipe')}"
        )
    _check_longer(run, full)
    further = {
        weights: recipe_from(brief, evaluation.init, weights.name)
        for weights in _checked_inits(inits, settings, run)
        if weights.name != evaluation.init
    }
    records = run.judged()
    trained = len(choose(records, settings.objectives, len(records)))
    if trained < MIN_NETWORKS:
        raise InputError(
            f"{run.path}: {plural(trained, 'candidate is', 'candidates are')} trained, and a fidelity check takes at least "
            f"{MIN_NETWORKS}"
        )
    chosen = choose(records, settings.objectives, count)
    # In an order of their own, so that those of a fidelity check that is stopped are spread like all of them.
    random.Random(evaluation.seed).shuffle(chosen)
    trainings = [one for trial in chosen for one in trainings_of(trial, brief, full, evaluation.seed, further)]
    return AuditPlan(run, settings, full, tuple(trainings), len(chosen), trained, further)


def _check_longer(run: RunDirectory, full: Recipe) -> None:
    """Raise `InputError` where a full training would be shorter than the brief ones that it is to judge."""
    brief, images = run.settings.evaluation.recipe, run.provenance.train_images

    def length(recipe: Recipe, seconds: float | None) -> str:
        whole = Length.of(recipe, images)
        taken = f" ({plural(whole.steps, 'step')} of {whole.batch_size} images)"
        return plural(recipe.epochs, "epoch") + taken + (f" in {duration_text(seconds)}" if seconds else "")

    def seen(recipe: Recipe) -> int:
        return Length.of(recipe, images).images

    took = _seconds_of_training(run, seen(brief))
    took = took and min(took, brief.seconds or took)
    too_fast = full.seconds is not None and took is not None and full.seconds < took
    if seen(full) < seen(brief) or too_fast:
        raise InputError(
            f"{run.path}: a full training of {length(full, full.seconds)} is shorter than the search's proxy one of "
            f"{length(brief, took if too_fast else None)}, which it is to judge; give more {arg('epochs')}, {arg('assignments')} steps or "
            f"{arg('assignments')} seconds"
        )


def _seconds_of_training(run: RunDirectory, images: int) -> float | None:
    """What the search took to train on so many images, without validation; None where it trained on none."""
    paces = [
        epoch.images_per_s
        for record in run.records()
        if record.outcome is Outcome.DONE
        for epoch in record.evaluation.history
        if epoch.images_per_s
    ]
    return images / statistics.median(paces) if paces else None


def _checked_inits(inits: Sequence[str], settings: SearchSettings, run: RunDirectory) -> list[InitialWeights]:
    found, images = [], run.images()
    if images is None and not settings.allow_seen_images:
        logger.warning(
            "%s: an older version made the run, so that it is not known whether the weights have seen images that score",
            run.path,
        )
    for init in inits:
        if inits.count(init) > 1:
            raise InputError(f"{arg('init')} {init}: is given twice")
        try:
            weights = load_weights(init)
            weights.check_fits(settings.space)
            if not settings.allow_seen_images:
                check_unseen(init, settings.data, settings.split_seed)
                scored = {"validation": images.validation} if images else {}
                if unknown := unknown_text(init):
                    logger.warning("%s", unknown)
                if text := seen_text(init, scored, settings.data):
                    raise InputError(f"{text}, so that its scores would be of images known by heart")
            check_scored_untrained(replace(settings.evaluation, init=init), settings.data, run.provenance.classes)
            found.append(InitialWeights(init, weights.fingerprint()))
        except InputError as error:
            raise InputError(f"{arg('init')} {init}: {error.marked}") from error
    return found


def _of_trainings(settings: SearchSettings, max_concurrent: int) -> SearchSettings:
    """Without budgets and targets: a fidelity check compares scores, and takes all else from the records. It runs here."""
    evaluation = replace(settings.evaluation, budgets=Budgets(), targets=())
    given = settings.resources
    resources = Resources(given.cpus_per_trial, given.gpus_per_trial, max_concurrent)
    return replace(settings, evaluation=evaluation, resources=resources)


def audited_data(run: RunDirectory) -> ImageData:
    """The run's data for a fidelity check; each worker normalises it for the initial weights of its candidate.

    Raises `InputError` when it has changed since the search.
    """
    return data_of(run, SCRATCH)


@checks_kinds
def run_audit(
    plan: AuditPlan,
    on_record: OnRecord = lambda record: None,
    on_epoch: Callable[[Candidate, EpochMetrics], None] = lambda candidate, metrics: None,
    data: ImageData | None = None,
    report: Report = no_report,
) -> str | None:
    """Train what is not recorded yet and tell `report`; why it ended early, or None at its end.

    `data` is what `audited_data` gives, by default read here. Raises `InputError` when a search runs on the directory, or
    the data has changed since. Latencies are those of the records.
    """
    check_destination(plan.run.path, "replica", f"set replica to null in {plan.run.path / RUN_FILE}")
    with plan.run.locked(), replicated(plan.run):
        missing, ending = plan.missing, None
        try:
            if missing:
                ending = _train(plan, missing, on_record, on_epoch, data or audited_data(plan.run))
        finally:
            write_or_warn(report, plan.run)
    return ending


@notices_kept()
def _train(
    plan: AuditPlan,
    missing: Sequence[Training],
    on_record: OnRecord,
    on_epoch: Callable[[Candidate, EpochMetrics], None],
    data: ImageData,
) -> str | None:
    settings = replace(plan.settings, resources=started_resources(plan.settings, None))
    auditor = Auditor(RunDirectory(plan.run.path, replace(plan.run.content, settings=settings)), missing)
    auditor.on_record = on_record
    from nas.search.ray.tune import run_candidates

    inits = [weights.name for weights in plan.inits]
    with gentle_signals(auditor), worker_of(auditor.run, data, inits=inits) as worker:
        run_candidates(auditor, worker.start, on_epoch, keeper=worker.keeper)
    return auditor.ending
