"""A supernet trained by several processes of this machine, on GPUs one on each: Ray Train starts and joins them.

Each computes the gradients of its share of a batch, of the same candidates, and all take the step of their mean. Batch
norm has the statistics of a process's own share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from nas.common.errors import InputError
from nas.latency.device import torch_threads
from nas.search.ray.cluster import start_ray
from nas.training.allocator import own_process
from nas.training.images import load_images
from nas.training.supernet import SupernetPlan, train_here
from nas.training.supernet_file import SupernetEpoch, read_file, write_file

_POLL_S = 0.5
_STOP = "stop"
"""Name of the file that asks the processes to stop after the epoch that runs."""


def train_on_devices(
    plan: SupernetPlan, on_epoch: Callable[[SupernetEpoch], None], stopped: Callable[[], bool]
) -> None:
    """Train until the end, or until `stopped` says so; told of each epoch soon after it. Raises `InputError` on failure."""
    began_ray = not ray.is_initialized()
    on_gpus = plan.file.device != "cpu"
    start_ray(None, on_gpus)
    stop = plan.folder / _STOP
    stop.unlink(missing_ok=True)
    before = read_file(plan.folder).history if (plan.folder / "supernet.yaml").is_file() else ()
    write_file(plan.folder, replace(plan.file, history=before))  # the processes read it
    told = 0
    try:
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as pool:
            trainer = TorchTrainer(
                _train,
                train_loop_config={"folder": str(plan.folder.resolve())},
                scaling_config=ScalingConfig(num_workers=plan.file.devices, use_gpu=on_gpus),
                run_config=RunConfig(name="supernet", storage_path=scratch),
            )
            training = pool.submit(trainer.fit)
            try:
                while not training.done():
                    wait_for([training], timeout=_POLL_S)
                    told = _tell(plan, told, on_epoch)
                    if stopped():
                        stop.touch()
            except BaseException:
                ray.shutdown()  # or the pool would wait for the training's end
                raise
            _tell(plan, told, on_epoch)
            training.result()
    except Exception as error:
        reason = " ".join(str(error).split())[-500:]
        raise InputError(f"{plan.folder}: the training on {plan.file.devices} devices failed: {reason}") from error
    finally:
        stop.unlink(missing_ok=True)
        if began_ray:
            ray.shutdown()


def _tell(plan: SupernetPlan, told: int, on_epoch: Callable[[SupernetEpoch], None]) -> int:
    """Pass on the epochs that are new on disk; how many there are."""
    history = read_file(plan.folder).history
    for epoch in history[told:]:
        on_epoch(epoch)
    return max(told, len(history))


def _train(config: dict[str, Any]) -> None:
    """What each of the processes does."""
    own_process()
    folder = Path(config["folder"])
    file = read_file(folder)
    data = load_images(
        file.space,
        file.data,
        file.split_seed,
        file.init,
        file.task,
        distinct=file.distinct,
        allow_seen=file.allow_seen_images,
    )
    with torch_threads(1):
        train_here(SupernetPlan(folder, file, data), lambda epoch: None, (folder / _STOP).exists, str(get_device()))
