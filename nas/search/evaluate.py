"""One candidate from start to end: build, static cost, latency, budgets, fine-tune, score. No Ray, no Optuna.

With 0 epochs there is no fine-tune: what inherits from a supernet is scored once its batch norm is recalibrated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import nn

from nas.common.errors import InputError, LostError, OutOfTimeError
from nas.common.kinds import checks_kinds
from nas.common.seeds import derive_seed
from nas.common.text import CUT_OFF
from nas.data.sets import ImageData
from nas.latency.device import torch_threads
from nas.latency.lease import lease_for
from nas.latency.result import Latency
from nas.models.cost import known_peak
from nas.models.networks import build
from nas.models.weights import Weights, load_weights
from nas.runs.limits import budget_violation
from nas.runs.record import AnyReport, Evaluation, Outcome
from nas.runs.settings import EvaluationSettings, LatencyTarget
from nas.search.conditions import check_scored_untrained
from nas.search.found import Found
from nas.search.latency import candidate_latency
from nas.spaces.base import Architecture
from nas.spaces.families import architecture_cost
from nas.tasks.base import outputs_of
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.loop import finetune, predict, report_on
from nas.training.optim import check_recipe, faster_precision
from nas.training.recipe import Recipe


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and, where it was trained to the end, the trained network (on the device that it trained on)."""

    evaluation: Evaluation
    network: nn.Module | None


MeasureTarget = Callable[[LatencyTarget, Architecture, int, nn.Module], Latency]
"""Measures a candidate, given also its number of classes and its network as built, on a further target."""


def measure_here(target: LatencyTarget, architecture: Architecture, num_classes: int, network: nn.Module) -> Latency:
    """The latency of a further target whose device this process has."""
    return candidate_latency(architecture, num_classes, target.protocol, network)


def evaluate_steps(
    architecture: Architecture,
    data: DeviceData,
    settings: EvaluationSettings,
    measure_target: MeasureTarget = measure_here,
    known: Latency | None = None,
    dominated: Callable[[Evaluation], str | None] = lambda known: None,
    until: float | None = None,
    weights: Weights | None = None,
) -> Generator[Evaluation, None, Evaluated]:
    """Evaluate one candidate, an epoch of training (or a score without any) a step; the generator's return value is the result.

    Each step gives what is known by then: the evaluation of a candidate that is stopped there.

    Cheap first: a candidate over a hard budget of MACs or parameters is not even built, one over that of latency
    neither inherits weights nor trains; nor does one for which `dominated`, given all that is known before training, has
    a reason. A latency that is `known` is taken as it is and not measured. A training that is not over by `until` (of
    `time.monotonic`) is stopped where it is. `weights` are what it inherits, by default what `settings.init` means in this process.
    The candidate's own errors (numbers that are not finite, out of memory, a shape that does not fit) come back
    as a failed evaluation with their reason; they are never raised. `LostError` is, where `measure_target` raises it.
    """
    found = Found()
    network: nn.Module | None = None

    def result(outcome: Outcome, reason: str | None = None, violation: float = 0.0) -> Evaluated:
        return Evaluated(found.evaluation(outcome, reason, violation), network if outcome is Outcome.DONE else None)

    try:
        metric = settings.load_metric()
        seed = derive_seed(settings.seed, architecture.digest)
        side = architecture.input_size
        lease = lease_for(settings.device)
        classes = outputs_of(data.data)
        found.cost = architecture_cost(architecture, classes)
        violation, reason = budget_violation(settings.budgets, found.cost)
        if violation > 0:
            return result(Outcome.REJECTED, reason, violation)
        with lease_for("cpu").shared():
            network = build(architecture, classes, seed)
            found.cost = replace(found.cost, peak_activation_bytes=known_peak(network, architecture.input_shape))
        if until is not None and time.monotonic() >= until:
            raise OutOfTimeError
        found.latency = known or candidate_latency(architecture, classes, settings.protocol, network)
        violation, reason = budget_violation(settings.budgets, found.cost, found.latency)
        for target in settings.targets if violation == 0 else ():
            found.latencies[target.name] = measure_target(target, architecture, classes, network)
        if violation == 0:
            on_targets = [(target, found.latencies[target.name]) for target in settings.targets]
            violation, reason = budget_violation(settings.budgets, found.cost, found.latency, on_targets)
        if violation > 0:
            return result(Outcome.REJECTED, reason, violation)
        reason = dominated(result(Outcome.SKIPPED).evaluation)
        if reason is not None:
            return result(Outcome.SKIPPED, reason)
        found.fresh = _inherit(network, architecture, data, settings, weights or load_weights(settings.init))
        recipe = settled_recipe(settings.recipe, architecture, data.data, settings.device)
        for epoch in finetune(network, data, side, recipe, metric, seed=seed, lease=lease, until=until):
            found.history.append(epoch)
            yield result(Outcome.STOPPED).evaluation
    except (InputError, LostError):
        raise
    except OutOfTimeError:
        return result(Outcome.STOPPED, f"{CUT_OFF} in epoch {len(found.history) + 1} of {settings.recipe.epochs}")
    except Exception as error:
        return Evaluated(found.failed(error), None)
    return result(Outcome.DONE)


def _inherit(
    network: nn.Module, architecture: Architecture, data: DeviceData, settings: EvaluationSettings, weights: Weights
) -> tuple[str, ...]:
    """Load inherited weights, if any, into the network and fit what they leave changed; the parts left fresh."""
    seed = derive_seed(settings.seed, architecture.digest)
    classes = outputs_of(data.data)
    with lease_for("cpu").shared():
        inheritance = weights.inherit(architecture, classes, seed)
        if inheritance is None:
            return ()
        network.load_state_dict(inheritance.state)
    network.to(data.device).to(memory_format=torch.channels_last)
    if inheritance.changed:
        batches, lease = data.calibration_batches(architecture.input_size), lease_for(settings.device)
        weights.refit(network, architecture, batches, lease)
    return inheritance.fresh


def starting_network(
    architecture: Architecture, data: DeviceData, settings: EvaluationSettings
) -> tuple[nn.Module, tuple[str, ...]]:
    """A candidate as its fine-tune begins, on the device of the data, and its parts that inherit nothing of `init`."""
    network = build(architecture, outputs_of(data.data), derive_seed(settings.seed, architecture.digest))
    fresh = _inherit(network, architecture, data, settings, load_weights(settings.init))
    return network.to(data.device).to(memory_format=torch.channels_last), fresh


def before_and_after(
    architecture: Architecture, data: ImageData, settings: EvaluationSettings, trained: nn.Module
) -> tuple[AnyReport, AnyReport]:
    """Reports on the test split: of the candidate before its fine-tune, and of the trained network."""
    assert data.test is not None
    on_device = DeviceData(data, settings.device)
    assert on_device.test is not None
    network, _ = starting_network(architecture, on_device, settings)
    before, after = (
        report_on(predict(model, on_device, on_device.test, architecture.input_size), data, data.test)
        for model in (network, trained)
    )
    return before, after


@checks_kinds
def evaluate_candidate(
    architecture: Architecture,
    data: ImageData,
    settings: EvaluationSettings,
    on_epoch: Callable[[EpochMetrics], None] = lambda epoch: None,
) -> Evaluated:
    """Evaluate one candidate in this process (see `evaluate_steps`); `on_epoch` is told of each epoch.

    Raises `InputError` where 0 epochs would leave weights random (`check_scored_untrained`).
    """
    check_scored_untrained(settings, data.name, data.classes)
    steps = evaluate_steps(architecture, DeviceData(data.without_test(), settings.device), settings)
    while True:
        try:
            on_epoch(next(steps).history[-1])
        except StopIteration as end:
            return end.value


def settled_recipe(
    recipe: Recipe, architecture: Architecture, data: ImageData, device: str, threads: int | None = None
) -> Recipe:
    """The recipe with a precision of `auto` settled for this network on this device; raises `InputError` if unfit.

    On a CPU by measuring with so many threads, by default as many as torch uses now.

    A search settles it once, on its backbone, so that all of its candidates are trained alike.
    """
    check_recipe(recipe, device, least_epochs=0)
    if recipe.precision != "auto":
        return recipe
    if recipe.epochs == 0 and device == "cpu":
        return replace(recipe, precision="float32")  # no step is taken that could be faster in another one
    network = build(architecture, outputs_of(data)).to(device)
    images = torch.zeros(min(recipe.batch_size, len(data.train)), *architecture.input_shape, device=device)
    with torch_threads(torch.get_num_threads() if threads is None else max(1, threads)):
        return replace(recipe, precision=faster_precision(network, images, recipe))
