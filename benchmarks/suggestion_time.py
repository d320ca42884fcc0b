"""What a suggestion of `nas search`'s sampler costs in real spaces.

    python benchmarks/suggestion_time.py [--spaces digits,cifar,lite0] [--trials 100,2000] [--suggestions 20]

For each space and number of trials: a study of so many random trials, accuracy and latency made up from their costs;
then suggestions, each by a new sampler, each told. CPU milliseconds of one thread: the mean and the most of them, then one
with no fit of hyperparameters remembered. What is told of networks is remembered between suggestions, as in a search.
"""

from __future__ import annotations

import argparse
import random
import time

import optuna
import torch
from optuna.distributions import CategoricalDistribution

import nas.search.samplers.front_model
from nas.search.samplers import make_sampler
from nas.search.samplers.known import KnownCosts
from nas.spaces.files import load_space

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", default="digits,cifar,lite0")
    parser.add_argument("--trials", default="100,2000")
    parser.add_argument("--suggestions", type=int, default=20)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    print("| space | parameters | trials | mean ms | most ms | with a fit, ms |\n|---|---|---|---|---|---|")
    for name in given.spaces.split(","):
        for trials in map(int, given.trials.split(",")):
            times = suggestion_times(name, trials, given.suggestions)
            mean, most = sum(times[:-1]) / given.suggestions, max(times[:-1])
            parameters = len(load_space(name).parameters)
            print(f"| {name} | {parameters} | {trials} | {mean:.0f} | {most:.0f} | {times[-1]:.0f} |", flush=True)


def suggestion_times(name: str, trials: int, suggestions: int) -> list[float]:
    """CPU milliseconds of suggestions after so many trials, the last of them with nothing remembered of fits."""
    space = load_space(name)
    known = KnownCosts(space, CLASSES, ("accuracy", "latency"))
    distributions = {parameter: CategoricalDistribution(choices) for parameter, choices in space.parameters.items()}
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng = random.Random(0)

    def values(parameters: dict[str, object]) -> tuple[float, float]:
        macs, params = known.features(parameters)  # type: ignore[arg-type]
        return 1 - 1 / (1 + params / 1e6) + rng.gauss(0, 0.01), macs**0.8 * rng.gauss(1, 0.05)

    for _ in range(trials):
        drawn = space.sample(rng)
        study.add_trial(
            optuna.trial.create_trial(params=drawn, distributions=distributions, values=values(drawn))  # type: ignore[arg-type]
        )
    times = []
    for number in range(suggestions + 2):
        if number == suggestions + 1:
            nas.search.samplers.front_model._fits.clear()
        study.sampler = make_sampler("front", number, known)
        start = time.process_time()
        trial = study.ask(distributions)  # type: ignore[arg-type]
        times.append(1000 * (time.process_time() - start))
        study.tell(trial, values(trial.params))
    return times[1:]  # the first one sets up torch


if __name__ == "__main__":
    main()
