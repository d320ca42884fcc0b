"""The conditions under which a run evaluates its candidates, on this machine: settings, recipe and data.

Whatever trains a network to be compared with a run's candidates, or goes on with the run, starts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nas.class_names import same_classes
from nas.data import ImageData, load_data
from nas.errors import InputError
from nas.run import RunDirectory
from nas.settings import SCRATCH, SUPERNET, EvaluationSettings, SearchSettings
from nas.space import SearchSpace
from nas.wording import classes_text


def settings_here(run: RunDirectory, device: str | None = None) -> SearchSettings:
    """The run's settings on a device of this machine, by default the run's own, with the recipe that it trained by.

    Raises `InputError` when the device is not here, or cannot do what the recipe asks for.
    """
    from nas.device import resolve_device
    from nas.optimise import check_recipe

    settings = run.settings
    here = resolve_device(device or settings.device)
    evaluation = settings.evaluation
    recipe = evaluation.recipe
    check_recipe(recipe, here, least_epochs=0)
    if recipe.precision == "auto":  # of a run older than the choice of a precision: it trained in float32
        recipe = replace(recipe, precision="float32")
    protocol = replace(evaluation.protocol, device=here)
    return replace(settings, evaluation=replace(evaluation, recipe=recipe, protocol=protocol))


def devices_here(settings: SearchSettings) -> dict[str, str]:
    """The models of the devices that a trial's worker uses, by device, in a process where one can run.

    Raises `InputError` when one is not here, or a latency cannot be measured on it as asked.
    """
    from nas.device import device_name, resolve_device
    from nas.runtimes import check_protocol
    from nas.targets import check_measurable, targets_here

    targets = targets_here(settings)
    resolve_device(settings.device)
    check_protocol(settings.evaluation.protocol)
    check_measurable(targets)
    return {name: device_name(name) for name in {settings.device, *(target.protocol.device for target in targets)}}


def data_of(run: RunDirectory, init: str | None = None) -> ImageData:
    """The data that the run's candidates are trained on, normalised for the weights `init`, by default the run's own.

    Raises `InputError` when it has changed since, or the weights that they inherit from.
    """
    settings = run.settings
    data = load_images(settings.space, settings.data, settings.split_seed, init or settings.evaluation.init)
    if data.fingerprint() != run.provenance.data_fingerprint:
        raise InputError(
            f"{run.path}: the data set {settings.data} has changed since the search began, or is read otherwise now"
        )
    own, before = settings.evaluation.init, run.provenance.init_fingerprint
    if before is not None and init_fingerprint(own) != before:
        raise InputError(f"{run.path}: the weights {own} have changed since the search began")
    return data


def check_scored_untrained(evaluation: EvaluationSettings, data: str, classes: Sequence[str]) -> None:
    """Raise `InputError` where candidates are to be scored without fine-tuning and do not inherit all of their weights."""
    from nas.supernet import read_file

    if evaluation.recipe.epochs > 0:
        return
    if not evaluation.init.startswith(SUPERNET):
        raise InputError(
            f"--epochs/--finetune 0: with --init {evaluation.init} random weights would be scored; use --init {SUPERNET}DIR of nas "
            "supernet train, or at least 1 epoch"
        )
    folder = Path(evaluation.init.removeprefix(SUPERNET))
    theirs, ours = read_file(folder).classes, tuple(classes)
    if not same_classes(theirs, ours):
        raise InputError(
            f"--epochs/--finetune 0: the supernet {folder} was trained for {classes_text(theirs)}, and {data} has {classes_text(ours)}, "
            "so that a random classifier would be scored; use a supernet of the same classes in the same order, or at "
            "least 1 epoch"
        )


def check_unseen(init: str, data: str, split_seed: int) -> None:
    """Raise `InputError` where a supernet was trained on another split of the same data."""
    from nas.supernet import read_file

    if not init.startswith(SUPERNET):
        return
    theirs = read_file(Path(init.removeprefix(SUPERNET)))
    if theirs.data == data and theirs.split_seed != split_seed:
        raise InputError(
            f"--split-seed {split_seed}: the supernet {init.removeprefix(SUPERNET)} was trained with --split-seed "
            f"{theirs.split_seed}, so that it has seen images of this validation part; use {theirs.split_seed}"
        )


def init_fingerprint(init: str) -> str | None:
    """What tells the initial weights from others of that name; None for random ones."""
    from nas.backbones import load_source

    return None if init == SCRATCH else load_source(init).fingerprint()


def load_images(space: SearchSpace, data: str, split_seed: int, init: str) -> ImageData:
    """The data set in the channels, size and normalisation that the space and the initial weights ask for.

    Raises `InputError` where the weights do not fit, or are those of a supernet that has seen the validation part.
    """
    from nas.backbones import check_fits, normalised_for

    check_fits(init, space)
    check_unseen(init, data, split_seed)
    loaded = load_data(data, channels=space.input.channels, size=max(space.input.size), split_seed=split_seed)
    return normalised_for(loaded, init)
