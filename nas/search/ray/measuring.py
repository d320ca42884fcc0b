"""Latency on devices that no trial's worker has: one actor a device, on a node of the Ray cluster that has it.

An actor takes no CPU core of the cluster: it waits most of the time, and holds the device's lease while it measures.
Workers reach it by its handle and queue there.
"""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from pydantic import TypeAdapter
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from nas.common.errors import InputError, LostError, arg
from nas.latency.lease import lease_for
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.demands import ResourceRequest
from nas.runs.settings import EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.targets import check_measurable, places
from nas.search.candidate import InTurn
from nas.spaces.base import Architecture
from nas.spaces.families import read_architecture

if TYPE_CHECKING:
    from torch import nn

RETRIES = 3
"""Times that a measurement whose actor died is asked for again."""
START_S = 120.0
"""What an actor may take to start; its node was seen, but others may use its device."""
PATIENCE_S = 600.0
"""What one answer may take, waiting behind other candidates included; afterwards the trial is lost."""

_LATENCY = TypeAdapter(Latency)


def node_id() -> str:
    """The id of this process's node of the Ray cluster."""
    return str(ray.get_runtime_context().get_node_id())


def node_name() -> str:
    """This process's host, and its node of the Ray cluster, of which one host may have several."""
    return f"{socket.gethostname()} (Ray node {node_id()[:8]})"


class Measurer:
    """Measures candidates on targets that share a device; what it is given and answers is JSON text."""

    def __init__(self, targets: Sequence[LatencyTarget]) -> None:
        with lease_for("cpu").shared():  # importing torch is seconds of work that a measurement must not hear
            from nas.search.latency import candidate_latency

        self._latency = candidate_latency
        self._targets = {target.name: target for target in targets}

    def check(self) -> None:
        """Raise `InputError` when a target cannot be measured here."""
        check_measurable(list(self._targets.values()))

    def measure_in_turn(self, name: str, architectures: list[str], num_classes: int) -> list[str]:
        """The latencies of several architectures on the target of that name, measured in turn."""
        candidates = [read_architecture(json.loads(text)) for text in architectures]
        found = latencies_in_turn(candidates, num_classes, self._targets[name].protocol)
        return [_LATENCY.dump_json(replace(latency, worker=node_name())).decode() for latency in found]

    def measure(self, name: str, architecture: str, num_classes: int) -> str:
        """The latency of an architecture on the target of that name."""
        candidate = read_architecture(json.loads(architecture))
        latency = self._latency(candidate, num_classes, self._targets[name].protocol)
        return _LATENCY.dump_json(replace(latency, worker=node_name())).decode()


def latencies_in_turn(
    architectures: Sequence[Architecture], num_classes: int, protocol: LatencyProtocol
) -> Sequence[Latency]:
    """Latencies of candidates, measured in this process in turn with each other; their weights do not matter to it."""
    from nas.latency.in_turn import measure_in_turn
    from nas.models.networks import build

    with lease_for("cpu").shared():
        networks = [build(architecture, num_classes) for architecture in architectures]
    return measure_in_turn(networks, [architecture.input_shape for architecture in architectures], protocol)


@contextmanager
def measurers(settings: SearchSettings) -> Iterator[dict[str, Any]]:
    """Actors for the targets that no trial's worker has, by name of the target; they end with the context.

    Raises `InputError` when no node has what a target needs, or cannot measure it.
    """
    wanted = places(settings)
    for place, targets in wanted.items():
        _check_cluster(place, targets)
    actors = {place: _actor(place, targets) for place, targets in wanted.items()}
    try:
        checks = {place: actor.check.remote() for place, actor in actors.items()}
        for place, check in checks.items():
            _wait_for_start(check, wanted[place])
        yield {target.name: actors[place] for place, targets in wanted.items() for target in targets}
    finally:
        for actor in actors.values():
            ray.kill(actor)


def measure_on(
    actors: Mapping[str, Any], target: LatencyTarget, architecture: Architecture, num_classes: int, network: nn.Module
) -> Latency:
    """A candidate's latency on a target: by the target's actor, in this process where it has none.

    Raises `LostError` when the actor gives no answer, and whatever measuring raises.
    """
    from nas.search.evaluate import measure_here

    if target.name not in actors:
        return measure_here(target, architecture, num_classes, network)
    return measured_elsewhere(actors, target, architecture, num_classes)


def measured_elsewhere(
    actors: Mapping[str, Any], target: LatencyTarget, architecture: Architecture, num_classes: int
) -> Latency:
    """The latency on a target whose actor there is; raises as `measure_on` does."""
    answer = actors[target.name].measure.remote(target.name, _text(architecture), num_classes)
    return _LATENCY.validate_json(_answered(target.name, answer, PATIENCE_S))


def measure_all_on(
    actors: Mapping[str, Any], settings: EvaluationSettings, in_turn: InTurn, num_classes: int
) -> dict[str, Latency]:
    """Latencies of networks measured in turn, by digest; where and with what errors as `measure_on` does."""
    name, networks = in_turn.target, list(in_turn.networks.values())
    if name is None or name not in actors:
        protocols = {target.name or None: target.protocol for target in settings.latencies}
        found = latencies_in_turn(networks, num_classes, protocols[name])
    else:
        answer = actors[name].measure_in_turn.remote(name, list(map(_text, networks)), num_classes)
        told = _answered(name, answer, in_turn.patience_s)
        found = list(map(_LATENCY.validate_json, told))
    return dict(zip(in_turn.networks, found, strict=True))


def _text(architecture: Architecture) -> str:
    return json.dumps(architecture.canonical.to_json())


def _answered(name: str, answer: Any, patience_s: float) -> Any:
    """What a target's actor answered; raises `LostError` where it gave no answer, and whatever measuring raised."""
    try:
        return ray.get(answer, timeout=patience_s)
    except RayTaskError as error:  # measuring raised it
        raise error.cause from None
    except GetTimeoutError as error:
        ray.cancel(answer)
        raise LostError(f"target {name} gave no answer within {patience_s:g} s") from error
    except RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise LostError(f"target {name} gave no answer, its actor died: {reason}") from error


def _actor(place: ResourceRequest, targets: Sequence[LatencyTarget]) -> Any:
    names = "+".join(target.name for target in targets)
    return (
        ray.remote(Measurer)
        .options(
            name=f"nas-target-{names}-{uuid.uuid4().hex[:8]}",
            num_cpus=0,
            num_gpus=place.gpus,
            accelerator_type=place.accelerator,
            resources=dict(place.resources),
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
        .remote(targets)
    )


def _check_cluster(place: ResourceRequest, targets: Sequence[LatencyTarget]) -> None:
    """Raise `InputError` when no living node has all that the targets need; Ray itself would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(place.fits(node) for node in nodes) or not place.demands:
        return
    there = sorted({name for node in nodes for name in node if not name.startswith(("node:", "memory", "object_"))})
    raise InputError(
        f"{arg('target')} {targets[0].name}: no node of the Ray cluster has {place.words}; there is {', '.join(there)}"
    )


def _wait_for_start(check: Any, targets: Sequence[LatencyTarget]) -> None:
    try:
        ray.get(check, timeout=START_S)
    except RayTaskError as error:
        raise error.cause from None
    except GetTimeoutError:
        raise InputError(
            f"{arg('target')} {targets[0].name}: a node has its device, but gave no answer within {START_S:g} s; "
            "it may be in use by others"
        ) from None
    except RayError as error:
        raise InputError(
            f"{arg('target')} {targets[0].name}: its process cannot start: {' '.join(str(error).split())[:300]}"
        ) from error
