"""Export: a candidate as a folder that needs torch alone, checked in a fresh process without `nas`.

model.py            readable source of exactly this network, with `load()` and `preprocess()`
model.pt            its weights, a state dict (`weights_only=True`)
model.safetensors   the same weights
model.json          architecture, classes, preprocessing, figures, latency of each format
seen_images.npy     hashes of the images that the weights were trained on, where the run knows them
predict.py          classifies image files, with torch, numpy and Pillow
README.md           the model card
model.pt2, model.onnx, model.torchscript    where they are asked for
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nas.common.errors import CandidateError, ExportError, InputError, arg
from nas.common.files import weights_content
from nas.common.kinds import StrPath, checks_kinds
from nas.export import check as export_check
from nas.export.card import card_text
from nas.export.formats import SOURCE, check_formats, measured, write_formats
from nas.export.model_json import embedded, exported_result, model_json, preprocessing
from nas.export.source import model_source
from nas.latency.device import resolve_device
from nas.latency.folding import fold_batch_norm
from nas.latency.protocol import LatencyProtocol, Precision
from nas.models.networks import build
from nas.models.seen import write_seen
from nas.runs.record import TrainingRecord, TrialRecord
from nas.runs.store import RunDirectory
from nas.runs.trained import best_training
from nas.tasks.base import task_of

Weights = Literal["full", "search"]

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "float16": 2e-2}
"""By how much a logit may differ between the searched and the exported network, as a share of the largest logit."""
BATCHES = (1, 3)
"""Sizes that are compared: neither is the one that formats are traced with."""
_TRACED = 2
_PATIENCE_S = 600


@dataclass(frozen=True)
class ExportOptions:
    """What an export has beside source and weights: further `formats` (pt2, onnx, torchscript), and in which form.

    `fold_bn` folds batch norm into the convolutions; `half` is weights and computation in float16; `measure` has the
    latency of each format measured on the run's device, by its batch size and threads. `weights` are those of the
    candidate's full training (`nas.runs.trained.best_training`) where it has one, or those of the search.
    """

    formats: tuple[str, ...] = ()
    fold_bn: bool = False
    half: bool = False
    measure: bool = True
    weights: Weights = "full"

    @property
    def dtype(self) -> Precision:
        """Of weights, images and logits."""
        return "float16" if self.half else "float32"


@checks_kinds
def export_candidate(
    run: RunDirectory,
    record: TrialRecord,
    out: StrPath,
    options: ExportOptions | None = None,
) -> Path:
    """Write a trained candidate of a run to the new folder `out` and check it; returns `out`.

    Raises `InputError` when `out` exists, the weights were not kept or do not fit, or something that the options ask for
    is not here; `ExportError` when a format cannot be written or run,
    or, loaded in a fresh process without `nas`, does not give the same logits. Then nothing is left behind.
    """
    options = options or ExportOptions()
    check_formats(options.formats)
    protocol = _protocol(run, options) if options.measure else None
    training = best_training(run, record.digest) if options.weights == "full" else None
    folder = Path(out)
    with _draft(folder) as draft:
        searched = _searched(run, record, training)
        network = _deployed(searched, options)
        _write(run, record, training, network, draft, options)
        formats = tuple(dict.fromkeys(options.formats))
        export = {
            "formats": list(formats),
            "dtype": options.dtype,
            "batch_norm_folded": options.fold_bn,
            "weights": "search" if training is None else "full training",
            "checks": _checked(searched, record, draft, (SOURCE, "safetensors", *formats), options),
        }
        latencies = {}
        if protocol is not None:
            try:
                latencies = measured(draft, formats, record.architecture.input_shape, protocol, options.fold_bn)
            except CandidateError as error:
                raise ExportError(f"{error}; {arg('measure=False')} exports without") from error
        content = model_json(run, record, training, export, latencies)
        (draft / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(card_text(run, record, training, export, latencies), encoding="utf-8")
        shutil.rmtree(draft / "__pycache__", ignore_errors=True)
    return folder


@checks_kinds
def export_all(
    run: RunDirectory, records: Sequence[TrialRecord], out: StrPath, options: ExportOptions | None = None
) -> list[Path]:
    """Export several candidates, each to a folder in the new folder `out` that is named by its digest; all or none.

    Raises as `export_candidate` does.
    """
    names = [record.architecture.digest for record in records]
    folder = Path(out)
    with _draft(folder) as draft:
        for name, record in zip(names, records, strict=True):
            export_candidate(run, record, draft / name, options)
    return [folder / name for name in names]


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A new folder that becomes `out` when all went well, and is gone otherwise."""
    if os.path.lexists(out):
        raise InputError(f"{arg('out')} {out}: exists already; give another {arg('out')}")
    if not out.parent.is_dir():
        raise InputError(f"{arg('out')} {out}: {out.parent}: no such folder")
    try:
        made = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from error
    with made as scratch:
        draft = Path(scratch) / out.name
        draft.mkdir()  # with the usual permissions, other than its parent
        yield draft
        draft.rename(out)


def _protocol(run: RunDirectory, options: ExportOptions) -> LatencyProtocol:
    """How the formats are measured: the run's protocol on the run's device, in the precision of the export."""
    name = run.settings.evaluation.protocol.device
    try:
        device = resolve_device(name)
    except InputError as error:
        raise InputError(
            f"latency is measured on the run's device, {name}, and that is not here: export with {arg('measure=False')}"
        ) from error
    return replace(run.settings.evaluation.protocol, device=device, dtype=options.dtype)


def _searched(run: RunDirectory, record: TrialRecord, training: TrainingRecord | None) -> nn.Module:
    """The network as it was trained."""
    if training is not None:
        state = run.load_trained(training)
    else:
        if record.imported_from and not run.weights_path(record.digest).is_file():
            raise InputError(
                f"{record.digest} was imported from {record.imported_from}, and that run had not kept its weights: pick "
                "another one"
            )
        state = run.load_weights(record.digest)
    network = build(record.architecture, run.outputs)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:  # it names every tensor
        raise InputError(f"the weights of {record.digest} do not fit its architecture, {record.text}") from error
    return network.eval().requires_grad_(False)


def _deployed(searched: nn.Module, options: ExportOptions) -> nn.Module:
    network = copy.deepcopy(searched)
    if options.fold_bn and not fold_batch_norm(network):
        raise ExportError(f"batch norm cannot be folded throughout this network: export without {arg('fold_bn')}")
    return network.to(getattr(torch, options.dtype)).requires_grad_(False)


def _write(
    run: RunDirectory,
    record: TrialRecord,
    training: TrainingRecord | None,
    network: nn.Module,
    draft: Path,
    options: ExportOptions,
) -> None:
    """All but what is known only when they are checked."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    result = exported_result(run, record, training)
    steps = preprocessing(run, record, options.dtype)
    source = model_source(run, record, result, tuple(steps["image_size"]), options.fold_bn, options.dtype)
    task = task_of(run.settings.evaluation.task)
    (draft / "model.py").write_text(source, encoding="utf-8")
    (draft / "predict.py").write_text(task.predict_source(), encoding="utf-8")
    torch.save(state, draft / "model.pt")
    (draft / "model.safetensors").write_bytes(weights_content(state))  # save_file makes one that others cannot read
    if (known := run.images()) is not None:
        start, with_validation = (training.start, training.with_validation) if training else ("search", False)
        write_seen(draft, known.seen(start, with_validation))
    images = torch.randn(_TRACED, *record.architecture.input_shape).to(getattr(torch, options.dtype))
    write_formats(network, images, draft, options.formats, embedded(run, record, result, options.dtype))


def _checked(
    searched: nn.Module, record: TrialRecord, folder: Path, formats: Sequence[str], options: ExportOptions
) -> dict[str, Any]:
    """Compare the logits of each format, loaded in a fresh process, with the searched network's.

    Returns how, and the largest difference of each; raises `ExportError`.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(size, *record.architecture.input_shape, generator=generator).to(getattr(torch, options.dtype))
        for size in BATCHES
    ]
    with torch.inference_mode():
        expected = [searched(images.float()) for images in batches]
    largest = torch.cat(expected).abs().max().item()
    tolerance = TOLERANCE[options.dtype]
    differences = {}
    for form, found in _fresh(folder, formats, batches).items():
        if isinstance(found, str):
            raise ExportError(_not_run(form, found, options))
        for logits, wanted in zip(found, expected, strict=True):
            if logits.shape != wanted.shape:
                raise ExportError(
                    f"the exported {form} gives {tuple(logits.shape)} where {tuple(wanted.shape)} is right"
                )
        worst = (torch.cat(found).float() - torch.cat(expected)).abs().max().item()  # not a number where one is not
        differences[form] = worst / largest
        if not worst <= tolerance * largest:
            raise ExportError(
                f"the exported {form} does not compute what the searched network does: its logits differ by "
                f"{differences[form]:.2g} of the largest, and {tolerance:g} is allowed in {options.dtype}"
            )
    return {"batches": list(BATCHES), "tolerance": tolerance, "largest_difference": differences}


def _fresh(
    folder: Path, formats: Sequence[str], batches: Sequence[torch.Tensor]
) -> dict[str, list[torch.Tensor] | str]:
    """By format what it gives in a fresh process, or what went wrong; raises `ExportError` when that process ends badly."""
    with tempfile.TemporaryDirectory() as scratch:
        given, got = Path(scratch, "images.pt"), Path(scratch, "logits.pt")
        torch.save(list(batches), given)
        command = [sys.executable, "-P", export_check.__file__, str(folder.resolve()), str(given), str(got), *formats]
        try:
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"the exported network was not loaded within {_PATIENCE_S} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"the exported network does not load in a fresh process: {last}")
        return torch.load(got, weights_only=True)


def _not_run(form: str, reason: str, options: ExportOptions) -> str:
    if options.half:
        return f"{form} in float16 cannot be run on this CPU: {reason}; leave out {arg('half')}, or export on another machine"
    return f"the exported {form} does not run in a fresh process: {reason}"
