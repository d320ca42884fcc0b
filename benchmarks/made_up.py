"""A search without training, for benchmarks of what surrounds it: run directories and evaluations that are made up."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import ray

from nas.common.provenance import package_versions
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome
from nas.runs.run_file import Provenance
from nas.runs.settings import Resources, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.candidate import Candidate
from nas.search.ray.environment import OF_RAY
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics

CLASSES = tuple("0123456789")


def made_up(candidate: Candidate, epochs: int) -> Evaluation:
    """What training a candidate might have given, in full: larger networks are more accurate and slower."""
    cost = architecture_cost(candidate.architecture.canonical, len(CLASSES))
    ms = (cost.macs / 1e6) ** 0.8
    protocol = LatencyProtocol()
    latency = Latency(
        ms, 0.98 * ms, 1.03 * ms, 0.021, 31, 2, False, False, 0.0, True, "made up",
        (1, *candidate.architecture.input_shape), protocol, reference_ms=(1.01 * ms, 1.012 * ms), others=0.003,
        software={"torch": "2", "python": "3"}, measured=time.time(), worker="made-up (Ray node 0123456789ab)",
    )  # fmt: skip
    final = 1 - 1 / (1 + cost.params / 1e4)
    history = tuple(
        EpochMetrics(
            epoch,
            2.1 / epoch,
            2.2 / epoch,
            score,
            dict.fromkeys(("accuracy", "top5", "macro_f1", "balanced_accuracy"), score),
            12345.6,
            1.234,
            0.00123,
        )
        for epoch in range(1, epochs + 1)
        for score in [final * (1 - 0.5**epoch)]
    )
    return Evaluation(Outcome.DONE, cost=cost, latency=latency, history=history, seconds=1.0, worker=latency.worker)


def settings(
    space: str, trials: int, slots: int, sampler: str, objectives: tuple[str, ...], seed: int = 0
) -> SearchSettings:
    """Of a search with so many slots."""
    return SearchSettings(
        space=load_space(space),
        data="made up",
        objectives=objectives,
        trials=trials,
        seed=seed,
        sampler=sampler,
        resources=Resources(max_concurrent=slots),
    )


def new_run(path: Path, given: SearchSettings) -> RunDirectory:
    """A run directory as a search makes it before its first trial."""
    provenance = Provenance(
        created=time.time(),
        command="made up",
        versions=package_versions(),
        host="here",
        hardware="made up",
        cpu_cores=2,
        git_commit=None,
        data_fingerprint="0" * 16,
        classes=CLASSES,
        train_images=1000,
        validation_images=400,
        mean=(0.5,),
        std=(0.25,),
    )
    return RunDirectory.create(path, given, provenance)


def start_ray_with(slots: int) -> None:
    """Ray as a search starts it, but that it takes this machine to have so many cores."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    os.environ.update(OF_RAY)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        num_cpus=slots, num_gpus=0,
    )  # fmt: skip
