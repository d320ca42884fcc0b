"""What a search that is resumed may be given again: budgets, limits, and how many trials run at once. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas.common.errors import InputError, arg
from nas.common.text import plural
from nas.runs.limits import apply_limits
from nas.runs.record import Outcome
from nas.runs.settings import SearchSettings, is_limit, terms
from nas.runs.store import RunDirectory
from nas.runs.words import term_words


@dataclass(frozen=True)
class Renewal:
    """Settings in place of those of a run, under their names; None keeps what the run has. `targets` are limits in ms by name.

    All else decides what the records are worth, and needs a search of its own.
    """

    trials: int | None = None
    time_budget_s: float | None = None
    confirm: float | None = None
    max_failures: int | None = None
    trial_timeout_s: float | None = None
    max_concurrent: int | None = None
    max_macs: int | None = None
    max_params: int | None = None
    max_latency_ms: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)

    def applied(self, settings: SearchSettings) -> SearchSettings:
        """The settings with what is given again; raises `InputError` for a target that they lack."""
        evaluation = settings.evaluation
        unknown = self.targets.keys() - {target.name for target in evaluation.targets}
        if unknown:
            raise InputError(f"{arg('target')} {min(unknown)}: the run has no such target")
        targets = tuple(
            replace(target, max_ms=self.targets.get(target.name, target.max_ms)) for target in evaluation.targets
        )
        budgets = replace(evaluation.budgets, **self._given("max_macs", "max_params", "max_latency_ms"))
        return replace(
            settings,
            evaluation=replace(evaluation, budgets=budgets, targets=targets),
            resources=replace(settings.resources, **self._given("max_concurrent")),
            **self._given("trials", "time_budget_s", "confirm", "max_failures", "trial_timeout_s"),
        )

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def renewal_notes(run: RunDirectory, renewal: Renewal) -> list[str]:
    """What a run is given again, and what its records say by it, in sentences."""
    after = renewal.applied(run.settings)
    before, now = terms(run.settings), terms(after)
    changed = [name for name in now if now[name] != before[name]]
    notes = []
    for name in changed:
        what, value = term_words(name, now[name])
        notes.append(f"{what} {value}, before {term_words(name, before[name])[1]}")
    if not any(map(is_limit, changed)):
        return notes
    recorded = run.recorded()
    judged = apply_limits(recorded, after.evaluation)
    over = sum(record.over_limit for record in judged)
    again = sum(record.outcome is Outcome.REJECTED for record in recorded) - sum(
        record.outcome is Outcome.REJECTED and not record.over_limit for record in judged
    )
    parts = [f"{plural(over, 'trained network')} over the limits"] if over else []
    parts += [f"{plural(again, 'rejected one')} within them, to be asked for like any other"] if again else []
    return [*notes, f"Judged by that: {'; '.join(parts) or 'all trials as before'}"]
