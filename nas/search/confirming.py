"""A search, and then the confirmation of what it found: one asker, so that the workers go on with what they have."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from nas.confirmation import next_to_confirm
from nas.recipe import LONGER, longer
from nas.record import Confirmation, Evaluation
from nas.search.broker import Broker
from nas.search.candidate import Candidate, Losses, trained_again
from nas.settings import Budgets, derive_seed
from nas.wording import plural

MAX_LOSSES = 3
"""Trainings whose worker died after which no more are confirmed in this session."""

logger = logging.getLogger(__name__)


class Confirmer:
    """Lets a broker search; when it has finished, asks for the run's confirmations. Not thread-safe.

    `on_confirmation` is called with each one after it is on disk.
    """

    def __init__(
        self, broker: Broker, on_confirmation: Callable[[Confirmation], None] = lambda confirmation: None
    ) -> None:
        self.run = broker.run
        self._broker = broker
        self._on_confirmation = on_confirmation
        settings = broker.settings
        self._deadline = None if settings.time_budget_s is None else time.time() + settings.time_budget_s
        self.confirmations = self.run.confirmations()
        self._running: dict[int, Candidate] = {}  # by seed
        self._losses = Losses()
        self._stopped = False
        self.interrupted = False
        """Whether somebody told it to stop."""

    @property
    def running(self) -> Mapping[str, Candidate]:
        """What is being evaluated."""
        return self._broker.running | {
            f"confirmation {seed}": candidate for seed, candidate in list(self._running.items())
        }

    @property
    def finished(self) -> bool:
        """Whether the search is over, and its confirmation."""
        return self._broker.finished and not self._running and not self._left

    @property
    def stopping(self) -> str | None:
        """Why nothing more is started, or None while the search or its confirmation goes on."""
        return None if self._left else self._broker.stop_reason

    @property
    def ending(self) -> str:
        """Why the search ended, and how many were confirmed."""
        count = len(self.confirmations)
        return self._broker.ending + (f"; {plural(count, 'training')} to confirm the front" if count else "")

    @property
    def resumable(self) -> bool:
        """Whether going on later could bring more."""
        return self._broker.resumable or bool(self._open and self._broker.trained)

    @property
    def _open(self) -> int:
        return max(0, self.run.settings.confirmations - len(self.confirmations))

    @property
    def _left(self) -> int:
        """Confirmations that may still be started."""
        late = self._deadline is not None and time.time() >= self._deadline
        if self._stopped or late or self._losses.in_a_row >= MAX_LOSSES or not self._broker.trained:
            return 0
        return max(0, self._open - len(self._running))

    def ask(self) -> Candidate | None:
        """The broker's next candidate, or when the search is over one to train again."""
        if not self._broker.finished:
            candidate = self._broker.ask()
            if candidate is not None or not self._broker.finished:
                return candidate
        return self._again() if self._left else None

    def _again(self) -> Candidate | None:
        settings, records = self.run.settings, self._broker.records
        evaluation = settings.evaluation
        running = [candidate.digest for candidate in self._running.values()]
        record = next_to_confirm(
            records,
            self.confirmations,
            settings.objectives,
            evaluation.metric,
            self.run.provenance.validation_images,
            running,
        )
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
        candidate = trained_again(record, again, None if timeout_s is None else LONGER * timeout_s)
        self._running[again.seed] = candidate
        return candidate

    def judge(self, candidate: Candidate, so_far: Evaluation) -> str | None:
        """The broker's judgement of one of its candidates; what is trained again is never stopped."""
        return None if self.is_again(candidate) else self._broker.judge(candidate, so_far)

    def finish(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Record what an evaluation gave."""
        if not self.is_again(candidate):
            self._broker.finish(candidate, evaluation)
            return
        self._losses.finished()
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

    def lose(self, candidate: Candidate, reason: str) -> None:
        """The worker of a candidate died. One that is trained again is asked for once more."""
        if not self.is_again(candidate):
            self._broker.lose(candidate, reason)
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
