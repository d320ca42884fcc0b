"""What workers leave with the driver's machine while they evaluate: where they are, whether they hang, what they trained.

No worker sees the run directory, which may lie on another machine's disk.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.common.errors import LostError, NoSpaceError
from nas.runs.store import RunDirectory
from nas.search.candidate import Candidate


class _Keeper:
    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._places: dict[int, str] = {}
        self._hung: set[tuple[int, float]] = set()

    def begin(self, number: int, worker: str) -> None:
        self._places[number] = worker

    def places(self) -> dict[int, str]:
        return self._places

    def hung(self, key: tuple[int, float]) -> None:
        self._hung.add(key)

    def was_hung(self, key: tuple[int, float]) -> bool:
        return key in self._hung

    def save_weights(self, digest: str, content: bytes) -> None:
        self._run.save_weights(digest, content)


class ArtifactStore:
    """What a worker holds of the keeper, an actor on the driver's node; it can be sent to other processes."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, number: int, worker: str) -> None:
        """Say where the candidate of a trial is evaluated; does not wait."""
        self._actor.begin.remote(number, worker)

    def save_weights(self, digest: str, content: bytes) -> None:
        """Keep a safetensors file in the run directory; on return it is there.

        Raises `LostError` when it cannot be, `NoSpaceError` where the disk is full.
        """
        try:
            ray.get(self._actor.save_weights.remote(digest, content))
        except (RayError, OSError) as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"its weights could not be kept: {cause.strerror}") from error
            raise LostError(f"its weights could not be kept: {' '.join(str(error).split())[-200:]}") from error

    def hung(self, candidate: Candidate) -> None:
        """Say that a candidate's evaluation hangs, and that its process is about to be killed; does not wait."""
        self._actor.hung.remote(candidate.key)

    def was_hung(self, candidate: Candidate) -> bool:
        """Whether its process said so; not when the keeper cannot say."""
        try:
            return ray.get(self._actor.was_hung.remote(candidate.key), timeout=5)
        except RayError:
            return False

    def places(self) -> Mapping[int, str]:
        """Where the candidate of each trial was last evaluated; empty when the keeper cannot say."""
        try:
            return ray.get(self._actor.places.remote(), timeout=5)
        except RayError:
            return {}


@contextmanager
def keeper_of(run: RunDirectory) -> Iterator[ArtifactStore]:
    """A keeper of a run on this node, while the context lasts."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = (
        ray.remote(_Keeper)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)
        .remote(RunDirectory(run.path.resolve(), run.content))
    )  # its process has another working directory
    try:
        yield ArtifactStore(actor)
    finally:
        ray.kill(actor)
