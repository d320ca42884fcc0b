"""The driver's side of a search without Ray: what Tune would ask for is asked for here."""

from __future__ import annotations

from nas.search.broker import Broker
from nas.search.ray.artifacts import ArtifactStore
from nas.search.ray.placement import Placement
from nas.search.ray.tune import SourceSearcher


class Room(Placement):
    """A machine with room for two trials."""

    @property
    def limit(self) -> int:
        return 2

    @property
    def selector(self) -> str:
        return ""


def searcher_of(broker: Broker, keeper: ArtifactStore | None = None) -> SourceSearcher:
    """What Tune asks for a broker's candidates."""
    return SourceSearcher(broker, lambda candidate, metrics: None, Room(broker.settings), keeper)
