"""Running a search that was planned, or going on with one: make the run directory, run, report."""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from nas.common.errors import InputError, arg
from nas.common.provenance import command_line, git_commit, package_versions
from nas.common.signals import gentle_signals, notices_kept
from nas.common.text import resume_line
from nas.data.sets import ImageData
from nas.models.seen import seen_by
from nas.models.weights import licence_of, load_weights
from nas.runs.record import Confirmation, TrialRecord
from nas.runs.replica import OFF, check_replica, replicated
from nas.runs.run_file import Provenance, check_destination, note_destinations
from nas.runs.run_images import RunImages
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.runs.targets import check_targets, latency_devices, latency_names
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.conditions import conditions_here, data_of, devices_here, settings_here
from nas.search.confirming import Confirmer
from nas.search.pinned import Pinned
from nas.search.ray.clock import clock_watched
from nas.search.ray.worker import worker_of
from nas.search.reachable import check_computed, check_latencies, latency_limits, limits_here, measured_by
from nas.search.remeasuring import Remeasurer
from nas.search.renewal import Renewal
from nas.search.storage import connected, database_errors
from nas.tasks.base import outputs_of
from nas.training.history import EpochMetrics
from nas.training.metric_check import check_metric
from nas.training.unseen import scoring, seen_text
from nas.workflows.heartbeat import Heartbeat
from nas.workflows.plan import (
    SearchPlan,
    check_amounts,
    check_named,
    check_pins,
    cluster_address,
    placement_of,
    started_resources,
)
from nas.workflows.reporting import Report, no_report, write_or_warn
from nas.workflows.warm_start import WarmStart

if TYPE_CHECKING:
    from nas.search.ray.placement import Placement

logger = logging.getLogger(__name__)


class Progress:
    """Is told of a running search, on the thread that runs it; this one keeps silent."""

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""

    def record(self, record: TrialRecord) -> None:
        """A trial ended and is on disk."""

    def epoch_again(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate that is trained again ended."""

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""

    def in_turn(self, networks: int) -> None:
        """So many networks near the front are now measured in turn; 0: they were."""

    def end(self) -> None:
        """The search is over, by whatever cause."""


@dataclass(frozen=True)
class Finished:
    """A search that ended: its directory, why, whether `resume_search` could bring more, whether it was told to stop
    (by a signal or `nas stop`), and its wall seconds."""

    run: RunDirectory
    reason: str
    resumable: bool
    interrupted: bool
    seconds: float


@notices_kept()
def run_search(plan: SearchPlan, progress: Progress | None = None, report: Report = no_report) -> Finished:
    """Run a planned search to its end, and tell `report`.

    Ray is started when it does not run yet, and keeps running until this process ends, for the next search.
    """
    placement = placement_of(plan.settings, plan.address)
    settings = replace(plan.settings, resources=started_resources(plan.settings, plan.address))
    from nas.search.ray.measuring import measurers

    with measurers(settings) as actors:
        _check_elsewhere(settings, plan.data, placement, actors, latency_limits(settings))
        warm = plan.warm or WarmStart()
        provenance = _provenance(settings, plan.data, plan.models)
        images = _images(settings, plan.data)
        run = RunDirectory.create(plan.out, settings, provenance, warm.records, warm.weights, images)
        with run.locked(), replicated(run), database_errors(run):
            begin = functools.partial(Broker, run, plan.storage, plan.began, plan.forecast)
            return _drive(
                begin, plan.data, progress or Progress(), actors, plan.address, placement, plan.models, report
            )


@notices_kept()
def resume_search(
    path: Path,
    renewal: Renewal | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    replica: str | None = None,
    storage: str | None = None,
    report: Report = no_report,
) -> Finished:
    """Go on with a search where its records end, with the same settings but for those of the `renewal`.

    Records are judged by its limits. A budget of time starts again. `replica` is the URI of another replica than the run's, or
    `off`; `storage` the URL of the database, with a password or of another one. Raises `InputError` when the run cannot go on here.
    """
    began = time.monotonic()
    address = cluster_address(address)
    run = open_run(path)
    if replica is None:
        check_destination(run.path, "replica", f"copy no more: {arg('replica')} {OFF}")
    if storage is None:
        check_destination(run.path, "storage", f"name the database yourself, this or another: {arg('storage')} URL")
    with run.locked():
        renewed = (renewal or Renewal()).applied(run.settings)
        check_amounts(renewed)
        check_named(renewed)
        classes = run.outputs
        check_computed(renewed, classes)
        check_pins(renewed.resources, address)
        placement = placement_of(renewed, address)
        settings = placement.ask(settings_here, RunDirectory(run.path, replace(run.content, settings=renewed)))
        if replica is not None:
            settings = replace(settings, replica=None if replica == OFF else replica)
        check_targets(settings)
        models = placement.ask(devices_here, settings)
        _check_same_hardware(run, settings, models[settings.evaluation.protocol.device])
        _check_same_conditions(run, settings, placement)
        other = latency_limits(settings).items() - latency_limits(run.settings).items()
        here = {target: limit_ms for target, limit_ms in limits_here(settings).items() if (target, limit_ms) in other}
        check_latencies(settings, classes, here, measured_by(settings, classes, placement))
        data = data_of(run)
        check_metric(renewed.evaluation.load_metric(), data)
        check_replica(RunDirectory(run.path, replace(run.content, settings=settings)))
        settings, database = connected(replace(settings, storage=storage or settings.storage))
        resources = started_resources(settings, address)
        if settings.resources != run.settings.resources:
            settings = replace(settings, resources=resources)
        from nas.search.ray.measuring import measurers

        with measurers(settings) as actors:
            _check_elsewhere(settings, data, placement, actors, dict(other))
            if settings != run.settings:
                run = run.with_settings(settings)  # first: what is made of the records follows from it
            note_destinations(run.path)
            with replicated(run), database_errors(run):
                begin = functools.partial(Broker, run, database, began)
                return _drive(begin, data, progress or Progress(), actors, address, placement, models, report)


def _check_elsewhere(
    settings: SearchSettings,
    data: ImageData,
    placement: Placement,
    actors: Mapping[str, Any],
    limits: Mapping[str | None, float],
) -> None:
    """Raise `InputError` when a limit on a target that only its actor can measure is impossible."""
    elsewhere = {target: limit_ms for target, limit_ms in limits.items() if target in actors}
    classes = outputs_of(data)
    check_latencies(settings, classes, elsewhere, measured_by(settings, classes, placement, actors))


def _check_same_hardware(run: RunDirectory, settings: SearchSettings, here: str) -> None:
    """Raise `InputError` when the device here is another model than the run's and latencies decide something."""
    before = run.provenance.hardware
    if settings.evaluation.protocol.device in latency_devices(settings) and here != before:
        raise InputError(
            f"{run.path}: its latencies were measured on {before} and this is {here}, so that new ones could not be "
            "compared with them; resume it there, or start a search of its own here"
        )


def _check_same_conditions(run: RunDirectory, settings: SearchSettings, placement: Placement) -> None:
    """Raise `InputError` when the run's latencies were measured under conditions that do not hold any more, and decide something."""
    pinned = Pinned(latency_names(settings)).learned(record.evaluation for record in run.first_recorded())
    told = pinned.differ_from(placement.ask(conditions_here, settings))
    if told:
        raise InputError(
            f"{run.path}: its latencies were measured under other conditions ({told}), so that new ones could not be compared "
            f"with them; have them as before, or start a search of its own with {arg('warm_start')} {run.path}"
        )


def _drive(
    begin: Callable[[], Broker],
    data: ImageData,
    progress: Progress,
    actors: Mapping[str, Any],
    address: str | None,
    placement: Placement,
    models: Mapping[str, str],
    report: Report,
) -> Finished:
    from nas.search.ray.cluster import head_watched
    from nas.search.ray.tune import run_candidates

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    broker = begin()
    run = broker.run
    confirmer = Confirmer(broker, progress.confirmation, Remeasurer(run, progress.in_turn))
    deciding = {name: models[name] for name in latency_devices(run.settings)}
    go_on = resume_line(run.path, address)
    last_words = functools.partial(_last_words, run, progress, report)
    elsewhere = functools.partial(last_words, resume_line(run.path, "..."))
    with (
        gentle_signals(confirmer, f"to go on: {go_on}"),
        head_watched(elsewhere) if placement.elastic else nullcontext(),
        clock_watched(functools.partial(last_words, go_on)) as stall,
        worker_of(run, data, actors, deciding) as worker,
    ):
        heartbeat = Heartbeat(confirmer, address, worker.keeper.places, broker.budget.began)

        def on_epoch(candidate: Candidate, metrics: EpochMetrics) -> None:
            stall.heard()
            heartbeat.epoch(candidate, metrics)
            (progress.epoch_again if confirmer.is_again(candidate) else progress.epoch)(candidate, metrics)

        def on_record(record: TrialRecord) -> None:
            stall.heard()
            progress.record(record)

        progress.begin(broker)
        broker.on_record = on_record
        try:
            with heartbeat:
                run_candidates(confirmer, worker.start, on_epoch, placement, worker.keeper)
        except BaseException:
            progress.end()
            write_or_warn(report, run)
            raise
        progress.end()
        write_or_warn(report, run)
    return Finished(run, confirmer.ending, confirmer.resumable, confirmer.interrupted, heartbeat.seconds)


def _last_words(run: RunDirectory, progress: Progress, report: Report, go_on: str, reason: str) -> None:
    """The process is about to end, by no decision of the search."""
    with suppress(Exception):
        progress.end()
    logger.error("%s; what has finished is kept. To go on: %s", reason, go_on)
    with suppress(Exception):
        report(run)


def _images(settings: SearchSettings, data: ImageData) -> RunImages:
    inherited = seen_by(settings.evaluation.init)
    return RunImages(data.train.image_hashes, data.validation.image_hashes, inherited)


def _provenance(settings: SearchSettings, data: ImageData, models: Mapping[str, str]) -> Provenance:
    return Provenance(
        created=time.time(),
        command=command_line(),
        versions=package_versions(),
        host=socket.gethostname(),
        hardware=models[settings.evaluation.protocol.device],
        train_hardware=models[settings.device],
        cpu_cores=len(os.sched_getaffinity(0)),
        git_commit=git_commit(),
        data_fingerprint=data.fingerprint(),
        classes=data.classes,
        train_images=len(data.train),
        validation_images=len(data.validation),
        mean=data.mean,
        std=data.std,
        corrupt_files=data.corrupt,
        init_fingerprint=load_weights(settings.evaluation.init).fingerprint(),
        image_size=data.image_size,
        data_remarks=data.remarks,
        init_licence=licence_of(settings.evaluation.init),
        data_licence=data.licence,
        distinct=True,
        test_fingerprint=data.test_fingerprint(),
        seen_images=seen_text(settings.evaluation.init, scoring(data), data.name),
    )
