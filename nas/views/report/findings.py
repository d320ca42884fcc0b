"""What a run holds at one moment, worked out once for every section of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nas.latency.result import Latency
from nas.runs.confirmation import Confirmed, confirmed_in
from nas.runs.front import ReferencePoint, cheapest_first, pareto_front, reference_point
from nas.runs.in_turn import with_remeasured
from nas.runs.objectives import Objective, score_of
from nas.runs.pace import search_seconds
from nas.runs.record import BaselineRecord, LatencyRecord, Outcome, TrainingRecord, TrialRecord
from nas.runs.run_file import Change, Provenance
from nas.runs.settings import LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory
from nas.runs.trained import ended
from nas.tasks.base import Score, task_of
from nas.views.report.figures import member_names
from nas.workflows.fidelity.audit import Audit, audit_of


@dataclass(frozen=True)
class Findings:
    """What a run holds at one moment, worked out once for every section.

    `recorded` are the records as the trials left them, `records` the same judged by the latencies measured `in_turn`;
    `scored` are those trained to the full budget with a value for every objective; `names` says by digest what a front
    member is known for; `baselines` are reference networks; `again` is what training candidates again gave, by digest; `audit` says whether the
    proxy training can rank candidates, where that was looked into; `trainings` are the full ones that came to their end.
    `hardest` are the pictures of what those found hardest, by their keys.
    `seconds` is what the search took by the clock; `changes` are the settings that held before.
    """

    path: Path
    settings: SearchSettings
    provenance: Provenance
    recorded: tuple[TrialRecord, ...]
    records: tuple[TrialRecord, ...]
    in_turn: tuple[LatencyRecord, ...]
    scored: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    reference: ReferencePoint | None
    names: dict[str, tuple[str, ...]]
    baselines: tuple[BaselineRecord, ...] = ()
    again: dict[str, Confirmed] = field(default_factory=dict)
    audit: Audit | None = None
    trainings: tuple[TrainingRecord, ...] = ()
    hardest: dict[str, bytes] = field(default_factory=dict)
    seconds: float | None = None
    changes: tuple[Change, ...] = ()

    @property
    def metric(self) -> Score:
        """The score that the run goes by."""
        return self.settings.evaluation.score

    @property
    def by(self) -> Score:
        """The score of its task, by which the test split is scored."""
        return task_of(self.settings.evaluation.task).score

    @property
    def objective(self) -> Objective:
        """The objective that holds the score."""
        return score_of(self.settings.objectives)

    @property
    def outputs(self) -> int:
        """How many values its networks give for an image."""
        return task_of(self.settings.evaluation.task).outputs(self.provenance.classes)

    @property
    def latencies(self) -> list[Latency]:
        """Every latency that a trial measured; a repeat carries the one of its original and is left out."""
        own = [record.evaluation for record in self.recorded if record.outcome is not Outcome.REPEAT]
        return [evaluation.latency for evaluation in own if evaluation.latency is not None]

    def on_target(self, target: LatencyTarget) -> list[Latency]:
        """Every latency that a trial measured on a further target, without those of repeats."""
        own = [record.evaluation for record in self.recorded if record.outcome is not Outcome.REPEAT]
        return [evaluation.latencies[target.name] for evaluation in own if target.name in evaluation.latencies]

    @property
    def device(self) -> str:
        """The device (or devices) measured on, or the one asked for while nothing is measured."""
        names = dict.fromkeys(latency.device_name for latency in self.latencies)
        return ", ".join(names) or self.settings.evaluation.protocol.device

    @property
    def compared(self) -> list[BaselineRecord]:
        """The reference networks with a value for every objective."""
        return [
            record for record in self.baselines if all(name in record.objectives for name in self.settings.objectives)
        ]

    def score(self, record: TrialRecord | BaselineRecord) -> str:
        """A record's score, with its standard error where that is known."""
        return self.metric.text(record.objectives[self.objective], self.provenance.validation_images)


def find(run: RunDirectory) -> Findings:
    """Read a run and work out its front."""
    recorded, in_turn, objectives = run.records(), run.latencies(), run.settings.objectives
    records = with_remeasured(recorded, in_turn, run.settings)
    done = [record for record in records if record.outcome is Outcome.DONE]
    scored = [record for record in done if all(name in record.objectives for name in objectives)]
    front = pareto_front(scored, objectives)
    trainings = tuple(ended(run.training_records()))
    pictures = ((record.key, run.hardest_pictures(record)) for record in trainings if record.hardest)
    return Findings(
        path=run.path,
        settings=run.settings,
        provenance=run.provenance,
        recorded=tuple(recorded),
        records=tuple(records),
        in_turn=tuple(in_turn),
        scored=tuple(scored),
        front=tuple(front),
        reference=reference_point(recorded, objectives),
        names=member_names(front, objectives),
        baselines=tuple(cheapest_first(run.baselines(), objectives)),
        again=confirmed_in(run, scored),
        audit=audit_of(run),
        trainings=trainings,
        hardest={key: content for key, content in pictures if content is not None},
        seconds=search_seconds(run.state(), records),
        changes=run.content.changes,
    )
