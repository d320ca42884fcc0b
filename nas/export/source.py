"""The source files of an exported folder: model.py, exactly one network in plain PyTorch, and predict.py."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from torch import nn

from nas.common.errors import InputError
from nas.data.pixels import PREPARATION
from nas.models import blocks
from nas.models.build import plan
from nas.runs.record import TrialRecord
from nas.runs.results import Result, measured_text
from nas.runs.store import RunDirectory
from nas.spaces.mobile.architecture import Architecture
from nas.training.device_data import prepared, resize

_MODEL = '''"""{summary}

{details}
Written by nas; needs torch alone, and for preprocess numpy and Pillow too. Use:

    from model import CLASSES, load, preprocess
    logits = load()(preprocess("photo.jpg"))  # or a PIL image, a uint8 array, several of them: of any size
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

CLASSES = {classes}
INPUT_SHAPE = {input_shape}  # channels, height and width that the network reads
IMAGE_SIZE = {image_size}  # height and width of the images that it was trained on, before they were resized to that
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


def preprocess(images: Any) -> torch.Tensor:
    """Images of any size as the network reads them, (N, {shape}), as training and validation read them.

    `images` is the path of a file or an open one, a PIL image, uint8 as an array (H, W) or (H, W, C) or as a tensor
    (C, H, W), or several of these: a list, an array (N, H, W, C), a tensor (N, C, H, W). Each is turned upright as its
    EXIF says, laid on white where it is transparent, made {colour}, resized (bicubic) until it just covers IMAGE_SIZE and
    cropped at the centre; then resized to INPUT_SHAPE (bilinear, antialiased), scaled to 0 to 1 and normalised by MEAN and
    STD. A tensor (N, {channels}, *IMAGE_SIZE) is taken to be cropped already.
    """
    cropped = (torch.uint8, 4, (INPUT_SHAPE[0], *IMAGE_SIZE))
    if not isinstance(images, torch.Tensor) or (images.dtype, images.ndim, images.shape[1:]) != cropped:
        images = torch.stack([_cropped(image) for image in (images if _are_several(images) else [images])])
    mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (MEAN, STD))
    return prepared(images, INPUT_SHAPE[-1], mean, std).to(DTYPE)


def _are_several(images: Any) -> bool:
    return isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4


def _cropped(image: Any) -> torch.Tensor:
    """One image as uint8 (C, *IMAGE_SIZE)."""
    global np, Image  # for the functions below; the network needs neither
    import numpy as np
    from PIL import Image

    if isinstance(image, (str, Path)) or hasattr(image, "read"):
        with open_image(image) as opened:
            return torch.from_numpy(to_pixels(opened, INPUT_SHAPE[0], IMAGE_SIZE).copy())
    return torch.from_numpy(to_pixels(as_image(image), INPUT_SHAPE[0], IMAGE_SIZE).copy())


# The functions that prepared the images of the training, as they are in nas.


{preparation}'''


def model_source(
    run: RunDirectory,
    record: TrialRecord,
    result: Result,
    image_size: tuple[int, int],
    fold_bn: bool = False,
    dtype: str = "float32",
) -> str:
    """Source of a module that builds exactly this network from the project's own blocks, and prepares its images.

    `result` is what the weights beside it got; `image_size` is height and width of the images that they learned from.
    """
    arch = record.architecture.canonical
    if not isinstance(arch, Architecture):
        raise InputError(
            f"networks of the family {arch.family} cannot be exported: source is written of mobile ones alone"
        )
    preparation: tuple[Callable[..., Any], ...] = (*PREPARATION, prepared, resize)
    parts = plan(arch, run.outputs)
    details = {"architecture": str(arch), "digest": arch.digest, "weights": f"those of {result.weights}"}
    details |= {"score": result.score_line, "latency": measured_text(result.latency, result.when)}
    calls = {
        "stem": _call(blocks.ConvNormAct, parts.stem, fold_bn),
        "layers": "\n".join(
            f"            {_call(blocks.InvertedResidual, arguments, fold_bn)}," for arguments in parts.blocks
        ),
        "head": _call(blocks.ConvNormAct, parts.head, fold_bn) if parts.head else "nn.Identity()",
    }
    return _MODEL.format(
        summary=f"A network found by a search of the space {_escaped(run.settings.space.name)}.",
        details="".join(f"{name:12} {_escaped(text)}\n" for name, text in details.items()),
        shape=", ".join(map(str, arch.input_shape)),
        channels=arch.input_channels,
        colour="grey" if arch.input_channels == 1 else "RGB",
        image_size=image_size,
        preparation="\n\n".join(map(inspect.getsource, preparation)),
        classes=json.dumps(list(run.provenance.classes), ensure_ascii=True),
        input_shape=arch.input_shape,
        mean=run.provenance.mean,
        std=run.provenance.std,
        dtype=dtype,
        blocks="\n\n".join(map(inspect.getsource, (blocks.ConvNormAct, blocks.InvertedResidual, blocks.Network))),
        features=parts.classifier["in_features"],
        num_classes=parts.classifier["out_features"],
        **calls,
    )


def _call(block: type[nn.Module], arguments: dict[str, Any], fold_bn: bool) -> str:
    """A constructor call as source; leading sizes by position, defaults left out."""
    parameters = inspect.signature(block).parameters
    if fold_bn:
        arguments = {name: value for name, value in arguments.items() if name != "eps"} | {"batch_norm": False}
    parts = []
    for name, value in arguments.items():
        if value == parameters[name].default:
            continue
        text = f"nn.{value.__name__}" if isinstance(value, type) else repr(value)
        by_position = parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        parts.append(text if by_position else f"{name}={text}")
    return f"{block.__name__}({', '.join(parts)})"


def _escaped(text: str) -> str:
    """Text that may stand in a docstring: what a run directory says is not trusted with its end."""
    return json.dumps(text, ensure_ascii=not text.isprintable())[1:-1]
