"""What the family of mobile networks brings: `FAMILY`, by which `nas.spaces.families` finds it."""

from __future__ import annotations

from typing import Any

from nas.common.yaml_file import Lines
from nas.spaces.base import Cost, LayerRow
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.cost import architecture_cost
from nas.spaces.mobile.layer_table import layer_rows
from nas.spaces.mobile.space import SearchSpace
from nas.spaces.mobile.space_file import validate_space


class MobileFamily:
    """Inverted residuals; see `nas.spaces.base.Family`."""

    networks = "nas.models.mobile:NETWORKS"

    def space(self, data: dict[str, Any], source: str, lines: Lines | None = None) -> SearchSpace:
        return validate_space(data, source, lines)

    def architecture(self, data: dict[str, Any]) -> Architecture:
        return Architecture.from_json(data)

    def cost(self, architecture: Architecture, num_classes: int) -> Cost:
        return architecture_cost(architecture, num_classes)

    def layer_rows(self, architecture: Architecture, num_classes: int) -> list[LayerRow]:
        return layer_rows(architecture, num_classes)


FAMILY = MobileFamily()
