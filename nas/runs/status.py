"""How a run stands: whether its search runs, what runs where, what failed, time left and spent. Reads, never writes."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nas.runs.front import hypervolume, pareto_front, reference_point
from nas.runs.in_turn import with_remeasured
from nas.runs.pace import search_seconds, seconds_left
from nas.runs.record import AuditRecord, Confirmation, LatencyRecord, Outcome, TrialRecord, count_outcomes
from nas.runs.state import BEAT_S, SILENT_S, DriverState
from nas.runs.store import RunDirectory

LAST_LOST = 5
"""Lost trials that are told one by one."""
NO_REASON = "no reason recorded"


class Phase(StrEnum):
    """Whether a search runs on a directory.

    Busy: something holds the directory that has told nothing yet, a search that starts or a fidelity check. Unknown: nothing
    runs as far as can be seen, and no driver has told how its search ended, as those of older versions never did.
    """

    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    DEAD = "dead"
    BUSY = "busy"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Failure:
    """Trials that failed for one reason, but for the numbers in it; `reason` is the latest's in full."""

    reason: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class LostTrial:
    """A trial whose worker or driver died; `finished` in UTC seconds since the epoch."""

    number: int
    reason: str
    finished: float


@dataclass(frozen=True)
class WorkerCount:
    """How many trainings and other evaluations a worker has finished, the last at `latest` (UTC seconds)."""

    worker: str
    finished: int
    latest: float


@dataclass(frozen=True)
class RunStatus:
    """How a run stands at `now` (UTC seconds); `driver` is the last state of one, None where none could be read.

    The search has taken `seconds` of wall time so far, all of its commands together.
    `device_hours` are the evaluations that ended, confirmations and fidelity checks among them, in hours of the GPUs or CPU cores
    (`device_unit`) that a trial takes, `per_trial` of them. `limits` are the hard ones of now, by objective in its unit, and
    `limits_changed` says whether a resumed search was given others than before; `score_unit` is that of the scores. `asked_to_stop` says that the driver has not heard of it yet.
    """

    run: str
    phase: Phase
    now: float
    driver: DriverState | None
    asked_to_stop: bool
    resumable: bool
    trained: int
    candidates: int
    confirmed: int
    confirmations: int
    seconds_left: float | None
    seconds: float | None
    device_hours: float
    device_unit: str
    per_trial: float
    outcomes: dict[str, int]
    failures: tuple[Failure, ...]
    lost: tuple[LostTrial, ...]
    workers: tuple[WorkerCount, ...]
    front: int
    hypervolume: float | None
    limits: dict[str, float]
    limits_changed: bool
    score_unit: str = "%"


def phase_of(run: RunDirectory, driver: DriverState | None, now: float) -> Phase:
    """Whether a search runs: by the kernel's lock where it reaches, by the age of the driver's state elsewhere."""
    locked = run.is_locked
    if driver is None or driver.ended is not None:
        return Phase.BUSY if locked else Phase.UNKNOWN if driver is None else Phase.ENDED
    age, here = now - driver.written, driver.host == socket.gethostname()
    if not locked and (here or age > SILENT_S):
        return Phase.DEAD
    if here and age > 5 * BEAT_S and not _is_alive(driver.pid):  # locked by the next one
        return Phase.BUSY
    return Phase.STOPPING if driver.stopping or run.stop_requested else Phase.RUNNING


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def status_of(run: RunDirectory) -> RunStatus:
    """How a run stands now, from any machine that sees its directory."""
    return status_from(run, run.records(), run.confirmations(), run.audit_records(), run.latencies())


def status_from(
    run: RunDirectory,
    records: Sequence[TrialRecord],
    confirmations: Sequence[Confirmation],
    audits: Sequence[AuditRecord],
    latencies: Sequence[LatencyRecord] = (),
) -> RunStatus:
    """How a run stands now, whose records were read already."""
    driver, now = run.state(), time.time()
    phase = phase_of(run, driver, now)
    settings, objectives = run.settings, run.settings.objectives
    trained = sum(record.counts for record in records)
    if driver is not None:  # what ended since it wrote
        ended = {(r.number, r.started) for r in records} | {(c.trial, c.started) for c in confirmations}
        running = tuple(trial for trial in driver.running if (trial.number, trial.started) not in ended)
        driver = replace(driver, running=running)
    left, resumable = None, phase is not Phase.ENDED
    if driver is not None and phase in (Phase.RUNNING, Phase.STOPPING):
        started, now_there = [trial.started for trial in driver.running], driver.written  # all by its clock
        left = seconds_left(settings, records, confirmations, driver.started, now_there, started)
    elif driver is not None and phase is Phase.ENDED:
        resumable = driver.resumable
    elif phase is Phase.UNKNOWN:
        resumable = trained < settings.candidates or len(confirmations) < settings.confirmations
    on_gpu = settings.on_gpu
    per_trial = (settings.resources.gpus_per_trial or 1.0) if on_gpu else settings.resources.cpus_per_trial
    return RunStatus(
        run=str(run.path),
        score_unit=run.settings.evaluation.score.unit,
        phase=phase,
        now=now,
        driver=driver,
        asked_to_stop=run.stop_requested,
        resumable=resumable,
        trained=trained,
        candidates=settings.candidates,
        confirmed=len(confirmations),
        confirmations=settings.confirmations,
        seconds_left=left,
        seconds=search_seconds(driver, records),
        device_hours=per_trial * _seconds(records, confirmations, audits) / 3600,
        device_unit="GPU" if on_gpu else "CPU core",
        per_trial=per_trial,
        outcomes=count_outcomes(records),
        failures=_failures(records, confirmations),
        lost=_lost(records),
        workers=_workers(records, confirmations),
        front=len(pareto_front(with_remeasured(records, latencies, settings), objectives)),
        hypervolume=hypervolume(records, objectives, reference_point(records, objectives)),
        limits=run.settings.evaluation.limits,
        limits_changed=run.limits_changed,
    )


def _seconds(
    records: Sequence[TrialRecord], confirmations: Sequence[Confirmation], audits: Sequence[AuditRecord]
) -> float:
    own = [record for record in records if record.imported_from is None]
    ended: list[TrialRecord | Confirmation | AuditRecord] = [*own, *confirmations, *audits]
    return sum(each.evaluation.seconds for each in ended)


def _failures(records: Sequence[TrialRecord], confirmations: Sequence[Confirmation]) -> tuple[Failure, ...]:
    """Most frequent first."""
    failed = [(r.number, r.evaluation.reason, r.finished) for r in records if r.outcome is Outcome.FAILED]
    failed += [
        (c.trial, c.evaluation.reason, c.finished) for c in confirmations if c.evaluation.outcome is Outcome.FAILED
    ]
    groups: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, reason, _ in sorted(failed, key=lambda each: each[2]):
        told = reason or NO_REASON
        groups[re.sub(r"\d[\d.,]*", "#", told)].append((number, told))
    found = [Failure(group[-1][1], tuple(number for number, _ in group)) for group in groups.values()]
    return tuple(sorted(found, key=lambda failure: -len(failure.trials)))


def _lost(records: Sequence[TrialRecord]) -> tuple[LostTrial, ...]:
    lost = [record for record in records if record.outcome is Outcome.LOST]
    return tuple(LostTrial(r.number, r.evaluation.reason or NO_REASON, r.finished) for r in lost[-LAST_LOST:])


def _workers(records: Sequence[TrialRecord], confirmations: Sequence[Confirmation]) -> tuple[WorkerCount, ...]:
    """Latest first."""
    own = [record for record in records if record.imported_from is None and record.repeat_of is None]
    ended: list[TrialRecord | Confirmation] = [*own, *confirmations]
    finished: defaultdict[str, list[float]] = defaultdict(list)
    for each in ended:
        if each.evaluation.worker:
            finished[each.evaluation.worker].append(each.finished)
    found = [WorkerCount(worker, len(times), max(times)) for worker, times in finished.items()]
    return tuple(sorted(found, key=lambda worker: -worker.latest))
