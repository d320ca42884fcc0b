"""Reference networks, measured and trained by a run's own protocol and recipe: what people would otherwise pick.

MobileNetV2 (Sandler et al., 2018) at four widths and ResNet-18 (He et al., 2016) as torchvision builds them, for the
run's classes and channels and its largest input; and the smallest and the largest network of the run's space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet18_Weights,
    mobilenet_v2,
    resnet18,
)

from nas.common.errors import CandidateError, InputError, arg
from nas.common.kinds import checks_kinds
from nas.common.seeds import derive_seed
from nas.common.text import quoted
from nas.data.sets import ImageData
from nas.latency.device import device_name, torch_threads
from nas.latency.lease import lease_for
from nas.latency.measuring import measure
from nas.models.cost import module_cost
from nas.models.networks import build
from nas.models.sources import IMAGENET, SCRATCH
from nas.runs.limits import budget_violation
from nas.runs.objectives import objective_values
from nas.runs.record import BaselineRecord, Evaluation, Outcome
from nas.runs.settings import Budgets, SearchSettings
from nas.runs.store import RunDirectory
from nas.runs.targets import targets_here
from nas.search.conditions import data_of, settings_here
from nas.search.evaluate import evaluate_candidate
from nas.search.found import Found
from nas.spaces.base import Architecture, Space
from nas.training.device_data import DeviceData
from nas.training.images import with_normalisation
from nas.training.loop import finetune

Weights = Literal["scratch", "imagenet"]

Builder = Callable[[Space, int, int], nn.Module]
OnEpoch = Callable[[str, int], None]


def _from_torchvision(
    make: Callable[..., nn.Module], space: Space, classes: int, seed: int, **options: Any
) -> nn.Module:
    """A torchvision network with fresh weights that `seed` decides, for images of the space's channels."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator; leave it as it was
        torch.default_generator.manual_seed(seed)
        network = make(num_classes=classes, **options)
        name, first = next((n, module) for n, module in network.named_modules() if isinstance(module, nn.Conv2d))
        if first.in_channels != space.input_channels:
            same: dict[str, Any] = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding")}
            stem = nn.Conv2d(space.input_channels, first.out_channels, bias=False, **same)
            nn.init.kaiming_normal_(stem.weight, mode="fan_out")  # as both networks initialise theirs
            network.set_submodule(name, stem)
    return network


# The recipe has a dropout of its own, so that MobileNetV2's is off.
_mobilenet_v2 = partial(_from_torchvision, mobilenet_v2, dropout=0.0)

BASELINES: dict[str, Builder] = {
    "mobilenet_v2_050": partial(_mobilenet_v2, width_mult=0.5),
    "mobilenet_v2_075": partial(_mobilenet_v2, width_mult=0.75),
    "mobilenet_v2_100": _mobilenet_v2,
    "mobilenet_v2_140": partial(_mobilenet_v2, width_mult=1.4),
    "resnet18": partial(_from_torchvision, resnet18),
    "smallest": lambda space, classes, seed: build(space.smallest, classes, seed),
    "largest": lambda space, classes, seed: build(space.largest, classes, seed),
}
"""How each reference network is built, from space, number of classes and seed; it gives logits (N, classes)."""

_PUBLISHED = {
    "mobilenet_v2_100": MobileNet_V2_Weights.IMAGENET1K_V1,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
}


@checks_kinds
def measure_baselines(
    run: RunDirectory,
    names: Sequence[str] = tuple(BASELINES),
    *,
    train: bool = False,
    weights: Weights = "scratch",
    device: str | None = None,
    on_epoch: OnEpoch = lambda name, epoch: None,
) -> Iterator[BaselineRecord]:
    """Measure reference networks and, with `train`, fine-tune them, as the run's candidates were; each is recorded.

    Yields what is new: a network whose record has what is asked for is left as it is, and the space's smallest and
    largest take the record of a trial that trained them. One that cannot be trained is recorded as failed, and the
    others go on. `on_epoch` is told of a network's name at its start (epoch 0) and after each epoch. Raises
    `InputError` when the run was measured on another device than this one, or its data has changed.
    """
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise InputError(f"unknown network {quoted(unknown[0])}: choose from {', '.join(BASELINES)}")
    settings = settings_here(run, device)
    if train and settings.evaluation.recipe.epochs == 0:
        raise InputError(
            f"{arg('train')}: the run scored its candidates without fine-tuning ({arg('recipe.epochs')} 0), so that there is no recipe to train "
            f"reference networks by; without {arg('train')} they are measured"
        )
    _check_measured_here(run, settings.evaluation.protocol.device)
    data = data_of(run) if train else None
    recorded = {record.name: record for record in run.baselines()}
    with torch_threads(max(1, int(settings.resources.cpus_per_trial))):  # a recipe's seconds are those of a trial
        for name in dict.fromkeys(names):
            init = _start(name, settings, weights)[0] if train else None
            if name in recorded and _suffices(recorded[name], init):
                continue
            on_epoch(name, 0)
            record = _from_trials(run, name) or measure_baseline(name, settings, run.outputs, data, weights, on_epoch)
            run.append_baseline(record)
            yield record


def measure_baseline(
    name: str,
    settings: SearchSettings,
    classes: int,
    data: ImageData | None = None,
    weights: Weights = "scratch",
    on_epoch: OnEpoch = lambda name, epoch: None,
) -> BaselineRecord:
    """One reference network under a run's settings: cost, latency, and with `data` a fine-tune.

    A hard budget rejects none of them, but the note says where one is exceeded. Targets whose device is elsewhere are
    not measured. Errors of the network's own come back as a failed evaluation with their reason.
    """
    began = time.time()
    architecture = _in_space(name, settings.space)
    init, note = _start(name, settings, weights) if data is not None else (SCRATCH, "")
    if architecture is not None and data is not None:
        unlimited = tuple(replace(target, max_ms=None) for target in targets_here(settings))
        of_a_trial = replace(settings.evaluation, budgets=Budgets(), targets=unlimited)
        evaluation = evaluate_candidate(
            architecture, data, of_a_trial, lambda epoch: on_epoch(name, epoch.epoch)
        ).evaluation
    else:
        evaluation = _evaluate(name, settings, classes, data, init, on_epoch)
    over_budget = None
    if evaluation.cost and evaluation.latency:
        on_targets = [
            (t, evaluation.latencies[t.name]) for t in targets_here(settings) if t.name in evaluation.latencies
        ]
        _, over_budget = budget_violation(settings.evaluation.budgets, evaluation.cost, evaluation.latency, on_targets)
    return BaselineRecord(
        name=name,
        evaluation=evaluation,
        objectives=objective_values(evaluation, settings.objectives) if evaluation.outcome is Outcome.DONE else {},
        init=init,
        note="; ".join(part for part in (note, over_budget) if part),
        started=began,
        finished=time.time(),
    )


def _evaluate(
    name: str, settings: SearchSettings, classes: int, data: ImageData | None, init: str, on_epoch: OnEpoch
) -> Evaluation:
    """Cost, latency and fine-tune of a network that is no candidate of the space, in the order of `nas.search.evaluate`."""
    found = Found()
    space, protocol, seed = settings.space, settings.evaluation.protocol, derive_seed(settings.evaluation.seed, name)
    architecture = _in_space(name, space)
    side = architecture.input_size if architecture else max(space.input_sizes)
    lease = lease_for(settings.device)
    try:
        with lease_for("cpu").shared():
            network = BASELINES[name](space, classes, seed)
            found.cost = module_cost(network, (space.input_channels, side, side))
        found.latency = measure(network, (space.input_channels, side, side), protocol)
        for target in targets_here(settings):
            found.latencies[target.name] = measure(network, (space.input_channels, side, side), target.protocol)
        if data is not None:
            if init == IMAGENET:
                preset = _PUBLISHED[name].transforms()
                data = with_normalisation(data, tuple(preset.mean), tuple(preset.std))
                found.fresh = load_published(network, name)
            recipe = replace(settings.evaluation.recipe, trainable="all")
            metric = settings.evaluation.load_metric()
            on_device = DeviceData(data.without_test(), settings.device)
            for epoch in finetune(network, on_device, side, recipe, metric, seed=seed, lease=lease):
                found.history.append(epoch)
                on_epoch(name, epoch.epoch)
    except InputError:
        raise
    except Exception as error:
        return found.failed(error)
    return found.evaluation(Outcome.DONE)


def load_published(network: nn.Module, name: str) -> tuple[str, ...]:
    """Load torchvision's ImageNet weights into a reference network, in place; the parts that they do not fit.

    For grey images the first convolution's weights are summed over the colours. Raises `CandidateError` when they
    cannot be downloaded.
    """
    try:
        tensors = dict(_PUBLISHED[name].get_state_dict(progress=False, check_hash=True, weights_only=True))
    except OSError as error:
        raise CandidateError(f"the ImageNet weights could not be downloaded: {error}") from error
    own = network.state_dict()
    first = next(iter(own))
    if own[first].shape[1] == 1:
        tensors[first] = tensors[first].sum(1, keepdim=True)
    fitting = {key: tensor for key, tensor in tensors.items() if own[key].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    return tuple(dict.fromkeys(key.rpartition(".")[0] for key in own if key not in fitting))


def _in_space(name: str, space: Space) -> Architecture | None:
    return {"smallest": space.smallest, "largest": space.largest}.get(name)


def _start(name: str, settings: SearchSettings, weights: Weights) -> tuple[str, str]:
    """The initial weights that a network is trained from, and what is to be said of its training."""
    if _in_space(name, settings.space) is not None:
        return settings.evaluation.init, ""
    published = weights == IMAGENET and name in _PUBLISHED
    notes = []
    if weights == IMAGENET and not published:
        notes.append("torchvision has no ImageNet weights for it")
    if settings.evaluation.recipe.trainable != "all":
        notes.append(f"all of it is trained: trainable {settings.evaluation.recipe.trainable} is for the space's own")
    return IMAGENET if published else SCRATCH, "; ".join(notes)


def _suffices(record: BaselineRecord, init: str | None) -> bool:
    """Whether a record has what is asked for: a measurement, or a training from `init`."""
    if init is None:
        return record.evaluation.outcome is Outcome.DONE
    return record.trained and record.init == init


def _from_trials(run: RunDirectory, name: str) -> BaselineRecord | None:
    """What a trial of the run already found of the space's smallest or largest network."""
    architecture = _in_space(name, run.settings.space)
    for trial in run.judged() if architecture else ():
        own = trial.outcome is Outcome.DONE and trial.imported_from is None
        if architecture and own and trial.digest == architecture.digest:
            return BaselineRecord(
                name=name,
                evaluation=trial.evaluation,
                objectives=trial.objectives,
                init=run.settings.evaluation.init,
                note=f"trial {trial.number} of the search",
                started=trial.started,
                finished=trial.finished,
            )
    return None


def _check_measured_here(run: RunDirectory, device: str) -> None:
    """Raise `InputError` when the run was measured on another device than this one."""
    latencies = [record.evaluation.latency for record in run.records()]
    measured = {latency.device_name for latency in latencies if latency} or {run.provenance.hardware}
    if device_name(device) not in measured:
        raise InputError(
            f"{run.path}: the run was measured on {', '.join(sorted(measured))} and device {device} is "
            f"{device_name(device)}, so that nothing measured here could be compared; run nas baseline there"
        )
