"""Does stopping candidates early find a better front in as many epochs? Searches simulated on recorded learning curves.

    python benchmarks/early_stopping.py [--curves FILE] [--orders 20] [--workers 1,4,8] [--out FILE]
    python benchmarks/early_stopping.py --tables FILE

Recorded candidates (benchmarks/learning_curves.py) come in random order, without repeats, the space's smallest, backbone
and largest first as in a search, so that rules differ in nothing but what they stop. An epoch takes a worker about as long
as any other. Objectives are accuracy and multiply-adds. A front is that of the candidates trained to the end, by their
last score.

none            every training to its end
ours            nas.search.rungs as it ships; below it the same with one thing changed
asha            Ray's own ASHA on accuracy alone, as it comes (grace period 1, reduction 4), or with rungs where ours are
..., mixed      on accuracy less the logarithm of multiply-adds, the latter scaled to its range
"""

from __future__ import annotations

import argparse
import functools
import heapq
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.common.pareto import hypervolume, on_front
from nas.runs.record import Evaluation, Outcome
from nas.search.rungs import Rungs, levels
from nas.spaces.base import Cost
from nas.training.history import EpochMetrics

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
CURVES = Path(__file__).parent / "measured/learning_curves-digits-20261124.jsonl"
SHARES = (0.25, 0.5, 1.0)
"""Budgets of epochs, as shares of what training `OF_POOL` of the pool to the end takes."""
OF_POOL = 0.4
REFERENCES = 3
MAIN = ("none", "ours", "asha", "asha, our rungs")
"""Rules that run with every number of workers; the others with `--variants-at`."""
ACCURATE = 0.9
"""Accuracy from which the box called accurate begins; the wide one holds the whole pool."""


@dataclass(frozen=True)
class Curve:
    """One recorded training."""

    digest: str
    macs: int
    params: int
    scores: tuple[float, ...]

    def after(self, epochs: int) -> Evaluation:
        """What a search knows of it after so many epochs."""
        history = tuple(
            EpochMetrics(number, 0.0, 0.0, score, {"accuracy": score}, 0.0, 0.0)
            for number, score in enumerate(self.scores[:epochs], 1)
        )
        return Evaluation(Outcome.STOPPED, cost=Cost(self.macs, self.params), history=history)


Judge = Callable[[Curve, int], bool]
"""Whether a candidate is to be stopped after so many epochs."""


class Pool:
    """Recorded candidates of one setting; all the epochs of a training are the same number."""

    def __init__(self, name: str, curves: Sequence[Curve]) -> None:
        self.name = name
        self.curves = tuple(curves)
        self.epochs = len(curves[0].scores)
        self._losses = np.array([(-curve.scores[-1], curve.macs) for curve in curves], dtype=float)
        self.front = {curve.digest for curve, member in zip(curves, on_front(self._losses), strict=True) if member}
        best, worst = self._losses.min(0), self._losses.max(0)
        self._boxes = {"wide": (best, worst), "accurate": (best, np.array([-ACCURATE, worst[1]]))}
        self._best = {box: self._volume(self._losses, box) for box in self._boxes}

    @staticmethod
    def _scaled(losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply-adds by their logarithm: a search minds the small networks as much as the large ones."""
        return np.stack([losses[..., 0], np.log(losses[..., 1])], -1)

    def _volume(self, losses: NDArray[np.float64], box: str) -> float:
        ideal, worst = (self._scaled(corner) for corner in self._boxes[box])
        scaled = (self._scaled(losses) - ideal) / (worst - ideal)
        inside = scaled[(scaled < 1).all(1)]
        return hypervolume(inside, np.ones(2)) if len(inside) else 0.0

    def score(self, trained: Sequence[Curve], box: str) -> float:
        """Hypervolume of candidates trained to the end, in percent of that of the whole pool."""
        losses = np.array([(-curve.scores[-1], curve.macs) for curve in trained], dtype=float).reshape(-1, 2)
        return 100 * self._volume(losses, box) / self._best[box]


def pools(path: Path, smallest: int) -> Iterator[Pool]:
    """The settings that a file holds that many candidates of, by the training's first seed."""
    found: dict[str, list[Curve]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        if line["seed"] == 0:
            name = f"{line['space']}, {line['kind']}, {line['epochs']} epochs"
            found.setdefault(name, []).append(
                Curve(line["digest"], line["macs"], line["params"], tuple(line["scores"]))
            )
    yield from (Pool(name, curves) for name, curves in found.items() if len(curves) >= smallest)


# -------------------------------------------------------------------- rules


def never(pool: Pool) -> Judge:
    """Every training to its end."""
    return lambda curve, epoch: False


def ours(pool: Pool, **options: Any) -> Judge:
    """The rule of `nas search --stop-early`."""
    rungs = Rungs(("accuracy", "macs"), pool.epochs, **options)
    return lambda curve, epoch: rungs.should_stop(curve.digest, curve.after(epoch)) is not None


def asha(pool: Pool, grace: int, reduction: float, mixed: bool = False) -> Judge:
    """Ray's own bracket, which `AsyncHyperBandScheduler` asks."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    bracket = _Bracket(grace, pool.epochs, reduction, 0)
    logs = [math.log(curve.macs) for curve in pool.curves]

    def judge(curve: Curve, epoch: int) -> bool:
        reward = curve.scores[epoch - 1]
        if mixed:
            reward -= (math.log(curve.macs) - min(logs)) / (max(logs) - min(logs))
        return bool(bracket.on_result(SimpleNamespace(trial_id=curve.digest), epoch, reward) == "STOP")

    return judge


def rules() -> dict[str, Callable[[Pool], Judge]]:
    """Every rule by its name; names give rungs in percent of the epochs."""
    found: dict[str, Callable[[Pool], Judge]] = {"none": never, "ours": ours}
    for shares in ((0.1, 0.3), (0.3,), (0.5,), (0.5, 0.7), (0.2, 0.4, 0.6, 0.8)):
        name = ", ".join(f"{100 * share:.0f}" for share in shares)
        found[f"rungs at {name} %"] = functools.partial(ours, shares=shares)
    for reduction in (1.5, 3, 4):
        found[f"one in {reduction}"] = functools.partial(ours, reduction=reduction)
    for fewest in (4, 16):
        found[f"from {fewest} candidates"] = functools.partial(ours, fewest=fewest)
    found["rungs at 10, 30 %, one in 3"] = functools.partial(ours, shares=(0.1, 0.3), reduction=3)
    found["asha"] = functools.partial(asha, grace=1, reduction=4)
    found["asha, our rungs"] = matched
    found["asha, our rungs, mixed"] = functools.partial(matched, mixed=True)
    return found


def matched(pool: Pool, mixed: bool = False) -> Judge:
    """Ray's ASHA with rungs where ours are; its reduction is the ratio between them, 1.75, near to ours of 2."""
    first, second = levels(pool.epochs)
    return asha(pool, first, second / first, mixed)


# -------------------------------------------------------------------- a search


def simulate(pool: Pool, judge: Judge, order: int, workers: int) -> dict[str, Any]:
    """One search over the whole pool: scores by share of the budget, epochs spent in all, members of the front stopped."""
    rng = np.random.default_rng(order)
    rest = REFERENCES + rng.permutation(len(pool.curves) - REFERENCES)
    waiting = [pool.curves[index] for index in (*range(REFERENCES), *rest)][::-1]
    budgets = {share: share * OF_POOL * len(pool.curves) * pool.epochs for share in SHARES}
    running: list[tuple[float, int, Curve, int, float]] = []
    scores: dict[str, dict[str, float]] = {}
    trained: list[Curve] = []
    killed, spent, started, clock = 0, 0, 0, 0.0

    def rated() -> dict[str, float]:
        return {box: round(pool.score(trained, box), 2) for box in ("wide", "accurate")}

    def note(done: bool) -> None:
        for share, budget in budgets.items():
            if str(share) not in scores and (done or spent >= budget):
                scores[str(share)] = rated()

    while waiting or running:
        while waiting and len(running) < workers:
            pace = float(np.exp(0.3 * rng.standard_normal()))  # so that workers fall out of step
            started += 1
            heapq.heappush(running, (clock + pace, started, waiting.pop(), 1, pace))
        clock, number, curve, epoch, pace = heapq.heappop(running)
        spent += 1
        if epoch == pool.epochs:
            trained.append(curve)
        elif judge(curve, epoch):
            killed += curve.digest in pool.front
        else:
            heapq.heappush(running, (clock + pace, number, curve, epoch + 1, pace))
        note(done=False)
    note(done=True)
    return {
        "pool": pool.name, "size": len(pool.curves), "front": len(pool.front), "order": order, "workers": workers,
        "epochs": round(spent / (len(pool.curves) * pool.epochs), 4), "killed": round(killed / len(pool.front), 4),
        "all": rated(), "scores": scores,
    }  # fmt: skip


# -------------------------------------------------------------------- tables


def interval(differences: Sequence[float]) -> float:
    """Half-width of the 95 % interval of a mean of paired differences; 20 or more of them, so that t is 2.09 at most."""
    return 2.09 * statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan


def print_tables(lines: Sequence[dict[str, Any]]) -> None:
    """For each pool and number of workers: what a rule spends and stops, and its difference from none by the budget."""
    groups: dict[tuple[str, int], dict[str, dict[int, dict[str, Any]]]] = {}
    for line in lines:
        rule_runs = groups.setdefault((line["pool"], line["workers"]), {}).setdefault(line["rule"], {})
        rule_runs[line["order"]] = line
    for (pool, workers), by_rule in groups.items():
        of = next(iter(by_rule["none"].values()))
        print(f"\n### {pool}: {of['size']} candidates, {of['front']} on the front, {workers} workers\n")
        heads = [f"{100 * share:.0f} %" for share in SHARES]
        print("| rule | epochs % | front stopped % | left of wide (accurate) | " + " | ".join(heads) + " |")
        print("|---" * (4 + len(SHARES)) + "|")
        for rule, runs in by_rule.items():
            cells = []
            for share in map(str, SHARES):
                parts = []
                for box in ("wide", "accurate"):
                    gains = [
                        run["scores"][share][box] - by_rule["none"][o]["scores"][share][box] for o, run in runs.items()
                    ]
                    if rule == "none":
                        parts.append(f"{statistics.mean(run['scores'][share][box] for run in runs.values()):.1f}")
                    else:
                        parts.append(f"{statistics.mean(gains):+.1f} ± {interval(gains):.1f}")
                cells.append(f"{parts[0]} ({parts[1]})")
            epochs, killed = (100 * statistics.mean(run[key] for run in runs.values()) for key in ("epochs", "killed"))
            wide, accurate = (statistics.mean(run["all"][box] for run in runs.values()) for box in ("wide", "accurate"))
            print(f"| {rule} | {epochs:.0f} | {killed:.0f} | {wide:.1f} ({accurate:.1f}) | " + " | ".join(cells) + " |")


def main() -> None:
    """Simulate what the file does not have yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--workers", default="1,4,8")
    parser.add_argument("--variants-at", type=int, default=4, help="workers of the other variants")
    parser.add_argument("--smallest", type=int, default=40, help="candidates that a pool must have")
    parser.add_argument("--out", type=Path, default=Path("early_stopping.jsonl"))
    parser.add_argument("--tables", type=Path)
    given = parser.parse_args()
    if given.tables:
        print_tables([json.loads(line) for line in given.tables.read_text().splitlines()])
        return
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    known = {(line["pool"], line["rule"], line["order"], line["workers"]) for line in lines}
    with given.out.open("a") as out:
        for pool in pools(given.curves, given.smallest):
            for workers in map(int, given.workers.split(",")):
                for rule, make in rules().items():
                    if rule not in MAIN and workers != given.variants_at:
                        continue
                    for order in range(given.orders):
                        if (pool.name, rule, order, workers) not in known:
                            line = {"rule": rule} | simulate(pool, make(pool), order, workers)
                            out.write(json.dumps(line) + "\n")
                            lines.append(line)
    print_tables(lines)


if __name__ == "__main__":
    main()
