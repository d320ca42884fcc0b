"""Networks that others have trained: NAS-Bench-Macro's table, as candidates of `macro.yaml` with their accuracies."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.sections import Choice
from nas.spaces.mobile.space import SearchSpace

PUBLISHED, PUBLISHED_EPOCHS = "published", 50
"""How rows of the table are named among those of trainings, and for how long its networks were trained."""
STAGES = (2, 3, 3)
OPTIONS: dict[str, dict[str, Choice]] = {
    "0": {"kernel_size": 1, "expansion": 1},
    "1": {"kernel_size": 3, "expansion": 3},
    "2": {"kernel_size": 5, "expansion": 6},
}
"""What the table's digits are. An identity behind a stage's first layer is a layer less."""


@dataclass(frozen=True)
class Published:
    """A network of the table: its digits, and test accuracy (0 to 1) of three trainings of 50 epochs."""

    digits: str
    accuracies: tuple[float, float, float]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.accuracies)


def read_published(path: Path, seed: int = 0) -> list[Published]:
    """All networks of the table that differ, in random order; of those that are one network the first drawn."""
    table = pd.read_csv(path, dtype={"arch": str}).sample(frac=1, random_state=seed)
    found: dict[str, Published] = {}
    for row in table.to_dict("records"):
        network = Published(row["arch"], (row["acc0"] / 100, row["acc1"] / 100, row["acc2"] / 100))
        found.setdefault(_layers(network.digits), network)
    return list(found.values())


def _layers(digits: str) -> str:
    """The digits of a network with identities last in their stage, where they are nothing."""
    stages, start = [], 0
    for length in STAGES:
        first, rest = digits[start], digits[start + 1 : start + length].replace("0", "")
        stages.append(first + rest.ljust(length - 1, "0"))
        start += length
    return "".join(stages)


class Macro(SearchSpace):
    """The space whose draws are networks of the table: kernel and expansion go together."""

    def sample(self, rng: random.Random) -> dict[str, Choice]:
        values = super().sample(rng)
        expansion = {option["kernel_size"]: option["expansion"] for option in OPTIONS.values()}
        for name in values:
            if name.endswith(".kernel_size"):
                values[name.replace("kernel_size", "expansion")] = expansion[values[name]]
        return values

    def published(self, network: Published) -> Architecture:
        """A network of the table as a candidate."""
        values = {name: choices[0] for name, choices in self.parameters.items()}
        layers, start = _layers(network.digits), 0
        for stage, length in enumerate(STAGES):
            first, rest = layers[start], layers[start + 1 : start + length].rstrip("0")
            values |= {f"s{2 * stage}.l0.{key}": choice for key, choice in OPTIONS[first].items()}
            values[f"s{2 * stage + 1}.depth"] = len(rest)
            for index, digit in enumerate(rest):
                values |= {f"s{2 * stage + 1}.l{index}.{key}": choice for key, choice in OPTIONS[digit].items()}
            start += length
        return self.architecture(values)
