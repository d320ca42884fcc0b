"""One candidate from start to end: build, static cost, latency, budgets, fine-tune, score. No Ray, no Optuna."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import nn

from nas.architecture import Architecture
from nas.backbones import load_backbone
from nas.cost import module_cost
from nas.data import ImageData
from nas.device_lease import lease_for
from nas.errors import CandidateError, InputError
from nas.finetune import DeviceData, finetune
from nas.latency import measure
from nas.metrics import load_metric
from nas.model import build
from nas.record import Cost, EpochMetrics, Evaluation, Latency, Outcome
from nas.settings import SCRATCH, Budgets, EvaluationSettings, derive_seed
from nas.weights import inherit, recalibrate


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and, where it was trained to the end, the trained network (on the settings' device)."""

    evaluation: Evaluation
    network: nn.Module | None


def evaluate_steps(
    architecture: Architecture, data: DeviceData, settings: EvaluationSettings
) -> Generator[EpochMetrics, None, Evaluated]:
    """Evaluate one candidate, an epoch of training a step; the generator's return value is the result.

    Cheap first: static cost, then latency, and a candidate over a hard budget is rejected before it inherits weights
    and trains.
    The candidate's own errors (numbers that are not finite, out of memory, a shape that does not fit) come back
    as a failed evaluation with their reason; they are never raised.
    """
    start = time.perf_counter()
    cost: Cost | None = None
    latency: Latency | None = None
    history: list[EpochMetrics] = []
    network: nn.Module | None = None
    fresh: tuple[str, ...] = ()

    def result(outcome: Outcome, reason: str | None = None, violation: float = 0.0) -> Evaluated:
        evaluation = Evaluation(
            outcome=outcome,
            reason=reason,
            cost=cost,
            latency=latency,
            history=tuple(history),
            fresh=fresh,
            violation=violation,
            seconds=time.perf_counter() - start,
            worker=socket.gethostname(),
        )
        return Evaluated(evaluation, network if outcome is Outcome.DONE else None)

    try:
        metric = load_metric(settings.metric)
        seed = derive_seed(settings.seed, architecture.digest)
        side = architecture.input_size
        lease = lease_for(settings.protocol.device)
        with lease_for("cpu").shared():
            network = build(architecture, len(data.data.classes), seed)
            cost = module_cost(network, architecture.input_shape)
        latency = measure(network, architecture.input_shape, settings.protocol, lease)
        violation, reason = budget_violation(settings.budgets, cost, latency)
        if violation > 0:
            return result(Outcome.REJECTED, reason, violation)
        if settings.init != SCRATCH:
            fresh = _inherit(network, architecture, data, settings, seed)
        for epoch in finetune(network, data, side, settings.recipe, metric, seed=seed, lease=lease):
            history.append(epoch)
            yield epoch
    except InputError:
        raise
    except CandidateError as error:
        return result(Outcome.FAILED, str(error))
    except Exception as error:
        return result(Outcome.FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    return result(Outcome.DONE)


def _inherit(
    network: nn.Module, architecture: Architecture, data: DeviceData, settings: EvaluationSettings, seed: int
) -> tuple[str, ...]:
    """Load inherited weights into the network, recalibrate batch norm where they differ; the parts left fresh."""
    with lease_for("cpu").shared():
        inheritance = inherit(load_backbone(settings.init), architecture, len(data.data.classes), seed)
        network.load_state_dict(inheritance.state)
    network.to(data.device).to(memory_format=torch.channels_last)
    if inheritance.changed:
        with lease_for(settings.protocol.device).shared():
            recalibrate(network, data.calibration_batches(architecture.input_size))
            if data.device.type == "cuda":
                torch.cuda.synchronize()
    return inheritance.fresh


def evaluate_candidate(architecture: Architecture, data: ImageData, settings: EvaluationSettings) -> Evaluated:
    """Evaluate one candidate in this process (see `evaluate_steps`)."""
    steps = evaluate_steps(architecture, DeviceData(data, settings.protocol.device), settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def budget_violation(budgets: Budgets, cost: Cost, latency: Latency) -> tuple[float, str | None]:
    """By how much the worst hard budget is exceeded, as a share of it, and the sentence that says so; 0 if none is."""
    worst, reason = 0.0, None
    for value, limit, text in (
        (cost.macs, budgets.max_macs, "{:,.0f} MACs, over the budget of {:,.0f}"),
        (cost.params, budgets.max_params, "{:,.0f} parameters, over the budget of {:,.0f}"),
        (latency.median_ms, budgets.max_latency_ms, "{:.3f} ms, over the budget of {:.3f} ms"),
    ):
        if limit is not None and value / limit - 1 > worst:
            worst, reason = value / limit - 1, text.format(value, limit)
    return worst, reason
