"""Which estimator of a CPU's latency repeats best on a shared machine.

    python benchmarks/latency_noise.py [--space cifar] [--networks 12] [--processes 10] [--load 0,2,6] [--out FILE]
    python benchmarks/latency_noise.py --read FILE [FILE ...]

The same networks are timed in so many fresh processes while so many other processes compute (half of them spin in Python,
half multiply matrices). In each process every network is timed twice over: all its blocks in one go, as a search
times its candidates, and a few blocks at a time in turn with the others. Each block is timed by the wall clock and by the process's own
CPU time; the file keeps both.

The table says of each estimator how far it spreads over the processes, and how well one process's order of the networks agrees with
the order without load: Kendall's tau-b against the median over the processes without load, of the same estimator and of the
median wall time. `smallest pair` is the share of processes that put neighbours whose truths differ by 3 to 15 % the right way round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 10
BLOCK_MS = 1.0
WARM_UP_S, ONE_GO_S, ROUNDS, ROUND_BLOCKS = 0.1, 0.4, 12, 12
ESTIMATORS: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "lower quartile": lambda values: float(np.percentile(values, 25)),
    "p10": lambda values: float(np.percentile(values, 10)),
    "minimum": min,
}


def spin() -> None:
    """Compute until killed."""
    while True:
        sum(range(10_000))


def multiply() -> None:
    """The same, with matrices that fill a core's cache."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    left = np.random.default_rng(0).normal(size=(400, 400))
    while True:
        left = left @ left / 400


@contextmanager
def other_processes(count: int) -> Iterator[None]:
    """So many processes compute meanwhile."""
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=(spin, multiply)[n % 2], daemon=True) for n in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def time_networks(space_name: str, count: int) -> list[dict[str, Any]]:
    """In this process: the wall and CPU times in ms a run of every block, of `count` candidates of the space."""
    import torch

    from nas.latency import fold_batch_norm
    from nas.model import build
    from nas.space_file import load_space

    torch.set_num_threads(1)
    space, rng = load_space(space_name), random.Random(7)
    runs = []
    for _ in range(count):
        architecture = space.architecture(space.sample(rng))
        network = build(architecture, CLASSES).eval().requires_grad_(False)
        fold_batch_norm(network)
        network = network.to(memory_format=torch.channels_last)
        image = torch.randn(1, *architecture.input_shape).to(memory_format=torch.channels_last)
        runs.append((str(architecture), network, image))

    def block(network: Any, image: Any, repeats: int) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            network(image)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall * 1e3 / repeats, cpu * 1e3 / repeats

    print("ready", flush=True)
    sys.stdin.readline()
    found = []
    repeats: dict[str, int] = {}
    with torch.inference_mode():
        for text, network, image in runs:
            end, best = time.perf_counter() + WARM_UP_S, float("inf")
            while time.perf_counter() < end:
                best = min(best, block(network, image, 1)[0])
            repeats[text] = max(1, round(BLOCK_MS / best))
            blocks, end = [], time.perf_counter() + ONE_GO_S
            while time.perf_counter() < end:
                blocks.append(block(network, image, repeats[text]))
            found.append({"network": text, "way": "in one go", "blocks": blocks})
        in_turn: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(ROUNDS):
            for text, network, image in runs:
                block(network, image, repeats[text])  # what another network left in the caches
                in_turn[text] += [block(network, image, repeats[text]) for _ in range(ROUND_BLOCKS)]
        found += [{"network": text, "way": "in turn", "blocks": blocks} for text, blocks in in_turn.items()]
    return [row | {"blocks": [[round(v, 5) for v in pair] for pair in row["blocks"]]} for row in found]


def measure_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every process under every load; loads take turns, so that a busy hour meets all of them."""
    rows: list[dict[str, Any]] = []
    for process in range(arguments.processes):
        for load in arguments.load:
            command = [sys.executable, __file__, "--space", arguments.space, "--networks", str(arguments.networks)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            with subprocess.Popen([*command, "--once"], **pipes) as child:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdout.readline()  # its networks are built: nothing but the timing is under load
                with other_processes(load):
                    answer, _ = child.communicate("go\n")
            own = [{"load": load, "process": process, **row} for row in json.loads(answer)]
            rows += own
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in own)
            print(f"process {process}, load {load}: done", file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    """Spread and agreement of each estimator under each load."""
    from scipy.stats import kendalltau

    values: dict[tuple[str, str, int], dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for clock, name in enumerate(("wall", "process")):
            times = [pair[clock] for pair in row["blocks"]]
            for estimator, estimate in ESTIMATORS.items():
                key = f"{estimator}, {name}", row["way"], row["load"]
                values[key][row["process"]][row["network"]] = estimate(times)
    loads = sorted({row["load"] for row in rows})
    networks = sorted({row["network"] for row in rows})

    def truth(name: str, way: str) -> list[float]:
        quiet = values[name, way, loads[0]]
        return [statistics.median(of[n] for of in quiet.values()) for n in networks]

    order = truth("median, wall", "in one go")
    print(
        "| estimator | way | load | spread of one network: IQR / median, (max − min) / median | τ own | τ wall | near pairs right |"
    )
    print("|---|---|---|---|---|---|---|")
    for (name, way, load), by_process in sorted(values.items(), key=lambda item: (item[0][2], item[0][1], item[0][0])):
        own = truth(name, way)
        iqr, whole = [], []
        for network in networks:
            seen = [of[network] for of in by_process.values()]
            low, middle, high = np.percentile(seen, [25, 50, 75])
            iqr.append((high - low) / middle)
            whole.append((max(seen) - min(seen)) / middle)
        found = [[of[n] for n in networks] for of in by_process.values()]
        pairs = [
            (a, b) for a in range(len(networks)) for b in range(len(networks)) if 1.03 <= order[b] / order[a] <= 1.15
        ]
        right = [of[a] < of[b] for of in found for a, b in pairs]
        print(
            f"| {name} | {way} | {load} | {statistics.median(iqr):.1%}, {statistics.median(whole):.1%} | "
            f"{statistics.fmean(kendalltau(of, own).statistic for of in found):.3f} | "
            f"{statistics.fmean(kendalltau(of, order).statistic for of in found):.3f} | {statistics.fmean(right):.0%} of {len(right)} |"
        )


def main() -> None:
    """Measure, or read what was measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="cifar")
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--load", type=lambda text: [int(part) for part in text.split(",")], default=[0, 2, 6])
    parser.add_argument("--out", type=Path, help="append each row to this file")
    parser.add_argument("--read", type=Path, nargs="+", help="print the table of such files")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(time_networks(arguments.space, arguments.networks)))
        return
    if arguments.read:
        rows = [json.loads(line) for file in arguments.read for line in file.read_text(encoding="utf-8").splitlines()]
    else:
        rows = measure_all(arguments)
    table(rows)


if __name__ == "__main__":
    main()
