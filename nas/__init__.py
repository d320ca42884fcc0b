"""Hardware-aware neural architecture search: accuracy against measured latency.

    import nas

    settings = nas.SearchSettings(space=nas.load_space("digits"), data="digits")
    run = nas.run_search(nas.plan_search(settings)).run
    run.front_frame()  # pandas; run.figure() is the Pareto figure (plotly)
    best = nas.pick(run.judged(), settings.objectives, "knee")
    nas.export_candidate(run, best, Path("model"))

Names are imported on first use, so that `import nas` stays quick; `__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

import importlib
from typing import Any

from nas.common.moved import remember_earlier_addresses

remember_earlier_addresses()

_HOME = {
    "Architecture": "nas.spaces.mobile.architecture",
    "Budgets": "nas.runs.settings",
    "CandidateError": "nas.common.errors",
    "EvaluationSettings": "nas.runs.settings",
    "ExportError": "nas.common.errors",
    "ExportOptions": "nas.export.folder",
    "InputError": "nas.common.errors",
    "LatencyPredictor": "nas.latency.predictor",
    "LatencyProtocol": "nas.latency.protocol",
    "LatencyTarget": "nas.runs.settings",
    "Recipe": "nas.training.recipe",
    "Renewal": "nas.search.renewal",
    "Resources": "nas.runs.settings",
    "Run": "nas.views.run",
    "RunDirectory": "nas.runs.store",
    "SearchSettings": "nas.runs.settings",
    "SearchSpace": "nas.spaces.mobile.space",
    "TrialRecord": "nas.runs.record",
    "architecture_cost": "nas.spaces.families",
    "audit_of": "nas.workflows.fidelity.audit",
    "best_training": "nas.runs.trained",
    "build": "nas.models.networks",
    "default_protocol": "nas.latency.protocol",
    "default_recipe": "nas.training.recipe",
    "evaluate_candidate": "nas.search.evaluate",
    "export_all": "nas.export.folder",
    "export_candidate": "nas.export.folder",
    "hypervolume": "nas.runs.front",
    "list_spaces": "nas.spaces.files",
    "load_data": "nas.data.sets",
    "load_space": "nas.spaces.files",
    "measure": "nas.latency.measuring",
    "measure_baselines": "nas.workflows.baseline",
    "module_cost": "nas.models.cost",
    "open_run": "nas.views.run",
    "pareto_front": "nas.runs.front",
    "pick": "nas.runs.picks",
    "pick_all": "nas.runs.picks",
    "plan_audit": "nas.workflows.fidelity.auditing",
    "plan_search": "nas.workflows.plan",
    "plan_training": "nas.workflows.train",
    "reference_point": "nas.runs.front",
    "resume_search": "nas.views.reported",
    "run_audit": "nas.views.reported",
    "run_search": "nas.views.reported",
    "run_training": "nas.views.reported",
    "space_from": "nas.models.graph.make",
    "write_report": "nas.views.report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("pareto-nas")
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
