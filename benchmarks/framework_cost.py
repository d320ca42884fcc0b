"""What a trial costs beyond its work: seconds a trial that does nothing, here and with Ray Tune's own Optuna searcher.

    python benchmarks/framework_cost.py [--trials 200] [--block 20] [--rounds 1] [--out FILE]
    python benchmarks/framework_cost.py --only ours --trials 5000 [--sampler front] [--epochs 10] [--weights BYTES]
    python benchmarks/framework_cost.py --only ours --slots 64 --seconds 10 --trials 640
    python benchmarks/framework_cost.py --broker-only --trials 10000
    python benchmarks/framework_cost.py --tables FILE

ours      the broker and `run_candidates` as `nas search` has them, all records written, a line of progress a trial
default   Ray's OptunaSearch and a function trainable, everything as Tune has it: a process a trial, its own log files
lean      the same with reuse_actors, no log files, and a study in a journal file
broker    ask and finish alone, without Ray (--broker-only)

Each in a process of its own, one after the other, with a Ray of its own that takes the machine to have `--slots` cores.
Seconds a trial are the time between the last trials of two blocks of `--block` over their number, the median over blocks
but the first one; what comes before the first trial's end is start-up. An evaluator answers at once, or after `--seconds`
spread over `--epochs` steps, and has its driver keep `--weights` bytes. After ours and broker the run directory is opened,
resumed and reported. Windows end at 100, 500, 1000, 2000, 5000, ... trials.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from made_up import made_up, new_run, settings, start_ray_with
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from nas.latency.device import device_name
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.search.ray.artifacts import ArtifactStore
from nas.training.history import EpochMetrics
from nas.views.report import write_report
from nas.views.terminal.progress import LineProgress
from nas.views.terminal.pulse import Pulse

KINDS = ("ours", "default", "lean")
ENDS = (100, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
"""Trials at which a window ends."""
GPUS, CANDIDATES = 100, 10_000
LENGTHS_S = (10, 60, 300, 1800)
"""Of trials, for the last table (docs/results/scale.md)."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--block", type=int, help="trials; by default a tenth of them, 100 at most")
    parser.add_argument("--rounds", type=int, default=1, help="of all kinds, one after the other")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--broker-only", action="store_true")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--objectives", default="accuracy,latency")
    parser.add_argument("--space", default="cifar")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a trial takes")
    parser.add_argument("--epochs", type=int, default=0, help="steps before a trial's end")
    parser.add_argument("--weights", type=int, default=0, help="bytes a trial that are kept in the run directory")
    parser.add_argument("--out", type=Path, help="JSON lines are added to it")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file")
    parser.add_argument("--in-process", choices=(*KINDS, "broker"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_process:
        measured(given)
        return
    if given.tables:
        print_tables(json.loads(line) for line in given.tables.read_text().splitlines())
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = given.out or Path(scratch) / "rows.jsonl"
        before = out.read_text().count("\n") if out.exists() else 0
        for _ in range(given.rounds):
            for kind in ["broker"] if given.broker_only else [given.only] if given.only else KINDS:
                command = [sys.executable, __file__, *sys.argv[1:], "--out", str(out), "--in-process", kind]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print_tables(json.loads(line) for line in out.read_text().splitlines()[before:])


def measured(given: argparse.Namespace) -> None:
    """One kind in this process; a line is added to the file."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="nas-cost-") as scratch:
        found = {"ours": ours, "default": default, "lean": lean, "broker": broker}[given.in_process](
            given, Path(scratch), clock
        )
    marks = clock.marks
    block = given.block or max(1, min(100, given.trials // 10))
    blocks = [(b[0] - a[0]) / block for a, b in zip(marks[block::block], marks[2 * block :: block], strict=False)]
    row: Row = {
        "kind": given.in_process, "trials": len(marks), "sampler": given.sampler, "objectives": given.objectives,
        "space": given.space, "slots": given.slots, "seconds": given.seconds, "epochs": given.epochs,
        "weights": given.weights, "block": block,
        "start_s": marks[0][0] - clock.ready, "seconds_a_trial": statistics.median(blocks) if blocks else None,
        "blocks": [round(seconds, 5) for seconds in blocks], "windows": clock.windows, **found,
        "date": time.strftime("%Y-%m-%d"), "machine": device_name("cpu"), "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0], "python": platform.python_version(),
    }  # fmt: skip
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class Clock:
    """Notes when each trial ended, and what there is at the end of each window."""

    def __init__(self) -> None:
        self.ready = 0.0
        self.marks: list[tuple[float, float]] = []  # wall and CPU seconds of this process, at the end of each trial
        self.windows: list[Row] = []
        self.folder: Path | None = None

    def start(self) -> None:
        """All is there but the search itself."""
        self.ready, self._cpu = time.perf_counter(), time.process_time()

    def tick(self) -> None:
        """A trial ended."""
        self.marks.append((time.perf_counter(), time.process_time()))
        if len(self.marks) in ENDS:
            self._note()

    def end(self) -> None:
        """The search is over."""
        if not self.windows or self.windows[-1]["to"] != len(self.marks):
            self._note()

    def _note(self) -> None:
        count = len(self.marks)
        first = self.windows[-1]["to"] if self.windows else 0
        wall, cpu = self.marks[first - 1] if first else self.marks[0]
        trials = count - (first or 1)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = {p.name: p.stat().st_size for p in sorted(self.folder.glob("*.j*"))} if self.folder else {}
        self.windows.append(
            {"from": first, "to": count, "seconds_a_trial": (self.marks[-1][0] - wall) / max(trials, 1),
             "cpu_a_trial": (self.marks[-1][1] - cpu) / max(trials, 1), "resident_bytes": resident, "file_bytes": files}
        )  # fmt: skip


# ---------------------------------------------------------------- ours


def evaluate(
    candidate: Candidate, seconds: float, epochs: int, weights: bytes, keeper: ArtifactStore | None
) -> Generator[Evaluation, None, Evaluation]:
    """What a worker does: nothing, in so many steps and seconds."""
    whole = made_up(candidate, epochs or candidate.settings.recipe.epochs)
    if keeper is not None:
        keeper.begin(candidate.number, whole.worker)
    for epoch in range(1, epochs + 1):
        time.sleep(seconds / epochs)
        yield replace(whole, outcome=Outcome.STOPPED, history=whole.history[:epoch])
    if not epochs:
        time.sleep(seconds)
    if keeper is not None and weights:
        keeper.save_weights(candidate.digest, weights)
    return whole


def begun(given: argparse.Namespace, scratch: Path, clock: Clock) -> tuple[Broker, LineProgress]:
    """A broker on a new run directory, with the lines of progress that `nas search` prints to a pipe."""
    names = tuple(given.objectives.split(","))
    run = new_run(scratch / "run", settings(given.space, given.trials, given.slots, given.sampler, names))
    clock.folder = run.path
    broker = Broker(run)
    progress = LineProgress(Pulse(Console(file=io.StringIO()), "searching"))
    progress.begin(broker)

    def on_record(record: TrialRecord) -> None:
        progress.record(record)
        if record.counts:
            clock.tick()

    broker.on_record = on_record
    return broker, progress


def ours(given: argparse.Namespace, scratch: Path, clock: Clock) -> Row:
    """A search on Ray."""
    from nas.search.ray.artifacts import keeper_of
    from nas.search.ray.tune import run_candidates

    start_ray_with(given.slots)
    broker, progress = begun(given, scratch, clock)

    def on_epoch(candidate: Candidate, metrics: EpochMetrics) -> None:
        progress.epoch(candidate, metrics)

    with keeper_of(broker.run) as keeper:
        work = functools.partial(
            evaluate, seconds=given.seconds, epochs=given.epochs, weights=os.urandom(given.weights), keeper=keeper
        )
        clock.start()
        run_candidates(Confirmer(broker), lambda: work, on_epoch)
    clock.end()
    return afterwards(broker.run)


def broker(given: argparse.Namespace, scratch: Path, clock: Clock) -> Row:
    """Ask and finish, `--slots` candidates at a time."""
    asked, _ = begun(given, scratch, clock)
    epochs = asked.settings.evaluation.recipe.epochs
    clock.start()
    running: list[Candidate] = []
    while not asked.finished:
        candidate = asked.ask() if len(running) < given.slots else None
        if candidate is not None:
            running.append(candidate)
        else:
            candidate = running.pop(0)
            asked.finish(candidate, made_up(candidate, epochs))
    clock.end()
    return afterwards(asked.run)


def afterwards(run: RunDirectory) -> Row:
    """Seconds to read the records, to start the broker again, and to write the report; and its bytes."""
    path = run.path
    reading = timed(lambda: open_run(path).records())
    resuming = timed(lambda: Broker(open_run(path)))
    reporting = timed(lambda: write_report(open_run(path)))
    return {
        "read_s": reading, "resume_s": resuming, "report_s": reporting,
        "report_bytes": run.report_path.stat().st_size,
    }  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# ---------------------------------------------------------------- Ray's own


def default(given: argparse.Namespace, scratch: Path, clock: Clock) -> Row:
    """Ray's OptunaSearch as it comes."""
    return rays_own(given, scratch, clock, lean=False)


def lean(given: argparse.Namespace, scratch: Path, clock: Clock) -> Row:
    """Ray's OptunaSearch with what makes it quick."""
    return rays_own(given, scratch, clock, lean=True)


def rays_own(given: argparse.Namespace, scratch: Path, clock: Clock, lean: bool) -> Row:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    start_ray_with(given.slots)
    if lean:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    names = given.objectives.split(",")
    space = settings(given.space, given.trials, given.slots, "random", tuple(names)).space
    seconds = given.seconds

    class Ticking(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            clock.tick()

    def train(config: dict[str, Any]) -> dict[str, float]:
        time.sleep(seconds)
        return {name: float(len(str(config))) for name in names}

    clock.start()
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space={name: CategoricalDistribution(choices) for name, choices in space.parameters.items()},
                metric=names,
                mode=["max" if name == "accuracy" else "min" for name in names],
                sampler=optuna.samplers.RandomSampler(0),
                storage=optuna.storages.JournalStorage(JournalFileBackend(str(scratch / "j"))) if lean else None,
            ),
            num_samples=given.trials,
            max_concurrent_trials=given.slots,
            reuse_actors=lean,
        ),
        run_config=tune.RunConfig(storage_path=str(scratch), callbacks=[Ticking()]),
    )
    tuner.fit()
    clock.end()
    return {}


# ---------------------------------------------------------------- tables


def print_tables(rows: Iterable[Row]) -> None:
    """Markdown: a line a run, then the windows of those that are long enough, and what comes after."""
    kept = list(rows)
    print(", ".join(sorted({f"{row['cores']} cores of {row['machine']}, {row['date']}" for row in kept})), end="\n\n")
    print(
        "| kind | sampler | objectives | slots | steps | weights, MB | trials | start-up, s | s a trial, median (range) |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in kept:
        blocks = row["blocks"]
        between = f"{row['seconds_a_trial']:.4f} ({min(blocks):.4f} to {max(blocks):.4f})" if blocks else ""
        print(
            f"| {row['kind']} | {row['sampler']} | {row['objectives']} | {row['slots']} | {row['epochs']} "
            f"| {row['weights'] / 1e6:g} | {row['trials']} | {row['start_s']:.1f} | {between} |"
        )
    for row in kept:
        if len(row["windows"]) < 2:
            continue
        print(f"\n{row['kind']}, sampler {row['sampler']}, {row['objectives']}, {row['slots']} slots\n")
        print("| trials | s a trial | driver CPU s a trial | resident MB | trials.jsonl MB | study.journal MB |")
        print("|---|---|---|---|---|---|")
        for window in row["windows"]:
            sizes = [window["file_bytes"].get(name, 0) / 1e6 for name in ("trials.jsonl", "study.journal")]
            print(
                f"| {window['from']} to {window['to']} | {window['seconds_a_trial']:.4f} | {window['cpu_a_trial']:.4f} "
                f"| {window['resident_bytes'] / 1e6:.0f} | {sizes[0]:.1f} | {sizes[1]:.1f} |"
            )
        if "read_s" in row:
            print(
                f"\nafter {row['trials']} trials: records read in {row['read_s']:.1f} s, broker started again in "
                f"{row['resume_s']:.1f} s, report written in {row['report_s']:.1f} s, {row['report_bytes'] / 1e6:.1f} MB"
            )
            if not row["seconds"]:
                print_scale(row)


def print_scale(row: Row) -> None:
    """What the last window says of `GPUS` slots that are always full, by the length of a trial."""
    last = row["windows"][-1]
    size = sum(last["file_bytes"].values()) / last["to"]
    print(f"\n{GPUS} slots: {size / 1e3:.1f} kB a trial on disk, {size * CANDIDATES / 1e6:.0f} MB for {CANDIDATES:,}\n")
    print("| a trial takes, s | trials that end a second | driver busy, of one core | search takes, h |")
    print("|---|---|---|---|")
    for length in LENGTHS_S:
        rate = GPUS / length
        print(f"| {length} | {rate:.2f} | {100 * rate * last['cpu_a_trial']:.1f} % | {CANDIDATES / rate / 3600:.1f} |")
    least, most = GPUS * last["cpu_a_trial"], GPUS * last["seconds_a_trial"]
    print(
        f"\n{GPUS} slots are kept busy by trials of {most:.1f} s or more; of {least:.1f} s, did the driver never wait"
    )


if __name__ == "__main__":
    main()
