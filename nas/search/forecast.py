"""What a search will take, from timing a little of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nas.search.plan import SearchPlan

logger = logging.getLogger(__name__)


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
    from nas.device import torch_threads  # torch is slow to import
    from nas.device_data import DeviceData
    from nas.device_lease import lease_for
    from nas.finetune import finetune, predict
    from nas.model import build

    settings = plan.settings
    recipe, protocol = settings.evaluation.recipe, settings.evaluation.protocol
    architecture = settings.space.backbone
    network = build(architecture, len(plan.data.classes))
    steps_an_epoch = max(1, len(plan.data.train) // recipe.batch_size)
    with torch_threads(max(1, int(settings.resources.cpus_per_trial))):
        few = replace(
            plan.data,
            train=plan.data.train.subset(np.arange(min(4 * recipe.batch_size, len(plan.data.train)))),
            validation=plan.data.validation.subset(np.arange(min(512, len(plan.data.validation)))),
            test=None,
        )
        data = DeviceData(few, settings.device)
        lease, side = lease_for(settings.device), architecture.input_size
        twice = replace(recipe, epochs=2 if recipe.epochs else 0, steps=None, seconds=None, patience=0, compile=False)
        pace = list(finetune(network, data, side, twice, lambda a, b: 0.0, seed=0, lease=lease))[-1].images_per_s
        start = clock()
        predict(network, data, data.validation, side, lease=lease)
        validation_s = (clock() - start) * len(plan.data.validation) / len(few.validation)
    steps = min(recipe.epochs * steps_an_epoch, recipe.steps or recipe.epochs * steps_an_epoch)
    training_s = min(steps * recipe.batch_size / pace, recipe.seconds or float("inf")) if steps else 0.0
    protocols = (protocol, *(target.protocol for target in settings.evaluation.targets))
    latency_s = sum(each.warmup_s + each.max_s for each in protocols)
    trial_s = training_s + validation_s * max(1, steps / steps_an_epoch) + latency_s
    parameters = sum(tensor.numel() for tensor in network.state_dict().values())
    kept = min(settings.trials, 20)
    return Estimate(
        seconds=20 + settings.trials * max(trial_s / max(concurrent, 1), latency_s),
        disk_bytes=5_000_000 + settings.trials * 15_000 + kept * 4 * parameters,
    )
