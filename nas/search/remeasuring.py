"""Latencies of the front and its rivals, measured again in turn by a worker of the search, once that is over."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from nas.runs.front import pareto_front
from nas.runs.in_turn import deciding, seconds_in_turn, with_remeasured
from nas.runs.record import Evaluation, LatencyRecord, Outcome, TrialRecord
from nas.runs.rivals import MEMBERS, to_measure
from nas.runs.store import RunDirectory
from nas.search.candidate import Candidate, InTurn

MOST_TURNS = 2
"""Measurements of one latency in a session of the search: the first may let others onto the front, who were not in it."""
MAX_LOSSES = 3
"""Measurements whose worker died after which no more are asked for."""

logger = logging.getLogger(__name__)


class Remeasurer:
    """Says what is to be measured in turn, and records it. Not thread-safe.

    A measurement covers the whole front, since what was measured at another time is not in turn with it; it is asked for
    where a member was not in the last one. One that fails is a warning: the front keeps the latencies that it has.
    `on_turn` is told how many networks a measurement is of when it begins, and 0 when it is over.
    """

    def __init__(self, run: RunDirectory, on_turn: Callable[[int], None] = lambda networks: None) -> None:
        self.run = run
        self.settings = run.settings
        self.measured = run.latencies()
        self.running: dict[str, Candidate] = {}
        self._on_turn = on_turn
        self._turns: Counter[str | None] = Counter()
        self._losses = 0
        self._given_up: set[str | None] = set()
        self._next: tuple[tuple[int, int, int], InTurn | None] | None = None

    def judged(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The records by what was measured in turn so far."""
        return with_remeasured(records, self.measured, self.settings)

    def unmeasured(self, records: Sequence[TrialRecord]) -> bool:
        """Whether members of the front were not measured in turn."""
        judged, objectives = self.judged(records), self.settings.objectives
        return any(missing(judged, self.measured, objectives, target) for target in deciding(self.settings))

    def left(self, records: Sequence[TrialRecord]) -> bool:
        """Whether there is something to measure."""
        return self._to_ask(records) is not None

    def seconds(self, records: Sequence[TrialRecord]) -> float:
        """About what the next measurement takes."""
        in_turn = self._to_ask(records)
        return seconds_in_turn(self.settings, in_turn.target, len(in_turn.networks)) if in_turn else 0.0

    def ask(self, records: Sequence[TrialRecord]) -> Candidate | None:
        """The next measurement; None while one runs, and when there is nothing to measure."""
        in_turn = None if self.running else self._to_ask(records)
        if in_turn is None:
            return None
        first = next(record for record in records if record.digest in in_turn.networks)
        candidate = Candidate(
            number=first.number,
            parameters=first.parameters,
            architecture=first.architecture,
            started=time.time(),
            settings=self.settings.evaluation,
            keep_weights=False,
            timeout_s=in_turn.patience_s,
            in_turn=in_turn,
        )
        self.running["in turn"] = candidate
        self._on_turn(len(in_turn.networks))
        return candidate

    def finish(self, candidate: Candidate, evaluation: Evaluation, records: Sequence[TrialRecord]) -> None:
        """Record the latencies, or tell why there are none."""
        target = self._ended(candidate)
        if evaluation.outcome is not Outcome.DONE:
            self._give_up(target, evaluation.reason or "no reason given")
            return
        trials = {record.digest: record.number for record in records if record.outcome is Outcome.DONE}
        now = time.time()
        found = [
            LatencyRecord(digest, trials[digest], target, latency, now)
            for digest, latency in evaluation.latencies.items()
        ]
        self.run.append_latencies(found)
        self.measured += found
        self._turns[target] += 1

    def report_lost(self, candidate: Candidate, reason: str) -> None:
        """Its worker died; another one is asked, a few times."""
        target = self._ended(candidate)
        self._losses += 1
        if self._losses >= MAX_LOSSES:
            self._give_up(target, reason)

    def _ended(self, candidate: Candidate) -> str | None:
        assert candidate.in_turn is not None
        self.running.clear()
        self._on_turn(0)
        return candidate.in_turn.target

    def _give_up(self, target: str | None, reason: str) -> None:
        self._given_up.add(target)
        of = f" on target {target}" if target else ""
        logger.warning("latencies of the front%s were not measured in turn, and stay single ones: %s", of, reason)

    def _to_ask(self, records: Sequence[TrialRecord]) -> InTurn | None:
        """Worked out again where something has changed: it is asked for again and again."""
        state = len(records), len(self.measured), len(self._given_up)
        if self._next is None or self._next[0] != state:
            self._next = state, self._worked_out(records)
        return self._next[1]

    def _worked_out(self, records: Sequence[TrialRecord]) -> InTurn | None:
        judged, objectives = self.judged(records), self.settings.objectives
        for target in deciding(self.settings):
            asked = target in self._given_up or self._turns[target] >= MOST_TURNS
            if not asked and missing(judged, self.measured, objectives, target):
                chosen = to_measure(judged, objectives)
                return InTurn({record.digest: record.architecture for record in chosen}, target)
        return None


def missing(
    judged: Sequence[TrialRecord],
    measured: Sequence[LatencyRecord],
    objectives: Sequence[str],
    target: str | None = None,
) -> int:
    """How many members of the front are yet to be measured in turn with each other; of a very large front not all are."""
    own = [each for each in measured if each.target == target]
    last = {each.digest for each in own if each.latency.session == own[-1].latency.session}
    front = pareto_front(judged, objectives)
    return max(0, min(len(front), MEMBERS) - sum(record.digest in last for record in front))
