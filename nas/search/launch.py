"""Starting a search: check what was given, find the hardware, make the run directory, run, report."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.storages import BaseStorage

from nas.conditions import data_of, init_fingerprint, load_images, settings_here
from nas.cost import least_cost
from nas.data import ImageData
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
from nas.search.signals import gentle_signals, notices_ignored
from nas.search.storage import connected, database_errors
from nas.settings import Resources, SearchSettings
from nas.targets import check_targets, places
from nas.wording import plural

if TYPE_CHECKING:
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
    """A search that was checked and can start; `warm` is what it takes over from earlier runs, `storage` has its study."""

    settings: SearchSettings
    data: ImageData
    out: Path
    address: str | None = None
    warm: WarmStart | None = None
    storage: BaseStorage | None = None


def plan_search(settings: SearchSettings, out: Path | None = None, address: str | None = None) -> SearchPlan:
    """Check everything that can be checked before anything is written or started; raises `InputError`.

    A password in the settings' `storage` goes no further than to the database.
    """
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
    if address and address.startswith("ray://"):
        raise InputError(
            f"--address {address}: under a ray:// client Tune moves the driver and its files to the head node; "
            "run `nas search --address auto` on a node of the cluster, or submit it with `ray job submit`"
        )
    out = out or default_run_path(settings.space.name)
    check_new_folder(out)
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

    if address is None:
        from nas.runtimes import check_protocol

        check_protocol(evaluation.protocol)
    lease_directory()  # what is wrong with either is said now rather than by a worker
    cache_folder()
    given = adopted_precision(evaluation.recipe, settings)
    recipe = settled_recipe(
        given, settings.space.backbone, data, settings.device, int(settings.resources.cpus_per_trial)
    )
    settings, warm = warmed(replace(settings, evaluation=replace(evaluation, recipe=recipe)), data)
    return SearchPlan(settings, data, out, address, warm, storage)


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


def fitted_resources(settings: SearchSettings, cpus: float, gpus: float) -> Resources:
    """The settings' resources with zeros replaced, on hardware with so many CPU cores and GPUs.

    The GPUs that are kept for measuring targets are no trial's. Raises `InputError` if no trial fits.
    """
    given, device = settings.resources, settings.device
    kept = sum(place.gpus for place in places(settings))
    per_trial = replace(given, gpus_per_trial=(given.gpus_per_trial or 1.0) if device != "cpu" else 0.0)
    fit = int(cpus // per_trial.cpus_per_trial)
    if per_trial.gpus_per_trial:
        fit = min(fit, int((gpus - kept) / per_trial.gpus_per_trial + 1e-9))
    if fit < 1:
        need = f"{per_trial.cpus_per_trial:g} CPUs and {per_trial.gpus_per_trial:g} GPUs"
        targets = f", {kept} of them for targets" if kept else ""
        raise InputError(f"a trial takes {need}, but Ray has {cpus:g} CPUs and {gpus:g} GPUs{targets}")
    return replace(per_trial, max_concurrent=min(given.max_concurrent or fit, fit))


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

    Zeros in the settings' resources are replaced by what the hardware allows. Ray is started when it does not run
    yet, and keeps running until this process ends, for the next search.
    """
    capacity = ray_capacity(plan.address, plan.settings)
    settings = replace(plan.settings, resources=fitted_resources(plan.settings, *capacity))
    from nas.search.measuring import measurers

    with measurers(settings) as actors:
        taken = (plan.warm.records, plan.warm.weights) if plan.warm else ()
        run = RunDirectory.create(plan.out, settings, _provenance(settings, plan.data), *taken)
        with run.locked(), mirrored(run), database_errors(run):
            return _drive(run, plan.data, progress or Progress(), actors, plan.address, plan.storage)


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
    run = open_run(path)
    with run.locked():
        settings = settings_here(run)
        if mirror is not None:
            settings = replace(settings, mirror=None if mirror == OFF else mirror)
        load_metric(settings.evaluation.metric)
        _check_same_hardware(run)
        data = data_of(run)
        check_targets(settings)
        check_mirror(RunDirectory(run.path, replace(run.content, settings=settings)))
        settings, database = connected(replace(settings, storage=storage or settings.storage))
        fitted_resources(settings, *ray_capacity(address, settings))
        if settings != run.settings:
            run = run.with_settings(settings)
        if trials is not None:
            run = run.with_trials(trials)
        from nas.search.measuring import measurers

        with measurers(settings) as actors, mirrored(run), database_errors(run):
            return _drive(run, data, progress or Progress(), actors, address, database)


def _check_same_hardware(run: RunDirectory) -> None:
    """Raise `InputError` when the device here is another model than the run's and latencies decide something."""
    from nas.device import device_name

    settings, before = run.settings, run.provenance.hardware
    decides = "latency" in settings.objectives or settings.evaluation.budgets.max_latency_ms is not None
    here = device_name(settings.device)
    if decides and here != before:
        raise InputError(
            f"{run.path}: its latencies were measured on {before} and this is {here}, so that new ones could not be "
            "compared with them; resume it there, or start a search of its own here"
        )


def ray_capacity(address: str | None, settings: SearchSettings) -> tuple[float, float]:
    """Start Ray here, or connect to a cluster; the CPU cores and GPUs that it has."""
    if address is None:
        # Read when Ray is first imported: without a cluster, all of its servers listen on loopback alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from nas.search.cluster import cluster_capacity, start_ray

    targets = settings.evaluation.targets
    gpus = any(device != "cpu" for device in (settings.device, *(target.protocol.device for target in targets)))
    with notices_ignored():
        start_ray(address, gpus)
    return cluster_capacity()


def _drive(
    run: RunDirectory,
    data: ImageData,
    progress: Progress,
    actors: Mapping[str, Any],
    address: str | None,
    storage: BaseStorage | None,
) -> Finished:
    from nas.report import write_report
    from nas.search.tune import run_candidates
    from nas.search.worker import worker_of

    start = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    broker = Broker(run, storage)
    confirmer = Confirmer(broker, progress.confirmation)
    with gentle_signals(confirmer), worker_of(run, data, actors) as worker:
        heartbeat = Heartbeat(confirmer, address, worker.keeper.places)

        def on_epoch(candidate: Candidate, metrics: EpochMetrics) -> None:
            heartbeat.epoch(candidate, metrics)
            (progress.epoch_again if confirmer.is_again(candidate) else progress.epoch)(candidate, metrics)

        progress.begin(broker)
        broker.on_record = progress.record
        try:
            with heartbeat:
                run_candidates(confirmer, worker.start, on_epoch)
        finally:
            progress.end()
            write_report(run)
    seconds = time.perf_counter() - start
    return Finished(run, confirmer.ending, confirmer.resumable, confirmer.interrupted, seconds)


def _provenance(settings: SearchSettings, data: ImageData) -> Provenance:
    from nas.device import device_name

    return Provenance(
        created=time.time(),
        command=command_line(),
        versions=package_versions(),
        host=socket.gethostname(),
        hardware=device_name(settings.device),
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
