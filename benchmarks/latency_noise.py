"""Which estimator of a CPU's latency repeats best on a shared machine.

    python benchmarks/latency_noise.py [--space cifar] [--networks 12] [--processes 10] [--load 0,2,6] [--out FILE]
    python benchmarks/latency_noise.py --read FILE [FILE ...]

The same networks are timed in so many fresh processes while so many other processes compute (half of them spin in Python,
half multiply matrices). In each process every network is timed twice over: all its blocks in one go, as a search
times its candidates, and a few blocks at a time in turn with the others. Each block is timed by the wall clock and by the process's own
CPU time; the file keeps both.

The first table says of each estimator, by load: how far it spreads over the processes (interquartile range over median, the
median over the networks); its level, as a multiple of what it is without load; how well one process's order of the networks agrees
with that of the medians over the processes without load (Kendall's tau-b); and the share of neighbours, which differ by 3 to 15 %,
that one process puts the right way round. The second says how often `nas.latency.compare` finds that two networks differ.
"""

from __future__ import annotations

import argparse
import itertools
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

    from nas.latency.folding import fold_batch_norm
    from nas.models.networks import build
    from nas.spaces.files import load_space

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
    """Spread, level and agreement of each estimator under each load."""
    from scipy.stats import kendalltau

    values: dict[tuple[str, str, int], dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for clock, name in enumerate(("wall", "process")):
            times = [pair[clock] for pair in row["blocks"]]
            for estimator, estimate in ESTIMATORS.items():
                values[f"{estimator}, {name}", row["way"], row["load"]][row["process"]][row["network"]] = estimate(
                    times
                )
    loads = sorted({row["load"] for row in rows})
    networks = sorted({row["network"] for row in rows})
    print("| estimator | way |" + "".join(f" load {load}: spread, level, τ, near pairs |" for load in loads))
    print("|---|---|" + "---|" * len(loads))
    for name, way in sorted({(name, way) for name, way, _ in values}, key=lambda each: (each[1], each[0])):
        quiet = values[name, way, loads[0]].values()
        truth = {network: statistics.median(of[network] for of in quiet) for network in networks}
        near = [(a, b) for a in networks for b in networks if 1.03 <= truth[b] / truth[a] <= 1.15]
        cells = []
        for load in loads:
            found = list(values[name, way, load].values())
            quartiles = [np.percentile([of[n] for of in found], [25, 50, 75]) for n in networks]
            spread = statistics.median((high - low) / middle for low, middle, high in quartiles)
            level = statistics.median(of[n] / truth[n] for of in found for n in networks)
            order = [truth[n] for n in networks]
            tau = statistics.fmean(kendalltau([of[n] for n in networks], order).statistic for of in found)
            right = statistics.fmean(of[a] < of[b] for of in found for a, b in near)
            cells.append(f"{100 * spread:.0f} %, {level:.2f}, {tau:.2f}, {100 * right:.0f} %")
        print(f"| {name} | {way} | {' | '.join(cells)} |")


def verdicts(rows: list[dict[str, Any]]) -> None:
    """How often nas says that two of the networks differ, and how often the wrong way round, by what they truly differ."""
    from nas.latency.compare import differ
    from nas.latency.estimate import Times, estimate
    from nas.latency.protocol import default_protocol
    from nas.latency.result import Latency

    protocol = default_protocol("cpu")

    def latency(row: dict[str, Any]) -> Latency:
        in_turn = row["way"] == "in turn"
        wall, process = np.array(row["blocks"]).T
        shape = (-1, ROUND_BLOCKS) if in_turn else (-1,)
        found = estimate(Times(wall.reshape(shape), process.reshape(shape)), protocol)
        return Latency(
            found.ms, found.ms, found.ms, 0.0, wall.size, 1, False, False, 0.0, True, "", (1, 3, 32, 32), protocol,
            process_p25_ms=found.ms, estimator=found.estimator, interval_ms=found.interval_ms, rounds_ms=found.rounds_ms,
            session=f"{row['load']}-{row['process']}" if in_turn else "",
        )  # fmt: skip

    together: dict[tuple[str, int, int], dict[str, Latency]] = defaultdict(dict)
    for row in rows:
        together[row["way"], row["load"], row["process"]][row["network"]] = latency(row)
    networks = sorted({row["network"] for row in rows})
    levels = {key: statistics.median(each.ms for each in of.values()) for key, of in together.items()}
    truth = {
        network: statistics.median(of[network].ms / levels[key] for key, of in together.items() if key[0] == "in turn")
        for network in networks
    }
    counts: dict[tuple[str, int, int], list[tuple[bool, bool]]] = defaultdict(list)
    for (way, load, _), of in together.items():
        for a, b in itertools.combinations(networks, 2):
            apart = truth[a] / truth[b] - 1
            told = differ(of[a], of[b]) is True
            size = sum(abs(apart) > limit for limit in (0.03, 0.1))
            counts[way, load, size].append((told, told and (of[a].ms > of[b].ms) != (apart > 0)))
    print("| way | load | truly up to 3 %: said to differ, wrongly ordered | 3 to 10 % | over 10 % |")
    print("|---|---|---|---|---|")
    for way, load in sorted({key[:2] for key in counts}):
        cells = [counts[way, load, size] for size in range(3)]
        shares = [[100 * statistics.fmean(flags) for flags in zip(*cell, strict=True)] for cell in cells]
        texts = [
            f"{told:.0f} %, {wrong:.0f} % of {len(cell)}" for (told, wrong), cell in zip(shares, cells, strict=True)
        ]
        print(f"| {way} | {load} | {' | '.join(texts)} |")


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
    print()
    verdicts(rows)


if __name__ == "__main__":
    main()
