"""Which candidates are nearly certainly dominated: predicted when they are asked for, judged when their costs are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from nas.common.pareto import on_front
from nas.runs.objectives import is_cost, score_of
from nas.runs.record import Outcome, TrialRecord
from nas.search.candidate import Candidate
from nas.search.dominance import DominanceEstimate, Rival
from nas.search.samplers.history import ChoiceSpace, CostTable, History, Parameters
from nas.search.samplers.known import KnownCosts
from nas.search.study import RunStudy

FEWEST = 20
"""Trained networks from which on anything is predicted."""
MAX_SKIPS_IN_A_ROW = 50
"""Candidates skipped, none trained between, after which the next one is trained whatever is predicted: a search whose model
is wrong, or whose space has nothing better, would else never end."""


def dominance_of(
    parameters: Parameters, space: ChoiceSpace, history: History, table: CostTable, objectives: Sequence[str]
) -> DominanceEstimate | None:
    """What may be hoped of a candidate, by the processes behind the sampler; None where its parameters are of another space.

    Rivals count as what they are believed to be, not as what one lucky training gave.
    """
    from nas.search.samplers.front_model import FrontModel  # torch is slow to import

    row = space.row(parameters)
    if row is None:
        return None
    score = score_of(objectives)
    which = list(objectives).index(score)
    model = FrontModel(space, history, table)
    belief = model.belief(np.vstack([history.feasible, row]), which)
    costs = np.delete(history.losses, which, axis=1)
    rivals = np.flatnonzero(on_front(np.column_stack([belief.means[:-1], costs])))
    scores = score.loss(1.0) * belief.natural
    return DominanceEstimate(
        tuple(name for name in objectives if is_cost(name)),
        float(belief.means[-1]),
        float(np.hypot(belief.stds[-1], belief.noise)),
        float(scores[-1]),
        str(score),
        score.unit,
        tuple(
            Rival(tuple(costs[i].tolist()), float(belief.means[i]), float(belief.stds[i]), float(scores[i]))
            for i in rivals
        ),
    )


class Forecast:
    """Adds to a run's candidates what may be hoped of them."""

    def __init__(self, study: RunStudy, known: KnownCosts, objectives: Sequence[str]) -> None:
        self._study = study
        self._known = known
        self._objectives = tuple(objectives)

    def added_to(self, candidate: Candidate, records: Sequence[TrialRecord]) -> Candidate:
        """The candidate with its dominance, where one is predicted."""
        if sum(record.outcome is Outcome.DONE for record in records) < FEWEST:
            return candidate
        own = (r.outcome for r in reversed(records) if r.outcome not in (Outcome.REPEAT, Outcome.LOST))
        if sum(1 for _ in takewhile(lambda outcome: outcome is Outcome.SKIPPED, own)) >= MAX_SKIPS_IN_A_ROW:
            return candidate
        space, history = self._study.history()
        table = CostTable(space, self._known.costs, self._known.features, self._study.signs)
        dominance = dominance_of(candidate.parameters, space, history, table, self._objectives)
        return replace(candidate, dominance=dominance)
