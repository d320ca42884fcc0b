"""What a full training found hardest, laid out once for the report and the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from nas.runs.record import TrainingRecord
from nas.tasks.examples import pictures

HARDEST = "Validation images that it found hardest"
KEY = "Target → what the network found, the greatest loss first. These are the data's own images: mind with whom you share them."

Element = Callable[..., Any]
"""Makes an element of a page of its name, children and attributes, as `nas.views.report.markup.tag` does."""


def hardest_images(record: TrainingRecord, sheet: bytes, summary: str, element: Element) -> Any:
    """The images, folded under a `summary`, each with what it shows and what the network said; a sentence where they cannot be read."""
    try:
        found = pictures(sheet)
    except (OSError, ValueError) as error:
        return element("p", f"{summary}: the pictures cannot be read: {error}", class_="soft")
    figures = [
        element(
            "figure",
            element(
                "img",
                src=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
                alt=f"validation image {example.image}",
            ),
            element(
                "figcaption",
                element("b", example.target),
                f" → {example.found}",
                element("small", f"loss {example.loss:.3g}"),
            ),
        )
        for example, picture in zip(record.hardest, found, strict=False)
    ]
    key = element("p", KEY, class_="soft")
    return element("details", element("summary", summary), key, element("div", *figures, class_="examples"))
