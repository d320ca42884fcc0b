"""Starting a search: check what was given, find the hardware, make the run directory, run, report."""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.storages import BaseStorage

from nas.conditions import data_of, devices_here, init_fingerprint, load_images, settings_here
from nas.cost import least_cost
from nas.data import ImageData
from nas.demands import check_custom
from nas.device_lease import lease_directory
from nas.errors import InputError
from nas.known import tried_first
from nas.metrics import load_metric
from nas.mirror import OFF, check_mirror, check_new_mirror, mirrored
from nas.objectives import check_objectives
from nas.provenance import command_line, git_commit, package_versions
from nas.record import Confirmation, EpochMetrics, TrialRecord
from nas.run import Provenance, RunDirectory, default_run_path, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.search.heartbeat import Heartbeat
from nas.search.rungs import levels
from nas.search.samplers import make_sampler
from nas.search.storage import connected, database_errors
from nas.settings import Resources, SearchSettings
from nas.signals import gentle_signals, notices_ignored
from nas.targets import check_targets, latency_devices
from nas.wording import plural

if TYPE_CHECKING:
    from nas.search.placement import Placement
    from nas.search.warm_start import WarmStart

MOST_CONFIRM = 0.5
"""Share of the budget that confirmation may take at most: there must be a search to confirm."""

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

    def end(self) -> None:
        """The search is over, by whatever cause."""


@dataclass(frozen=True)
class SearchPlan:
    """A search that was checked and can start; `warm` is what it takes over from earlier runs, `storage` has its study.

    `models` are those of the devices that a trial's worker uses, by device.
    """

    settings: SearchSettings
    data: ImageData
    out: Path
    address: str | None = None
    warm: WarmStart | None = None
    storage: BaseStorage | None = None
    models: Mapping[str, str] = field(default_factory=dict)


def plan_search(settings: SearchSettings, out: Path | None = None, address: str | None = None) -> SearchPlan:
    """Check everything that can be checked before anything is written or started; raises `InputError`.

    With an `address`, as in a Ray job, which has one of its own, devices are looked at where trials can run there. A
    password in the settings' `storage` goes no further than to the database.
    """
    from nas.search.cluster import deleted_with_job

    address = cluster_address(address)
    check_objectives(settings.objectives, [target.name for target in settings.evaluation.targets])
    load_metric(settings.evaluation.metric)
    make_sampler(settings.sampler, 0)
    if settings.trials < 1:
        raise InputError(f"--trials {settings.trials}: needs at least 1")
    if not 0 <= settings.confirm <= MOST_CONFIRM:
        raise InputError(f"--confirm {settings.confirm:g}: needs a share from 0 to {MOST_CONFIRM:g}")
    epochs = settings.evaluation.recipe.epochs
    if settings.stop_early and not levels(epochs):
        raise InputError(
            f"--stop-early: a training of {plural(epochs, 'epoch')} has none to stop after; needs at least 2"
        )
    if settings.device.startswith("cuda:"):
        raise InputError(
            f"--device {settings.device}: Ray deals out the GPUs; use --device cuda, and CUDA_VISIBLE_DEVICES to choose"
        )
    _check_budgets(settings)
    check_targets(settings)
    check_pins(settings.resources, address)
    out = out or default_run_path(settings.space.name)
    check_new_folder(out)
    if deleted_with_job(out) and settings.mirror is None:
        raise InputError(
            f"--out {out}: lies in the Ray job's copy of its working directory, which Ray deletes; give an absolute path, "
            "or --mirror"
        )
    if settings.mirror is not None:
        check_new_mirror(settings.mirror, out)
    settings, storage = connected(settings)
    settings = replace(settings, enqueue=tried_first(settings.space, settings.enqueue))
    evaluation = settings.evaluation
    from nas.search.warm_start import adopted_precision, open_earlier, warmed

    for path in settings.warm_start:
        open_earlier(path)
    data = load_images(settings.space, settings.data, settings.split_seed, evaluation.init)
    from nas.evaluate import settled_recipe
    from nas.latency_cache import cache_folder

    lease_directory()  # what is wrong with either is said now rather than by a worker
    cache_folder()
    placement = placement_of(settings, address)
    models = placement.ask(devices_here, settings)
    few = replace(
        data, train=data.train.subset(np.arange(min(evaluation.recipe.batch_size, len(data.train)))), test=None
    )
    recipe = placement.ask(
        settled_recipe,
        adopted_precision(evaluation.recipe, settings, models[settings.device]),
        settings.space.backbone,
        replace(few, validation=few.train),
        settings.device,
        int(settings.resources.cpus_per_trial),
    )
    settings, warm = warmed(replace(settings, evaluation=replace(evaluation, recipe=recipe)), data, models)
    return SearchPlan(settings, data, out, address, warm, storage, models)


def cluster_address(address: str | None) -> str | None:
    """The Ray cluster to use: the one that is given, in a Ray job the job's own, otherwise none."""
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_JOB_SUBMISSION_ID" in os.environ
    return address or ("auto" if in_job else None)


def check_pins(resources: Resources, address: str | None) -> None:
    """Raise `InputError` when trials are to run on some nodes alone, and cannot: there is no cluster, or no such name."""
    check_custom("--resource", resources.custom)
    if address is None and (resources.accelerator or resources.custom):
        flag = "--accelerator" if resources.accelerator else "--resource"
        raise InputError(f"{flag} {resources.accelerator or next(iter(resources.custom))}: needs a cluster, --address")


def _check_budgets(settings: SearchSettings) -> None:
    """Raise `InputError` when the space's smallest network is over a budget that needs no measuring."""
    budgets = settings.evaluation.budgets
    limits = {"macs": budgets.max_macs, "params": budgets.max_params}
    for what, limit in limits.items():
        if limit is None:
            continue
        least = least_cost(settings.space, 2, what)  # of classes there are at least two
        if least > limit:
            raise InputError(
                f"--max-{what} {limit:,} cannot be met: the smallest network of the space {settings.space.name} "
                f"has {least:,}"
            )


def check_new_folder(out: Path) -> None:
    """Raise `InputError` unless the folder does not exist and can be made."""
    try:
        exists = out.exists()
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:
        raise InputError(f"--out {str(out)[:200]}: {error.strerror}") from error
    if exists:
        raise InputError(f"--out {out}: exists already; give another --out, or --resume {out}")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"--out {out}: {parent} is not a folder that can be written to")


@dataclass(frozen=True)
class Finished:
    """A search that ended: its directory, why, whether `resume_search` could bring more, whether it was told to stop
    (by a signal or `nas stop`), and its wall seconds."""

    run: RunDirectory
    reason: str
    resumable: bool
    interrupted: bool
    seconds: float


def run_search(plan: SearchPlan, progress: Progress | None = None) -> Finished:
    """Run a planned search to its end and write its report.

    Ray is started when it does not run yet, and keeps running until this process ends, for the next search.
    """
    placement = placement_of(plan.settings, plan.address)
    settings = replace(plan.settings, resources=started_resources(plan.settings, plan.address))
    from nas.search.measuring import measurers

    with measurers(settings) as actors:
        taken = (plan.warm.records, plan.warm.weights) if plan.warm else ()
        provenance = _provenance(settings, plan.data, plan.models[settings.device])
        run = RunDirectory.create(plan.out, settings, provenance, *taken)
        with run.locked(), mirrored(run), database_errors(run):
            return _drive(
                run, plan.data, progress or Progress(), actors, plan.address, placement, plan.models, plan.storage
            )


def resume_search(
    path: Path,
    trials: int | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    mirror: str | None = None,
    storage: str | None = None,
) -> Finished:
    """Go on with a search where its records end, with the same settings; `trials` may raise the budget.

    A budget of time starts anew. `mirror` is the URI of another mirror than the run's, or `off`; `storage` the URL of
    the database, with a password or of another one. Raises `InputError` when the run cannot go on here.
    """
    address = cluster_address(address)
    run = open_run(path)
    with run.locked():
        check_pins(run.settings.resources, address)
        load_metric(run.settings.evaluation.metric)
        placement = placement_of(run.settings, address)
        settings = placement.ask(settings_here, run)
        if mirror is not None:
            settings = replace(settings, mirror=None if mirror == OFF else mirror)
        check_targets(settings)
        models = placement.ask(devices_here, settings)
        _check_same_hardware(run, models[settings.device])
        data = data_of(run)
        check_mirror(RunDirectory(run.path, replace(run.content, settings=settings)))
        settings, database = connected(replace(settings, storage=storage or settings.storage))
        started_resources(settings, address)
        if settings != run.settings:
            run = run.with_settings(settings)
        if trials is not None:
            run = run.with_trials(trials)
        from nas.search.measuring import measurers

        with measurers(settings) as actors, mirrored(run), database_errors(run):
            return _drive(run, data, progress or Progress(), actors, address, placement, models, database)


def _check_same_hardware(run: RunDirectory, here: str) -> None:
    """Raise `InputError` when the device here is another model than the run's and latencies decide something."""
    before = run.provenance.hardware
    if run.settings.device in latency_devices(run.settings) and here != before:
        raise InputError(
            f"{run.path}: its latencies were measured on {before} and this is {here}, so that new ones could not be "
            "compared with them; resume it there, or start a search of its own here"
        )


def placement_of(settings: SearchSettings, address: str | None) -> Placement:
    """Where trials run; on a cluster, which this connects to, with every node asked for the models of its devices.

    Raises `InputError` when no node fits a trial, or latencies of different models would be compared.
    """
    _before_ray(address)
    from nas.search.placement import Placement

    placement = Placement(settings, elastic=address is not None)
    if address is not None:
        started_resources(settings, address)
        placement.survey()
    return placement


def started_resources(settings: SearchSettings, address: str | None) -> Resources:
    """Start Ray here, or connect to a cluster; the settings' resources as its nodes allow."""
    _before_ray(address)
    from nas.search.cluster import start_ray
    from nas.search.placement import fitted_resources, living_nodes

    targets = settings.evaluation.targets
    gpus = any(device != "cpu" for device in (settings.device, *(target.protocol.device for target in targets)))
    with notices_ignored():
        start_ray(address, gpus, (settings.evaluation.metric, settings.data))
    nodes = [node["Resources"] for node in living_nodes()]
    return fitted_resources(settings, nodes, elastic=address is not None)


def _before_ray(address: str | None) -> None:
    if address is None:
        # Read when Ray is first imported: without a cluster, all of its servers listen on loopback alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def device_of(name: str, address: str | None, resources: Resources, functions: Sequence[str]) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device of this machine, or of a cluster, which this connects to.

    `functions` are what `start_ray` sends there. Raises `InputError` when it is not here, or no cluster answers.
    """
    from nas.device import resolve_device

    if address is None:
        return resolve_device(name)
    from nas.search.cluster import start_ray
    from nas.search.placement import cluster_device

    start_ray(address, gpus=True, functions=functions)
    return cluster_device(name, resources)


def _drive(
    run: RunDirectory,
    data: ImageData,
    progress: Progress,
    actors: Mapping[str, Any],
    address: str | None,
    placement: Placement,
    models: Mapping[str, str],
    storage: BaseStorage | None,
) -> Finished:
    from nas.report import write_report
    from nas.search.cluster import head_watched
    from nas.search.tune import run_candidates
    from nas.search.worker import worker_of

    start = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    broker = Broker(run, storage)
    confirmer = Confirmer(broker, progress.confirmation)
    deciding = {name: models[name] for name in latency_devices(run.settings)}
    watched = head_watched(functools.partial(_last_words, run, progress)) if placement.elastic else nullcontext()
    with gentle_signals(confirmer), watched, worker_of(run, data, actors, deciding) as worker:
        heartbeat = Heartbeat(confirmer, address, worker.keeper.places)

        def on_epoch(candidate: Candidate, metrics: EpochMetrics) -> None:
            heartbeat.epoch(candidate, metrics)
            (progress.epoch_again if confirmer.is_again(candidate) else progress.epoch)(candidate, metrics)

        progress.begin(broker)
        broker.on_record = progress.record
        try:
            with heartbeat:
                run_candidates(confirmer, worker.start, on_epoch, placement)
        except BaseException:
            progress.end()
            with suppress(InputError):  # the disk may be full: what ended the search is what is told
                write_report(run)
            raise
        progress.end()
        write_report(run)
    seconds = time.perf_counter() - start
    return Finished(run, confirmer.ending, confirmer.resumable, confirmer.interrupted, seconds)


def _last_words(run: RunDirectory, progress: Progress, reason: str) -> None:
    """The process is about to end, by no decision of the search."""
    from nas.report import write_report

    with suppress(Exception):
        progress.end()
    logger.error("%s; what has finished is kept. To go on: nas search --resume %s --address ...", reason, run.path)
    with suppress(Exception):
        write_report(run)


def _provenance(settings: SearchSettings, data: ImageData, hardware: str) -> Provenance:
    return Provenance(
        created=time.time(),
        command=command_line(),
        versions=package_versions(),
        host=socket.gethostname(),
        hardware=hardware,
        cpu_cores=len(os.sched_getaffinity(0)),
        git_commit=git_commit(),
        data_fingerprint=data.fingerprint(),
        classes=data.classes,
        train_images=len(data.train),
        validation_images=len(data.validation),
        mean=data.mean,
        std=data.std,
        corrupt_files=data.corrupt,
        init_fingerprint=init_fingerprint(settings.evaluation.init),
        image_size=data.image_size,
    )


@dataclass(frozen=True)
class Estimate:
    """What a search will take: wall seconds, and bytes of disk."""

    seconds: float
    disk_bytes: int


def estimate(plan: SearchPlan, concurrent: int, clock: Callable[[], float] = time.perf_counter) -> Estimate | None:
    """A forecast from timing a few training steps and the validation of the space's backbone here.

    Latency is measured one candidate at a time, training runs `concurrent` at a time. None, with a warning, where the
    backbone cannot be trained here; smaller candidates still may.
    """
    try:
        return _estimate(plan, concurrent, clock)
    except Exception as error:  # whatever a candidate may raise
        logger.warning("no forecast: the space's backbone could not be trained: %s", " ".join(str(error).split())[:300])
        return None


def _estimate(plan: SearchPlan, concurrent: int, clock: Callable[[], float]) -> Estimate:
    import torch

    from nas.device_data import DeviceData
    from nas.device_lease import lease_for
    from nas.finetune import finetune, predict
    from nas.model import build

    settings = plan.settings
    recipe, protocol = settings.evaluation.recipe, settings.evaluation.protocol
    architecture = settings.space.backbone
    network = build(architecture, len(plan.data.classes))
    steps_an_epoch = max(1, len(plan.data.train) // recipe.batch_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(settings.resources.cpus_per_trial)))
    try:
        few = replace(
            plan.data,
            train=plan.data.train.subset(np.arange(min(4 * recipe.batch_size, len(plan.data.train)))),
            validation=plan.data.validation.subset(np.arange(min(512, len(plan.data.validation)))),
            test=None,
        )
        data = DeviceData(few, settings.device)
        lease, side = lease_for(settings.device), architecture.input_size
        twice = replace(recipe, epochs=2, steps=None, seconds=None, patience=0, compile=False)
        pace = list(finetune(network, data, side, twice, lambda a, b: 0.0, seed=0, lease=lease))[-1].images_per_s
        start = clock()
        predict(network, data, data.validation, side, lease=lease)
        validation_s = (clock() - start) * len(plan.data.validation) / len(few.validation)
    finally:
        torch.set_num_threads(threads)
    steps = min(recipe.epochs * steps_an_epoch, recipe.steps or recipe.epochs * steps_an_epoch)
    training_s = min(steps * recipe.batch_size / pace, recipe.seconds or float("inf"))
    protocols = (protocol, *(target.protocol for target in settings.evaluation.targets))
    latency_s = sum(each.warmup_s + each.max_s for each in protocols)
    trial_s = training_s + validation_s * steps / steps_an_epoch + latency_s
    parameters = sum(tensor.numel() for tensor in network.state_dict().values())
    kept = min(settings.trials, 20)
    return Estimate(
        seconds=20 + settings.trials * max(trial_s / max(concurrent, 1), latency_s),
        disk_bytes=5_000_000 + settings.trials * 15_000 + kept * 4 * parameters,
    )
