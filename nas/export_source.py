"""The source files of an exported folder: model.py, exactly one network in plain PyTorch, and predict.py."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

from torch import nn

from nas.model import blocks
from nas.model.network import plan
from nas.pixels import PREPARATION
from nas.record import TrialRecord
from nas.run import RunDirectory

_MODEL = '''"""{summary}

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
DTYPE = torch.{dtype}


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
    ).to(DTYPE)


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
    return ((x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)).to(DTYPE)
'''

_PREDICT = '''"""Classify image files with the network of this folder. Needs torch, numpy and Pillow.

    python predict.py IMAGE... [--top 3]

A file that cannot be read is named on standard error; the others are classified, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

import model

IMAGE_SIZE = {image_size}  # height and width of the images that the network was trained on, before its own resizing


{preparation}

def probabilities(network: torch.nn.Module, path: str) -> torch.Tensor:
    """The probability of each class for the image in a file."""
    with open_image(path) as image:
        pixels = to_pixels(image, model.INPUT_SHAPE[0], IMAGE_SIZE)
    images = torch.from_numpy(pixels.copy())[None]
    return network(model.preprocess(images))[0].float().softmax(0)


def shown(text: str) -> str:
    """The text in one line, without anything that a terminal obeys."""
    return text if text.isprintable() else ascii(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{{text!r}} is not a whole number of at least 1")
    return int(text)


def main() -> int:
    """Print a line for each image: its most probable classes."""
    parser = argparse.ArgumentParser(description="Classify image files with the network of this folder.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--top", type=positive, default=1, help="so many classes each, the most probable first")
    arguments = parser.parse_args()
    network, failed = model.load(), False
    for path in arguments.images:
        try:
            with torch.inference_mode():
                found = probabilities(network, path)
        except UnidentifiedImageError:
            reason = "not an image of a known format"
        except Exception as error:  # Pillow raises nearly anything on a broken file
            reason = getattr(error, "strerror", None) or f"{{type(error).__name__}}: {{error}}"
        else:
            top = found.topk(min(arguments.top, len(model.CLASSES)))
            best = zip(top.values.tolist(), top.indices.tolist(), strict=True)
            print(f"{{shown(path)}}: " + ", ".join(f"{{shown(model.CLASSES[i])}} {{p:.2%}}" for p, i in best))
            continue
        print(f"{{shown(path)}}: cannot be read: {{shown(reason)}}", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
'''

_FOLDED = (
    ("ConvNormAct", "ConvAct"),
    (
        "Padded convolution, batch norm, and optionally",
        "Padded convolution (batch norm is folded into it) and optionally",
    ),
    ("        eps: float = 1e-5,\n", ""),
    ("            eps=eps,\n", ""),
    (", eps=eps", ""),
    ("bias=False", "bias=True"),
    ("        self.norm = nn.BatchNorm2d(out_channels)\n", ""),
    ("self.act(self.norm(self.conv(x)))", "self.act(self.conv(x))"),
)
"""What makes of the blocks' source that of the same blocks with batch norm folded, one after another."""


def model_source(run: RunDirectory, record: TrialRecord, fold_bn: bool = False, dtype: str = "float32") -> str:
    """Source of a module that builds exactly this network from the project's own blocks."""
    arch = record.architecture.canonical
    parts = plan(arch, len(run.provenance.classes))
    details = [f"architecture {arch}", f"digest       {arch.digest}"]
    details += [f"{name:12} {value:g}" for name, value in record.objectives.items()]
    source = "\n\n".join(map(inspect.getsource, (blocks.ConvNormAct, blocks.InvertedResidual, blocks.Network)))
    calls = {
        "stem": _call(blocks.ConvNormAct, parts.stem, fold_bn),
        "layers": "\n".join(
            f"            {_call(blocks.InvertedResidual, arguments, fold_bn)}," for arguments in parts.blocks
        ),
        "head": _call(blocks.ConvNormAct, parts.head, fold_bn) if parts.head else "nn.Identity()",
    }
    return _MODEL.format(
        summary=f"A network found by a search of the space {_escaped(run.settings.space.name)}.",
        details="\n".join(map(_escaped, details)) + "\n",
        shape=", ".join(["N", *map(str, arch.input_shape)]),
        classes=json.dumps(list(run.provenance.classes), ensure_ascii=True),
        input_shape=arch.input_shape,
        mean=run.provenance.mean,
        std=run.provenance.std,
        dtype=dtype,
        blocks=_folded(source) if fold_bn else source,
        features=parts.classifier["in_features"],
        num_classes=parts.classifier["out_features"],
        **calls,
    )


def predict_source(image_size: Sequence[int]) -> str:
    """Source of predict.py: files become pixels by the very code that decodes the training images."""
    return _PREDICT.format(
        image_size=tuple(image_size),
        preparation="\n\n".join(inspect.getsource(function) for function in PREPARATION),
    )


def _folded(source: str) -> str:
    for unfolded, folded in _FOLDED:
        if unfolded not in source:
            raise ValueError(f"nas/model/blocks.py: {unfolded!r} is not there any more, which folding replaces")
        source = source.replace(unfolded, folded)
    return source


def _call(block: type[nn.Module], arguments: dict[str, Any], fold_bn: bool) -> str:
    """A constructor call as source; leading sizes by position, defaults left out."""
    parameters = inspect.signature(block).parameters
    parts = []
    for name, value in arguments.items():
        if value == parameters[name].default or (fold_bn and name == "eps"):
            continue
        text = f"nn.{value.__name__}" if isinstance(value, type) else repr(value)
        by_position = parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        parts.append(text if by_position else f"{name}={text}")
    name = "ConvAct" if fold_bn and block is blocks.ConvNormAct else block.__name__
    return f"{name}({', '.join(parts)})"


def _escaped(text: str) -> str:
    """Text that may stand in a docstring: what a run directory says is not trusted with its end."""
    return json.dumps(text)[1:-1]
