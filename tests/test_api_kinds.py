"""What `import nas` offers, given something else than it takes: one sentence that names the argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RunFactory
from test_front import record

import nas
from nas.common.errors import InputError

DIGITS = nas.load_space("digits")
TWO = ("accuracy", "latency")
API: Any = nas
"""For which a type checker says the same."""
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a space by name": (
        lambda: API.SearchSettings(space="digits", data="digits"),
        "space 'digits': is of the kind str",
    ),
    "objectives in one text": (lambda: API.SearchSettings(DIGITS, "digits", objectives="accuracy"), "objectives 'acc"),
    "trials": (lambda: API.SearchSettings(DIGITS, "digits", trials=2.5), "trials 2.5: is of the kind float"),
    "a metric itself": (lambda: API.EvaluationSettings(metric=len), "metric <built-in function len>: is of the kind"),
    "a recipe's word": (
        lambda: API.EvaluationSettings(recipe="long"),
        "recipe 'long': is of the kind str, and needs to be Rec",
    ),
    "a value of a recipe": (
        lambda: API.plan_search(
            API.SearchSettings(DIGITS, "digits", evaluation=API.EvaluationSettings(API.Recipe("x")))
        ),
        "epochs 'x': must be a whole number",
    ),
    "settings": (
        lambda: API.plan_search("digits"),
        "settings 'digits': is of the kind str, and needs to be SearchSettings",
    ),
    "no time": (
        lambda: API.plan_search(API.SearchSettings(DIGITS, "digits", time_budget_s=0.0)),
        "time_budget_s 0: needs to be above 0",
    ),
    "a plan": (lambda: API.run_search("digits"), "plan 'digits': is of the kind str, and needs to be SearchPlan"),
    "an architecture to build": (
        lambda: API.build("r8", 10),
        "architecture 'r8': is of the kind str, and needs to be Arch",
    ),
    "an architecture's cost": (lambda: API.architecture_cost("r8", 10), "architecture 'r8': is of the kind str"),
    "a network to count": (
        lambda: API.module_cost("net", (1, 8, 8)),
        "module 'net': is of the kind str, and needs to be Module",
    ),
    "records to pick from": (lambda: API.pick("run", TWO, "knee"), "records 'run': is of the kind str"),
    "records of a front": (lambda: API.pareto_front(DIGITS, TWO), "and needs to be Sequence"),
    "a run to train": (
        lambda: API.plan_training("run", []),
        "run 'run': is of the kind str, and needs to be RunDirectory",
    ),
    "no run to open": (
        lambda: API.open_run(None),
        "path None: is of the kind NoneType, and needs to be str or PathLike",
    ),
    "a number to open": (lambda: API.open_run(3), "path 3: is of the kind int"),
    "bytes to open": (lambda: API.open_run(b"x"), "path b'x': is of the kind bytes"),
    "a list for a space": (lambda: API.load_space([]), "name_or_path []: is of the kind list"),
    "a run to check": (lambda: API.plan_audit("run"), "run 'run': is of the kind str"),
    "a checked run": (lambda: API.audit_of("run"), "run 'run': is of the kind str"),
    "a run with baselines": (lambda: API.measure_baselines("run"), "run 'run': is of the kind str"),
    "a run to report": (lambda: API.write_report("run"), "run 'run': is of the kind str"),
    "a run to export": (
        lambda: API.export_candidate("run", record(0, 0.5, 1.0), "out"),
        "run 'run': is of the kind str",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_of_a_wrong_kind_is_refused_by_name(case: str) -> None:
    call, sentence = WRONG[case]
    with pytest.raises(InputError) as raised:
        call()
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_places_may_be_texts_or_paths(make_run: RunFactory, tmp_path: Path) -> None:
    quick = nas.EvaluationSettings(nas.Recipe(precision="float32"))
    settings = API.SearchSettings(DIGITS, "digits", objectives=["accuracy", "params"], evaluation=quick)
    assert nas.plan_search(settings, str(tmp_path / "new")).out == tmp_path / "new"
    run = make_run()
    for place in (str(run.path), run.path):
        with pytest.raises(InputError, match="exists already"):
            nas.plan_search(settings, place)
        with pytest.raises(InputError, match=r"^out .*: exists already"):
            nas.export_candidate(run, record(0, 0.5, 1.0), place)
        with pytest.raises(InputError, match="not a run directory"):
            nas.resume_search(Path(place, "nowhere") if isinstance(place, Path) else f"{place}/nowhere")
        assert nas.open_run(place).path == run.path


def test_numbers_of_numpy_and_classes_of_protocols_are_what_they_are() -> None:
    settings = API.SearchSettings(DIGITS, "digits", trials=np.int64(3), confirm=np.float32(0))
    assert settings.trials == 3
    assert isinstance(nas.build(DIGITS.smallest, 10), torch.nn.Module)


def test_a_run_says_where_it_lies_and_what_is_searched(make_run: RunFactory) -> None:
    run = make_run()
    assert repr(run) == f"<RunDirectory {run.path}: digits on digits for accuracy, latency>"
    assert repr(nas.open_run(run.path)).startswith("<Run ")
