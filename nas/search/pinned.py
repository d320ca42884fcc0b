"""What the latencies of a run that decide something have in common: for each one model of device, and one set of conditions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nas.latency.conditions import difference
from nas.runs.objectives import measured_latency, target_of
from nas.runs.record import Evaluation


class Pinned:
    """The device and the conditions of the first latency of each of these names, which are those of objectives.

    Records of before conditions were kept pin none.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._devices: dict[str, str] = {}
        self._conditions: dict[str, Mapping[str, str]] = {}

    def learn(self, evaluation: Evaluation) -> None:
        """Take an evaluation that is recorded for one of the run's."""
        for name in self._names:
            latency = measured_latency(evaluation, name)
            if latency is not None:
                self._devices.setdefault(name, latency.device_name)
            if latency is not None and latency.conditions is not None:
                self._conditions.setdefault(name, latency.conditions)

    def learned(self, evaluations: Iterable[Evaluation]) -> Pinned:
        """This one, once it has taken as many of a run's evaluations as tell it all."""
        for evaluation in evaluations:
            self.learn(evaluation)
            if len(self._conditions) == len(self._names):
                break
        return self

    def differs(self, evaluation: Evaluation) -> str | None:
        """In what its latencies are of another device or under other conditions than the run's, in a sentence; None where they are not."""
        for name in self._names:
            latency = measured_latency(evaluation, name)
            if latency is None:
                continue
            if self._devices.get(name, latency.device_name) != latency.device_name:
                return f"{_words(name)} was measured on {latency.device_name}, before on {self._devices[name]}"
            told = self._changed(name, latency.conditions)
            if told:
                return f"{_words(name)} was measured under other conditions: {told}"
        return None

    def differ_from(self, conditions: Mapping[str, Mapping[str, str]]) -> str | None:
        """In what conditions of now, by name, are others than the run's, in words; None where they are not."""
        changes = ((name, self._changed(name, now)) for name, now in conditions.items())
        return next((f"{_words(name)}: {told}" for name, told in changes if told), None)

    @property
    def unknown(self) -> list[str]:
        """The names of latencies that were measured, nobody knows under what conditions."""
        return [_words(name) for name in self._devices if name not in self._conditions]

    def _changed(self, name: str, now: Mapping[str, str] | None) -> str:
        before = self._conditions.get(name)
        return "" if before is None or now is None else difference(before, now)


def _words(name: str) -> str:
    target = target_of(name)
    return f"target {target}" if target else name
