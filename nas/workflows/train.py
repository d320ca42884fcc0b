"""Full trainings of chosen candidates, one after another in this process; then, once for each, the test split.

What is recorded is not trained again, and one that was killed goes on from the end of its last whole epoch. The same
process must have as many threads then for the same weights: torch adds up in another order with another number.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import nn

from nas.common.errors import InputError, arg
from nas.common.files import weights_content
from nas.common.kinds import checks_kinds
from nas.common.seeds import derive_seed
from nas.common.signals import StopRequest, gentle_signals
from nas.data.sets import ImageData
from nas.latency.device import resolve_device
from nas.latency.lease import lease_for
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.models.sources import SCRATCH
from nas.runs.record import AnyReport, Evaluation, Outcome, Start, TrainingRecord, TrialRecord
from nas.runs.store import RunDirectory
from nas.runs.targets import targets_here
from nas.search.conditions import check_same_test, data_of
from nas.search.evaluate import starting_network
from nas.search.found import failure_text
from nas.tasks.base import outputs_of, task_of
from nas.tasks.examples import hardest
from nas.tasks.report import Example
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.loop import Predicted, TrainingState, finetune, predict, report_on
from nas.training.optim import check_recipe, gpu_precision
from nas.training.recipe import Precision, Recipe
from nas.workflows.checkpoint import Checkpoint, read_checkpoint
from nas.workflows.fidelity.audit import full_recipe
from nas.workflows.reporting import Report, no_report, write_or_warn

Hardest = tuple[tuple[Example, ...], bytes | None]


@dataclass(frozen=True)
class FullTraining:
    """A training to be done: of a trial's candidate, by a recipe, a seed (0, 1, …) and weights to begin with."""

    trial: TrialRecord
    recipe: Recipe
    seed: int
    start: Start
    with_validation: bool

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that tell it from all others, for the names of its files."""
        parts = (self.trial.digest, asdict(self.recipe), self.seed, self.start, self.with_validation)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def ended_in(self, record: TrainingRecord) -> bool:
        """Whether a record is that of this training, come to its end."""
        theirs = (record.digest, record.recipe, record.seed, record.start, record.with_validation)
        own = (self.trial.digest, self.recipe, self.seed, self.start, self.with_validation)
        return own == theirs and record.evaluation.outcome is Outcome.DONE


@dataclass(frozen=True)
class TrainingPlan:
    """Full trainings that were checked and can start, on a device of this machine."""

    run: RunDirectory
    device: str
    trainings: tuple[FullTraining, ...]

    def recorded(self) -> list[TrainingRecord]:
        """What is recorded of those that came to their end, in the order of the plan."""
        records = self.run.training_records()
        found = (next(filter(training.ended_in, records), None) for training in self.trainings)
        return [record for record in found if record is not None]

    def missing(self) -> list[FullTraining]:
        """Those that have not come to their end; one that failed is among them."""
        records = self.run.training_records()
        return [training for training in self.trainings if not any(map(training.ended_in, records))]


class TrainingProgress:
    """Is told what happens while `run_training` runs; does nothing itself."""

    def begin(self, training: FullTraining, epoch: int) -> None:
        """A training begins, or goes on after so many epochs."""

    def epoch(self, training: FullTraining, metrics: EpochMetrics) -> None:
        """An epoch ended; where the validation split is trained on, what it would give is NaN."""

    def record(self, record: TrainingRecord) -> None:
        """A training ended and is on disk."""

    def end(self) -> None:
        """The last one is over, by whatever cause."""


# ---------------------------------------------------------------- what to train


def recipe_on(run: RunDirectory, device: str, epochs: int | None = None) -> Recipe:
    """The run's recipe made longer (`nas.workflows.fidelity.audit.full_recipe`), for a device of this machine."""
    full = full_recipe(run.settings.evaluation.recipe, epochs)
    return replace(full, precision=_precision(run, device))


@checks_kinds
def plan_training(
    run: RunDirectory,
    trials: Sequence[TrialRecord],
    recipe: Recipe | None = None,
    *,
    seeds: int = 1,
    start: Start = "search",
    with_validation: bool = False,
    device: str = "auto",
) -> TrainingPlan:
    """Say what to train: each trial's candidate from so many seeds; `recipe` is by default that of `recipe_on`.

    Raises `InputError` when the device or the weights to begin with are not here, or the recipe cannot be followed.
    """
    run.settings.evaluation.load_metric()
    here = resolve_device(device)
    recipe = recipe or recipe_on(run, here)
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=_precision(run, here))
    if with_validation:
        recipe = replace(recipe, patience=0)  # nothing is left to lose patience over
    check_recipe(recipe, here)
    if start == "init" and run.settings.evaluation.init == SCRATCH:
        raise InputError(f"{arg('start')} init: the run's candidates inherited nothing; use search or scratch")
    trainings = [FullTraining(trial, recipe, seed, start, with_validation) for trial in trials for seed in range(seeds)]
    plan = TrainingPlan(run, here, tuple(trainings))
    if start == "search":
        for training in plan.missing():
            _check_kept(run, training)
    return plan


def _precision(run: RunDirectory, device: str) -> Precision:
    """What `auto` means: as the search settled it on this kind of device, so that the same command goes on alike."""
    searched = run.settings.evaluation.recipe.precision
    if device.partition(":")[0] == run.settings.device.partition(":")[0] and searched != "auto":
        return searched
    return "float32" if device == "cpu" else gpu_precision()


def _check_kept(run: RunDirectory, training: FullTraining) -> None:
    digest = training.trial.digest
    kept = run.weights_path(digest), run.start_path(training.key), run.checkpoint_path(training.key)
    if any(path.is_file() for path in kept):
        return
    others = "scratch" if run.settings.evaluation.init == SCRATCH else "init or scratch"
    raise InputError(
        f"{arg('start')} search: the search did not keep the weights of {digest} (it keeps those of its front, of what is "
        f"near it and of the last few trials); use {arg('start')} {others}"
    )


# ---------------------------------------------------------------- training


@checks_kinds
def run_training(
    plan: TrainingPlan,
    progress: TrainingProgress | None = None,
    data: ImageData | None = None,
    report: Report = no_report,
) -> str | None:
    """Train what is not recorded yet and tell `report`; why it ended early, or None at its end.

    `data` is the run's, by default read here (`nas.search.conditions.data_of`). A signal ends it after the epoch that runs
    (`nas.common.signals`). A search may run on the directory meanwhile. Raises `InputError` when the data, or its test split, has changed
    since the search, or another process is at one of the trainings.
    """
    progress, stop, missing = progress or TrainingProgress(), StopRequest(), plan.missing()
    if not missing:
        return None
    _keep_starts(plan.run, missing)
    try:
        data = data or data_of(plan.run)
        check_same_test(plan.run, data)
        on_device = DeviceData(data.with_validation() if missing[0].with_validation else data, plan.device)
        with gentle_signals(stop):
            for training in missing:
                if stop.reason is not None:
                    break
                with plan.run.training_locked(training.key):
                    if training in plan.missing():
                        _Trainer(plan, training, on_device, progress, stop).run()
                    else:  # another process was at it when this one began
                        plan.run.forget_training(training.key)
    finally:
        progress.end()
        write_or_warn(report, plan.run)
    return stop.reason if plan.missing() else None


def _keep_starts(run: RunDirectory, trainings: Sequence[FullTraining]) -> None:
    """Keep what trainings begin with until they have ended: a search beside them deletes weights of what leaves its front."""
    for training in trainings:
        if training.start == "search" and not run.checkpoint_path(training.key).is_file():
            run.keep_start(training.key, training.trial.digest)


class _Trainer:
    """One training, from its start or its checkpoint to its record."""

    def __init__(
        self,
        plan: TrainingPlan,
        training: FullTraining,
        data: DeviceData,
        progress: TrainingProgress,
        stop: StopRequest,
    ) -> None:
        self._plan, self._training, self._data, self._progress, self._stop = plan, training, data, progress, stop
        self._run = plan.run
        self._architecture = training.trial.architecture.canonical
        seed = derive_seed(self._run.settings.evaluation.seed, "train", training.seed)
        own = self._run.settings.evaluation
        self._settings = replace(own, seed=seed, train_device=plan.device)
        self._known = read_checkpoint(self._run.checkpoint_path(training.key))
        self._started = self._known.started if self._known else time.time()
        self._begun = time.perf_counter() - (self._known.seconds if self._known else 0.0)
        self._fresh = self._known.fresh if self._known else ()
        self._before = self._known.before if self._known else None
        self._history = list(self._known.history) if self._known else []
        self._kept = 0  # the last epoch that a checkpoint holds
        self._predicted: Predicted | None = None  # of the validation split, by the last epoch's network

    def run(self) -> None:
        """Train to the end and record what came of it, or only leave a checkpoint where it is stopped before."""
        self._progress.begin(self._training, len(self._history))
        try:
            network = self._start()
            if not self._train(network):
                return
            after, hardest = self._on_test_split(network), self._hardest()
            latency, latencies = self._latencies(network)
        except InputError:
            raise
        except Exception as error:
            self._record(Evaluation(Outcome.FAILED, failure_text(error)))
        else:
            cost = self._training.trial.evaluation.cost
            done = Evaluation(Outcome.DONE, cost=cost, latency=latency, latencies=latencies)
            self._record(done, network, after, hardest)

    def _start(self) -> nn.Module:
        """The network as its training begins; one with a checkpoint is given its weights by `finetune`."""
        data, start = self._data, self._training.start
        if self._known is not None:
            return build(self._architecture, outputs_of(data.data))
        init = self._settings.init if start == "init" else SCRATCH
        network, self._fresh = starting_network(self._architecture, data, replace(self._settings, init=init))
        if start == "search":
            network.load_state_dict(self._run.load_start(self._training.key))
        self._before = self._on_test_split(network)
        return network

    def _train(self, network: nn.Module) -> bool:
        """Whether the training came to its end."""
        training, settings = self._training, self._settings
        epochs = finetune(
            network,
            self._data,
            self._architecture.input_size,
            training.recipe,
            None if training.with_validation else settings.load_metric(),
            seed=derive_seed(settings.seed, training.trial.digest),
            lease=lease_for(self._plan.device),
            resume=self._known.state if self._known else None,
            keep=self._keep,
            scored=self._scored,
        )
        for epoch in epochs:
            self._history.append(epoch)
            self._progress.epoch(training, epoch)
            if self._stop.reason is not None and self._kept == epoch.epoch:
                return False
        return True

    def _scored(self, predicted: Predicted) -> None:
        self._predicted = predicted

    def _keep(self, metrics: EpochMetrics, state: TrainingState) -> None:
        history = (*self._history, metrics)
        seconds = time.perf_counter() - self._begun
        reached = Checkpoint(self._started, seconds, self._fresh, self._before, history, state)
        self._run.save_checkpoint(self._training.key, reached.content())
        self._kept = metrics.epoch

    def _on_test_split(self, network: nn.Module) -> AnyReport | None:
        data = self._data
        if data.data.test is None or data.test is None:
            return None
        lease = lease_for(self._plan.device)
        predicted = predict(network, data, data.test, self._architecture.input_size, lease=lease)
        return report_on(predicted, data.data, data.data.test)

    def _hardest(self) -> Hardest:
        """The validation images of the greatest loss; none where they were trained on."""
        predicted, data = self._predicted, self._data.data
        if predicted is None:
            return (), None
        losses = predicted.losses.cpu().numpy()
        return hardest(task_of(data.task), data.validation, losses, predicted.predictions, data.classes)

    def _latencies(self, network: nn.Module) -> tuple[Latency | None, dict[str, Latency]]:
        """Measured again by the run's own protocols, where this machine has their devices."""
        settings, shape = self._run.settings, self._architecture.input_shape

        def measured(protocol: LatencyProtocol) -> Latency | None:
            try:
                return measure(network, shape, protocol)
            except InputError:  # the device is not here, or cannot be used so
                return None

        on_targets = {target.name: measured(target.protocol) for target in targets_here(settings)}
        latencies = {name: latency for name, latency in on_targets.items() if latency is not None}
        return measured(settings.evaluation.protocol), latencies

    def _record(
        self,
        evaluation: Evaluation,
        network: nn.Module | None = None,
        after: AnyReport | None = None,
        hardest: Hardest = ((), None),
    ) -> None:
        """Keep the weights, then the record that says so."""
        training = self._training
        evaluation = replace(
            evaluation,
            history=() if training.with_validation else tuple(self._history),
            fresh=self._fresh,
            seconds=time.perf_counter() - self._begun,
            worker=socket.gethostname(),
        )
        record = TrainingRecord(
            number=training.trial.number,
            digest=training.trial.digest,
            recipe=training.recipe,
            seed=training.seed,
            start=training.start,
            with_validation=training.with_validation,
            key=training.key,
            evaluation=evaluation,
            losses=tuple(epoch.train_loss for epoch in self._history if epoch.train_loss is not None),
            before=self._before if after else None,
            after=after,
            hardest=hardest[0],
            started=self._started,
            finished=time.time(),
        )
        if network is not None:
            self._run.save_trained(record, weights_content(network.state_dict()), hardest[1])
        self._run.append_training(record)
        if network is not None:  # one that failed for want of memory may go on
            self._run.forget_training(training.key)
        self._progress.record(record)
