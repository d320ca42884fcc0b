"""The notebooks of examples/, executed from start to end as a reader would, and kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


def read(name: str) -> Any:
    return nbformat.read(EXAMPLES / name, as_version=4)  # type: ignore[no-untyped-call]


def texts(notebook: Any) -> str:
    """All that its cells print and show as text or HTML."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [text for output in outputs for text in output.get("data", {}).values() if isinstance(text, str)]
    return "\n".join([*shown, *(output.get("text", "") for output in outputs)])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_outputs(name: str) -> None:
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert code
    assert not [cell for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own_images.ipynb", ["4 done", "known_as", "test accuracy", "model.py", "digit_3"]),
        ("search_from_python.ipynb", ["MACs", "noisy", "done", "parameter.stem.out_channels"]),
    ],
)
@pytest.mark.timeout(600)
def test_a_notebook_runs_from_start_to_end(name: str, told: list[str], tmp_path: Path) -> None:
    notebook = read(name)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = texts(notebook)
    assert not [text for text in told if text not in shown]
    assert list(tmp_path.glob("results/*/report.html"))
