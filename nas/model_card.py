"""What an exported folder says of its network: model.json for programs, README.md for people."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nas.backbones import licence_of
from nas.confirmation import Confirmed, confirmed_in
from nas.export_check import FILES
from nas.provenance import package_versions
from nas.record import Latency, TrainingRecord, TrialRecord, latency_json
from nas.run import RunDirectory
from nas.settings import SCRATCH
from nas.wording import (
    STARTS,
    cost_text,
    estimator_text,
    latency_text,
    plural,
    protocol_text,
    score_text,
    score_title,
    standard_error,
    time_text,
    trial_text,
)

_IMAGE_SIZES = {"digits": 8, "fashion_mnist": 28, "cifar10": 32, "cifar100": 32, "svhn": 32}
"""Of the data sets by name, for runs older than `Provenance.image_size`."""

_LOADING = {
    "source": ("model.py, model.pt", "from model import load\nlogits = load()(images)"),
    "safetensors": (
        "model.safetensors",
        "from model import build\nfrom safetensors.torch import load_file\nnetwork = build()\n"
        'network.load_state_dict(load_file("model.safetensors"))\nlogits = network.eval()(images)',
    ),
    "pt2": (FILES["pt2"], f'import torch\nlogits = torch.export.load("{FILES["pt2"]}").module()(images)'),
    "onnx": (
        FILES["onnx"],
        f'import onnxruntime\nsession = onnxruntime.InferenceSession("{FILES["onnx"]}")\n'
        'logits = session.run(["logits"], {"images": images.numpy()})[0]',
    ),
    "torchscript": (FILES["torchscript"], f'import torch\nlogits = torch.jit.load("{FILES["torchscript"]}")(images)'),
}


def preprocessing(run: RunDirectory, record: TrialRecord, dtype: str) -> dict[str, Any]:
    """How an image file becomes what the network reads, step by step, in the words of model.json."""
    channels = record.architecture.input_channels
    size = _IMAGE_SIZES.get(run.settings.data, max(run.settings.space.input.size))
    return {
        "input_shape": list(record.architecture.input_shape),
        "colour": "grey" if channels == 1 else "RGB",
        "image_size": list(run.provenance.image_size or (size, size)),
        "files": "resized (bicubic) until the image just covers image_size (height, width), cropped at the centre",
        "resize": "bilinear, antialiased",
        "scale": "uint8 / 255",
        "mean": list(run.provenance.mean),
        "std": list(run.provenance.std),
        "dtype": dtype,
    }


def embedded(run: RunDirectory, record: TrialRecord, dtype: str) -> dict[str, str]:
    """What each further format carries inside, by name; all but the architecture and its digest is JSON."""
    return {
        "classes": json.dumps(list(run.provenance.classes)),
        "preprocessing": json.dumps(preprocessing(run, record, dtype)),
        "architecture": str(record.architecture.canonical),
        "digest": record.architecture.digest,
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
    evaluation, settings = record.evaluation, run.settings
    again = confirmed_in(run, run.judged()).get(record.digest)
    return {
        "architecture": record.architecture.to_json(),
        "text": record.text,
        "digest": record.digest,
        "classes": list(run.provenance.classes),
        "preprocessing": preprocessing(run, record, export["dtype"]),
        "measured": {
            "metric": settings.evaluation.metric,
            "objectives": record.objectives,
            "validation_images": run.provenance.validation_images,
            "cost": asdict(evaluation.cost) if evaluation.cost else None,
            "latency": latency_json(evaluation.latency) if evaluation.latency else None,
            "latencies": {name: latency_json(latency) for name, latency in evaluation.latencies.items()},
            "epochs": evaluation.epochs,
            "confirmed": asdict(again) if again else None,
        },
        "training": _training_json(training) if training else None,
        "latency": {form: latency_json(latency) for form, latency in latencies.items()},
        "export": {"date": time_text(time.time()), "versions": package_versions(), **export},
        "inherited_weights": {
            "from": settings.evaluation.init,
            "licence": licence_of(settings.evaluation.init),
        },
        "origin": {
            "space": settings.space.name,
            "data": settings.data,
            "trial": record.number,
            "imported_from": record.imported_from,
            "trials": settings.trials,
            "sampler": settings.sampler,
            "seed": settings.seed,
            "split_seed": settings.split_seed,
            "recipe": asdict(settings.evaluation.recipe),
            "created": time_text(run.provenance.created),
            "command": run.provenance.command,
            "git_commit": run.provenance.git_commit,
            "hardware": run.provenance.hardware,
            "versions": run.provenance.versions,
        },
    }


def _training_json(training: TrainingRecord) -> dict[str, Any]:
    latency = training.evaluation.latency
    return {
        "seed": training.seed,
        "start": training.start,
        "with_validation": training.with_validation,
        "epochs": len(training.losses),
        "score": training.score,
        "test": asdict(training.after) if training.after else None,
        "latency": latency_json(latency) if latency else None,
        "recipe": asdict(training.recipe),
    }


def card_text(
    run: RunDirectory,
    record: TrialRecord,
    training: TrainingRecord | None,
    export: Mapping[str, Any],
    latencies: Mapping[str, Latency],
) -> str:
    """The model card, README.md, in Markdown. What comes from files is quoted, so that it is text wherever it is shown."""
    again = confirmed_in(run, run.judged()).get(record.digest)
    sections = {
        "How it was found": _found(run, record),
        "Figures": _figures(run, record, training, again),
        "Latency of each format": _latencies(latencies),
        "Files, and how to load each": _files(run, record, export),
        "Limits": _limits(run, record, training),
        "Licence of inherited weights": [_plain(licence_of(run.settings.evaluation.init)), _YOURS],
    }
    lines = _summary(run, record, export)
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


_YOURS = (
    "\nWhat a training adds is whoever's ran it; see to it that the terms of the training images allow what you are about "
    "to do. The source in this folder is nas's, Apache-2.0."
)


def _summary(run: RunDirectory, record: TrialRecord, export: Mapping[str, Any]) -> list[str]:
    channels, height, width = record.architecture.input_shape
    folded = "folded into the convolutions" if export["batch_norm_folded"] else "as trained"
    return [
        f"# An image classifier of {plural(len(run.provenance.classes), 'class', 'classes')}, found by nas",
        "",
        "A convolutional network that a hardware-aware architecture search found and trained, as plain PyTorch. It reads "
        f"{'grey' if channels == 1 else 'RGB'} images of {height}x{width} pixels and gives a logit for each class.",
        "",
        f"- Architecture {_code(str(record.architecture.canonical))}, digest {_code(record.architecture.digest)}",
        f"- Cost of one image: {cost_text(record)} (in float32)",
        f"- Weights and computation in {export['dtype']}, batch norm {folded}",
        "",
        "Classes in the order of the logits:",
        "",
        "```json",
        json.dumps(list(run.provenance.classes)),
        "```",
    ]


def _found(run: RunDirectory, record: TrialRecord) -> list[str]:
    settings, origin = run.settings, run.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    init, epochs = settings.evaluation.init, record.evaluation.epochs
    weights = "random weights" if init == SCRATCH else f"the weights {_code(init)}"
    trained = (
        f"{plural(epochs, 'epoch')} from {weights}"
        if epochs
        else f"none of its own: {weights}, batch norm recalibrated"
    )
    return [
        f"- Space {_code(settings.space.name)}, data {_code(settings.data)}: {plural(origin.train_images, 'training image')},"
        f" {plural(origin.validation_images, 'validation image')} (split seed {settings.split_seed})",
        f"- Search for {', '.join(map(_code, settings.objectives))} by sampler {settings.sampler} with a budget of "
        f"{plural(settings.trials, 'trial')} and seed {settings.seed}; this is {_plain(trial_text(record))}",
        f"- Training: {trained}; the whole recipe is in model.json",
        f"- Begun {time_text(origin.created)} on {_code(origin.hardware)} by {_code(origin.command)}",
        f"- Versions: {_plain(versions)}" + (f"; commit {_code(origin.git_commit)}" if origin.git_commit else ""),
    ]


def _figures(
    run: RunDirectory, record: TrialRecord, training: TrainingRecord | None, again: Confirmed | None
) -> list[str]:
    metric, images = run.settings.evaluation.metric, run.provenance.validation_images
    title = _plain(score_title(metric)).capitalize()
    lines = []
    if training is not None:
        lines += [*_full_training(run, training), "", "Of the search, whose weights are not in this folder:", ""]
    score = record.objectives.get("accuracy")
    if score is not None:
        error = ", ± one binomial standard error" if standard_error(score, metric, images) is not None else ""
        when = "after the search's brief training" if record.evaluation.epochs else "in the search, without fine-tuning"
        lines.append(
            f"- {title} {score_text(score, metric, images)} {when}, of "
            f"{plural(images, 'image')}{error}. The search chose by this score, which flatters the best."
        )
    if again is not None:
        lines.append(
            f"- Trained again from {'another seed' if again.trainings == 1 else f'{again.trainings} other seeds'}, for "
            f"{plural(again.epochs, 'epoch')}: {again.text}. Those weights were not kept; they are not in this folder."
        )
    elif score is not None:
        lines.append(f"- It was not trained{' again' if record.evaluation.epochs else ''} to confirm that score.")
    measured = {"latency": record.evaluation.latency, **record.evaluation.latencies}
    for name, latency in measured.items():
        if latency is not None:
            where = "" if name == "latency" else f" on {_code(name)}"
            lines.append(f"- Latency{where} in the search, {estimator_text(latency)}: {_latency(latency)}")
    return lines


def _full_training(run: RunDirectory, training: TrainingRecord) -> list[str]:
    """What the training got whose weights these are."""
    metric, images = run.settings.evaluation.metric, run.provenance.validation_images
    part = "training and validation images" if training.with_validation else "training images"
    lines = [
        f"- The weights in this folder: trained in full, {plural(len(training.losses), 'epoch')} from "
        f"{STARTS[training.start]} on the {part}, seed {training.seed}."
    ]
    if training.score is not None:
        lines.append(
            f"- {_plain(score_title(metric)).capitalize()} {score_text(training.score, metric, images)} on the validation "
            "images, by which the best of several seeds is chosen."
        )
    if training.after is not None:
        test = score_text(training.after.accuracy, "accuracy", training.after.images)
        lines.append(
            f"- Accuracy {test} on {plural(training.after.images, 'test image')}, which were looked at once, after it."
        )
    return lines


def _latencies(latencies: Mapping[str, Latency]) -> list[str]:
    if not latencies:
        return ["Not measured (`--no-measure`)."]
    kinds = dict.fromkeys(estimator_text(latency) for latency in latencies.values())
    lines = [f"Measured after the export, as each file lies here; of one batch the {', '.join(kinds)}.", ""]
    lines += ["| format | latency | how |", "|---|---|---|"]
    for form, latency in latencies.items():
        lines.append(f"| {form} | {latency_text(latency)} | {_plain(_circumstances(latency))} |")
    return lines


def _files(run: RunDirectory, record: TrialRecord, export: Mapping[str, Any]) -> list[str]:
    steps = preprocessing(run, record, export["dtype"])
    lines = [
        "`predict.py` classifies image files, with nothing but torch, numpy and Pillow: `python predict.py IMAGE... --top 3`.",
        "",
        f"Every format takes `images`, {export['dtype']} (N, {', '.join(map(str, steps['input_shape']))}) for any N, as",
        "`preprocess` of model.py gives them from uint8. From a file: "
        f"{steps['colour']}, {steps['files']}, here {'x'.join(map(str, steps['image_size']))}; then by `preprocess`: resized to "
        f"the input ({steps['resize']}), divided by 255, minus the mean {steps['mean']}, over the deviation {steps['std']}.",
        "The same is in model.json"
        + (f", and inside {' and '.join(export['formats'])}." if export["formats"] else "."),
        "",
        "model.pt and model.safetensors hold tensors alone, which load without executing anything. The other formats hold",
        "the computation too; load them as you would run a program, only from whom you trust.",
    ]
    differences = export["checks"]["largest_difference"]
    for form in differences:
        files, code = _LOADING[form]
        lines += [
            "",
            f"{files}: logits within {differences[form]:.1g} of the searched network's",
            "",
            "```python",
            code,
            "```",
        ]
    checks = export["checks"]
    lines += [
        "",
        f"Checked in a fresh process without nas on batches of {' and '.join(map(str, checks['batches']))}; the difference is "
        f"a share of the largest logit, and {checks['tolerance']:g} was allowed.",
    ]
    return lines


def _limits(run: RunDirectory, record: TrialRecord, training: TrainingRecord | None) -> list[str]:
    height, width = record.architecture.input_shape[1:]
    return [
        f"- Any image gets one of the {plural(len(run.provenance.classes), 'class', 'classes')} above, also one that shows "
        "none of them; probabilities are not calibrated.",
        f"- The input is {height}x{width} pixels; images unlike those of training were never tried.",
        "- The scores of the search are of the images that it chose by."
        + ("" if training else " `nas train` trains in full, and then scores on images that no search saw."),
        "- Latencies hold for the device, batch and versions beside them.",
    ]


def _latency(latency: Latency) -> str:
    return f"{latency_text(latency)}, {_plain(_circumstances(latency))}"


def _circumstances(latency: Latency) -> str:
    threads = f" · {plural(latency.protocol.threads, 'thread')}" if latency.protocol.device == "cpu" else ""
    return protocol_text(latency) + threads


def _code(text: str) -> str:
    """Text of files as inline code, in which Markdown and HTML mean nothing."""
    text = text if text.isprintable() else json.dumps(text)[1:-1]
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _plain(text: str) -> str:
    """Text of files within a sentence, every character of it that Markdown or HTML may mean something by escaped."""
    text = text if text.isprintable() else json.dumps(text)[1:-1]
    return re.sub(r"([\\`*_{}\[\]<>&#|~!])", r"\\\1", text)
