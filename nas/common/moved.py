"""Where modules went that programs import from: their earlier addresses still lead to what they held.

Only those that hold names of `nas` itself, or that were shown in the docs, are kept.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

MOVED: dict[str, tuple[str, ...]] = {
    "nas.architecture": ("nas.spaces.mobile.architecture",),
    "nas.audit": ("nas.workflows.fidelity.audit",),
    "nas.baseline": ("nas.workflows.baseline",),
    "nas.cost": ("nas.spaces.families", "nas.spaces.mobile.cost", "nas.models.cost"),
    "nas.errors": ("nas.common.errors",),
    "nas.evaluate": ("nas.search.evaluate",),
    "nas.front": ("nas.runs.front",),
    "nas.image_files": ("nas.data.image_files", "nas.data.pixels"),
    "nas.latency_predictor": ("nas.latency.predictor",),
    "nas.macs": ("nas.models.flops",),
    "nas.metrics": ("nas.tasks.classification_metrics", "nas.tasks.classification"),
    "nas.model": ("nas.models.networks", "nas.models.build"),
    "nas.model.blocks": ("nas.models.blocks",),
    "nas.model.network": ("nas.models.networks", "nas.models.build"),
    "nas.objectives": ("nas.runs.objectives",),
    "nas.picks": ("nas.runs.picks",),
    "nas.pixels": ("nas.data.pixels",),
    "nas.recipe": ("nas.training.recipe",),
    "nas.record": ("nas.runs.record", "nas.latency.result", "nas.spaces.base", "nas.training.history"),
    "nas.report": ("nas.views.report",),
    "nas.run": ("nas.runs.store", "nas.runs.run_file", "nas.runs.record"),
    "nas.search.auditing": ("nas.workflows.fidelity.auditing", "nas.views.reported"),
    "nas.search.launch": ("nas.views.reported", "nas.workflows.search"),
    "nas.search.plan": ("nas.workflows.plan",),
    "nas.settings": ("nas.runs.settings", "nas.latency.protocol", "nas.models.sources", "nas.common.seeds"),
    "nas.space": ("nas.spaces.mobile.space",),
    "nas.space_file": ("nas.spaces.files", "nas.spaces.mobile.space_file"),
    "nas.trained": ("nas.runs.trained",),
    "nas.wording": ("nas.common.text", "nas.runs.words", "nas.views.text"),
}
"""Earlier modules, and those that hold their names now."""


def names_of(earlier: str, *homes: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module at an earlier address whose names stand in the modules `homes` now.

    Of a package that was a module once it gives the names that the package itself does not have.
    """

    def found(name: str) -> Any:
        if not name.startswith("__"):
            for home in homes:
                module = import_module(home)
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {earlier!r} has no attribute {name!r}")

    return found


class _Earlier:
    """Finds and makes modules at their earlier addresses.

    No `importlib.abc` here: it imports random and tempfile, and whoever imports `nas` first may have files of such names beside.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(fullname, loader, is_package=fullname == "nas.model") if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        homes = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {' and '.join(homes)} now", DeprecationWarning, stacklevel=2)
        vars(module)["__getattr__"] = names_of(module.__name__, *homes)


def remember_earlier_addresses() -> None:
    """Let earlier addresses be imported; once a process is enough."""
    if not any(isinstance(finder, _Earlier) for finder in sys.meta_path):
        sys.meta_path.append(_Earlier())
