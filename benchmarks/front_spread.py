"""Do the ends of the front differ by more than chance? The default search over three seeds, a line each.

    python benchmarks/front_spread.py [--seeds 3] [--out FOLDER]

For each seed: wall time, size of the front, its fastest and most accurate member, and by how many standard errors
the two differ in accuracy (binomial, both members) and in latency (of the medians: 1.2533 * IQR / 1.349 / sqrt(n),
the asymptotic standard error of a median of a normal sample whose spread is the interquartile range).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nas.device import device_name
from nas.front import pareto_front, pick
from nas.record import Latency, TrialRecord
from nas.run import RunDirectory, open_run
from nas.show import standard_error


def median_error_ms(latency: Latency) -> float:
    """Standard error of a median latency in ms, from its spread and the number of blocks."""
    return 1.2533 * latency.spread * latency.median_ms / 1.349 / math.sqrt(latency.blocks)


def differences(run: RunDirectory, fast: TrialRecord, accurate: TrialRecord) -> tuple[float, float]:
    """Differences of the two members in accuracy and latency, in standard errors."""
    count = run.provenance.validation_images
    a, b = accurate.objectives["accuracy"], fast.objectives["accuracy"]
    accuracy = (a - b) / math.hypot(standard_error(a, count), standard_error(b, count))
    slow, quick = accurate.evaluation.latency, fast.evaluation.latency
    assert slow is not None
    assert quick is not None
    return accuracy, (slow.median_ms - quick.median_ms) / math.hypot(median_error_ms(slow), median_error_ms(quick))


def main() -> None:
    """Run the searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="front-spread-"))
    print(f"{time.strftime('%Y-%m-%d')}, {device_name('cpu')}; runs in {out}")
    print("seed  wall s  front  fastest: accuracy, ms     most accurate: accuracy, ms  differ by (standard errors)")
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        command = [sys.executable, "-m", "nas.cli", "search", "--seed", str(seed), "--out", str(out / f"seed-{seed}")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        run = open_run(out / f"seed-{seed}")
        records, objectives = run.records(), run.settings.objectives
        fast, accurate = pick(records, objectives, "fastest"), pick(records, objectives, "most-accurate")
        accuracy, latency = differences(run, fast, accurate)
        ends = [f"{100 * r.objectives['accuracy']:.2f} %, {r.objectives['latency']:.3f} ms" for r in (fast, accurate)]
        members = len(pareto_front(records, objectives))
        print(
            f"{seed:4}  {wall:6.0f}  {members:5}  {ends[0]:25}  {ends[1]:27}  accuracy {accuracy:.1f}, latency {latency:.0f}"
        )


if __name__ == "__main__":
    main()
