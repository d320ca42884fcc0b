"""Run by the export in a fresh process: every file of an exported folder, loaded without nas, on the images given.

    python -P export_check.py FOLDER IMAGES OUTPUTS FORMAT...

IMAGES holds a list of tensors; OUTPUTS gets, by format, a list of tensors or what went wrong. Imports nothing of nas.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

FILES = {"pt2": "model.pt2", "onnx": "model.onnx", "torchscript": "model.torchscript"}
"""The further formats, each with its file."""


def outputs(folder: Path, form: str, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """What the network gives for each batch, loaded from the file of one format."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / FILES[form]), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]) for images in batches]
    if form == "source":
        import model  # type: ignore[import-not-found]  # of the folder

        network = model.load()
    elif form == "safetensors":
        import model
        from safetensors.torch import load_file

        network = model.build()
        network.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        network.eval()
    elif form == "pt2":
        network = torch.export.load(folder / FILES[form]).module()
    else:
        network = torch.jit.load(folder / FILES[form])
    with torch.no_grad():
        return [network(images) for images in batches]


def main() -> None:
    """Load each format, and leave what it gives."""
    sys.modules["nas"] = None  # type: ignore[assignment]  # importing nas fails from here on
    folder, given, got, *formats = sys.argv[1:]
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    batches = torch.load(given, weights_only=True)
    found: dict[str, list[torch.Tensor] | str] = {}
    for form in formats:
        try:
            found[form] = outputs(Path(folder), form, batches)
        except Exception as error:  # each runtime raises its own
            found[form] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    torch.save(found, got)


if __name__ == "__main__":
    main()
