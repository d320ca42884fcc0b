"""README.md of an exported folder: what it says of its network to people (`model_json` says it to programs)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from nas.common.text import capital, plural, time_text
from nas.export.check import FILES
from nas.export.model_json import exported_result, inherited, preprocessing
from nas.latency.result import Latency
from nas.models.licences import NOT_KNOWN
from nas.models.sources import SCRATCH
from nas.runs.confirmation import Confirmed, confirmed_in
from nas.runs.record import TrainingRecord, TrialRecord
from nas.runs.results import Result, measured_text
from nas.runs.store import RunDirectory
from nas.runs.words import cost_text, estimator_text, latency_text, protocol_text, score_title, trial_text
from nas.tasks.base import About, task_of

_IMAGES = 'images = preprocess("photo.jpg")'
_LOADING = {
    "source": ("model.py, model.pt", f"from model import load, preprocess\n{_IMAGES}\nlogits = load()(images)"),
    "safetensors": (
        "model.safetensors",
        f"from model import build, preprocess\nfrom safetensors.torch import load_file\n{_IMAGES}\nnetwork = build()\n"
        'network.load_state_dict(load_file("model.safetensors"))\nlogits = network.eval()(images)',
    ),
    "pt2": (
        FILES["pt2"],
        f"import torch\nfrom model import preprocess\n{_IMAGES}\n"
        f'logits = torch.export.load("{FILES["pt2"]}").module()(images)',
    ),
    "onnx": (
        FILES["onnx"],
        f"import onnxruntime\nfrom model import preprocess\n{_IMAGES}\n"
        f'session = onnxruntime.InferenceSession("{FILES["onnx"]}")\n'
        'logits = session.run(["logits"], {"images": images.numpy()})[0]',
    ),
    "torchscript": (
        FILES["torchscript"],
        f'import torch\nfrom model import preprocess\n{_IMAGES}\nlogits = torch.jit.load("{FILES["torchscript"]}")(images)',
    ),
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
        "Figures": _figures(run, record, training, again),
        "Latency of each format": _latencies(latencies),
        "Files, and how to load each": _files(run, record, export),
        "How it was found": _found(run, record),
        "Limits": _limits(run, record, training),
        "Licences": _licences(run, training),
    }
    lines = _summary(run, record, export)
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join(lines) + "\n"


def _licences(run: RunDirectory, training: TrainingRecord | None) -> list[str]:
    data = run.provenance.data_licence
    return [
        f"- Inherited weights: {_plain(inherited(run, training)[1])}",
        f"- Data, {_code(run.settings.data)}: {_plain(data) if data else NOT_KNOWN}. See to it that its terms allow what you "
        "are about to do.",
        "- What a training adds is whoever's ran it. The source in this folder is nas's, Apache-2.0.",
    ]


def _summary(run: RunDirectory, record: TrialRecord, export: Mapping[str, Any]) -> list[str]:
    channels, height, width = record.architecture.input_shape
    folded = "folded into the convolutions" if export["batch_norm_folded"] else "as trained"
    about = _about(run)
    classes = json.dumps(list(run.provenance.classes))
    in_order = ["", "Classes in the order of the logits:", "", "```json", classes, "```"]
    return [
        f"# {_plain(about.headline)}, found by nas",
        "",
        "A convolutional network that a hardware-aware architecture search found and trained, as plain PyTorch. It reads "
        f"{'grey' if channels == 1 else 'RGB'} images of {height}x{width} pixels and gives {_plain(about.gives)}.",
        "",
        f"- Architecture {_code(str(record.architecture.canonical))}, digest {_code(record.architecture.digest)}",
        f"- Cost of one image: {cost_text(record)} (in float32)",
        f"- Weights and computation in {export['dtype']}, batch norm {folded}",
        *(in_order if run.provenance.classes else ()),
    ]


def _about(run: RunDirectory) -> About:
    return task_of(run.settings.evaluation.task).about(run.provenance.classes)


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
    own = exported_result(run, record, training)
    lines = [f"The weights in this folder are those of {_plain(own.weights)}:", "", *_own_figures(own)]
    if training is not None:
        search = exported_result(run, record, None)
        lines += ["", f"Of {_plain(search.weights)}: other weights, which are not in this folder.", ""]
        lines += _own_figures(search)
    if again is not None:
        lines.append(
            f"- Trained again from {'another seed' if again.trainings == 1 else f'{again.trainings} other seeds'}, for "
            f"{plural(again.epochs, 'epoch')}: {again.text}. Those weights were not kept; they are not in this folder."
        )
    elif training is None and own.score is not None:
        lines.append(f"- It was not trained{' again' if record.evaluation.epochs else ''} to confirm that score.")
    return lines


def _own_figures(result: Result) -> list[str]:
    """What one set of weights got: tested first."""
    chosen_by = "" if result.full or result.score is None else ". The search chose by it, which flatters the best"
    looked = ", which were looked at once, after it" if result.tested is not None else ""
    lines = [
        f"- Test {_plain(result.by.title)}: {result.test_text}{looked}",
        f"- {_plain(capital(score_title(result.metric)))}: {_plain(result.validation_text)}{chosen_by}",
        f"- {_plain(capital(result.latency_line))}",
    ]
    for name, latency in result.latencies.items():
        lines.append(f"- Latency on {_code(name)}: {_plain(measured_text(latency, result.when))}")
    return lines


def _latencies(latencies: Mapping[str, Latency]) -> list[str]:
    if not latencies:
        return ["Not measured by this export."]
    date, kinds = (
        time_text(next(iter(latencies.values())).measured),
        dict.fromkeys(map(estimator_text, latencies.values())),
    )
    lines = [f"Measured after the export, {date}, as each file lies here; of one batch the {', '.join(kinds)}.", ""]
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
        "`preprocess` of model.py gives them from files, PIL images and uint8 arrays of any size, by the steps of the training:",
        f"{steps['orientation']}; laid on white where transparent; {steps['colour']}; {steps['files']}, here",
        f"{'x'.join(map(str, steps['image_size']))}; divided by 255; resized to the input ({steps['resize']}); minus the mean "
        f"{steps['mean']}, over the deviation {steps['std']}.",
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
    search = " `nas train` trains in full, and then scores on images that no search saw."
    return [
        *(f"- {_plain(limit)}" for limit in _about(run).limits),
        f"- The input is {height}x{width} pixels; images unlike those of training were never tried.",
        f"- Scores of the search are of the images that it chose by.{'' if training else search}",
        "- Latencies hold for the device, batch and versions beside them.",
    ]


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
