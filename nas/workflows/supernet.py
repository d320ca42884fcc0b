"""Training a supernet: checked, begun or gone on with, on one device or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from nas.common.errors import InputError, arg
from nas.common.files import check_place, only_process, writing
from nas.common.signals import StopRequest, gentle_signals
from nas.data.class_names import normal
from nas.models.elastic import Elastic, Sharing
from nas.models.sources import SCRATCH
from nas.models.weights import licence_of, load_weights
from nas.spaces.base import Space
from nas.spaces.mobile.space import SearchSpace
from nas.tasks.base import DEFAULT, outputs_of
from nas.training.images import load_images
from nas.training.optim import check_recipe, gpu_precision
from nas.training.recipe import Recipe
from nas.training.supernet import SupernetPlan, train_here
from nas.training.supernet_file import SupernetEpoch, SupernetFile, read_file
from nas.workflows.space_choice import warn_unfit

_PLAIN = {"trainable": "all", "compile": False, "ema": 0.0, "dropout": 0.0, "patience": 0, "balance": "none"}
"""What a recipe must leave alone: it has no meaning where many networks are trained at once, or is not built."""


_MAY_DIFFER = ("history", "schema", "devices", "init_licence", "data_licence")
"""What may change in supernet.yaml before a training that was stopped goes on."""


def plan_supernet(
    folder: Path,
    space: Space,
    data: str,
    recipe: Recipe,
    *,
    init: str = SCRATCH,
    device: str = "cpu",
    split_seed: int = 0,
    seed: int = 0,
    random: int = 2,
    devices: int = 1,
    sharing: Sharing | None = None,
    task: str = DEFAULT,
    allow_seen_images: bool = False,
) -> SupernetPlan:
    """Check what a training needs; a folder that holds the beginning of the same one goes on.

    Raises `InputError` when the data or the weights are not here, the recipe cannot be followed, or the folder holds
    something else.
    """
    if not isinstance(space, SearchSpace):
        raise InputError(
            f"a supernet is of mobile networks, and the space {space.name} is of the family {space.family}"
        )
    recipe = _settled(recipe, device, devices)
    warn_unfit(space, data)
    begun = read_file(folder) if check_place(folder) else None
    distinct = begun is None or begun.distinct
    images = load_images(space, data, split_seed, init, task, distinct=distinct, allow_seen=allow_seen_images)
    file = SupernetFile(
        space=space,
        data=data,
        data_fingerprint=images.fingerprint(),
        split_seed=split_seed,
        classes=tuple(images.classes),
        mean=images.mean,
        std=images.std,
        recipe=recipe,
        device=device,
        init=init,
        init_fingerprint=load_weights(init).fingerprint(),
        init_licence=licence_of(init),
        data_licence=images.licence,
        seed=seed,
        random=random,
        devices=devices,
        sharing=sharing or Sharing(),
        task=task,
        outputs=None if images.classes else outputs_of(images),
        distinct=distinct,
        allow_seen_images=allow_seen_images,
    )
    if begun is not None:
        _check_same(folder, begun, file)
    return SupernetPlan(folder, file, images)


def _settled(recipe: Recipe, device: str, devices: int) -> Recipe:
    """The recipe with a precision of `auto` settled; raises `InputError` where it cannot be followed on so many devices."""
    check_recipe(recipe, device)
    for key, value in _PLAIN.items():
        if getattr(recipe, key) != value:
            raise InputError(f"{key} {getattr(recipe, key)}: a supernet is trained with {key} {value}")
    if recipe.precision == "auto":
        recipe = replace(recipe, precision="float32" if device == "cpu" else gpu_precision())
    if recipe.batch_size % devices:
        raise InputError(f"{arg('devices')} {devices}: a batch of {recipe.batch_size} images is not shared out evenly")
    if device != "cpu" and devices > torch.cuda.device_count():
        raise InputError(f"{arg('devices')} {devices}: torch sees {torch.cuda.device_count()} GPUs here")
    return recipe


def _check_same(folder: Path, known: SupernetFile, file: SupernetFile) -> None:
    """Raise `InputError` where the training that the folder holds is another one than that of `file`."""
    known = replace(known, classes=tuple(map(normal, known.classes)))
    for key in SupernetFile.__dataclass_fields__:
        if key not in _MAY_DIFFER and getattr(known, key) != getattr(file, key):
            raise InputError(f"{arg('out')} {folder}: holds a supernet of another {key}; give another {arg('out')}")


def train_supernet(
    plan: SupernetPlan,
    on_epoch: Callable[[SupernetEpoch], None] = lambda epoch: None,
    network: type[Elastic] = Elastic,
) -> str | None:
    """Train to the end, and leave the weights in the folder; why it ended early, or None.

    A signal ends it after the epoch that runs. `on_epoch` is told of each epoch, those of an earlier process too;
    `network` says how weights are shared, for experiments. Raises `InputError` when another process is at it, or the
    disk is full.
    """
    if plan.done:
        return None
    with writing(plan.folder):
        plan.folder.mkdir(parents=True, exist_ok=True)
    busy = f"{plan.folder}: another process trains this supernet"
    stop = StopRequest()
    with only_process(plan.folder / "lock", plan.folder, busy), gentle_signals(stop):
        if plan.file.devices > 1:
            from nas.workflows.supernet_devices import train_on_devices  # Ray is slow to import

            train_on_devices(plan, on_epoch, lambda: stop.reason is not None)
        else:
            train_here(plan, on_epoch, lambda: stop.reason is not None, plan.file.device, network)
    return None if plan.done else stop.reason
