"""Export: a candidate as a folder that needs torch alone, checked in a fresh process without `nas`.

model.py            readable source of exactly this network, with `load()`
model.pt            its weights, a state dict (`weights_only=True`)
model.safetensors   the same weights
model.json          architecture, classes, preprocessing, measured figures
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.errors import InputError
from nas.model import blocks, build
from nas.model.network import plan
from nas.record import TrialRecord
from nas.run import RunDirectory

TOLERANCE = 1e-4
"""Largest difference of a logit between the searched and the exported network that is let pass."""

_CHECK = """
import sys
sys.modules["nas"] = None  # importing nas fails from here on
sys.path.insert(0, sys.argv[1])
import torch
import model
network = model.load()
torch.save(network(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""

_TEMPLATE = '''"""{summary}

{details}
Written by nas; needs torch alone. Use:

    from model import load, preprocess
    logits = load()(preprocess(images))  # images: uint8 ({shape})
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = {classes}
INPUT_SHAPE = {input_shape}
MEAN = {mean}
STD = {std}


{blocks}

def build() -> Network:
    """This network with fresh weights."""
    return Network(
        stem={stem},
        blocks=[
{layers}
        ],
        head={head},
        classifier=nn.Linear({features}, {num_classes}),
    )


def load(path: str | Path | None = None) -> Network:
    """This network with its trained weights, in eval mode; `path` is model.pt beside this file by default."""
    network = build()
    path = Path(path) if path else Path(__file__).with_name("model.pt")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    return network.eval()


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, C, H, W) to what the network was trained on: resized, scaled, normalised."""
    x = images.float() / 255
    if x.shape[-2:] != INPUT_SHAPE[1:]:
        x = F.interpolate(x, INPUT_SHAPE[1:], mode="bilinear", antialias=True)
    mean, std = torch.tensor(MEAN, device=x.device), torch.tensor(STD, device=x.device)
    return (x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
'''


def export_candidate(run: RunDirectory, record: TrialRecord, out: Path) -> Path:
    """Write a trained candidate of a run to the new folder `out` and check it; returns `out`.

    Raises `InputError` when `out` exists or the weights were not kept, `RuntimeError` when the exported network,
    loaded in a fresh process without `nas`, does not give the same logits; then nothing is left behind.
    """
    if out.exists():
        raise InputError(f"{out}: exists already; give another --to")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder")
    from safetensors.torch import save_file

    if record.imported_from and not run.weights_path(record.digest).is_file():
        raise InputError(
            f"{record.digest} was taken over from {record.imported_from}, and that run had not kept its weights"
        )
    state = run.load_weights(record.digest)
    network = build(record.architecture, len(run.provenance.classes))
    network.load_state_dict(state, strict=True)
    network.eval()
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        (draft / "model.py").write_text(model_source(run, record), encoding="utf-8")
        torch.save(network.state_dict(), draft / "model.pt")
        save_file(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, draft / "model.safetensors"
        )
        (draft / "model.json").write_text(json.dumps(model_card(run, record), indent=2) + "\n", encoding="utf-8")
        _check(network, record, draft)
        draft.chmod(0o755)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return out


def model_source(run: RunDirectory, record: TrialRecord) -> str:
    """Source of a module that builds exactly this network from the project's own blocks."""
    parts = plan(record.architecture, len(run.provenance.classes))
    shape = record.architecture.input_shape
    layers = "\n".join(f"            {_call(blocks.InvertedResidual, arguments)}," for arguments in parts.blocks)
    details = [f"architecture {record.text}", f"digest       {record.digest}"]
    details += [f"{name:12} {value:g}" for name, value in record.objectives.items()]
    source = [inspect.getsource(block) for block in (blocks.ConvNormAct, blocks.InvertedResidual, blocks.Network)]
    return _TEMPLATE.format(
        summary=f"A network found by a search of the space {run.settings.space.name}.",
        details="\n".join(details) + "\n",
        shape=", ".join(["N", *map(str, shape)]),
        classes=json.dumps(list(run.provenance.classes), ensure_ascii=True),
        input_shape=shape,
        mean=run.provenance.mean,
        std=run.provenance.std,
        blocks="\n\n".join(source),
        stem=_call(blocks.ConvNormAct, parts.stem),
        layers=layers,
        head=_call(blocks.ConvNormAct, parts.head) if parts.head else "nn.Identity()",
        features=parts.classifier["in_features"],
        num_classes=parts.classifier["out_features"],
    )


def model_card(run: RunDirectory, record: TrialRecord) -> dict[str, Any]:
    """What model.json holds: architecture, classes, preprocessing, and the figures with how they were measured."""
    evaluation = record.evaluation
    return {
        "architecture": record.architecture.to_json(),
        "text": record.text,
        "digest": record.digest,
        "classes": list(run.provenance.classes),
        "preprocessing": {
            "input_shape": list(record.architecture.input_shape),
            "resize": "bilinear, antialiased",
            "scale": "uint8 / 255",
            "mean": list(run.provenance.mean),
            "std": list(run.provenance.std),
        },
        "measured": {
            "metric": run.settings.evaluation.metric,
            "objectives": record.objectives,
            "validation_images": run.provenance.validation_images,
            "epochs": len(evaluation.history),
            "cost": asdict(evaluation.cost) if evaluation.cost else None,
            "latency": asdict(evaluation.latency) if evaluation.latency else None,
        },
        "origin": {
            "space": run.settings.space.name,
            "data": run.settings.data,
            "trial": record.number,
            "imported_from": record.imported_from,
            "seed": run.settings.seed,
            "versions": run.provenance.versions,
        },
    }


def _call(block: type[nn.Module], arguments: dict[str, Any]) -> str:
    """A constructor call as source; leading sizes by position, defaults left out."""
    parameters = inspect.signature(block).parameters
    parts = []
    for name, value in arguments.items():
        if value == parameters[name].default:
            continue
        text = f"nn.{value.__name__}" if isinstance(value, type) else repr(value)
        by_position = parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        parts.append(text if by_position else f"{name}={text}")
    return f"{block.__name__}({', '.join(parts)})"


def _check(network: nn.Module, record: TrialRecord, folder: Path) -> None:
    """Compare logits with those of the folder loaded in a fresh process; raises `RuntimeError`."""
    images = torch.randn(4, *record.architecture.input_shape, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        given, got = Path(scratch, "images.pt"), Path(scratch, "logits.pt")
        torch.save(images, given)
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, str(folder.resolve()), str(given), str(got)],
            cwd=scratch, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the exported network does not load: {done.stderr.strip().splitlines()[-1]}")
        difference = (torch.load(got, weights_only=True) - network(images)).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported network's logits differ by {difference:g} from the searched network's")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
