"""What all latencies of a run have in common: for each target one model of device, and one set of conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas.latency.conditions import difference
from nas.latency.result import Latency
from nas.runs.record import Evaluation


class Pinned:
    """The device and the conditions of the first latency of each name; records of before conditions were kept pin none."""

    def __init__(self) -> None:
        self._devices: dict[str, str] = {}
        self._conditions: dict[str, Mapping[str, str]] = {}

    def learn(self, evaluation: Evaluation) -> None:
        """Take an evaluation that is recorded for one of the run's."""
        for name, latency in _latencies(evaluation):
            self._devices.setdefault(name, latency.device_name)
            if latency.conditions is not None:
                self._conditions.setdefault(name, latency.conditions)

    def differs(self, evaluation: Evaluation) -> str | None:
        """In what its latencies are of another device or under other conditions than the run's, in a sentence; None where they are not."""
        for name, latency in _latencies(evaluation):
            if self._devices.get(name, latency.device_name) != latency.device_name:
                return f"{name} was measured on {latency.device_name}, before on {self._devices[name]}"
            before, now = self._conditions.get(name), latency.conditions
            told = "" if before is None or now is None else difference(before, now)
            if told:
                return f"{name} was measured under other conditions: {told}"
        return None


def _latencies(evaluation: Evaluation) -> Iterator[tuple[str, Latency]]:
    if evaluation.latency is not None:
        yield "latency", evaluation.latency
    for name, latency in evaluation.latencies.items():
        yield f"target {name}", latency
