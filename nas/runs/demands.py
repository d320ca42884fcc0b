"""What something that runs on a Ray cluster takes there, and how often a node has that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.runs.settings import Resources

_NOT_CUSTOM = ("", "CPU", "GPU", "memory", "object_store_memory")
"""Names that Ray keeps for itself."""
_TOUCH = 0.001
"""So much of an accelerator's name is asked for: it says where, not how much."""


@dataclass(frozen=True)
class ResourceRequest:
    """What one process takes of one node: CPU cores, GPUs, and custom resources; `accelerator` is a Ray type (T4)."""

    cpus: float = 0.0
    gpus: float = 0.0
    accelerator: str | None = None
    resources: tuple[tuple[str, float], ...] = ()

    @property
    def demands(self) -> dict[str, float]:
        """Everything that its node must have, by Ray's names."""
        own = {"CPU": self.cpus, "GPU": self.gpus}
        named = {f"accelerator_type:{self.accelerator}": _TOUCH} if self.accelerator else {}
        return {**{name: amount for name, amount in own.items() if amount}, **named, **dict(self.resources)}

    @property
    def words(self) -> str:
        """What it takes beside CPU cores, for people."""
        own = [f"the resource {name}" + ("" if amount == 1 else f"={amount:g}") for name, amount in self.resources]
        gpus = "a GPU" if self.gpus == 1 else f"{self.gpus:g} GPUs"
        gpu = [f"an accelerator {self.accelerator}"] if self.accelerator else [gpus] if self.gpus else []
        return " and ".join([*gpu, *own])

    def fits(self, node: Mapping[str, float]) -> int:
        """How many such processes a node with these resources holds; parts of a GPU are all of one GPU."""
        counts = []
        for name, amount in self.demands.items():
            has = node.get(name, 0.0)
            if name == "GPU" and amount < 1:
                counts.append(int(has) * int(1 / amount + 1e-9))
            else:
                counts.append(int(has / amount + 1e-9))
        return min(counts, default=0)

    def taken_from(self, node: Mapping[str, float]) -> dict[str, float]:
        """What is left of a node's resources beside one such process."""
        return {name: has - self.demands.get(name, 0.0) for name, has in node.items()}


def trial_request(resources: Resources, on_gpu: bool) -> ResourceRequest:
    """What a trial takes; on a GPU 0 of them is a whole one."""
    gpus = (resources.gpus_per_trial or 1.0) if on_gpu else 0.0
    custom = tuple(sorted(resources.custom.items()))
    return ResourceRequest(resources.cpus_per_trial, gpus, resources.accelerator, custom)


def check_custom(where: str, resources: Mapping[str, float]) -> None:
    """Raise `InputError`, which begins with `where`, unless these can be custom resources of Ray, in amounts that it deals out."""
    for resource, amount in resources.items():
        if resource in _NOT_CUSTOM:
            raise InputError(f"{where}: resource {quoted(resource)}: must be the name of a custom resource")
        if not (0 < amount <= 1 or (amount > 1 and float(amount).is_integer())):
            raise InputError(f"{where}: resource {resource}={amount:g}: must be a whole number, or part of one")
