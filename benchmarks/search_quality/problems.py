"""The problems that searches are compared on: what a search is told, and what its front is scored by."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.common.pareto import hypervolume, on_front

Parameters = Mapping[str, Any]
Values = tuple[float, ...]
SHARED = Path(os.environ.get("NAS_SHARED", Path(__file__).parents[3] / "shared"))


@dataclass
class Problem:
    """All objectives are losses: less is better.

    `told` is what the search sees, `truth` what a network is worth. `costs` and `features` are what a sampler may
    know beforehand. `boxes` are (best, worst) corners that a hypervolume is scaled to.
    """

    name: str
    choices: dict[str, tuple[Any, ...]]
    told: Callable[[Parameters], Values]
    truth: Callable[[Parameters], Values]
    boxes: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    costs: dict[int, Callable[[Parameters], float]] = field(default_factory=dict)
    features: Callable[[Parameters], Sequence[float]] | None = None
    identity: Callable[[Parameters], Hashable] = lambda parameters: tuple(sorted(parameters.items()))
    best: dict[str, float] = field(default_factory=dict)

    def finish(self, losses: NDArray[np.float64]) -> Problem:
        """Set the exact front's volumes, from the losses (networks, objectives) of the whole space."""
        self.best = {box: self.volume(losses, box) for box in self.boxes}
        return self

    def volume(self, losses: NDArray[np.float64], box: str) -> float:
        """Hypervolume of networks (N, objectives) in a box, as a share of the box."""
        ideal, worst = self.boxes[box]
        scaled = (losses - ideal) / (worst - ideal)
        inside = scaled[(scaled < 1).all(axis=1)]
        return hypervolume(inside, np.ones(len(ideal))) if len(inside) else 0.0

    def scores(self, asked: Mapping[Hashable, Parameters]) -> dict[str, float]:
        """Percent of the exact front's hypervolume that the front chosen by what was told is truly worth."""
        told = np.array([self.told(parameters) for parameters in asked.values()])
        chosen = on_front(told)
        truth = np.array([self.truth(p) for p, member in zip(asked.values(), chosen, strict=True) if member])
        return {box: 100 * self.volume(truth, box) / self.best[box] for box in self.boxes}


# -------------------------------------------------------------------- NAS-Bench-Macro


def canonical(arch: str) -> str:
    """The spelling of a network of NAS-Bench-Macro with a stage's identities last, its first layer left in place."""
    parts = []
    for first, layers in ((0, 2), (2, 3), (5, 3)):
        stage = arch[first : first + layers]
        rest = stage[1:].replace("0", "")
        parts.append(stage[0] + rest + "0" * (layers - 1 - len(rest)))
    return "".join(parts)


def _code(parameters: Parameters) -> str:
    return canonical("".join(str(parameters[f"layer{i}"]) for i in range(8)))


def macro(cost: str, noisy: bool = False) -> Problem:
    """Accuracy against `macs`, `params` or `revealed`: a mixture of both with noise, as a latency is.

    The noisy variant tells one training's accuracy, and scores by the mean of the other two.
    """
    with gzip.open(SHARED / "data/nasbench_macro/nasbench_macro.csv.gz", "rt") as file:
        rows = {row["arch"]: row for row in csv.DictReader(file) if row["arch"] == canonical(row["arch"])}
    static = {arch: (float(row["flops"]), float(row["params"])) for arch, row in rows.items()}
    typical = np.median(np.array(list(static.values())), axis=0)
    rng = np.random.default_rng(0)
    mixed = {
        arch: float(np.mean(np.array(values) / typical) * np.exp(0.1 * rng.standard_normal()))
        for arch, values in static.items()
    }
    costs = {
        "macs": {arch: values[0] for arch, values in static.items()},
        "params": {arch: values[1] for arch, values in static.items()},
        "revealed": mixed,
    }[cost]
    error = {
        arch: 100 - (float(row["acc1"]) + float(row["acc2"])) / 2 if noisy else 100 - float(row["mean_acc"])
        for arch, row in rows.items()
    }
    seen = {arch: 100 - float(row["acc0"]) if noisy else error[arch] for arch, row in rows.items()}
    losses = np.array([(error[arch], costs[arch]) for arch in rows])
    ideal = losses.min(axis=0)
    problem = Problem(
        f"macro-{cost}{'-noisy' if noisy else ''}",
        {f"layer{i}": (0, 1, 2) for i in range(8)},
        told=lambda p: (seen[_code(p)], costs[_code(p)]),
        truth=lambda p: (error[_code(p)], costs[_code(p)]),
        boxes={
            "wide": (ideal, np.array([15.0, losses[:, 1].max()])),
            "knee": (ideal, np.array([10.0, np.median(losses[:, 1])])),
        },
        costs={} if cost == "revealed" else {1: lambda p: costs[_code(p)]},
        features=lambda p: static[_code(p)],
        identity=_code,
    )
    return problem.finish(losses)


# -------------------------------------------------------------------- measured latency, accuracy made up


def help_table(space: str, device: str, seed: int = 0) -> Problem:
    """Latencies that HELP measured (shared/data/latency); accuracy is made up: it grows with choices, and interacts.

    The space is the whole of NAS-Bench-201's cells. No sampler knows a cost beforehand.
    """
    table = np.load(SHARED / f"data/latency/help_{space}.npz")
    choices, latency = table["edge_ops"], table["latency_ms"][:, list(table["devices"]).index(device)]
    rng = np.random.default_rng(seed)
    positions, options = choices.shape[1], int(choices.max()) + 1
    effect = rng.gamma(1.0, 1.0, (positions, options))
    pair = 0.4 * rng.standard_normal((positions, positions, options, options))
    merit = sum(effect[i, choices[:, i]] for i in range(positions))
    for i, j in itertools.combinations(range(positions), 2):
        merit = merit + pair[i, j, choices[:, i], choices[:, j]]
    spread = (merit - merit.mean()) / merit.std()
    error = 0.05 + 0.9 / (1 + np.exp(1.5 * spread + 1))
    losses = np.stack([error, latency.astype(float)], 1)
    rows = {tuple(row): index for index, row in enumerate(choices.tolist())}

    def look(parameters: Parameters) -> Values:
        first, second = losses[rows[tuple(parameters[f"edge{i}"] for i in range(positions))]]
        return float(first), float(second)

    return Problem(
        f"{space}-{device}",
        {f"edge{i}": tuple(range(options)) for i in range(positions)},
        told=look,
        truth=look,
        boxes=_boxes(losses),
    ).finish(losses)


# -------------------------------------------------------------------- made up


def landscape(
    parameters: int, options: int, neighbours: int, objectives: int, seed: int, ordered: bool = False
) -> Problem:
    """An NK-landscape in each objective: a parameter's effect depends on its choice and those of `neighbours` others.

    0 neighbours make it additive. `ordered` lets the first objective fall and the others rise along the choices, as
    networks do. The exact front is known by enumeration where the space has up to 60,000 settings, otherwise by the
    best of a long evolution.
    """
    rng = np.random.default_rng([seed, parameters, options, neighbours, objectives])
    width = neighbours + 1
    others = np.stack(
        [
            np.stack(
                [[i, *rng.choice(np.delete(np.arange(parameters), i), neighbours, False)] for i in range(parameters)]
            )
            for _ in range(objectives)
        ]
    )
    tables = rng.random((objectives, parameters, options**width))
    if ordered:
        slope = np.repeat(np.arange(options) / (options - 1), options ** (width - 1))
        tables += 1.5 * np.stack([-slope] + [slope] * (objectives - 1))[:, None]
    powers = options ** np.arange(width)[::-1]

    def losses_of(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = [
            sum(tables[k, i, rows[:, others[k, i]] @ powers] for i in range(parameters)) / parameters
            for k in range(objectives)
        ]
        return np.stack(found, 1)

    def look(values: Parameters) -> Values:
        row = np.array([[values[f"p{i}"] for i in range(parameters)]])
        return tuple(float(value) for value in losses_of(row)[0])

    if options**parameters <= 60_000:
        rows = np.stack(np.unravel_index(np.arange(options**parameters), (options,) * parameters), 1)
    else:
        rows = _evolve(losses_of, parameters, options, rng)
    losses = losses_of(rows)
    kind = "additive" if neighbours == 0 else f"nk{neighbours}"
    return Problem(
        f"{kind}{'-ordered' if ordered else ''}-{parameters}x{options}-{objectives}",
        {f"p{i}": tuple(range(options)) for i in range(parameters)},
        told=look,
        truth=look,
        boxes=_boxes(losses),
    ).finish(losses)


def _evolve(
    losses_of: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    parameters: int,
    options: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    rows = rng.integers(0, options, (4000, parameters))
    crowd = rows
    for _ in range(300):
        losses = losses_of(crowd)
        front = crowd[on_front(losses)]
        front = np.unique(front, axis=0)
        front = front[rng.permutation(len(front))[:1500]]
        pair = front[rng.integers(0, len(front), (2, 1500))]
        children = np.where(rng.random((1500, parameters)) < 0.5, pair[0], pair[1])
        change = rng.random(children.shape) < 1.5 / parameters
        children = np.where(change, rng.integers(0, options, children.shape), children)
        crowd = np.vstack([front, children])
    return np.vstack([rows, crowd])


def _boxes(losses: NDArray[np.float64]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Wide: up to the worst of the exact front. Knee: up to its upper quartiles."""
    ideal = losses.min(axis=0)
    front = losses[on_front(losses)]
    knee = np.quantile(front, 0.75, axis=0)
    knee = np.where(knee > ideal, knee, front.max(axis=0))
    return {"wide": (ideal, front.max(axis=0)), "knee": (ideal, knee)}


PROBLEMS: dict[str, Callable[[], Problem]] = {
    # The yard-stick.
    "macs": lambda: macro("macs"),
    "params": lambda: macro("params"),
    "macs-noisy": lambda: macro("macs", noisy=True),
    "params-noisy": lambda: macro("params", noisy=True),
    "revealed": lambda: macro("revealed"),
    # Others.
    "additive": lambda: landscape(20, 4, 0, 2, 1),
    "nk2": lambda: landscape(12, 3, 2, 2, 2),
    "nk1-ordered": lambda: landscape(27, 3, 1, 2, 3, ordered=True),
    "nk2-ordered": lambda: landscape(40, 4, 2, 2, 4, ordered=True),
    "few-large": lambda: landscape(3, 12, 1, 2, 5),
    "three": lambda: landscape(10, 3, 1, 3, 6, ordered=True),
    "nb201-gpu": lambda: help_table("nasbench201", "titanx_256"),
    "nb201-phone": lambda: help_table("nasbench201", "pixel2", 1),
}
YARDSTICK = ("macs", "params", "macs-noisy", "params-noisy", "revealed")
