"""What a replica is sent of files that grow: the bytes of made-up trials on disk, and by the interval of copies what that comes to.

    python benchmarks/replica_traffic.py [--space lite0_small] [--trials 10000] [--days 7] [--epochs 10] [--measured 300]

So many `--measured` trials are written by a broker without training; `--trials` of that size come evenly over the `--days`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
from made_up import made_up, new_run, settings

from nas.runs.layout import STUDY, TRIALS
from nas.runs.replica import EVERY_S, interval_s
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


def sent(final: float, seconds: float, interval: Callable[[int], float]) -> tuple[float, int]:
    """Bytes sent, and in how many copies, while files grow evenly to `final` bytes."""
    now, total, copies = 0.0, 0.0, 0
    while now < seconds:
        size = final * now / seconds
        now, total, copies = now + interval(int(size)), total + size, copies + 1
    return total, copies


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
    print(f"{given.trials} trials: {final / 1e6:.0f} MB, copied every {interval_s(int(final)):.0f} s by then")
    for name, interval in (("as it is", interval_s), (f"every {EVERY_S:.0f} s", lambda size: EVERY_S)):
        total, copies = sent(final, given.days * 86_400, interval)
        print(f"{name}: {total / 1e9:.1f} GB in {copies} copies")


if __name__ == "__main__":
    main()
