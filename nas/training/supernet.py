"""Training of a supernet: in each step the largest network, the smallest, and some random ones between them.

The sandwich rule and distillation in place (Yu & Huang, Universally Slimmable Networks, ICCV 2019, section 3; Yu et al.,
BigNAS, ECCV 2020): the largest learns from the targets, all others from what it says, so that no network has to wait for
another to be trained first. One that was stopped or killed goes on from the end of its last whole epoch.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from nas.common.errors import InputError, arg
from nas.common.files import weights_content, write_atomically, writing
from nas.common.seeds import derive_seed
from nas.latency.lease import Bursts, lease_for
from nas.models.build import build
from nas.models.elastic import Elastic
from nas.models.inherit import recalibrate
from nas.models.seen import seen_by, together, write_seen
from nas.models.sources import SCRATCH
from nas.models.weights import load_weights, source_of
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.space import SearchSpace
from nas.tasks.base import task_of
from nas.tasks.motion import Motion
from nas.training.allocator import reused_memory
from nas.training.augment import mix
from nas.training.device_data import DeviceData, resize
from nas.training.distributed import largest, rank_and_ranks
from nas.training.length import Length, Spent
from nas.training.loop import augmented, predict
from nas.training.optim import Stepper, learning_rate_at, mean_loss
from nas.training.supernet_file import EPOCHS, REFERENCES, SupernetEpoch, SupernetFile, write_file


@dataclass(frozen=True)
class SupernetPlan:
    """A training that was checked and can start, or go on."""

    folder: Path
    file: SupernetFile
    data: Any  # nas.data.sets.ImageData, whose arrays no dataclass compares

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / "weights.safetensors").is_file()


def train_here(
    plan: SupernetPlan,
    on_epoch: Callable[[SupernetEpoch], None],
    stopped: Callable[[], bool],
    device: str,
    network: type[Elastic] = Elastic,
) -> None:
    """Train in this process, perhaps as one of several ranks, until the end or until it is stopped between two epochs.

    The first rank keeps what the epochs give.
    """
    trainer = _Trainer(plan, device, network)
    first = rank_and_ranks()[0] == 0
    if first:
        write_file(plan.folder, replace(plan.file, history=tuple(trainer.history)))
        with writing(plan.folder):
            write_seen(plan.folder, together(plan.data.train.image_hashes, seen_by(plan.file.init)))
        for epoch in trainer.history:
            on_epoch(epoch)
    while trainer.progress < 1:
        if largest(float(first and stopped()), trainer.device):
            return
        with reused_memory(trainer.device):
            epoch = trainer.epoch()
        if first:
            on_epoch(epoch)
            trainer.keep()
    if first:
        trainer.finish()


def begin_with(network: Elastic, init: str) -> None:
    """Fill the shared weights from a backbone: fused and separable layers, each with every dilation, then sort channels."""
    if source_of(init).trained_on() is not None:
        raise InputError(f"{init}: the weights of one network are needed here, not of a supernet")
    weights = load_weights(init)
    for variant in _variants(network.space):
        inheritance = weights.inherit(variant, network.num_classes)
        if inheritance is not None:
            network.absorb(variant, inheritance.state)
    network.sort_channels()


def _variants(space: SearchSpace) -> Iterator[Architecture]:
    """The largest network in all its kinds of layers: together they touch every shared weight but a headless classifier."""
    values = space.locate(space.largest)
    kinds = {"separable": (True, False), "dilation": (), "expansion": ()}
    offered = {
        key: sorted(
            {choice for name, choices in space.parameters.items() if space.slot(name).key == key for choice in choices}
        )
        for key in kinds
    }
    offered["expansion"] = offered["expansion"][:: max(1, len(offered["expansion"]) - 1)]  # the least and the most
    for wanted in product(*(choices or [0] for choices in offered.values())):
        variant = dict(values)
        for name, choices in space.parameters.items():
            for key, choice in zip(offered, wanted, strict=True):
                if space.slot(name).key == key and choice in choices:
                    variant[name] = choice
        yield space.architecture(variant)


class _Trainer:
    """A supernet in training, from its start or its checkpoint."""

    def __init__(self, plan: SupernetPlan, device: str, network: type[Elastic]) -> None:
        self._plan, self._file, self._recipe = plan, plan.file, plan.file.recipe
        self._data = DeviceData(plan.data.without_test(), device)
        self._lease = lease_for(device)
        self._task = task_of(self._data.data.task)
        self._outputs = plan.file.num_outputs
        space, recipe = plan.file.space, plan.file.recipe
        self._largest, self._smallest = space.largest, space.smallest
        self._network = network(space, self._outputs, plan.file.seed, plan.file.sharing)
        self._rank, self._ranks = rank_and_ranks()
        self._checkpoint = plan.folder / "checkpoint.pt"
        known = self._read_checkpoint()
        if known is None and plan.file.init != SCRATCH:
            begin_with(self._network, plan.file.init)
        self._network.to(self._data.device).to(memory_format=torch.channels_last)
        self._stepper = Stepper(self._network, recipe, self._data.device)
        self._loss = self._task.loss(self._data.train.labels, plan.file.classes, recipe.label_smoothing)
        self._generator = torch.Generator().manual_seed(plan.file.seed)
        self._length = Length.of(recipe, len(self._data.train), self._ranks)
        self._spent = Spent(self._length)
        self.history: list[SupernetEpoch] = []
        if known is not None:
            self._network.load_state_dict(known["network"])
            self._stepper.restore(known["stepper"])
            self._generator.set_state(known["generator"])
            self._spent.steps, self._spent.seconds = known["done"], known["seconds"]
            self.history = list(EPOCHS.validate_python(known["history"]))

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._data.device

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return self._spent.share

    def epoch(self) -> SupernetEpoch:
        """Train for an epoch, or until the budget is spent, and score the reference networks."""
        began, before, length = time.perf_counter(), self._spent.seconds, self._length
        order = torch.randperm(len(self._data.train), generator=self._generator)
        losses, steps = torch.zeros((), device=self._data.device), 0
        bursts = Bursts(self._lease, self._data.device)
        self._network.train()
        # Every rank draws the same order, and the same shifts for the images of its own share.
        batches = order[: length.steps_an_epoch * length.batch_size].view(length.steps_an_epoch, length.batch_size)
        own = batches[:, self._rank :: self._ranks]
        for images, targets in self._data.train.batches(own.flatten(), own.shape[1]):
            with bursts:
                losses += self._step(images, targets)
            steps += 1
            if not self._data.train.resident:
                bursts.close()
            spent = before + time.perf_counter() - began - bursts.waited_s
            self._spent.seconds = largest(spent, self.device) if self._recipe.seconds else spent
            if self.progress >= 1:
                break
        bursts.close()
        loss = losses.item() / steps  # of this rank's images
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise InputError(
                f"{self._plan.folder}: the training loss became {loss}; try a smaller {arg('assignments')} learning_rate"
            )
        scored = REFERENCES if self._rank == 0 else ()
        scores = {name: self._score(getattr(self._file.space, name)) for name in scored}
        share = self._spent.steps / length.steps
        found = SupernetEpoch(len(self.history) + 1, loss, scores, time.perf_counter() - began, share)
        self.history.append(found)
        return found

    def _step(self, images: torch.Tensor, targets: Any) -> torch.Tensor:
        self._stepper.set_rate(learning_rate_at(self._spent.share_in_step, self._recipe))
        motion = Motion(images) if self._task.targets_move else None
        x = augmented(self._data, images, self._largest.input_size, self._recipe, self._generator, motion)
        if motion is not None:
            targets = self._task.move(targets, motion)
        mixed = mix(x, targets, self._recipe, self._generator)
        x = x if mixed is None else mixed.images
        # Drawn from the number of the step, so that a training that goes on draws the same ones.
        rng = random.Random(derive_seed(self._file.seed, "candidates", self._spent.steps))
        space = self._file.space
        others = [self._smallest, *(space.architecture(space.sample(rng)) for _ in range(self._file.random))]

        def losses() -> Iterator[torch.Tensor]:
            outputs = self._outputs_of(x, self._largest)
            yield mean_loss(self._loss, outputs, targets, mixed, weighed=False)
            for other in others:
                yield self._loss.distil(self._outputs_of(x, other), outputs.detach())

        loss = self._stepper.backward_and_step(losses())
        self._spent.steps += 1
        return loss

    def _outputs_of(self, x: torch.Tensor, architecture: Architecture) -> torch.Tensor:
        with self._stepper.autocast():
            return self._network(resize(x, architecture.input_size), architecture).float()

    def _score(self, architecture: Architecture) -> float:
        """The task's score on the validation split, of the extracted network, its batch norm recalibrated."""
        side = architecture.input_size
        alone = build(architecture, self._outputs)
        alone.load_state_dict(self._network.extract_subnet(architecture))
        alone.to(self._data.device).to(memory_format=torch.channels_last)
        recalibrate(alone, self._data.calibration_batches(side), self._lease)
        predicted = predict(alone, self._data, self._data.validation, side, lease=self._lease)
        return self._task.score(self._data.data.validation.labels, predicted.predictions)

    def keep(self) -> None:
        """Write what the epochs that follow depend on."""
        content = {
            "network": self._network.state_dict(),
            "stepper": self._stepper.state(),
            "generator": self._generator.get_state(),
            "done": self._spent.steps,
            "seconds": self._spent.seconds,
            "history": [{**vars(epoch), "scores": dict(epoch.scores)} for epoch in self.history],
        }
        file = io.BytesIO()
        torch.save(content, file)
        with writing(self._checkpoint):
            write_atomically(self._checkpoint, file.getvalue())
        write_file(self._plan.folder, replace(self._file, history=tuple(self.history)))

    def finish(self) -> None:
        """Leave the weights, and nothing to go on from."""
        path = self._plan.folder / "weights.safetensors"
        with writing(path):
            write_atomically(path, weights_content(self._network.state_dict()))
        self._checkpoint.unlink(missing_ok=True)

    def _read_checkpoint(self) -> dict[str, Any] | None:
        if not self._checkpoint.is_file():
            return None
        try:
            return torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever unpickling, zip files and its own checks raise
            raise InputError(f"{self._checkpoint}: cannot be read; delete it to begin again") from error
