"""What a replica is sent of files that grow: the bytes of made-up trials on disk, and by `nas.runs.parts` what that comes to.

    python benchmarks/replica_traffic.py [--space lite0_small] [--trials 10000] [--days 7] [--epochs 10] [--measured 300]

So many `--measured` trials are written by a broker without training; `--trials` of that size come evenly over the `--days`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import optuna
from made_up import made_up, new_run, settings

from nas.runs.layout import STUDY, TRIALS
from nas.runs.parts import Part, Parts, end_of, staying
from nas.runs.replica import EVERY_S
from nas.search.broker import Broker


def bytes_a_trial(space: str, epochs: int, trials: int) -> dict[str, float]:
    """Bytes of each file that grows with every trial."""
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(Path(folder) / "run", settings(space, trials, 1, "random", ("accuracy", "latency")))
        broker = Broker(run)
        while not broker.finished:
            candidate = broker.ask()
            if candidate is not None:
                broker.finish(candidate, made_up(candidate, epochs))
        return {name: (run.path / name).stat().st_size / trials for name in (TRIALS, STUDY)}


@dataclass
class Sent:
    """What a file comes to while it grows: bytes sent, in how many objects, of which at most `most` lay there at once."""

    bytes: int = 0
    objects: int = 0
    most: int = 0


def sent(each: float, trials: int, seconds: float) -> Sent:
    """Of a file to which trials that come evenly add so many bytes each, copied every `EVERY_S`."""
    total, copies = Sent(), int(seconds / EVERY_S)
    parts: Parts = ()
    for copy in range(1, copies + 1):
        end = int(each * (trials * copy // copies))
        if end > end_of(parts):
            kept = staying(parts, end)
            parts = (*kept, Part(end_of(kept), end, b""))
            total.bytes += end - end_of(kept)
            total.objects += 1
            total.most = max(total.most, len(parts))
    return total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="lite0_small")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--measured", type=int, default=300)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    each = bytes_a_trial(given.space, given.epochs, given.measured)
    print(", ".join(f"{name}: {size / 1e3:.1f} kB a trial" for name, size in each.items()))
    final = sum(each.values()) * given.trials
    print(f"{given.trials} trials: {final / 1e6:.0f} MB")
    seconds = given.days * 86_400
    for name, size in each.items():
        comes_to = sent(size, given.trials, seconds)
        print(f"{name}: {comes_to.bytes / 1e9:.3f} GB in {comes_to.objects} objects, at most {comes_to.most} at once")
    print(
        f"both: {sum(sent(size, given.trials, seconds).bytes for size in each.values()) / 1e9:.3f} GB, and {final / 1e9:.3f} at the end"
    )
    print(f"whole every {EVERY_S:.0f} s: {final * seconds / EVERY_S / 2 / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
