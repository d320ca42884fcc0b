"""The broker: owner of the Optuna study and of the records, and the only state of a search. It knows no Ray.

Ask → canonical digest (a repeat is answered from the records) → somebody evaluates → tell. A record is on the
disk before the study hears of it, so that a crash at any instant loses no finished trial: on the next start the
broker tells the study what was recorded but not told, and queues again what was running.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial

from nas.common.seeds import derive_seed
from nas.common.text import CUT_OFF
from nas.latency.device import torch_threads
from nas.latency.lease import lease_for
from nas.latency.result import Predicted
from nas.runs.limits import predicted_violation
from nas.runs.objectives import objective_values
from nas.runs.record import Evaluation, Outcome, TrialRecord, known_digests
from nas.runs.store import RunDirectory
from nas.runs.targets import latency_names
from nas.runs.words import closest_text
from nas.search.candidate import Candidate, Losses
from nas.search.dominated import Forecast
from nas.search.ending import why_over
from nas.search.first import first_networks
from nas.search.pinned import Pinned
from nas.search.rungs import Rungs
from nas.search.samplers import make_sampler
from nas.search.samplers.known import KnownCosts
from nas.search.screening import MAX_NETWORKS, MAX_UNDECIDED, LatencyScreen, chance_within
from nas.search.study import RunStudy
from nas.search.tally import Tally
from nas.search.time_budget import Durations, Point, TimeBudget
from nas.spaces.base import Architecture, Choice
from nas.spaces.families import architecture_cost

MAX_REPEATS = 30
"""Repeats in a row after which a random new candidate is asked for instead."""
MAX_LOSSES = 3
"""Times that the parameters of a trial whose worker died are queued again."""
UNSEEN_DRAWS = 16
"""New random candidates, under a latency budget, of which one is taken."""
DEFERRED_UNTIL = 8
"""Candidates trained before the space's largest network, where there is a limit that it may be over."""
_RETRIES = "retries"

logger = logging.getLogger(__name__)


class Broker:
    """Asks the sampler, answers repeats, keeps the records, tells the study. Not thread-safe.

    `on_record` is called with every record after it is on disk. The time budget is that of a command that `began` then
    (by the monotonic clock), by default now; `forecast` is what candidates of some multiply-adds would take, as far as it is known.
    """

    def __init__(
        self,
        run: RunDirectory,
        storage: BaseStorage | None = None,
        began: float | None = None,
        forecast: Sequence[Point] = (),
    ) -> None:
        self.run = run
        self.settings = run.settings
        self._space = run.settings.space
        self.on_record: Callable[[TrialRecord], None] = lambda record: None
        began = time.monotonic() if began is None else began
        self.budget = TimeBudget.of(self.settings, began, time.monotonic() - began)
        self._durations = Durations(forecast)
        self._lease = lease_for("cpu")
        """Held, part by part, where a proposal is worked out, which a CPU measurement must not hear; never while the disk is waited for."""
        self._too_long = 0  # proposals in a row that would not have ended in time
        self._deferred: list[Architecture] = []  # references that are tried later, if there is time
        self._stopped: str | None = None
        self._losses = Losses()
        self.resumable = True
        recorded = run.recorded()
        self.records = run.apply_limits(recorded)
        self.answers = known_digests(self.records)
        self._over = {each.digest for each in self.records if each.over_limit}  # a looser limit may bring them back
        self.running: dict[str, Candidate] = {}
        decides = self.settings.evaluation.budgets.max_latency_ms is not None
        most = MAX_NETWORKS if decides else MAX_UNDECIDED
        self._screen = LatencyScreen(self._space, run.outputs, most)
        limits = self.settings.evaluation.limits
        self._known = KnownCosts(self._space, run.outputs, self.settings.objectives, limits)
        self._predicted: dict[str, Predicted] = {}
        self._tally = Tally(self.settings.objectives)
        self._pinned = Pinned(latency_names(self.settings))
        self._rungs: Rungs | None = None
        if self.settings.stop_early:
            self._rungs = Rungs(self.settings.objectives, self.settings.evaluation.recipe.epochs)
        for record in self.records:
            self._learn(record)
        self._exhausted = False  # every network is answered or running; a lost one may be asked for again
        self._waiting: dict[str, list[Candidate]] = {}  # repeats of a candidate that is still running
        self.study = RunStudy(run, storage)
        self.study.rebuild_if_ahead_of(recorded)
        numbers = 1 + max((record.number for record in recorded), default=-1)
        for trial in self.study.reconcile(self.records, numbers):
            self._lose(self._candidate(trial), "the search ended while it ran")
            numbers = max(numbers, trial.number + 1)
        if self.study.is_judged_otherwise:
            self.study.rebuild()
            self.study.reconcile(self.records, numbers)
        self._forecast: Forecast | None = None
        if self.settings.skip_dominated:
            self._forecast = Forecast(self.study, self._known, self.settings.objectives)
        self._enqueue_first()

    # ---------------------------------------------------------------- budget

    @property
    def trained(self) -> int:
        """Distinct candidates trained so far, by this run."""
        return self._tally.trained

    @property
    def front(self) -> list[TrialRecord]:
        """The Pareto front so far, cheapest first."""
        return self._tally.front

    def stop(self, reason: str, resumable: bool = True) -> None:
        """Start nothing more; what runs may finish. `resumable` says whether going on later could bring more."""
        if self._stopped is None:
            self._stopped, self.resumable = reason, resumable

    @property
    def stop_reason(self) -> str | None:
        """Why nothing more is started, or None while the search goes on."""
        if self._stopped is None:
            if not self._known.allowed.possible:
                self.stop(f"no network of the space is within {self._known.allowed.text}", resumable=False)
            elif end := why_over(self.settings, self._tally, self._losses, self.budget, self._too_long):
                self.stop(end.reason, end.resumable)
        return self._stopped

    @property
    def ending(self) -> str:
        """Why the search ended, and where no candidate met the budgets which of them came closest, and by how much."""
        closest = None if self._tally.budgets_met else closest_text(self.records)
        return "; ".join(part for part in (self.stop_reason or "the search is over", closest) if part)

    @property
    def finished(self) -> bool:
        """Whether the search is over: nothing more to start and nothing running."""
        return self.stop_reason is not None and not self.running

    # ---------------------------------------------------------------- ask

    def ask(self) -> Candidate | None:
        """The next candidate to evaluate, or None when nothing can be started now (see `finished`).

        Repeats met on the way are answered from the records.
        """
        # What is fitted here is small: on busy cores several threads wait for each other for most of their time.
        with torch_threads(1):
            return self._ask()

    def _ask(self) -> Candidate | None:
        if self._exhausted and not self.running:
            within = f" within {self._known.allowed.text}" if self._known.allowed.limits else ""
            self.stop(f"the space has nothing new{within}", resumable=False)
        if self._deferred and self.trained >= DEFERRED_UNTIL:
            self._enqueue_deferred()
        repeats = 0
        while (
            not self._exhausted
            and self.stop_reason is None
            and self.trained + len(self.running) < self.settings.candidates
        ):
            if repeats >= MAX_REPEATS and not self._enqueue_unseen():
                self._exhausted = True
                return self._ask()
            candidate = self._ask_study()
            if candidate.digest in self.answers:
                self._answer_repeat(candidate, self.answers[candidate.digest])
            elif candidate.digest in self.running:
                self._waiting.setdefault(candidate.digest, []).append(candidate)
            elif self._ends_too_late(candidate):
                continue
            elif not self._surely_too_slow(candidate):
                if self._forecast is not None:
                    with self._lease.shared():
                        candidate = self._forecast.added_to(candidate, self.records)
                self.running[candidate.digest] = candidate
                return candidate
            repeats += 1
        return None

    def _ask_study(self) -> Candidate:
        # Seeded again for each trial, so that the proposal depends on the study and the seed, not on the process.
        seed = derive_seed(self.settings.seed, "sampler", self.study.size)
        with self._lease.shared():
            trial = self.study.ask(make_sampler(self.settings.sampler, seed, self._known))
        candidate = self._candidate(trial)
        trial.set_user_attr("architecture", str(candidate.architecture.canonical))
        trial.set_user_attr("digest", candidate.digest)
        return candidate

    def _candidate(self, trial: Trial | FrozenTrial) -> Candidate:
        return Candidate(
            number=trial.number,
            parameters=dict(trial.params),
            architecture=self._space.architecture(trial.params),
            started=time.time(),
            settings=self.settings.evaluation,
            timeout_s=self.settings.trial_timeout_s,
            left_s=self.budget.trainings_left_s,
        )

    def _ends_too_late(self, candidate: Candidate) -> bool:
        """Whether a candidate that was proposed would not be over in time, so that the study is to forget it."""
        if self.study.was_queued(candidate.number) or self.budget.fits(self.seconds_of(candidate.architecture)):
            self._too_long = 0
            return False
        self._too_long += 1
        self.study.forget(candidate.number)
        return True

    def seconds_of(self, architecture: Architecture) -> float | None:
        """What a candidate is predicted to take; None while nothing is known."""
        return self._durations.seconds(architecture_cost(architecture, self.run.outputs).macs)

    def _surely_too_slow(self, candidate: Candidate) -> bool:
        """Predict a candidate's latency; whether it is surely over the budget, and rejected for that."""
        with self._lease.shared():
            predictions = self._screen.predict([candidate.architecture])
        if predictions is None:
            return False
        predicted = predictions[0]
        self._predicted[candidate.digest] = predicted
        violation, reason = predicted_violation(predicted, self.settings.evaluation.budgets.max_latency_ms)
        if violation > 0:
            self._finish(candidate, Evaluation(Outcome.REJECTED, reason, violation=violation))
        return violation > 0

    def _learn(self, record: TrialRecord) -> None:
        self._tally.add(record)
        self._durations.learn(record)
        self._pinned.learn(record.evaluation)
        if record.outcome is not Outcome.REPEAT and record.evaluation.latency is not None:
            self._screen.learn(record.architecture, record.evaluation.latency)
        if self._rungs is not None and record.outcome.counts:
            self._rungs.remember(record.digest, record.evaluation)

    def _enqueue_first(self) -> None:
        """Queue what is to be tried first, and keep the references that have to wait."""
        first = first_networks(
            self.settings, self._known.allowed, lambda one: self.budget.affords(self.seconds_of(one))
        )
        self._deferred = list(first.later)
        for digest, values in first.now.items():
            if digest not in self.answers:
                self.study.enqueue(values, once=True)

    def _enqueue_deferred(self) -> None:
        """Queue the references that had to wait, but for those that take too much of the time."""
        for architecture in self._deferred:
            seconds = self.seconds_of(architecture)
            values = self._space.locate(architecture)
            new = architecture.digest not in self.answers and values in self._known.allowed
            if new and self.budget.affords(seconds) and self.budget.fits(seconds):
                self.study.enqueue(values, once=True)
        self._deferred = []

    def _enqueue_unseen(self) -> bool:
        """Queue a random candidate that is neither answered nor running; False when there is none.

        Under a latency budget the one of several that most probably meets it.
        """
        rng = random.Random(derive_seed(self.settings.seed, "unseen", self.study.size))
        known = self.answers.keys() | self.running.keys()
        limit_ms = self.settings.evaluation.budgets.max_latency_ms
        with self._lease.shared():
            drawn = [self._known.allowed.unseen(known, rng) for _ in range(1 if limit_ms is None else UNSEEN_DRAWS)]
            unseen = [values for values in drawn if values is not None]
            if not unseen:
                return False
            predictions = self._screen.predict([self._space.architecture(values) for values in unseen])
        best = 0
        if limit_ms is not None and predictions is not None:
            chances = [chance_within(predicted, limit_ms) for predicted in predictions]
            best = chances.index(max(chances))
        self.study.enqueue(unseen[best])
        return True

    # ---------------------------------------------------------------- tell

    def should_stop(self, candidate: Candidate, so_far: Evaluation) -> str | None:
        """Why a candidate in training is to be stopped, or None to let it go on."""
        behind = None if self._rungs is None else self._rungs.should_stop(candidate.digest, so_far)
        return behind or self.budget.cut(so_far, candidate.settings.recipe, self.run.provenance.train_images)

    def finish(self, candidate: Candidate, evaluation: Evaluation) -> TrialRecord:
        """Record what an evaluation gave, then tell the study, then answer the repeats that waited for it.

        One that was stopped before its first epoch ended gave nothing: it is lost, and asked for again when the search goes on.
        """
        self._losses.finished()
        if differs := self._pinned.differs(evaluation):
            self.stop(f"latencies of this run could no longer be compared: {differs}")
            self.running.pop(candidate.digest, None)
            return self._lose(candidate, differs)
        if evaluation.outcome is Outcome.STOPPED and not evaluation.history:
            self.running.pop(candidate.digest, None)
            return self._lose(candidate, evaluation.reason or CUT_OFF)
        return self._finish(candidate, evaluation)

    def _finish(self, candidate: Candidate, evaluation: Evaluation) -> TrialRecord:
        self.running.pop(candidate.digest, None)
        evaluation = replace(evaluation, predicted=self._predicted.pop(candidate.digest, None))
        values: dict[str, float] = {}
        if evaluation.outcome in (Outcome.DONE, Outcome.REJECTED):
            values = objective_values(evaluation, self.settings.objectives)
        missing = [name for name in self.settings.objectives if name not in values]
        if evaluation.outcome is Outcome.DONE and missing:
            reason = f"its {missing[0]}, which is an objective, is not known"
            evaluation, values = replace(evaluation, outcome=Outcome.FAILED, reason=reason), {}
        record = self._record(candidate, evaluation, values)
        for repeat in self._waiting.pop(candidate.digest, []):
            self._answer_repeat(repeat, record)
        # Those still running may have saved their weights, on their way here.
        kept = {record.digest for record in (*self._tally.front, *self._tally.near)}
        self.run.prune_weights(kept | self._over | self.running.keys())
        return record

    def report_lost(self, candidate: Candidate, reason: str) -> TrialRecord:
        """The worker of a candidate died: record it, and queue its parameters again, `MAX_LOSSES` times at most."""
        self.running.pop(candidate.digest, None)
        self._losses.lost(candidate)
        return self._lose(candidate, reason)

    def _lose(self, candidate: Candidate, reason: str) -> TrialRecord:
        record = self._record(candidate, Evaluation(Outcome.LOST, reason=reason), {})
        for repeat in self._waiting.pop(candidate.digest, []):
            self._answer_repeat(repeat, record)
        self._queue_again(candidate.number, candidate.parameters)
        return record

    def _queue_again(self, number: int, parameters: dict[str, Choice]) -> None:
        retries = self.study.trial(number).user_attrs.get(_RETRIES, 0)
        if retries < MAX_LOSSES:
            self._exhausted = False
            self.study.enqueue(parameters, {_RETRIES: retries + 1})
        else:
            logger.warning("trial %d: lost %d times, not tried again", number, retries + 1)

    def _answer_repeat(self, candidate: Candidate, original: TrialRecord) -> None:
        self._record(candidate, original.repeated(), dict(original.objectives), repeat_of=original.number)

    def _record(
        self, candidate: Candidate, evaluation: Evaluation, values: dict[str, float], repeat_of: int | None = None
    ) -> TrialRecord:
        record = TrialRecord(
            number=candidate.number,
            digest=candidate.digest,
            text=str(candidate.architecture.canonical),
            architecture=candidate.architecture.canonical,
            parameters=candidate.parameters,
            evaluation=evaluation,
            objectives=values,
            repeat_of=repeat_of,
            started=candidate.started,
            finished=time.time(),
        )
        self.run.append(record)
        self.records.append(record)
        if record.outcome not in (Outcome.REPEAT, Outcome.LOST):
            self.answers.setdefault(record.digest, record)
        self._learn(record)
        self.study.tell(record, self.records)
        self.on_record(record)
        return record
