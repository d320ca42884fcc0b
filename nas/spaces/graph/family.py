"""What the family of networks around somebody's own brings: `FAMILY`, by which `nas.spaces.families` finds it."""

from __future__ import annotations

from typing import Any

from nas.common.yaml_file import Lines
from nas.spaces.base import Cost, LayerRow
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.cost import architecture_cost, layer_rows
from nas.spaces.graph.space import GraphSpace, read_graph_space


class GraphFamily:
    """Networks around a base; see `nas.spaces.base.Family`."""

    networks = "nas.models.graph.networks:NETWORKS"

    def space(self, data: dict[str, Any], source: str, lines: Lines | None = None) -> GraphSpace:
        return read_graph_space(data, source)

    def architecture(self, data: dict[str, Any]) -> GraphArchitecture:
        return GraphArchitecture.from_json(data)

    def cost(self, architecture: GraphArchitecture, num_classes: int) -> Cost:
        return architecture_cost(architecture, num_classes)

    def layer_rows(self, architecture: GraphArchitecture, num_classes: int) -> list[LayerRow]:
        return layer_rows(architecture, num_classes)


FAMILY = GraphFamily()
