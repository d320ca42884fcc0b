"""Runs that a page follows while they grow: read from where the last look ended, and worked out once for each change."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.common.errors import InputError
from nas.common.text import plural
from nas.latency.result import Latency
from nas.runs import layout
from nas.runs.confirmation import Confirmed, confirmed
from nas.runs.front import pareto_front
from nas.runs.in_turn import with_remeasured
from nas.runs.record import (
    AuditRecord,
    BaselineRecord,
    Confirmation,
    LatencyRecord,
    Outcome,
    TrainingRecord,
    TrialRecord,
    known_digests,
)
from nas.runs.settings import SearchSettings
from nas.runs.status import RunStatus, phase_of, status_from
from nas.runs.store import RunDirectory, open_run
from nas.tasks.base import Score
from nas.views.front_latency import crowded_text
from nas.views.report.quantities import colours, quantities

_DIGEST = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Seen:
    """What a run held at the last look; `version` grows with whatever a figure or table shows.

    `recorded` are all of them as the trials left them, `records` the same judged by the `latencies` that were measured in
    turn, `comparable` those that have a value for every objective if they were trained; `by_digest`
    holds the record that answers for each candidate, `trainings` its full ones. `quantities` can be put on an axis,
    `colours` can colour a point. `texts` keeps what pointing at a trial shows, for later looks too. `problems` are
    sentences on what could not be read, and on what to doubt.
    """

    version: int
    run: RunDirectory
    status: RunStatus
    records: tuple[TrialRecord, ...]
    recorded: tuple[TrialRecord, ...]
    latencies: tuple[LatencyRecord, ...]
    comparable: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    by_digest: Mapping[str, TrialRecord]
    confirmations: tuple[Confirmation, ...]
    baselines: tuple[BaselineRecord, ...]
    again: Mapping[str, Confirmed]
    trainings: Mapping[str, tuple[TrainingRecord, ...]]
    quantities: tuple[str, ...]
    colours: tuple[str, ...]
    texts: dict[int, str]
    problems: tuple[str, ...]

    @property
    def settings(self) -> SearchSettings:
        """What the search was told."""
        return self.run.settings

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives of the search."""
        return self.run.settings.objectives

    @property
    def metric(self) -> Score:
        """The score that the run goes by."""
        return self.run.settings.evaluation.score

    @property
    def images(self) -> int:
        """Images that scores are of."""
        return self.run.provenance.validation_images

    @property
    def classes(self) -> int:
        """Outputs of its networks."""
        return self.run.outputs

    def has_weights(self, digest: str) -> bool:
        """Whether the candidate's weights were kept."""
        return is_digest(digest) and self.run.weights_path(digest).is_file()


def is_digest(text: str) -> bool:
    """Whether a text from a file or a page can be a digest, so that it may be part of a path or of a command."""
    return _DIGEST.fullmatch(text) is not None


@dataclass
class _Read:
    """What was read of a run's files so far."""

    records: list[TrialRecord] = field(default_factory=list)
    inode: int | None = None
    end: int = 0
    foreign: int = 0
    newer: int = 0
    missing: frozenset[str] = frozenset()
    latencies: list[LatencyRecord] = field(default_factory=list)
    confirmations: list[Confirmation] = field(default_factory=list)
    baselines: list[BaselineRecord] = field(default_factory=list)
    audits: list[AuditRecord] = field(default_factory=list)
    trainings: list[TrainingRecord] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)


class LiveRun:
    """A run directory that is looked at again and again, by several threads; a look at an unchanged one reads no record."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._marks: dict[str, tuple[int, int, int] | None] = {}
        self._read = _Read()
        self._seen: Seen | None = None

    @property
    def path(self) -> Path:
        """The run directory, as it was given."""
        return self._run.path

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.path.name

    def look(self) -> Seen:
        """What the run holds now, as far as it can be read."""
        with self._lock:
            marks = self._run.file_marks()
            changed = {name for name, mark in marks.items() if mark != self._marks.get(name, ())}
            last = self._seen
            if last is not None and not changed:
                now = time.time()
                phase = phase_of(self._run, last.status.driver, now)
                self._seen = replace(last, status=replace(last.status, now=now, phase=phase))
            elif last is not None and changed == {layout.STATE}:
                self._seen = replace(last, status=self._status())
            else:
                self._seen = self._look_again(marks, changed)
            self._marks = marks
            return self._seen

    def _status(self) -> RunStatus:
        read = self._read
        records = self._run.apply_limits(read.records)
        return status_from(self._run, records, read.confirmations, read.audits, read.latencies)

    def _look_again(self, marks: Mapping[str, tuple[int, int, int] | None], changed: set[str]) -> Seen:
        problems = []
        read = self._read
        try:
            if layout.RUN_FILE in changed:
                self._run = open_run(self._run.path)
                read.texts = {}  # scores are written as the run's settings say
            if layout.TRIALS in changed:
                mark = marks[layout.TRIALS]
                if mark and (
                    mark[0] != read.inode or mark[1] < read.end
                ):  # another file than before, as a replica's copy is
                    read.records, read.end, read.foreign, read.newer, read.texts = [], 0, 0, 0, {}
                    read.missing = frozenset()
                    read.inode = mark[0]
                later = self._run.records_from(read.end)
                sound = [record for record in later.records if _is_sound(record)]
                read.records += sound
                read.end = later.end
                read.foreign += later.foreign + len(later.records) - len(sound)
                read.newer += later.newer
                read.missing |= later.missing
            if layout.LATENCIES in changed:
                read.latencies, read.texts = [each for each in self._run.latencies() if _is_finite(each.latency)], {}
            if layout.CONFIRMATIONS in changed:
                read.confirmations = self._run.confirmations()
            if layout.BASELINES in changed:
                read.baselines = self._run.baselines()
            if layout.AUDITS in changed:
                read.audits = self._run.audit_records()
            if layout.TRAININGS in changed:
                read.trainings = self._run.training_records()
        except InputError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{self._run.path}: cannot be read now ({error.strerror}); shown is what was read before")
        if read.foreign:
            problems.append(
                f"{plural(read.foreign, 'line')} of trials.jsonl could not be read as records, and are left out"
            )
        if read.newer:
            problems.append(f"{plural(read.newer, 'record')} written by a newer version of nas are left out")
        problems += [f"records that cannot be read here are left out: {each}" for each in sorted(read.missing)]
        if crowded := crowded_text(read.records, read.latencies):
            problems.append(crowded)
        return self._worked_out(problems)

    def _worked_out(self, problems: Sequence[str]) -> Seen:
        read, settings = self._read, self._run.settings
        recorded = self._run.apply_limits(read.records)
        objectives, records = settings.objectives, with_remeasured(recorded, read.latencies, settings)
        comparable = tuple(
            record
            for record in records
            if record.outcome is not Outcome.DONE or all(name in record.objectives for name in objectives)
        )
        metric, images = settings.evaluation.score, self._run.provenance.validation_images
        return Seen(
            version=self._seen.version + 1 if self._seen else 1,
            run=self._run,
            status=self._status(),
            records=tuple(records),
            recorded=tuple(recorded),
            latencies=tuple(read.latencies),
            comparable=comparable,
            front=tuple(pareto_front(comparable, objectives)),
            by_digest={record.digest: record for record in records} | known_digests(records),
            confirmations=tuple(read.confirmations),
            baselines=tuple(read.baselines),
            again=confirmed(comparable, read.confirmations, objectives, metric, images),
            trainings={
                digest: tuple(record for record in read.trainings if record.digest == digest)
                for digest in {record.digest for record in read.trainings}
            },
            quantities=tuple(quantities(comparable, objectives)) or objectives,
            colours=tuple(colours(comparable, objectives, self._run.settings.space)),
            texts=read.texts,
            problems=tuple(problems),
        )


def _is_sound(record: TrialRecord) -> bool:
    """Whether its figures are numbers that can be drawn: JSON has no NaN, but Python reads and writes one."""
    evaluation = record.evaluation
    latencies = [each for each in (evaluation.latency, *evaluation.latencies.values()) if each]
    values = [*record.objectives.values(), evaluation.seconds, evaluation.violation]
    values += [evaluation.cost.macs, evaluation.cost.params] if evaluation.cost else []
    times = (record.started, record.finished)
    sound = all(abs(value) < 1e18 for value in values) and all(abs(time) < 1e11 for time in times)
    return sound and all(map(_is_finite, latencies))


def _is_finite(latency: Latency) -> bool:
    return all(abs(ms) < 1e18 for ms in (latency.ms, *latency.range_ms, latency.p10_ms, latency.p90_ms))
