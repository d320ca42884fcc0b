"""What leaving out dominated candidates saves, and what it loses (`nas search --skip-dominated`).

    python benchmarks/search_quality/dominated.py [--problems macs,params] [--methods "random;front"] [--seeds 5]
        [--trials 100] [--out FILE]
    python benchmarks/search_quality/dominated.py --tables FILE

Each search is run twice, without and with skipping, until so many networks are trained. Every skipped network is looked up
afterwards: whether it is on the front of all that was trained or skipped, and by how much the hypervolume is less
for want of those. Costs are known beforehand, as measured latency is when the decision is made.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from methods import METHODS, OptunaSearch
from optuna.trial import TrialState
from problems import PROBLEMS, Parameters, Problem
from simulate import PATIENCE

from nas.common.pareto import on_front
from nas.latency.device import device_name
from nas.search.dominance import LEAST_CHANCE
from nas.search.dominated import FEWEST, MAX_SKIPS_IN_A_ROW, dominance_of
from nas.search.samplers.history import ChoiceSpace, CostTable, History, signs_of


def dominated(problem: Problem, search: OptunaSearch, parameters: Parameters) -> bool:
    """Whether `nas search` would skip a network, after what the search was told so far."""
    study, space = search._study, ChoiceSpace.of(search._space)
    history = History.of(space, study, [trial for trial in study.trials if trial.state.is_finished()])
    if len(np.unique(history.feasible, axis=0)) < FEWEST:
        return False
    table = CostTable(space, problem.costs, problem.features, signs_of(study))
    dominance = dominance_of(parameters, space, history, table, ("accuracy", "macs"))
    return dominance is not None and dominance.chance(problem.told(parameters)[1:]) < LEAST_CHANCE


def run(problem: Problem, method: str, seed: int, trials: int, skip: bool) -> dict[str, Any]:
    """Search until `trials` networks are trained; repeats are free."""
    search = METHODS[method](problem, seed, 2)
    assert isinstance(search, OptunaSearch)
    rng = np.random.default_rng([seed, 99])
    trained: dict[Hashable, Parameters] = {}
    skipped: dict[Hashable, Parameters] = {}
    scores: dict[str, dict[str, float]] = {}
    repeats = skips_in_a_row = 0
    while len(trained) < trials:
        ticket, parameters = search.ask()
        identity = problem.identity(parameters)
        if identity in trained or identity in skipped:
            if identity in trained:
                search.tell(ticket, problem.told(parameters))
            else:
                search._study.tell(ticket, state=TrialState.PRUNED)
            repeats += 1
            if repeats >= PATIENCE:
                drawn = {name: options[rng.integers(len(options))] for name, options in problem.choices.items()}
                search._study.enqueue_trial(drawn)
            continue
        repeats = 0
        if skip and skips_in_a_row < MAX_SKIPS_IN_A_ROW and dominated(problem, search, parameters):
            skips_in_a_row += 1
            skipped[identity] = parameters
            search._study.tell(ticket, state=TrialState.PRUNED)
            continue
        skips_in_a_row = 0
        search.tell(ticket, problem.told(parameters))
        trained[identity] = parameters
        if len(trained) in (50, 100, 200):
            scores[str(len(trained))] = {box: round(v, 3) for box, v in problem.scores(trained).items()}
    everything = trained | skipped
    truth = np.array([problem.truth(parameters) for parameters in everything.values()])
    member = on_front(truth)[len(trained) :]
    lost = {
        box: 100 * (problem.volume(truth, box) - problem.volume(truth[: len(trained)], box)) / problem.best[box]
        for box in problem.boxes
    }
    return {
        "scores": scores,
        "skipped": len(skipped),
        "skipped_on_front": int(member.sum()),
        "lost": {box: round(value, 4) for box, value in lost.items()},
    }


def print_table(lines: list[dict[str, Any]]) -> None:
    """A line for each problem and method: what was skipped, what of it mattered, and what the trainings saved gave."""
    groups: dict[tuple[str, str], dict[bool, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        groups[line["problem"], line["method"]][line["skip"]][line["seed"]] = line
    counts = sorted({n for line in lines for n in line["scores"]}, key=int)
    after = " | ".join(f"gained at {n} trained, wide (knee)" for n in counts)
    print(f"| problem | method | seeds | trained | skipped | of them on the front | lost, wide (knee) | {after} |")
    print("|---|---|---|---|---|---|---|" + "---|" * len(counts))
    for (problem, method), runs in groups.items():
        seeds = sorted(set(runs[True]) & set(runs[False]))
        with_skips = [runs[True][seed] for seed in seeds]

        def mean(values: list[float]) -> float:
            return float(np.mean(values))

        lost = [mean([line["lost"][box] for line in with_skips]) for box in ("wide", "knee")]
        cells = []
        for n in counts:
            wide, knee = (
                np.array([runs[True][s]["scores"][n][box] - runs[False][s]["scores"][n][box] for s in seeds])
                for box in ("wide", "knee")
            )
            cells.append(f"{wide.mean():+.2f} ± {wide.std(ddof=1):.2f} ({knee.mean():+.2f})")
        print(
            f"| {problem} | {method} | {len(seeds)} | {with_skips[0]['trials']} | "
            f"{mean([line['skipped'] for line in with_skips]):.0f} | "
            f"{sum(line['skipped_on_front'] for line in with_skips)} of {sum(line['skipped'] for line in with_skips)} | "
            f"{lost[0]:.3f} ({lost[1]:.3f}) | {' | '.join(cells)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="macs,params,macs-noisy,params-noisy")
    parser.add_argument("--methods", default="random;tpe, multivariate;front, told costs", help="by semicolons")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("dominated.jsonl"))
    parser.add_argument("--tables", type=Path)
    given = parser.parse_args()
    if given.tables:
        print_table([json.loads(line) for line in given.tables.read_text().splitlines()])
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    problems = {name: PROBLEMS[name]() for name in given.problems.split(",")}
    for seed in range(given.seeds):
        for name, problem in problems.items():
            for method in given.methods.split(";"):
                for skip in (True, False):
                    task = {"problem": name, "method": method, "seed": seed, "trials": given.trials, "skip": skip}
                    found = task | run(problem, method, seed, given.trials, skip)
                    found |= {"date": time.strftime("%Y-%m-%d"), "machine": device_name("cpu")}
                    with given.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
