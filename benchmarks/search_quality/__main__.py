"""How good a front searches find in how many trials: the yard-stick of the sampler (docs/results/search.md has its tables).

    python benchmarks/search_quality [--problems macs,params] [--methods front,random] [--seeds 10] [--trials 400]
        [--workers 1,8,32] [--shard 0/2] [--out FILE]
    python benchmarks/search_quality --tables FILE...

Without --problems and --methods the whole yard-stick is run: five variants of NAS-Bench-Macro, every peer, with and
without a cache of repeats. A run that the file has already is not run again. pymoo and BoTorch are left out, and that
is said, where they are not installed; GPSampler and BoTorch, dear to ask, get `--dear-seeds`, and 200 and 100 trials.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import torch
from methods import DEAR, METHODS
from problems import PROBLEMS, YARDSTICK
from simulate import run
from tables import print_tables

from nas.latency.device import device_name

NEVER_REPEAT = ("front, told costs", "mutation", *DEAR)
NEEDS = {"pymoo nsga2": "pymoo", "botorch": "botorch", "gp": "scipy"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default=",".join(YARDSTICK), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--methods", default=";".join(METHODS), help=f"by semicolons, of {'; '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--dear-seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--cache", choices=("yes", "no", "both"), default="both", help="answer repeats for free")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--out", type=Path, default=Path("search_quality.jsonl"))
    parser.add_argument("--tables", type=Path, nargs="+", help="print the tables of such files, taken together")
    return parser.parse_args()


def tasks(given: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be run, seed by seed, so that a run cut short has pairs."""
    methods = []
    for method in given.methods.split(";"):
        if method in NEEDS and importlib.util.find_spec(NEEDS[method]) is None:
            print(f"left out: {method}, as {NEEDS[method]} is not installed")
        else:
            methods.append(method)
    found = []
    for seed in range(given.seeds):
        for problem in given.problems.split(","):
            for workers in map(int, given.workers.split(",")):
                for method in methods:
                    if method in DEAR and (seed >= given.dear_seeds or workers > 1):
                        continue
                    # What never repeats, or is too slow to run twice, runs once.
                    wanted = {"yes": [True], "no": [False], "both": [True, False]}[given.cache]
                    for cache in wanted[:1] if method in NEVER_REPEAT else wanted:
                        found.append(
                            {
                                "problem": problem,
                                "method": method,
                                "workers": workers,
                                "cache": cache,
                                "seed": seed,
                                "trials": min(given.trials, DEAR.get(method, given.trials)),
                            }
                        )
    return found


def main() -> None:
    given = arguments()
    if given.tables:
        print_tables([json.loads(line) for file in given.tables for line in file.read_text().splitlines()])
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    index, shards = map(int, given.shard.split("/"))
    problems = {name: PROBLEMS[name]() for name in given.problems.split(",")}
    for task in tasks(given)[index::shards]:
        if any(task.items() <= line.items() for line in known):
            continue
        result = run(
            problems[task["problem"]], task["method"], task["seed"], task["trials"], task["workers"], task["cache"]
        )
        line = task | {
            "scores": {n: {box: round(v, 3) for box, v in boxes.items()} for n, boxes in result.scores.items()},
            "cpu_ms": round(result.cpu_ms, 2),
            "repeats": round(result.repeats, 4),
            "date": time.strftime("%Y-%m-%d"),
            "machine": device_name("cpu"),
        }
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
