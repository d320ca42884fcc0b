"""What an earlier run of a smaller space is worth to a search: hypervolume with its trials imported, and without.

    python benchmarks/search_quality/warm_start.py [--problems macs,revealed] [--seeds 10]

The earlier run searches NAS-Bench-Macro without the third choice of the last stage's three layers, 50 trials. The new
one searches all of it, by the same sampler with another seed. The front of a warm start is that of both together.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import optuna
import torch
from methods import METHODS, OptunaSearch
from optuna.distributions import CategoricalDistribution
from problems import PROBLEMS, Parameters, Problem
from scipy import stats

EARLIER, MORE = 50, (10, 25, 50)
METHOD = "front, told costs"

Known = dict[Hashable, Parameters]


def search(problem: Problem, seed: int, trials: int, earlier: Known) -> list[Known]:
    """What is known after each trial, `earlier` among it."""
    found = METHODS[METHOD](problem, seed, 2)
    assert isinstance(found, OptunaSearch)
    distributions = {name: CategoricalDistribution(choices) for name, choices in problem.choices.items()}
    for parameters in earlier.values():
        found.study.add_trial(
            optuna.trial.create_trial(
                params=dict(parameters), distributions=distributions, values=problem.told(parameters)
            )
        )
    known, history = dict(earlier), []
    for _ in range(trials):
        ticket, parameters = found.ask()
        found.tell(ticket, problem.told(parameters))
        known[problem.identity(parameters)] = parameters
        history.append(dict(known))
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="macs,revealed")
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| problem | box | trials | earlier run alone | cold | warm | warm - cold |\n|---|---|---|---|---|---|---|")
    for name in given.problems.split(","):
        problem = PROBLEMS[name]()
        fewer = {layer: c[:2] if layer in ("layer5", "layer6", "layer7") else c for layer, c in problem.choices.items()}
        scores = []  # (seed, earlier or cold or warm, trials, box)
        for seed in range(given.seeds):
            earlier = search(replace(problem, choices=fewer), 1000 + seed, EARLIER, {})[-1]
            cold, warm = (search(problem, seed, MORE[-1], known) for known in ({}, earlier))
            rows = ([earlier] * len(MORE), [cold[n - 1] for n in MORE], [warm[n - 1] for n in MORE])
            scores.append([[list(problem.scores(known).values()) for known in row] for row in rows])
        table = np.array(scores)
        width = stats.t.ppf(0.975, given.seeds - 1) / np.sqrt(given.seeds)
        for j, box in enumerate(problem.boxes):
            for i, trials in enumerate(MORE):
                before, cold, warm = table[:, :, i, j].T
                gain = warm - cold
                cells = [f"{x.mean():.1f} ± {x.std(ddof=1):.1f}" for x in (before, cold, warm)]
                gained = f"{gain.mean():+.1f} ± {width * gain.std(ddof=1):.1f}"
                print("|", " | ".join([name, box, str(trials), *cells, gained]), "|", flush=True)


if __name__ == "__main__":
    main()
