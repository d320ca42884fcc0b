"""What a search counts, kept up as its records come: the last of thousands of trials costs what the first did."""

from __future__ import annotations

from collections.abc import Sequence

from nas.runs.front import pareto_front
from nas.runs.record import Outcome, TrialRecord
from nas.runs.rivals import near_front


class Tally:
    """Counts and the Pareto front of the records that were added, in the order written.

    `trained` candidates count towards the budget, `rejected` ones were over a hard budget and never trained; what was taken
    over from earlier runs is in neither, nor among the `failed`. `near` are those that may belong on the front (nas/runs/rivals.py), so
    that their weights are kept. `budgets_met` says whether any candidate at all was trained.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = objectives
        self.trained = self.failed = self.rejected = self.rejected_in_a_row = 0
        self.budgets_met = False
        self.front: list[TrialRecord] = []
        self.near: list[TrialRecord] = []
        self.last_loss: TrialRecord | None = None

    def add(self, record: TrialRecord) -> None:
        """Count a record."""
        own = not record.imported_from
        rejected = own and record.outcome is Outcome.REJECTED and not record.over_limit
        self.trained += record.counts
        self.failed += own and record.outcome is Outcome.FAILED
        self.rejected += rejected
        self.budgets_met |= record.outcome.counts
        if record.outcome is Outcome.LOST:
            self.last_loss = record
        elif record.outcome is not Outcome.REPEAT:
            self.rejected_in_a_row = self.rejected_in_a_row + 1 if rejected else 0
        if record.outcome is Outcome.DONE:
            known = [*self.front, *self.near, record]  # none of the others can come closer than it was
            self.front, self.near = pareto_front(known, self._objectives), near_front(known, self._objectives)
