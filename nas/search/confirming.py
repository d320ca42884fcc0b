"""A search, then latencies in turn and the confirmation of what it found: one source, so that workers go on with what they have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nas.common.seeds import derive_seed
from nas.common.text import plural
from nas.latency.lease import lease_for
from nas.runs.confirmation import next_to_confirm
from nas.runs.record import Confirmation, Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets
from nas.search.broker import Broker
from nas.search.candidate import Candidate, Losses, trained_again
from nas.search.remeasuring import Remeasurer
from nas.training.recipe import LONGER, longer

MAX_LOSSES = 3
"""Trainings whose worker died after which no more are confirmed in this session."""

logger = logging.getLogger(__name__)


class Confirmer:
    """Lets a broker search; when it has finished, asks for the run's confirmations. Not thread-safe.

    `on_confirmation` is called with each one after it is on disk. With a `remeasurer` the latencies of the front are measured
    again first, and decide which candidates are confirmed.
    """

    def __init__(
        self,
        broker: Broker,
        on_confirmation: Callable[[Confirmation], None] = lambda confirmation: None,
        remeasurer: Remeasurer | None = None,
    ) -> None:
        self.run = broker.run
        self._broker = broker
        self._on_confirmation = on_confirmation
        self._remeasurer = remeasurer
        self._budget = broker.budget
        self.confirmations = self.run.confirmations()
        self._running: dict[int, Candidate] = {}  # by seed
        self._losses = Losses()
        self._stopped = False
        self._cut_off = 0
        self.interrupted = False
        """Whether somebody told it to stop."""

    @property
    def running(self) -> Mapping[str, Candidate]:
        """What is being evaluated."""
        again = {f"confirmation {seed}": candidate for seed, candidate in list(self._running.items())}
        return self._broker.running | again | (dict(self._remeasurer.running) if self._remeasurer else {})

    @property
    def finished(self) -> bool:
        """Whether the search is over, and what follows it."""
        return self._broker.finished and not self._running and not self._left and not self._measures

    @property
    def stopping(self) -> str | None:
        """Why nothing more is started, or None while the search or what follows it goes on."""
        reason = self._broker.stop_reason
        return None if reason is None or self._left or self._measures else reason

    @property
    def ending(self) -> str:
        """Why the search ended, and how many were confirmed."""
        count, parts = len(self.confirmations), [self._broker.ending]
        parts += [f"{plural(count, 'training')} to confirm the front"] if count else []
        if self._remeasurer is not None and self._remeasurer.unmeasured(self._broker.records):
            parts.append("latencies of its front are of single measurements, not taken in turn")
        parts += [f"{plural(self._cut_off, 'more', 'more')} cut off by the time budget"] if self._cut_off else []
        return "; ".join(parts)

    @property
    def resumable(self) -> bool:
        """Whether going on later could bring more."""
        unmeasured = self._remeasurer is not None and self._remeasurer.left(self._broker.records)
        return self._broker.resumable or unmeasured or bool(self._open and self._broker.trained)

    @property
    def _open(self) -> int:
        return max(0, self.run.settings.confirmations - len(self.confirmations))

    @property
    def _late(self) -> bool:
        return not self._budget.fits(0.0, self._budget.trainings_end)

    @property
    def _measures(self) -> bool:
        """Whether latencies are being measured in turn, or may still be."""
        if self._remeasurer is None or self._remeasurer.running:
            return self._remeasurer is not None
        records = self._broker.records
        in_time = self._budget.fits(self._remeasurer.seconds(records), self._budget.trainings_end)
        return not self.interrupted and in_time and self._remeasurer.left(records)

    @property
    def _left(self) -> int:
        """Confirmations that may still be started."""
        if self._stopped or self._late or self._losses.in_a_row >= MAX_LOSSES or not self._broker.trained:
            return 0
        return max(0, self._open - len(self._running))

    def ask(self) -> Candidate | None:
        """The broker's next candidate, or when the search is over one to train again."""
        if not self._broker.finished:
            candidate = self._broker.ask()
            if candidate is not None or not self._broker.finished:
                return candidate
        if self._remeasurer is not None and self._measures:
            measurement = self._remeasurer.ask(self._broker.records)
            return None if measurement is None else replace(measurement, left_s=self._budget.trainings_left_s)
        return self._again() if self._left else None

    def _again(self) -> Candidate | None:
        settings, evaluation = self.run.settings, self.run.settings.evaluation
        running = [candidate.digest for candidate in self._running.values()]
        with lease_for("cpu").shared():  # a measurement on the CPU must not hear it
            record = self._next(running)
        if record is None:
            self._stopped = True
            return None
        earlier = [*(confirmation.digest for confirmation in self.confirmations), *running].count(record.digest)
        again = replace(
            evaluation,
            recipe=longer(evaluation.recipe),
            seed=derive_seed(evaluation.seed, "confirm", record.digest, earlier),
            budgets=Budgets(),
            targets=(),
        )
        timeout_s = settings.trial_timeout_s
        longer_s, left_s = None if timeout_s is None else LONGER * timeout_s, self._budget.trainings_left_s
        candidate = trained_again(record, again, longer_s, left_s)
        self._running[again.seed] = candidate
        return candidate

    def _next(self, running: Sequence[str]) -> TrialRecord | None:
        """The candidate to train again next, of those for which there is time; None where there is none."""
        settings, images = self.run.settings, self.run.provenance.validation_images
        records = self._remeasurer.judged(self._broker.records) if self._remeasurer else self._broker.records
        passed_over: list[str] = []
        while True:
            asked = [*running, *passed_over]
            objectives, metric = settings.objectives, settings.evaluation.score
            record = next_to_confirm(records, self.confirmations, objectives, metric, images, asked)
            if record is None or record.digest in passed_over:
                return None
            seconds = LONGER * sum(epoch.seconds for epoch in record.evaluation.history)
            if self._budget.fits(seconds, self._budget.trainings_end):
                return record
            passed_over.append(record.digest)

    def should_stop(self, candidate: Candidate, so_far: Evaluation) -> str | None:
        """The broker's judgement of one of its candidates; what is trained again is stopped by the time budget alone."""
        if candidate.in_turn is not None:
            return None
        if self.is_again(candidate):
            return self._budget.cut(so_far, candidate.settings.recipe, self.run.provenance.train_images)
        return self._broker.should_stop(candidate, so_far)

    def finish(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Record what an evaluation gave."""
        if self._remeasurer is not None and candidate.in_turn is not None:
            self._remeasurer.finish(candidate, evaluation, self._broker.records)
            return
        if not self.is_again(candidate):
            self._broker.finish(candidate, evaluation)
            return
        self._losses.finished()
        if evaluation.outcome is Outcome.STOPPED:  # its score could be compared with no other
            self._cut_off += 1
            del self._running[candidate.settings.seed]
            return
        confirmation = Confirmation(
            digest=candidate.digest,
            trial=candidate.number,
            seed=candidate.settings.seed,
            epochs=candidate.settings.recipe.epochs,
            evaluation=evaluation,
            started=candidate.started,
            finished=time.time(),
        )
        self.run.append_confirmation(confirmation)
        self.confirmations.append(confirmation)
        del self._running[candidate.settings.seed]
        self._on_confirmation(confirmation)

    def report_lost(self, candidate: Candidate, reason: str) -> None:
        """The worker of a candidate died. One that is trained again is asked for once more."""
        if self._remeasurer is not None and candidate.in_turn is not None:
            self._remeasurer.report_lost(candidate, reason)
            return
        if not self.is_again(candidate):
            self._broker.report_lost(candidate, reason)
            return
        self._losses.lost(candidate)
        del self._running[candidate.settings.seed]
        logger.warning("the confirmation of trial %d was lost: %s", candidate.number, reason)

    def stop(self, reason: str) -> None:
        """Start nothing more; what runs may finish."""
        self._stopped = self.interrupted = True
        self._broker.stop(reason)

    def is_again(self, candidate: Candidate) -> bool:
        """Whether a candidate that runs is one trained again."""
        return self._running.get(candidate.settings.seed) is candidate
