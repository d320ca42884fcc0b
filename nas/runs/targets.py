"""The latencies of a run: what is asked of further ones, and where each is measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from nas.common.errors import InputError, arg, named
from nas.latency.device import resolve_device
from nas.latency.runtimes import check_protocol
from nas.runs.demands import ResourceRequest, check_custom
from nas.runs.objectives import target_objective
from nas.runs.settings import LatencyTarget, SearchSettings


def places(settings: SearchSettings) -> dict[ResourceRequest, tuple[LatencyTarget, ...]]:
    """The targets that no trial's worker can measure, those together that one device answers for."""
    found: dict[ResourceRequest, tuple[LatencyTarget, ...]] = {}
    for target in settings.evaluation.targets:
        if not _in_worker(target, settings):
            gpus = float(_kind(target.protocol.device) == "cuda")
            place = ResourceRequest(0.0, gpus, target.accelerator, tuple(sorted(target.resources.items())))
            found[place] = (*found.get(place, ()), target)
    return found


def targets_here(settings: SearchSettings) -> tuple[LatencyTarget, ...]:
    """The targets whose device a trial's worker has."""
    return tuple(target for target in settings.evaluation.targets if _in_worker(target, settings))


def latency_devices(settings: SearchSettings) -> tuple[str, ...]:
    """The devices of a trial's worker whose latencies decide something, so that they must be of one model everywhere."""
    targets = {target.protocol.device for target in targets_here(settings)}
    return tuple(sorted({*targets, *([settings.evaluation.protocol.device] if own_decides(settings) else ())}))


def latency_names(settings: SearchSettings) -> tuple[str, ...]:
    """The latencies that decide something, by the names of objectives."""
    targets = (target_objective(target.name) for target in settings.evaluation.targets)
    return (*(("latency",) if own_decides(settings) else ()), *targets)


def own_decides(settings: SearchSettings) -> bool:
    """Whether the latency that is no target's decides something."""
    return "latency" in settings.objectives or settings.evaluation.budgets.max_latency_ms is not None


def check_targets(settings: SearchSettings) -> None:
    """Raise `InputError` unless each target has a name of its own, serves for something, and can be placed.

    Whether it can be measured is for the process to say that measures it (`check_measurable`).
    """
    targets = settings.evaluation.targets
    for name, count in Counter(target.name for target in targets).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(
                f"{arg('target')} {name}: a name has letters, digits and _ . - after its first letter or digit"
            )
        if count > 1:
            raise InputError(f"{arg('target')} {name}: two targets have this name")
    for target in targets:
        device = target.protocol.device
        if device not in ("cpu", "cuda"):
            raise InputError(
                f"{arg('target')} {target.name}: device {device}: must be cpu or cuda; Ray deals out the GPUs"
            )
        if target.max_ms is not None and target.max_ms <= 0:
            raise InputError(f"{arg('target')} {target.name}: max {target.max_ms:g} ms: must be above 0")
        check_custom(f"{arg('target')} {target.name}", target.resources)
        if target.max_ms is None and target_objective(target.name) not in settings.objectives:
            raise InputError(
                f"{arg('target')} {target.name}: is unused: give it a max, or {target_objective(target.name)} in "
                f"{arg('objectives')}"
            )


def check_measurable(targets: Sequence[LatencyTarget]) -> None:
    """Raise `InputError` when one of the targets cannot be measured by this process."""
    for target in targets:
        try:
            resolve_device(target.protocol.device)
            check_protocol(target.protocol)
        except InputError as error:
            told = named(error.marked, lambda name: name if name == "device" else arg(name))  # a key of the target's
            raise InputError(f"{arg('target')} {target.name}: {told}") from error


def _in_worker(target: LatencyTarget, settings: SearchSettings) -> bool:
    """Whether the worker of a trial has the target's device."""
    kinds = {"cpu", *map(_kind, settings.worker_devices)}
    return not target.accelerator and not target.resources and _kind(target.protocol.device) in kinds


def _kind(device: str) -> str:
    return device.partition(":")[0]
