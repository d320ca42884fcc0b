"""What is checked before a search starts: what was given, the hardware, the data; nothing is written."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from optuna.storages import BaseStorage

from nas.common.errors import InputError, about, arg
from nas.common.files import check_place
from nas.common.kinds import StrPath, checks_kinds
from nas.common.text import LONGEST_S, plural, quoted
from nas.common.user_cache import assume_home
from nas.data.sets import ImageData
from nas.latency.cache import cache_folder
from nas.latency.device import resolve_device
from nas.latency.lease import lease_directory
from nas.latency.runtimes import MOST_THREADS, RUNTIMES
from nas.runs.demands import check_custom
from nas.runs.layout import default_run_path
from nas.runs.objectives import check_objectives
from nas.runs.replica import check_new_replica
from nas.runs.settings import Resources, SearchSettings
from nas.runs.targets import check_measurable, check_targets
from nas.search.conditions import check_scored_untrained, devices_here
from nas.search.evaluate import settled_recipe
from nas.search.reachable import check_computed, check_latencies, left_out_text, limits_here, measured_by
from nas.search.rungs import levels
from nas.search.samplers import sampler_kind
from nas.search.storage import connected
from nas.search.time_budget import Point
from nas.spaces.known import tried_first
from nas.tasks.base import outputs_of
from nas.training.images import load_images
from nas.training.metric_check import check_metric
from nas.training.recipe import read_recipe
from nas.workflows.space_choice import warn_unfit
from nas.workflows.warm_start import WarmStart, earlier_precision, warmed, with_earlier_estimators

if TYPE_CHECKING:
    from nas.search.ray.placement import Placement  # Ray, which reads the environment when it is imported

MOST_TRIALS, MOST_AT_ONCE = 10**7, 10**5
MOST_CONFIRM = 0.5
"""Share of the budget that confirmation may take at most: there must be a search to confirm."""


@dataclass(frozen=True)
class SearchPlan:
    """A search that was checked and can start; `warm` is what it takes over from earlier runs, `storage` has its study.

    `models` are those of the devices that a trial's worker uses, by device. The command `began` then (of `time.monotonic`), which is
    what a time budget counts from; `forecast` is what candidates of some multiply-adds would take, where that was probed.
    `notes` are sentences on what it begins with.
    """

    settings: SearchSettings
    data: ImageData
    out: Path
    address: str | None = None
    warm: WarmStart | None = None
    storage: BaseStorage | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    forecast: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()


@checks_kinds
def plan_search(
    settings: SearchSettings, out: StrPath | None = None, address: str | None = None, began: float | None = None
) -> SearchPlan:
    """Check everything that can be checked before anything is written or started; raises `InputError`.

    With an `address`, as in a Ray job, which has one of its own, devices are looked at where trials can run there. A
    password in the settings' `storage` goes no further than to the database. A time budget counts from `began` on (of
    `time.monotonic`), by default from now.
    """
    began = time.monotonic() if began is None else began
    address = cluster_address(address)
    folder = default_run_path(settings.space.name) if out is None else Path(out)
    _check_given(settings, address)
    _check_place(settings, folder)
    settings, storage = connected(settings)
    settings = with_earlier_estimators(replace(settings, enqueue=tried_first(settings.space, settings.enqueue)))
    data = _loaded(settings)
    placement, models = _looked_at(settings, outputs_of(data), address)
    settings, warm = warmed(_with_settled_recipe(settings, data, placement, models), data, models, placement)
    left_out = left_out_text(settings, outputs_of(data))
    notes = (*(f"Warm start from {note}" for note in warm.notes), *([left_out] if left_out else ()))
    return SearchPlan(settings, data, folder, address, warm, storage, models, began, notes=notes)


def _check_given(settings: SearchSettings, address: str | None) -> None:
    """Raise `InputError` for what needs no more than the settings to be found wrong."""
    evaluation = settings.evaluation
    read_recipe(evaluation.recipe, None)
    check_objectives(settings.objectives, [target.name for target in evaluation.targets], evaluation.task)
    check_named(settings)
    check_amounts(settings)
    _check_shares(settings.resources, address)
    epochs = evaluation.recipe.epochs
    if settings.stop_early and not levels(epochs):
        raise InputError(
            f"{arg('stop_early')}: a training of {plural(epochs, 'epoch')} has none to stop after; needs at least 2"
        )
    for name, device in (("device", evaluation.protocol.device), ("train_device", evaluation.train_device)):
        if device and device.startswith("cuda:"):
            raise InputError(
                f"{arg(name)} {device}: Ray deals out the GPUs; use {arg(name)} cuda, and CUDA_VISIBLE_DEVICES to choose"
            )
    check_computed(settings, 2)  # of classes there are at least two
    check_targets(settings)
    if address is None:
        check_measurable(evaluation.targets)
    check_pins(settings.resources, address)


def _check_place(settings: SearchSettings, out: Path) -> None:
    """Raise `InputError` where the run directory and its replica cannot be made, or would not last."""
    from nas.search.ray.cluster import deleted_with_job

    check_new_folder(out)
    if deleted_with_job(out) and settings.replica is None:
        raise InputError(
            f"{arg('out')} {out}: lies in the Ray job's copy of its working directory, which Ray deletes; give an absolute path, "
            f"or {arg('replica')}"
        )
    if settings.replica is not None:
        check_new_replica(settings.replica, out)


def _loaded(settings: SearchSettings) -> ImageData:
    """The data; raises `InputError` where it cannot be read, or candidates cannot be trained on it."""
    evaluation = settings.evaluation
    with about("data"):
        warn_unfit(settings.space, settings.data)
    data = load_images(
        settings.space,
        settings.data,
        settings.split_seed,
        evaluation.init,
        evaluation.task,
        allow_seen=settings.allow_seen_images,
    )
    check_scored_untrained(evaluation, data.name, data.classes)
    check_metric(evaluation.load_metric(), data)
    check_computed(settings, outputs_of(data))
    return data


def _looked_at(settings: SearchSettings, outputs: int, address: str | None) -> tuple[Placement, Mapping[str, str]]:
    """Where trials run, and the models of the devices there.

    Raises `InputError` where one is missing, or no network meets the limits of latency on it.
    """
    lease_directory()  # what is wrong with either is said now rather than by a worker
    cache_folder()
    placement = placement_of(settings, address)
    models = placement.ask(devices_here, settings)
    check_latencies(settings, outputs, limits_here(settings), measured_by(settings, outputs, placement))
    return placement, models


def _with_settled_recipe(
    settings: SearchSettings, data: ImageData, placement: Placement, models: Mapping[str, str]
) -> SearchSettings:
    """The settings with the precision written out, by timing training steps of the backbone where trials run."""
    evaluation = settings.evaluation
    few = data.train.subset(np.arange(min(evaluation.recipe.batch_size, len(data.train))))
    recipe = placement.ask(
        settled_recipe,
        earlier_precision(evaluation.recipe, settings, models[settings.device]),
        settings.space.backbone,
        replace(data, train=few, validation=few, test=None),
        settings.device,
        int(settings.resources.cpus_per_trial),
    )
    return replace(settings, evaluation=replace(evaluation, recipe=recipe))


def cluster_address(address: str | None) -> str | None:
    """The Ray cluster to use: the one that is given, in a Ray job the job's own, otherwise none."""
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_JOB_SUBMISSION_ID" in os.environ
    return address or ("auto" if in_job else None)


def check_pins(resources: Resources, address: str | None) -> None:
    """Raise `InputError` when trials are to run on some nodes alone, and cannot: there is no cluster, or no such name."""
    check_custom(arg("resource"), resources.custom)
    if address is None and (resources.accelerator or resources.custom):
        pin = arg("accelerator" if resources.accelerator else "resource")
        raise InputError(
            f"{pin} {resources.accelerator or next(iter(resources.custom))}: needs a cluster, {arg('address')}"
        )


def _check_shares(resources: Resources, address: str | None) -> None:
    """Raise `InputError` unless a trial takes some of a machine, and not more than this one has where none else is used."""
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    if not 0 < cpus <= MOST_THREADS:
        raise InputError(f"{arg('cpus_per_trial')} {cpus:g}: needs to be above 0 and at most {MOST_THREADS:,}")
    cores = os.cpu_count() or MOST_THREADS
    if cpus > cores and address is None:
        raise InputError(f"{arg('cpus_per_trial')} {cpus:g}: this machine has {plural(cores, 'core')}")
    if not 0 <= gpus < math.inf:
        raise InputError(f"{arg('gpus_per_trial')} {gpus:g}: needs to be a number of at least 0")


def check_amounts(settings: SearchSettings) -> None:
    """Raise `InputError` when one of the numbers is out of bounds that a resumed search may be given again."""
    for name, number, least, most in (
        ("trials", settings.trials, 1, MOST_TRIALS),
        ("max_failures", settings.max_failures, 0, MOST_TRIALS),
        ("max_concurrent", settings.resources.max_concurrent, 0, MOST_AT_ONCE),
    ):
        if not least <= number <= most:
            bound = f"at least {least}" if number < least else f"at most {most:,}"
            raise InputError(f"{arg(name)} {quoted(number)}: needs {bound}")
    for name, seconds in (("time_budget_s", settings.time_budget_s), ("trial_timeout_s", settings.trial_timeout_s)):
        if seconds is not None and not 0 < seconds <= LONGEST_S:
            raise InputError(f"{arg(name)} {seconds:g}: needs to be above 0 and at most {LONGEST_S:,} seconds")
    if not 0 <= settings.confirm <= MOST_CONFIRM:
        raise InputError(f"{arg('confirm')} {settings.confirm:g}: needs a share from 0 to {MOST_CONFIRM:g}")
    if settings.confirm and settings.evaluation.recipe.epochs == 0:
        raise InputError(
            f"{arg('confirm')} {settings.confirm:g}: without fine-tuning ({arg('recipe.epochs')} 0) a candidate scores the same again; needs 0"
        )


def check_named(settings: SearchSettings) -> None:
    """Raise `InputError` where the metric, the sampler or a mode of latencies cannot be had, or may not be loaded."""
    evaluation = settings.evaluation
    evaluation.load_metric()
    with about("sampler"):
        sampler_kind(settings.sampler)
    for name, protocol in (
        ("latency", evaluation.protocol),
        *(("target", each.protocol) for each in evaluation.targets),
    ):
        with about(name):
            RUNTIMES.check(protocol.mode)


def check_new_folder(out: Path) -> None:
    """Raise `InputError` unless the folder does not exist and can be made."""
    if check_place(out):
        raise InputError(f"{arg('out')} {out}: exists already; give another {arg('out')}, or {arg('resume')} {out}")


def placement_of(settings: SearchSettings, address: str | None) -> Placement:
    """Where trials run; on a cluster, which this connects to, with every node asked for the models of its devices.

    Raises `InputError` when no node fits a trial, or latencies of different models would be compared.
    """
    _before_ray(address)
    from nas.search.ray.placement import Placement

    placement = Placement(settings, elastic=address is not None)
    if address is not None:
        started_resources(settings, address)
        placement.survey()
    return placement


def started_resources(settings: SearchSettings, address: str | None) -> Resources:
    """Start Ray here, or connect to a cluster; the settings' resources as its nodes allow."""
    _before_ray(address)
    from nas.search.ray.cluster import start_ray
    from nas.search.ray.placement import fitted_resources, living_nodes

    gpus = settings.on_gpu or any(target.protocol.device != "cpu" for target in settings.evaluation.targets)
    start_ray(address, gpus, user_code(settings))
    nodes = [node["Resources"] for node in living_nodes()]
    return fitted_resources(settings, nodes, elastic=address is not None)


def user_code(settings: SearchSettings) -> tuple[str, ...]:
    """What may be code of the user's (`module:name`) that workers need: family, task, metric, data, modes of latencies."""
    evaluation = settings.evaluation
    modes = dict.fromkeys(target.protocol.mode for target in evaluation.latencies)
    return (settings.space.family, evaluation.task, evaluation.metric, settings.data, *modes)


def _before_ray(address: str | None) -> None:
    """Set what Ray reads from the environment when it is first imported."""
    assume_home()
    if address is None:
        # Without a cluster, all of its servers listen on loopback alone.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    elif "ray" not in sys.modules and Path.home().joinpath(".ray", "auth_token").is_file():
        # `ray start` and Ray's "auto" use a token that they find, and `host:port` is the same; open clusters take it too.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def device_of(name: str, address: str | None, resources: Resources, functions: Sequence[str]) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device of this machine, or of a cluster, which this connects to.

    `functions` are what `start_ray` sends there. Raises `InputError` when it is not here, or no cluster answers.
    """
    if address is None:
        return resolve_device(name)
    from nas.search.ray.cluster import start_ray
    from nas.search.ray.placement import cluster_device

    start_ray(address, gpus=True, functions=functions)
    return cluster_device(name, resources)
