"""What predict.py of an exported classifier says of an image."""

from __future__ import annotations

from nas.tasks.predict import predict_source

_FUNCTIONS = '''def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def tell(raw: torch.Tensor, arguments: argparse.Namespace) -> str:
    """The most probable classes of one image."""
    top = raw.softmax(0).topk(min(arguments.top, len(model.CLASSES)))
    best = zip(top.values.tolist(), top.indices.tolist(), strict=True)
    return ", ".join(f"{shown(model.CLASSES[i])} {p:.2%}" for p, i in best)


'''
_ARGUMENTS = """    parser.add_argument("--top", type=positive, default=1, help="so many classes each, the most probable first")
"""

SOURCE = predict_source(
    summary="Classify image files with the network of this folder.",
    told="its most probable classes",
    functions=_FUNCTIONS,
    arguments=_ARGUMENTS,
    usage=" [--top 3]",
)
