"""How far a measured latency can be trusted: repetitions in fresh processes, ranks by mode, ranks by MACs.

    python benchmarks/latency_protocol.py [--space lite0_small] [--device cpu] [--repeats 10] [--candidates 50] [--out FILE]

Stability: three networks of the space, each measured in so many fresh processes, the networks in turn; the spread of the
medians says how far one number repeats. Ranks: random candidates measured in each mode, one mode after the other for
each candidate; Spearman's correlation of the modes with each other and of MACs with each. The latency cache is not used.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from nas.latency.device import device_name
from nas.latency.measuring import measure
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture
from nas.workflows.fidelity.agreement import spearman

CLASSES = 10


def measured(architecture: Architecture, protocol: LatencyProtocol) -> Latency:
    """Latency of a candidate with fresh weights."""
    return measure(build(architecture, CLASSES), architecture.input_shape, protocol)


def in_fresh_process(arguments: argparse.Namespace, reference: str, mode: str) -> dict[str, float]:
    """The same, of a reference network of the space, in a process of its own."""
    command = [sys.executable, __file__, "--space", arguments.space, "--device", arguments.device]
    done = subprocess.run([*command, "--only", reference, mode], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def stability(arguments: argparse.Namespace, modes: list[str], out: TextIO | None) -> None:
    """A table of the medians' spread over fresh processes."""
    print(
        f"\n| network | mode | median ms | range of {arguments.repeats} medians | (max − min) / median | noisy | contended |"
    )
    print("|---|---|---|---|---|---|---|")
    references = ("smallest", "backbone", "largest")
    found: dict[tuple[str, str], list[dict[str, float]]] = {(name, mode): [] for mode in modes for name in references}
    for _ in range(arguments.repeats):
        for (name, mode), repeats in found.items():
            repeats.append(in_fresh_process(arguments, name, mode))
            write(out, {"part": "stability", "network": name, "mode": mode, **repeats[-1]})
    for (name, mode), repeats in found.items():
        ms = sorted(one["median_ms"] for one in repeats)
        middle = statistics.median(ms)
        noisy, contended = (sum(bool(one[key]) for one in repeats) for key in ("noisy", "contended"))
        print(
            f"| {name} | {mode} | {middle:.3f} | {ms[0]:.3f} to {ms[-1]:.3f} | {100 * (ms[-1] - ms[0]) / middle:.1f} % "
            f"| {noisy} | {contended} |"
        )


def ranks(arguments: argparse.Namespace, modes: list[str], out: TextIO | None) -> None:
    """Rank correlations over random candidates."""
    space, rng = load_space(arguments.space), random.Random(0)
    candidates = [space.architecture(space.sample(rng)) for _ in range(arguments.candidates)]
    macs = [architecture_cost(candidate, CLASSES).macs for candidate in candidates]
    columns: dict[str, list[float]] = {mode: [] for mode in modes}
    for candidate, count in zip(candidates, macs, strict=True):
        for mode in modes:
            latency = measured(candidate, replace(default_protocol(arguments.device), mode=mode))
            columns[mode].append(latency.median_ms)
            row = {"median_ms": latency.median_ms, "noisy": latency.noisy, "contended": latency.contended}
            write(out, {"part": "ranks", "network": str(candidate.canonical), "mode": mode, "macs": count, **row})
    print(f"\nSpearman's rank correlation over {len(candidates)} random candidates:\n")
    print(f"| | MACs | {' | '.join(modes)} |\n|---|---|{'---|' * len(modes)}")
    for mode in modes:
        cells = [f"{spearman(columns[mode], other):.3f}" for other in (macs, *(columns[other] for other in modes))]
        print(f"| {mode} | {' | '.join(cells)} |")


def write(out: TextIO | None, row: dict[str, object]) -> None:
    """Keep a measurement."""
    if out is not None:
        out.write(json.dumps(row) + "\n")
        out.flush()


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="lite0_small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--modes", help="by default eager,onnxruntime on the CPU and eager,cudagraph,compile on a GPU")
    parser.add_argument("--out", type=Path, help="a file for every measurement, as JSON lines")
    parser.add_argument(
        "--only", nargs=2, metavar=("LANDMARK", "MODE"), help="one measurement in this process, as JSON"
    )
    arguments = parser.parse_args()
    if arguments.only:
        reference, mode = arguments.only
        architecture = getattr(load_space(arguments.space), reference)
        latency = measured(architecture, replace(default_protocol(arguments.device), mode=mode))
        row = {"median_ms": latency.median_ms, "spread": latency.spread, "drift": latency.drift}
        print(json.dumps(row | {"noisy": latency.noisy, "contended": latency.contended, "attempts": latency.attempts}))
        return
    default = "eager,onnxruntime" if arguments.device == "cpu" else "eager,cudagraph,compile"
    modes = (arguments.modes or default).split(",")
    print(f"{time.strftime('%Y-%m-%d')}, {device_name(arguments.device)}, space {arguments.space}, batch 1, float32")
    out = arguments.out.open("w", encoding="utf-8") if arguments.out else None
    stability(arguments, modes, out)
    ranks(arguments, modes, out)


if __name__ == "__main__":
    main()
