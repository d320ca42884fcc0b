"""The conditions under which a run evaluates its candidates, on this machine: settings, recipe and data.

Whatever trains a network to be compared with a run's candidates, or goes on with the run, starts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas.common.errors import InputError, about, arg
from nas.common.text import classes_text
from nas.data.class_names import same_classes
from nas.data.sets import ImageData
from nas.latency.conditions import conditions
from nas.latency.device import device_name, resolve_device
from nas.latency.runtimes import check_protocol
from nas.models.sources import SUPERNET
from nas.models.weights import load_weights, source_of
from nas.runs.objectives import target_objective
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory
from nas.runs.targets import check_measurable, targets_here
from nas.training.images import load_images
from nas.training.optim import check_recipe


def settings_here(run: RunDirectory, device: str | None = None) -> SearchSettings:
    """The run's settings on a device of this machine, by default the run's own, with the recipe that it trained by.

    A device that is given is both trained and measured on. Raises `InputError` when the device is not here, or cannot do what the recipe asks for.
    """
    settings = run.settings
    evaluation = settings.evaluation
    measured_on = resolve_device(device or evaluation.protocol.device)
    trained_on = evaluation.train_device and resolve_device(device or evaluation.train_device)
    recipe = evaluation.recipe
    check_recipe(recipe, trained_on or measured_on, least_epochs=0)
    if recipe.precision == "auto":  # of a run older than the choice of a precision: it trained in float32
        recipe = replace(recipe, precision="float32")
    protocol = replace(evaluation.protocol, device=measured_on)
    evaluation = replace(evaluation, recipe=recipe, protocol=protocol, train_device=trained_on)
    return replace(settings, evaluation=evaluation)


def devices_here(settings: SearchSettings) -> dict[str, str]:
    """The models of the devices that a trial's worker uses, by device, in a process where one can run.

    Raises `InputError` when one is not here, or a latency cannot be measured on it as asked.
    """
    targets = targets_here(settings)
    for device in settings.worker_devices:
        resolve_device(device)
    with about("latency"):
        check_protocol(settings.evaluation.protocol)
    check_measurable(targets)
    devices = {*settings.worker_devices, *(target.protocol.device for target in targets)}
    return {name: device_name(name) for name in devices}


def conditions_here(settings: SearchSettings) -> dict[str, dict[str, str]]:
    """Under what conditions this process would measure the latencies of a trial's worker, by the names of objectives."""
    targets = {target_objective(target.name): target.protocol for target in targets_here(settings)}
    protocols = {"latency": settings.evaluation.protocol, **targets}
    return {name: conditions(protocol) for name, protocol in protocols.items()}


def data_of(run: RunDirectory, init: str | None = None) -> ImageData:
    """The data that the run's candidates are trained on, normalised for the weights `init`, by default the run's own.

    Raises `InputError` when it has changed since, or the weights that they inherit from.
    """
    settings = run.settings
    evaluation = settings.evaluation
    data = load_images(
        settings.space,
        settings.data,
        settings.split_seed,
        init or evaluation.init,
        evaluation.task,
        distinct=run.provenance.distinct,
        allow_seen=settings.allow_seen_images,
    )
    if data.fingerprint() != run.provenance.data_fingerprint:
        raise InputError(
            f"{run.path}: the data set {settings.data} has changed since the search began, or is read otherwise now"
        )
    own, before = evaluation.init, run.provenance.init_fingerprint
    if before is not None and load_weights(own).fingerprint() != before:
        raise InputError(f"{run.path}: the weights {own} have changed since the search began")
    return data


def check_same_test(run: RunDirectory, data: ImageData) -> None:
    """Raise `InputError` where the test split is another one than when the search began, as far as the run tells."""
    before = run.provenance.test_fingerprint
    if before is not None and data.test_fingerprint() != before:
        gone = "is gone" if data.test is None else "has changed"
        raise InputError(
            f"{run.path}: the test split of the data set {run.settings.data} {gone} since the search began, so that scores on "
            "it could not be compared; put it back"
        )


def check_scored_untrained(evaluation: EvaluationSettings, data: str, classes: Sequence[str]) -> None:
    """Raise `InputError` where candidates are to be scored without fine-tuning and do not inherit all of their weights."""
    if evaluation.recipe.epochs > 0:
        return
    source = source_of(evaluation.init)
    theirs = source.trained_on()
    if theirs is None:
        raise InputError(
            f"{arg('recipe.epochs')} 0: with {arg('init')} {evaluation.init} random weights would be scored; use {arg('init')} {SUPERNET}DIR of nas "
            "supernet train, or at least 1 epoch"
        )
    ours = tuple(classes)
    if not same_classes(theirs.classes, ours):
        raise InputError(
            f"{arg('recipe.epochs')} 0: {source.title} was trained for {classes_text(theirs.classes)}, and {data} has {classes_text(ours)}, "
            "so that a random classifier would be scored; use a supernet of the same classes in the same order, or at "
            "least 1 epoch"
        )
