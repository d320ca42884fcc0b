"""Modules that programs import from at their earlier addresses."""

from __future__ import annotations

import importlib

import pytest

import nas
from nas.common.moved import MOVED

PUBLIC = {
    "nas.architecture": "Architecture",
    "nas.audit": "audit_of",
    "nas.baseline": "measure_baselines",
    "nas.cost": "architecture_cost",
    "nas.data": "load_data",
    "nas.errors": "InputError",
    "nas.evaluate": "evaluate_candidate",
    "nas.export": "export_candidate",
    "nas.front": "pareto_front",
    "nas.latency": "measure",
    "nas.latency_predictor": "LatencyPredictor",
    "nas.model": "build",
    "nas.picks": "pick",
    "nas.recipe": "Recipe",
    "nas.record": "TrialRecord",
    "nas.report": "write_report",
    "nas.search.auditing": "plan_audit",
    "nas.search.launch": "run_search",
    "nas.search.plan": "plan_search",
    "nas.settings": "LatencyProtocol",
    "nas.space": "SearchSpace",
    "nas.space_file": "load_space",
    "nas.trained": "best_training",
    "nas.training": "run_training",
}
"""Where the public names stood in 1b20abf."""


@pytest.mark.filterwarnings("ignore:.* now:DeprecationWarning")
@pytest.mark.parametrize(("module", "name"), PUBLIC.items())
def test_a_public_name_is_found_where_it_was(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is getattr(nas, name)


@pytest.mark.filterwarnings("ignore:.* now:DeprecationWarning")
def test_other_names_are_found_where_they_were_and_new_ones_are_not() -> None:
    assert importlib.import_module("nas.latency").fold_batch_norm.__module__ == "nas.latency.folding"
    assert importlib.import_module("nas.image_files").to_pixels.__module__ == "nas.data.pixels"
    assert importlib.import_module("nas.cost").module_cost is nas.module_cost
    with pytest.raises(AttributeError, match=r"module 'nas\.settings' has no attribute 'nothing'"):
        importlib.import_module("nas.settings").nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"nas\.nothing"):
        importlib.import_module("nas.nothing")


def test_all_that_moved_is_there() -> None:
    for homes in MOVED.values():
        for home in homes:
            importlib.import_module(home)


def test_who_imports_from_an_earlier_address_is_told_the_new_one() -> None:
    import sys

    sys.modules.pop("nas.picks", None)
    with pytest.warns(DeprecationWarning, match=r"nas\.picks is nas\.runs\.picks now"):
        importlib.import_module("nas.picks")
