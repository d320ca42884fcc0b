"""Where on a Ray cluster the trials of a search run, and how many at once: on nodes of one model, as long as they are there.

A node is asked for the models of its devices before it counts, by a task that takes nothing of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.common.errors import InputError, WrongNodeError, arg
from nas.common.text import plural
from nas.latency.device import device_name
from nas.latency.telemetry import gpu_models
from nas.runs.demands import ResourceRequest, trial_request
from nas.runs.settings import Resources, SearchSettings
from nas.runs.targets import latency_devices, places
from nas.search.ray.measuring import node_id, node_name

LOOK_S = 3.0
"""Seconds between two looks at the cluster's nodes."""
START_S = 180.0
"""What a process may take to start on a node and to answer."""

logger = logging.getLogger(__name__)

Models = Mapping[str, str | None]
"""The models of a node's devices, by device; None where nobody can tell."""


def living_nodes() -> list[dict[str, Any]]:
    """The nodes that Ray has now, as it describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def node_text(node: Mapping[str, Any]) -> str:
    """A node for people: its host, and its id, of which one host may have several."""
    return f"{node['NodeManagerHostname']} (Ray node {node['NodeID'][:8]})"


def cluster_device(name: str, resources: Resources) -> str:
    """`auto` as a device that nodes of the connected cluster have; any other name as it is."""
    if name != "auto":
        return name
    place = trial_request(resources, on_gpu=True)
    return "cuda" if any(place.fits(node["Resources"]) for node in living_nodes()) else "cpu"


def capacity(
    settings: SearchSettings, nodes: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]] = ()
) -> int:
    """How many trials nodes with these resources hold at once, beside the actors that measure on targets.

    Those are where they leave most room for trials, best of all on `others`, which run no trial.
    """
    trial = trial_request(settings.resources, settings.on_gpu)
    left = [dict(node) for node in nodes]
    for place in places(settings):
        hosts = [node for node in left if place.fits(node)]
        if hosts and not any(place.fits(node) for node in others):
            host = min(hosts, key=lambda node: trial.fits(node) - trial.fits(place.taken_from(node)))
            left[left.index(host)] = place.taken_from(host)
    return sum(trial.fits(node) for node in left)


def fitted_resources(
    settings: SearchSettings, nodes: Sequence[Mapping[str, float]], elastic: bool = False
) -> Resources:
    """The settings' resources with what a trial takes of GPUs written out; raises `InputError` if no trial fits.

    On one's own machine no more run at once than fit. A cluster is `elastic`: a number that was given is kept, also
    where no node fits a trial yet.
    """
    given = settings.resources
    trial = trial_request(given, settings.on_gpu)
    fit = capacity(settings, nodes)
    waits = elastic and given.max_concurrent > 0
    if fit < 1 and waits:
        logger.warning("no node of Ray has room for a trial, which takes %s; waiting for one", _takes(trial))
    elif fit < 1:
        kept = sum(place.gpus for place in places(settings))
        targets = f", {kept:g} GPUs of it for targets" if kept else ""
        hint = f"; with {arg('max_concurrent')} N a search waits for nodes" if elastic else ""
        raise InputError(f"a trial takes {_takes(trial)}, but Ray has {_inventory(nodes)}{targets}{hint}")
    at_once = given.max_concurrent if elastic else min(given.max_concurrent, fit)
    return replace(given, gpus_per_trial=trial.gpus, max_concurrent=at_once)


def _takes(trial: ResourceRequest) -> str:
    numbers = f"{trial.cpus:g} CPUs and {trial.gpus:g} GPUs"
    named = replace(trial, gpus=0.0).words
    return f"{numbers} on one node" + (f" with {named}" if named else "")


def _inventory(nodes: Sequence[Mapping[str, float]]) -> str:
    """The nodes' resources in words, equal nodes together."""
    kinds = Counter(
        ", ".join(
            [f"{node.get('CPU', 0.0):g} CPUs", f"{node.get('GPU', 0.0):g} GPUs"]
            + [name for name in sorted(node) if not name.startswith(("CPU", "GPU", "node:", "memory", "object_"))]
        )
        for node in nodes
    )
    return " and ".join(f"{plural(count, 'node')} with {kind}" for kind, count in kinds.items()) or "no node"


class Placement:
    """Where trials may run now, and how many at once. Not thread-safe.

    On a cluster (`elastic`) the nodes are looked at every few seconds: those that join are used, where the devices whose
    latencies decide something are of the model of the others; those of another model are avoided.
    """

    def __init__(self, settings: SearchSettings, elastic: bool = False) -> None:
        self.settings = settings
        self.elastic = elastic
        self._trial = trial_request(settings.resources, settings.on_gpu)
        self._devices = latency_devices(settings) if elastic else ()
        self._asked: dict[str, Any] = {}
        self._models: dict[str, Models] = {}
        self._wrong: set[str] = set()
        self._looked = -math.inf
        self._fit = 0
        self._waits = False

    # ---------------------------------------------------------------- now

    @property
    def limit(self) -> int:
        """How many trials may run now; one at least, since a cluster may add nodes for what waits, and only for that."""
        self._look()
        if self._waits != (self._fit < 1):
            self._waits = self._fit < 1
            told = (
                "no node of Ray has room for a trial now; waiting for one" if self._waits else "a node has room again"
            )
            logger.warning("%s; a trial takes %s", told, _takes(self._trial))
        given = self.settings.resources.max_concurrent
        if given and self.elastic:
            return given
        return max(1, min(given or self._fit, self._fit))

    @property
    def selector(self) -> str:
        """Ray's label selector for the ids of nodes that a trial may run on, by the last look; empty for all."""
        return f"!in({','.join(sorted(self._wrong))})" if self._wrong else ""

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        nodes = living_nodes()
        able = [node for node in nodes if self._trial.fits(node["Resources"])]
        self._learn(able)
        right = [node for node in able if self._is_right(node)]
        others = [node["Resources"] for node in nodes if node not in right]
        self._fit = capacity(self.settings, [node["Resources"] for node in right], others)
        self._looked = time.monotonic()

    # ---------------------------------------------------------------- models

    def survey(self) -> None:
        """Wait until every node that a trial may run on has said its models; raises `InputError` when they differ."""
        self._looked = -math.inf
        self._look()
        if self._asked:
            ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=START_S)
            self._looked = -math.inf
            self._look()
        if not self._wrong:
            return
        texts = {node["NodeID"]: node_text(node) for node in living_nodes()}
        by_model: dict[str, list[str]] = {}
        for node, models in self._models.items():
            if node in texts:
                by_model.setdefault(_words(models), []).append(texts[node])
        told = "; ".join(f"{model} on {', '.join(found)}" for model, found in sorted(by_model.items()))
        raise InputError(
            f"latencies of different devices cannot be compared, and the nodes have several: {told}; "
            f"let trials run on one of them by {arg('accelerator')} TYPE or {arg('resource')} NAME"
        )

    def _learn(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Ask nodes that are new, and take in what others answered by now."""
        if not self._devices:
            return
        for node in nodes:
            if node["NodeID"] not in self._models and node["NodeID"] not in self._asked:
                self._asked[node["NodeID"]] = _ask_models(node["NodeID"], self._devices)
        for node in [node for node in nodes if node["NodeID"] in self._asked]:
            answer = self._asked[node["NodeID"]]
            if not ray.wait([answer], timeout=0)[0]:
                continue
            del self._asked[node["NodeID"]]
            try:
                models = ray.get(answer)
            except RayError as error:
                logger.warning("%s does not say its devices: %s", node_text(node), " ".join(str(error).split())[:200])
                continue
            self._models[node["NodeID"]] = {name: model or _accelerator(node) for name, model in models.items()}
            if not self._is_right(node):
                self._wrong.add(node["NodeID"])
                logger.info("%s has %s: no trial runs there", node_text(node), _words(self._models[node["NodeID"]]))

    def avoid(self, node: str) -> None:
        """Let no further trial run on the node with this id: a worker found another model there."""
        self._wrong.add(node)
        self._looked = -math.inf

    def _is_right(self, node: Mapping[str, Any]) -> bool:
        if not self._devices:
            return True
        if node["NodeID"] in self._wrong:
            return False
        models = self._models.get(node["NodeID"])
        return models is not None and models == next(iter(self._models.values()))

    # ---------------------------------------------------------------- asking

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives where a trial can run: in this process, or on a cluster in one that takes what a trial takes.

        Raises what the function raises, and `InputError` when no node answers.
        """
        if not self.elastic:
            return function(*arguments)
        demands = self._trial.demands
        task = ray.remote(function).options(
            num_cpus=demands.pop("CPU", 0), num_gpus=demands.pop("GPU", 0), resources=demands, max_retries=3
        )
        waits = self._fit < 1  # for a node to come, which `fitted_resources` has said
        try:
            return ray.get(task.remote(*arguments), timeout=None if waits else START_S)
        except RayTaskError as error:
            raise error.cause from None
        except GetTimeoutError:
            raise InputError(
                f"nodes of Ray have room for a trial, but none was given within {START_S:g} s; others may use them"
            ) from None
        except RayError as error:
            raise InputError(f"nodes of Ray cannot run a trial: {' '.join(str(error).split())[-300:]}") from error


def check_models(models: Mapping[str, str]) -> None:
    """Raise `WrongNodeError` unless this process's devices are of these models."""
    for device, model in models.items():
        here = device_name(device)
        if here != model:
            raise WrongNodeError(
                f"{node_name()} has {here}, and the latencies of this search are of {model}", node=node_id()
            )


def _ask_models(node_id: str, devices: Sequence[str]) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(_models_here).options(num_cpus=0, scheduling_strategy=there).remote(devices)


def _models_here(devices: Sequence[str]) -> Models:
    """The models of this node's devices; those of GPUs without taking one."""
    return {name: device_name(name) if name == "cpu" else " and ".join(gpu_models()) or None for name in devices}


def _accelerator(node: Mapping[str, Any]) -> str | None:
    """The accelerator type that Ray found on a node."""
    prefix = "accelerator_type:"
    types = sorted(name.removeprefix(prefix) for name in node["Resources"] if name.startswith(prefix))
    return " and ".join(types) or None


def _words(models: Models) -> str:
    return ", ".join(f"{model or 'an unknown model'}" for model in models.values())
