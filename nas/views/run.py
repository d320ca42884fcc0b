"""A run as people work with it: DataFrames, the Pareto figure, and a summary in a notebook.

`RunDirectory` (nas/runs/store.py) reads and writes files and knows no figure, since its room stands below this one. What
users are given (`nas.open_run`, `nas.run_search`) is this subclass of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.common.errors import InputError
from nas.common.kinds import StrPath, checks_kinds
from nas.common.text import capital, quoted
from nas.runs import store
from nas.runs.frames import front_frame, trials_frame
from nas.runs.front import pareto_front, primary_cost
from nas.runs.objectives import is_cost, measured_latency, objective
from nas.runs.picks import known_as
from nas.runs.record import TrialRecord, count_outcomes
from nas.runs.store import RunDirectory
from nas.runs.words import latency_text, score_title
from nas.views.report.figures import cost_objectives, quiet
from nas.views.report.findings import find
from nas.views.report.markup import Html, join, table, tag
from nas.views.report.plots import front_figure
from nas.views.text import NOTHING, label

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Run(RunDirectory):
    """A run on disk with its tables and figures. Each call reads the directory again, so that a running search is followed."""

    @classmethod
    def of(cls, run: RunDirectory) -> Run:
        """The same run, as users are given it."""
        return cls(run.path, run.content)

    def frame(self) -> pd.DataFrame:
        """One row a trial; `nas.runs.frames.trials_frame` lists the columns.

        run.frame().query("outcome == 'done'").plot.scatter("latency", "accuracy")
        """
        return trials_frame(self)

    def front_frame(self) -> pd.DataFrame:
        """The Pareto front, one row a member, cheapest first, by digest; `nas.runs.frames.front_frame` lists the columns."""
        return front_frame(self)

    def figure(self, cost: str | None = None) -> go.Figure:
        """The score against a cost, the front as a step line; by default the cost that the front is sorted by.

        Raises `InputError` where `cost` is no objective of the run.
        """
        costs = cost_objectives(self.settings.objectives)
        if cost is not None and cost not in costs:
            raise InputError(f"cost {quoted(cost)}: the run's costs are {', '.join(costs)}")
        found = find(self)
        if not found.scored:
            return quiet("No candidate is trained yet")
        return front_figure(found, cost or primary_cost(self.settings.objectives))

    def _repr_html_(self) -> str:
        """What a notebook shows: how trials ended, and the front as a table."""
        records, settings = self.judged(), self.settings
        counts = ", ".join(f"{count} {what}" for what, count in count_outcomes(records).items()) or "no trials yet"
        head = tag("p", tag("b", self.path), f" · {settings.space.name} on {settings.data} · {counts}")
        front = pareto_front(records, settings.objectives)
        return join([head, self._members(front, records) if front else tag("p", "Nothing is on the front yet.")])

    def _members(self, front: list[TrialRecord], records: list[TrialRecord]) -> Html:
        objectives, names = self.settings.objectives, known_as(records, self.settings.objectives)
        titles = [label(name) if is_cost(name) else score_title(self.settings.evaluation.score) for name in objectives]
        rows = [
            (
                tag("code", record.digest[:8]),
                ", ".join(names.get(record.digest, ())),
                *(self._value(record, name) for name in objectives),
                tag("code", record.text),
            )
            for record in front
        ]
        return table(["Digest", "Known as", *map(capital, titles), "Network"], rows)

    def _value(self, record: TrialRecord, name: str) -> str:
        latency = measured_latency(record.evaluation, name)
        if not is_cost(name):
            return self.settings.evaluation.score.text(record.objectives[name], self.provenance.validation_images)
        if objective(name).unit == "ms":
            return latency_text(latency) if latency else NOTHING
        return objective(name).show(record.objectives[name])


@checks_kinds
def open_run(path: StrPath) -> Run:
    """Open an existing run directory; raises `InputError` when it is not one."""
    return Run.of(store.open_run(Path(path)))
