"""A metric of the user's that gives no number is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call

from nas.data.sets import load_data
from nas.tasks.classification import CLASSIFICATION
from nas.training.metric_check import check_metric

METRICS = """
import sys
import numpy as np
def matrix(labels, predictions): return labels == predictions
def words(labels, predictions): return "good"
def nothing(labels, predictions): return None
def nan(labels, predictions): return float("nan")
def raises(labels, predictions): return labels.no_such_thing
def one(labels): return 1.0
def ends(labels, predictions): sys.exit(3)
def sorts(labels, predictions): labels.sort(); return np.float32((labels == predictions).mean())
"""


@pytest.fixture(autouse=True)
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metrics.py").write_text(METRICS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("matrix", "which is no number"),
        ("words", "gave 'good', which is no number"),
        ("nothing", "gave None, which is no number"),
        ("nan", "the metric gave nan"),
        ("raises", "AttributeError: 'numpy.ndarray' object has no attribute 'no_such_thing'"),
        ("one", "TypeError: one() takes 1 positional argument but 2 were given"),
        ("ends", "SystemExit: 3"),
    ],
)
def test_a_metric_that_gives_no_number_is_refused_before_the_search(
    function: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"my_metrics:{function}"
    code, out, err = call(capsys, "search", "digits", "--metric", name, "--out", "run")
    assert (code, out) == (2, "")
    (told,) = (line for line in err.splitlines() if not line.startswith("Data: "))
    assert told.startswith(f"nas: --metric {name}: needs to give one finite number, and for targets (360,)")
    assert reason in told
    assert not Path("run").exists()


def test_a_metric_may_change_what_it_is_given() -> None:
    data: Any = load_data("digits", channels=1, size=8)
    before = data.validation.labels.copy()
    check_metric(CLASSIFICATION.load_metric("my_metrics:sorts"), data)
    assert np.array_equal(data.validation.labels, before)
