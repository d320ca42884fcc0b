"""Further latency targets of a run: what is asked of them, and where each is measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nas.errors import InputError
from nas.objectives import target_objective
from nas.settings import LatencyTarget, SearchSettings

_NOT_CUSTOM = ("", "CPU", "GPU", "memory", "object_store_memory")
"""Names that Ray keeps for itself."""


@dataclass(frozen=True)
class Place:
    """Where targets are measured that no trial's worker has: what one process on one node of a Ray cluster takes."""

    gpus: int
    accelerator: str | None
    resources: tuple[tuple[str, float], ...]

    @property
    def demands(self) -> dict[str, float]:
        """Everything that its node must have, by Ray's names."""
        named = {f"accelerator_type:{self.accelerator}": 0.001} if self.accelerator else {}
        return {**({"GPU": float(self.gpus)} if self.gpus else {}), **named, **dict(self.resources)}


def places(settings: SearchSettings) -> dict[Place, tuple[LatencyTarget, ...]]:
    """The targets that no trial's worker can measure, those together that one device answers for."""
    found: dict[Place, tuple[LatencyTarget, ...]] = {}
    for target in settings.evaluation.targets:
        if not _in_worker(target, settings.device):
            gpus = int(_kind(target.protocol.device) == "cuda")
            place = Place(gpus, target.accelerator, tuple(sorted(target.resources.items())))
            found[place] = (*found.get(place, ()), target)
    return found


def targets_here(settings: SearchSettings) -> tuple[LatencyTarget, ...]:
    """The targets whose device a process has that trains on the settings' device."""
    return tuple(target for target in settings.evaluation.targets if _in_worker(target, settings.device))


def check_targets(settings: SearchSettings) -> None:
    """Raise `InputError` unless each target has a name of its own, serves for something, and can be measured.

    One whose device is elsewhere is checked there, when the search starts.
    """
    targets = settings.evaluation.targets
    for name, count in Counter(target.name for target in targets).items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(f"--target {name}: a name has letters, digits and _ . - after its first letter or digit")
        if count > 1:
            raise InputError(f"--target {name}: two targets have this name")
    for target in targets:
        device = target.protocol.device
        if device not in ("cpu", "cuda"):
            raise InputError(f"--target {target.name}: device {device}: must be cpu or cuda; Ray deals out the GPUs")
        if target.max_ms is not None and target.max_ms <= 0:
            raise InputError(f"--target {target.name}: max {target.max_ms:g} ms: must be above 0")
        for resource, amount in target.resources.items():
            if resource in _NOT_CUSTOM:
                raise InputError(
                    f"--target {target.name}: resource {resource!r}: must be the name of a custom resource"
                )
            if not (0 < amount <= 1 or (amount > 1 and float(amount).is_integer())):
                raise InputError(
                    f"--target {target.name}: resource {resource}={amount:g}: must be a whole number, or part of one"
                )
        if target.max_ms is None and target_objective(target.name) not in settings.objectives:
            raise InputError(
                f"--target {target.name}: serves for nothing: give it a max, or {target_objective(target.name)} in "
                "--objectives"
            )
    check_measurable(targets_here(settings))


def check_measurable(targets: Sequence[LatencyTarget]) -> None:
    """Raise `InputError` when one of the targets cannot be measured by this process."""
    from nas.device import resolve_device
    from nas.runtimes import check_protocol

    for target in targets:
        try:
            resolve_device(target.protocol.device)
            check_protocol(target.protocol)
        except InputError as error:
            raise InputError(f"--target {target.name}: {error}") from error


def _in_worker(target: LatencyTarget, device: str) -> bool:
    """Whether the worker of a trial, which trains on `device`, has the target's device."""
    kind = _kind(target.protocol.device)
    return not target.accelerator and not target.resources and kind in ("cpu", _kind(device))


def _kind(device: str) -> str:
    return device.partition(":")[0]
