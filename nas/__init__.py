"""Hardware-aware neural architecture search: accuracy against measured latency.

    import nas

    settings = nas.SearchSettings(space=nas.load_space("digits"), data="digits")
    run = nas.run_search(nas.plan_search(settings)).run
    best = nas.pick(run.judged(), settings.objectives, "knee")
    nas.export_candidate(run, best, Path("model"))

Names are imported on first use, so that `import nas` stays quick; `__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Architecture": "nas.architecture",
    "Budgets": "nas.settings",
    "CandidateError": "nas.errors",
    "EvaluationSettings": "nas.settings",
    "ExportError": "nas.errors",
    "ExportOptions": "nas.export",
    "InputError": "nas.errors",
    "LatencyPredictor": "nas.latency_predictor",
    "LatencyProtocol": "nas.settings",
    "LatencyTarget": "nas.settings",
    "Recipe": "nas.recipe",
    "Resources": "nas.settings",
    "RunDirectory": "nas.run",
    "SearchSettings": "nas.settings",
    "SearchSpace": "nas.space",
    "TrialRecord": "nas.record",
    "architecture_cost": "nas.cost",
    "audit_of": "nas.audit",
    "best_training": "nas.trained",
    "build": "nas.model",
    "default_protocol": "nas.settings",
    "default_recipe": "nas.recipe",
    "evaluate_candidate": "nas.evaluate",
    "export_all": "nas.export",
    "export_candidate": "nas.export",
    "hypervolume": "nas.front",
    "list_spaces": "nas.space_file",
    "load_data": "nas.data",
    "load_space": "nas.space_file",
    "measure": "nas.latency",
    "measure_baselines": "nas.baseline",
    "module_cost": "nas.cost",
    "open_run": "nas.run",
    "pareto_front": "nas.front",
    "pick": "nas.picks",
    "pick_all": "nas.picks",
    "plan_audit": "nas.search.auditing",
    "plan_search": "nas.search.plan",
    "plan_training": "nas.training",
    "reference_point": "nas.front",
    "resume_search": "nas.search.launch",
    "run_audit": "nas.search.auditing",
    "run_search": "nas.search.launch",
    "run_training": "nas.training",
    "write_report": "nas.report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
