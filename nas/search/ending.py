"""Why a search ends: it has what it was asked for, or going on would bring nothing more."""

from __future__ import annotations

from dataclasses import dataclass

from nas.common.text import done_word, plural
from nas.runs.settings import SearchSettings
from nas.search.candidate import Losses
from nas.search.tally import Tally
from nas.search.time_budget import TimeBudget

MAX_REJECTIONS = 60
"""Candidates over a hard budget, none trained yet, after which the search ends: it cannot be met, or hardly."""
MAX_REJECTIONS_IN_A_ROW = 500
"""Candidates over a hard budget, none within it between, after which the search ends: few others meet it, or none."""
MAX_LOSSES_IN_A_ROW = 12
"""Trials lost one after another, none finished between, after which the search ends: nothing here can work. Where more
run at once, `MAX_LOSSES` of each: a node that dies, or Ray Tune, takes many with it."""
MAX_TOO_LONG = 8
"""Proposals in a row that would not end within the time budget, after which the search ends."""


@dataclass(frozen=True)
class End:
    """Why nothing more is started, and whether going on later could bring more."""

    reason: str
    resumable: bool = True


def why_over(settings: SearchSettings, tally: Tally, losses: Losses, budget: TimeBudget, too_long: int) -> End | None:
    """Why a search is over by what it counts, with so many proposals in a row `too_long` for its time; None while it goes on."""
    if tally.trained >= settings.candidates:
        done = done_word(settings.evaluation.recipe.epochs)
        return End(f"{plural(tally.trained, 'candidate')} {done}", resumable=False)
    if tally.failed > settings.max_failures:
        failed = plural(tally.failed, "candidate")
        return End(f"{failed} failed, more than the {settings.max_failures} allowed", resumable=False)
    if losses.in_a_row >= MAX_LOSSES_IN_A_ROW and tally.last_loss is not None:
        return End(f"{MAX_LOSSES_IN_A_ROW} trials in a row were lost: {tally.last_loss.evaluation.reason}")
    if budget.over(tally.trained):
        return End("the time budget is spent")
    if too_long >= MAX_TOO_LONG:
        return End("what is left of the time budget is too short for another candidate")
    if not tally.budgets_met and tally.rejected >= MAX_REJECTIONS:
        return End(f"{tally.rejected} candidates are over a hard budget, and none within", resumable=False)
    if tally.rejected_in_a_row >= MAX_REJECTIONS_IN_A_ROW:
        return End(f"{MAX_REJECTIONS_IN_A_ROW} candidates in a row are over a hard budget", resumable=False)
    return None
