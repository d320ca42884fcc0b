"""model.json of an exported folder: what it says of its network to programs, and other formats carry inside."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nas.common.provenance import package_versions
from nas.common.text import time_text
from nas.data.look import NAMED_LOOKS
from nas.latency.result import Latency, latency_json
from nas.models.sources import SCRATCH
from nas.models.weights import licence_of
from nas.runs.confirmation import confirmed_in
from nas.runs.objectives import objective_values
from nas.runs.record import TrainingRecord, TrialRecord
from nas.runs.results import Result, of_search, of_training
from nas.runs.store import RunDirectory


def preprocessing(run: RunDirectory, record: TrialRecord, dtype: str) -> dict[str, Any]:
    """How an image file becomes what the network reads, step by step, in the words of model.json."""
    channels = record.architecture.input_shape[0]
    return {
        "input_shape": list(record.architecture.input_shape),
        "layout": "NCHW",
        "colour": "grey" if channels == 1 else "RGB",
        "orientation": "turned upright as EXIF says",
        "background": [255, 255, 255],
        "image_size": list(_image_size(run)),
        "files": "resized (bicubic) until the image just covers image_size (height, width), cropped at the centre",
        "resize": "bilinear, antialiased",
        "scale": "uint8 / 255",
        "mean": list(run.provenance.mean),
        "std": list(run.provenance.std),
        "dtype": dtype,
    }


def _image_size(run: RunDirectory) -> tuple[int, int]:
    """Height and width of the data's images; of runs that do not say it yet, as far as it is known of their data."""
    if run.provenance.image_size:
        return run.provenance.image_size
    if look := NAMED_LOOKS.get(run.settings.data):
        return look.height, look.width
    size = max(run.settings.space.input_sizes)
    return size, size


def exported_result(run: RunDirectory, record: TrialRecord, training: TrainingRecord | None) -> Result:
    """What the weights got that are exported: those of a full training, or without one those of the search."""
    settings, images = run.settings.evaluation, run.provenance.validation_images
    return of_search(record, settings, images) if training is None else of_training(training, settings, images)


def embedded(run: RunDirectory, record: TrialRecord, result: Result, dtype: str) -> dict[str, str]:
    """What each further format carries inside, by name; classes and preprocessing are JSON."""
    return {
        "classes": json.dumps(list(run.provenance.classes)),
        "preprocessing": json.dumps(preprocessing(run, record, dtype)),
        "architecture": str(record.architecture.canonical),
        "digest": record.architecture.digest,
        "weights": result.weights,
        "score": result.score_line,
    }


def model_json(
    run: RunDirectory,
    record: TrialRecord,
    training: TrainingRecord | None,
    export: Mapping[str, Any],
    latencies: Mapping[str, Latency],
) -> dict[str, Any]:
    """What model.json holds: architecture, classes, preprocessing, and the figures with how they were measured.

    `training` is the full training whose weights these are; without one they are the search's. `export` says how it was
    exported and checked; `latencies` are those of its formats.
    """
    settings, provenance = run.settings, run.provenance
    init, licence = inherited(run, training)
    return {
        "architecture": record.architecture.to_json(),
        "text": record.text,
        "digest": record.digest,
        "classes": list(run.provenance.classes),
        "preprocessing": preprocessing(run, record, export["dtype"]),
        "measured": _search_json(run, record) if training is None else _training_json(run, training),
        "search": None if training is None else {**_search_json(run, record), "note": _OTHER_WEIGHTS},
        "training": _recipe_json(training) if training else None,
        "latency": {form: latency_json(latency) for form, latency in latencies.items()},
        "export": {"date": time_text(time.time()), "versions": package_versions(), **export},
        "inherited_weights": {"from": init, "licence": licence},
        "origin": {
            "space": settings.space.name,
            "data": settings.data,
            "data_licence": provenance.data_licence,
            "trial": record.number,
            "imported_from": record.imported_from,
            "trials": settings.trials,
            "sampler": settings.sampler,
            "seed": settings.seed,
            "split_seed": settings.split_seed,
            "recipe": asdict(settings.evaluation.recipe),
            "created": time_text(provenance.created),
            "command": provenance.command,
            "git_commit": provenance.git_commit,
            "hardware": provenance.hardware,
            "versions": provenance.versions,
        },
    }


_OTHER_WEIGHTS = "of the search's proxy training: other weights, which are not in this folder"


def _search_json(run: RunDirectory, record: TrialRecord) -> dict[str, Any]:
    """What the search's weights got."""
    again = confirmed_in(run, run.judged()).get(record.digest)
    return {
        **_result_json(exported_result(run, record, None)),
        "objectives": record.objectives,
        "cost": asdict(record.evaluation.cost) if record.evaluation.cost else None,
        "epochs": record.evaluation.epochs,
        "confirmed": asdict(again) if again else None,
    }


def _training_json(run: RunDirectory, training: TrainingRecord) -> dict[str, Any]:
    """What the weights of a full training got."""
    settings, images = run.settings.evaluation, run.provenance.validation_images
    cost = training.evaluation.cost
    return {
        **_result_json(of_training(training, settings, images)),
        "objectives": objective_values(training.evaluation, run.settings.objectives),
        "cost": asdict(cost) if cost else None,
        "epochs": len(training.losses),
    }


def _result_json(result: Result) -> dict[str, Any]:
    """Each number with its weights, the images that it is of, and the measurement that it is from."""
    latency = result.latency
    return {
        "weights": result.weights,
        "test": None if result.tested is None else {result.by.name: result.tested, "images": result.test_images},
        "validation": None if result.score is None else {result.metric.name: result.score, "images": result.images},
        "metric": result.metric.name,
        "validation_images": result.images,
        "sentences": [result.score_line, result.latency_line],
        "latency": latency_json(latency) if latency else None,
        "latencies": {name: latency_json(on_target) for name, on_target in result.latencies.items()},
    }


def _recipe_json(training: TrainingRecord) -> dict[str, Any]:
    """How the full training went that the weights are of, and the test split class by class."""
    return {
        "seed": training.seed,
        "start": training.start,
        "with_validation": training.with_validation,
        "epochs": len(training.losses),
        "test": asdict(training.after) if training.after else None,
        "recipe": asdict(training.recipe),
    }


def inherited(run: RunDirectory, training: TrainingRecord | None) -> tuple[str, str]:
    """What the exported weights inherited, and what is known of its licence, as the run noted it when it began."""
    if training is not None and training.start == "scratch":
        return SCRATCH, licence_of(SCRATCH)
    init = run.settings.evaluation.init
    return init, run.provenance.init_licence or licence_of(init)
