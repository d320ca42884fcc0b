"""Does the device lease keep latency what it is on an idle device, and what does it cost the training?

    python benchmarks/device_lease.py [--data FOLDER] [--device cpu] [--rounds 20] [--trainers 2 3] [--threads 1]
        [--out ROUNDS.jsonl] [--part latency] [--part cost]

`latency`: one network (EfficientNet-Lite0 at 96x96, batch 1) is measured by `nas.measure` idle, beside N processes that
run `nas.training.loop` without the lease, and beside the same processes with it. The conditions take turns within a round,
each round starting with another one. The processes train Lite0 at 48x48 as a trial of a search does, at the niceness
of the measurement (the workers of a search, which do both, all have Ray's, 15); they start once, and those that take
no part in a condition stand still between two bursts, holding nothing. Ratios are to the idle measurement of the same
round; intervals are bootstrapped over rounds.

`cost`: images a second of `nas.training.loop` in one process with the lease over those without it, nobody measuring, on the
backbone of digits at 8x8 (steps of a few ms) and on Lite0 at 48x48.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.latency.lease import DeviceLease, lease_for
from nas.latency.measuring import measure
from nas.latency.protocol import default_protocol
from nas.models.networks import build
from nas.spaces.files import load_space
from nas.tasks.classification_metrics import METRICS
from nas.training.allocator import own_process
from nas.training.device_data import DeviceData
from nas.training.loop import finetune
from nas.training.recipe import Recipe

SIDE = 96
"""Of the measured network's images: about 3 ms on one core."""
TRAIN_SIDE = 48
WINDOW_S = 3.0
"""How long trainers run before each measurement, counted for their throughput."""


@dataclass(frozen=True, kw_only=True)
class Switched(DeviceLease):
    """What a trainer takes for the lease: it stands still while `go` is not set, and takes the lease if `leased` is."""

    go: Event
    leased: Event
    busy: Any

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A burst; `busy` says that one is on or awaited."""
        self.busy.value = 1
        while not self.go.is_set():
            self.busy.value = 0
            self.go.wait()
            self.busy.value = 1
        try:
            if self.leased.is_set():
                with DeviceLease.shared(self):
                    yield
            else:
                yield
        finally:
            self.busy.value = 0


def device_data(arguments: argparse.Namespace, validation: int) -> DeviceData:
    """2,000 training images and so many for validation, on the device."""
    loaded = load_data(arguments.data, size=TRAIN_SIDE).without_test()
    rows = torch.randperm(len(loaded.train), generator=torch.Generator().manual_seed(0))[:2000].numpy()
    held_out = loaded.validation.subset(np.arange(min(validation, len(loaded.validation))))
    return DeviceData(replace(loaded, train=loaded.train.subset(rows), validation=held_out), arguments.device)


def train(arguments: argparse.Namespace, lease: Switched, steps: Any) -> None:
    """Fine-tune for ever, counting steps."""
    own_process()
    torch.set_num_threads(arguments.threads)
    data = device_data(arguments, 1000)
    network = build(load_space("lite0_small").backbone, len(data.data.classes))

    def count(module: nn.Module, *_: object) -> None:
        steps.value += module.training

    network.register_forward_hook(count)
    for _ in finetune(network, data, TRAIN_SIDE, Recipe(epochs=10**6), METRICS["accuracy"], seed=0, lease=lease):
        pass


class Trainer:
    """A process that fine-tunes, seen from the benchmark."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.lease = Switched(
            key=lease_for(arguments.device).key,
            go=context.Event(),
            leased=context.Event(),
            busy=context.RawValue("i"),
        )
        self.counted = context.RawValue("q")
        process = context.Process(target=train, args=(arguments, self.lease, self.counted), daemon=True)
        process.start()
        self.process: BaseProcess = process

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for it; raises when the process ends instead."""
        while not reached():
            if not self.process.is_alive():
                raise SystemExit(f"a trainer ended with exit code {self.process.exitcode}")
            time.sleep(0.01)

    def run(self, leased: bool) -> None:
        """Train on."""
        (self.lease.leased.set if leased else self.lease.leased.clear)()
        self.lease.go.set()

    def stand_still(self) -> None:
        """Return once its burst is over."""
        self.lease.go.clear()
        self.until(lambda: not self.lease.busy.value)


def cpu_seconds(pids: Sequence[int]) -> tuple[float, float]:
    """Seconds that all processes, and that these ones, have used the machine's cores."""
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return (user + nice + system) / tick, sum(int(f[11]) + int(f[12]) for f in fields) / tick


def latency_rounds(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record for each condition of each round."""
    trainers = [Trainer(arguments) for _ in range(max(arguments.trainers))]
    pids = [os.getpid(), *(trainer.process.pid or 0 for trainer in trainers)]
    for trainer in trainers:
        trainer.run(leased=False)
    for trainer in trainers:
        trainer.until(lambda trainer=trainer: trainer.counted.value >= 3)
    network = build(replace(load_space("lite0").backbone, input_size=SIDE), 1000)
    protocol = replace(default_protocol(arguments.device), threads=arguments.threads)
    conditions = [(0, False), *((count, leased) for count in arguments.trainers for leased in (False, True))]
    for number in range(arguments.rounds):
        turn = number % len(conditions)
        for count, leased in conditions[turn:] + conditions[:turn]:
            for trainer in trainers:
                trainer.stand_still()
            for trainer in trainers[:count]:
                trainer.run(leased)
            before = sum(trainer.counted.value for trainer in trainers)
            start = time.perf_counter()
            time.sleep(WINDOW_S if count else 0.2)
            steps = sum(trainer.counted.value for trainer in trainers) - before
            pace = steps * Recipe().batch_size / (time.perf_counter() - start)
            cpu, start = cpu_seconds(pids), time.perf_counter()
            measured = measure(network, (3, SIDE, SIDE), protocol)
            seconds = time.perf_counter() - start
            all_used, ours_used = (b - a for a, b in zip(cpu, cpu_seconds(pids), strict=True))
            yield {
                "round": number,
                "trainers": count,
                "leased": leased,
                "median_ms": measured.median_ms,
                "p10_ms": measured.p10_ms,
                "p90_ms": measured.p90_ms,
                "spread": measured.spread,
                "noisy": measured.noisy,
                "contended": measured.contended,
                "waited_s": measured.waited_s,
                "images_per_s": pace,
                "cores_used_by_others": max(0.0, all_used - ours_used) / seconds,
            }


def interval(values: Sequence[float]) -> str:
    """Median, 95 % interval of it (bootstrap, 10,000 draws), least and largest."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{np.median(values):.3f} ({low:.3f} to {high:.3f}) | {min(values):.3f} to {max(values):.3f}"


def latency(arguments: argparse.Namespace) -> None:
    """The table of conditions."""
    rows = []
    for row in latency_rounds(arguments):
        rows.append(row)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The conditions of whole rounds as Markdown, a line each."""
    lines = [
        "| beside it | latency, ms (range) | over idle of the round (95 %) | least and largest "
        "| waited, s: median, most | noisy | contended | trainers' images/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    idle = {row["round"]: row["median_ms"] for row in rows if not row["trainers"]}
    for count, leased in sorted({(row["trainers"], row["leased"]) for row in rows}):
        chosen = [row for row in rows if (row["trainers"], row["leased"]) == (count, leased)]
        times, waits = [row["median_ms"] for row in chosen], [row["waited_s"] for row in chosen]
        name = f"{count} trainers, {'with the lease' if leased else 'without it'}" if count else "nothing"
        lines.append(
            f"| {name} | {np.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) "
            f"| {interval([row['median_ms'] / idle[row['round']] for row in chosen])} "
            f"| {np.median(waits):.2f}, {max(waits):.2f} "
            f"| {sum(row['noisy'] for row in chosen)} of {len(chosen)} | {sum(row['contended'] for row in chosen)} "
            f"| {np.mean([row['images_per_s'] for row in chosen]):,.0f} |"
        )
    others = [row["cores_used_by_others"] for row in rows]
    return "\n".join(
        [*lines, "", f"Other processes used {np.median(others):.2f} cores meanwhile (most: {max(others):.2f})."]
    )


def cost(arguments: argparse.Namespace) -> None:
    """Throughput of the fine-tune with the lease over that without it."""
    torch.set_num_threads(arguments.threads)
    lease = DeviceLease("benchmark-of-cost")  # of its own, so that nobody measures
    start, holds = time.perf_counter(), 2000
    for _ in range(holds):
        with lease.shared():
            pass
    print(f"\nTo take and give back the lease: {(time.perf_counter() - start) / holds * 1e6:.0f} µs.\n")
    print(
        "| network | ms a step | images/s with the lease over without (95 %) | least and largest |\n|---|---|---|---|"
    )
    digits = load_data("digits", channels=1).without_test()
    digits = replace(digits, validation=digits.validation.subset(np.arange(64)))
    for name, space, data, side, steps in (
        ("backbone of digits, 8x8", "digits", DeviceData(digits, arguments.device), 8, 160),
        ("Lite0, 48x48", "lite0_small", device_data(arguments, 64), TRAIN_SIDE, 6),
    ):
        network = build(load_space(space).backbone, len(data.data.classes))
        recipe = Recipe(epochs=100, steps=steps)

        def seconds(
            lease: DeviceLease | None,
            network: nn.Module = network,
            data: DeviceData = data,
            side: int = side,
            recipe: Recipe = recipe,
        ) -> float:
            start = time.perf_counter()
            list(finetune(network, data, side, recipe, METRICS["accuracy"], seed=0, lease=lease))
            return time.perf_counter() - start

        seconds(None)
        pairs = []
        for number in range(arguments.rounds):
            times = {held: seconds(lease if held else None) for held in ((True, False), (False, True))[number % 2]}
            pairs.append((times[True], times[False]))
        step_ms = float(np.median([without for _, without in pairs])) / steps * 1e3
        print(f"| {name} | {step_ms:.1f} | {interval([without / held for held, without in pairs])} |")


def main() -> None:
    """What was asked for, or both parts."""
    own_process()  # as commands and workers of nas train
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="what the trainers train on: a folder, or a name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--trainers", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--threads", type=int, default=1, help="of the measurement and of each trainer")
    parser.add_argument("--out", type=Path, help="JSON lines, one for each measurement")
    parser.add_argument("--part", choices=["latency", "cost"], action="append")
    arguments = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, {device_name(arguments.device)}, {len(os.sched_getaffinity(0))} cores, niceness "
        f"{os.nice(0)}; {arguments.rounds} rounds; {arguments.threads} thread(s) each; trainers on {arguments.data}\n"
    )
    for name, part in {"latency": latency, "cost": cost}.items():
        if not arguments.part or name in arguments.part:
            part(arguments)


if __name__ == "__main__":
    main()
