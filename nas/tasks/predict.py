"""predict.py of exports: a program that reads images with the network beside it and says what that tells of each."""

from __future__ import annotations

_SOURCE = '''"""<summary> Needs torch, numpy and Pillow.

    python predict.py IMAGE...<usage>

A file that cannot be read is named on standard error; the others are read, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys

import torch
from PIL import UnidentifiedImageError

import model


def shown(text: str) -> str:
    """The text in one line, without anything that a terminal obeys."""
    return text if text.isprintable() else ascii(text)


<functions>def main() -> int:
    """Print a line for each image: <told>."""
    parser = argparse.ArgumentParser(description="<summary>")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
<arguments>    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # for signs that the terminal lacks
    network, failed = model.load(), False
    for path in arguments.images:
        try:
            with torch.inference_mode():
                found = network(model.preprocess(path))[0].float()
        except UnidentifiedImageError:
            reason = "not an image of a known format"
        except Exception as error:  # Pillow raises nearly anything on a broken file
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        else:
            print(f"{shown(path)}: {tell(found, arguments)}")
            continue
        print(f"{shown(path)}: cannot be read: {shown(reason)}", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
'''

_NUMBERS = '''def tell(raw: torch.Tensor, arguments: argparse.Namespace) -> str:
    """What the network says of one image."""
    return " ".join(f"{value:.6g}" for value in raw.flatten().tolist())


'''


def predict_source(
    summary: str = "Read image files with the network of this folder.",
    told: str = "the values that the network gives",
    functions: str = _NUMBERS,
    arguments: str = "",
    usage: str = "",
) -> str:
    """The source; `functions` has `tell(raw, arguments)`, the text of one image's outputs, which get any shape in float32.

    `arguments` are statements that add to the `parser`, and `usage` names them; by default the outputs are told as numbers.
    """
    parts = {"summary": summary, "told": told, "functions": functions, "arguments": arguments, "usage": usage}
    source = _SOURCE
    for name, text in parts.items():
        source = source.replace(f"<{name}>", text)
    return source
