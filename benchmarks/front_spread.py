"""Do the ends of the front differ by more than chance? The default search over three seeds, a line each.

    python benchmarks/front_spread.py [--seeds 3] [--rounds 20] [--out FOLDER]

For each seed: wall time, size of the front, its fastest and most accurate member, and by how many standard errors
the two differ. In accuracy the error is binomial, of both members. In latency both members are measured again
after the search, in turn, each time on a network built again: the error is that of the mean over these measurements,
since blocks of one measurement are not independent on a shared machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nas.latency.device import device_name
from nas.latency.measuring import measure
from nas.latency.protocol import default_protocol
from nas.models.networks import build
from nas.runs.front import pareto_front
from nas.runs.picks import pick
from nas.runs.record import TrialRecord
from nas.runs.store import RunDirectory, open_run
from nas.runs.words import standard_error


def measured_again(record: TrialRecord, classes: int) -> float:
    """The candidate's latency in ms, measured once more."""
    network = build(record.architecture, classes)
    return measure(network, record.architecture.input_shape, default_protocol("cpu")).median_ms


def differences(run: RunDirectory, fast: TrialRecord, accurate: TrialRecord, rounds: int) -> tuple[float, float]:
    """Differences of the two members in accuracy and latency, in standard errors."""
    count, classes = run.provenance.validation_images, len(run.provenance.classes)
    a, b = accurate.objectives["accuracy"], fast.objectives["accuracy"]
    errors = [standard_error(share, "accuracy", count) or 0.0 for share in (a, b)]
    accuracy = (a - b) / math.hypot(*errors)
    pairs = [(measured_again(accurate, classes), measured_again(fast, classes)) for _ in range(rounds)]
    slow, quick = zip(*pairs, strict=True)
    error = math.hypot(statistics.stdev(slow), statistics.stdev(quick)) / math.sqrt(rounds)
    return accuracy, (statistics.mean(slow) - statistics.mean(quick)) / error


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each member after the search")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="front-spread-"))
    print(f"{time.strftime('%Y-%m-%d')}, {device_name('cpu')}; runs in {out}")
    print("seed  wall s  front  fastest: accuracy, ms     most accurate: accuracy, ms  differ by (standard errors)")
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "nas.cli",
            "search",
            "--seed",
            str(seed),
            "--out",
            str(out / f"seed-{seed}"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        run = open_run(out / f"seed-{seed}")
        records, objectives = run.records(), run.settings.objectives
        fast, accurate = pick(records, objectives, "fastest"), pick(records, objectives, "most-accurate")
        accuracy, latency = differences(run, fast, accurate, arguments.rounds)
        ends = [f"{100 * r.objectives['accuracy']:.2f} %, {r.objectives['latency']:.3f} ms" for r in (fast, accurate)]
        members = len(pareto_front(records, objectives))
        print(
            f"{seed:4}  {wall:6.0f}  {members:5}  {ends[0]:25}  {ends[1]:27}  accuracy {accuracy:.1f}, latency {latency:.1f}"
        )


if __name__ == "__main__":
    main()
