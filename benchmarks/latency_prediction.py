"""How well is latency predicted from a few measured networks? The predictor against the usual regressions.

    python benchmarks/latency_prediction.py --shared DIR [--seeds 10] [--sizes 10,30,100,300] [--devices all|N]
        [--out FILE.jsonl] [--table]

Published tables of measured latencies, of FBNet and NAS-Bench-201 networks (HELP, Lee et al., NeurIPS 2021). For each
seed and size, all methods learn from the same networks, and are tested on the same 2,000 others. One line of JSON a
device, seed, size and method; a run that was cut short goes on, and seeds come one after another, so that it is even.
`--shard i/n` takes every n-th device, to use more cores; `--table` prints what the files hold.

ridge            linear in one-hot choices; strength, and latency or its logarithm, by closed-form leave-one-out error
ridge, counts    and in how often each choice occurs
boosting         300 boosted trees of depth 3 on one-hot choices and counts, of the logarithm
GP               scikit-learn's Gaussian process, squared exponential kernel on standardised one-hot choices, of the
                 logarithm, hyperparameters by marginal likelihood
..., MACs        with multiply-adds as one more feature (FBNet)
MACs             latency as a straight line of multiply-adds
predictor        nas.latency.predictor, from the choices alone; `predictor, MACs` has them as known costs
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from nas.latency.predictor import LatencyPredictor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NOT_MEASURED = ("eyeriss", "fpga", "pixel3", "raspi4")
"""Devices whose latencies are sums of look-up tables."""
DEVELOPED_ON = ("1080ti", "essential", "gold_6226", "silver_4114", "samsung_a50", "titan_rtx")
"""Families of devices that were looked at while the predictor was made."""
TESTED = 2000
FBNET_STAGES = ((1, 16, 1), (4, 24, 2), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))
"""Layers, channels, stride of the first layer."""
FBNET_STEM = (16, 112)
"""Channels and side of the map."""


@dataclass(frozen=True)
class Table:
    """Networks (networks, parameters), their latencies (networks, devices), and multiply-adds in millions, if known."""

    name: str
    encodings: Ints
    devices: tuple[str, ...]
    latency: Floats
    macs: Floats | None


@dataclass(frozen=True)
class Task:
    """What a method sees: training and test networks, out of how many choices, and the latencies of the former."""

    train: Ints
    test: Ints
    choices: int
    latency: Floats
    macs: Floats | None
    test_macs: Floats | None


Method = Callable[[Task], tuple[Floats, Floats | None]]


def load(path: Path, name: str, choices: str) -> Table:
    """A table without the devices that were not measured."""
    with np.load(path) as data:
        encodings, latency = data[choices].astype(np.int64), data["latency_ms"].astype(np.float64)
        devices = [str(device) for device in data["devices"]]
        macs = fbnet_macs(encodings, [str(block) for block in data["block_names"]]) if name == "FBNet" else None
    kept = [index for index, device in enumerate(devices) if device not in NOT_MEASURED]
    return Table(name, encodings, tuple(devices[index] for index in kept), latency[:, kept], macs)


def fbnet_macs(encodings: Ints, blocks: list[str]) -> Floats:
    """Multiply-adds of the searched layers in millions (networks,), at 224x224 pixels.

    Blocks are `kK_eE[_gG]`: pointwise to E times the channels, depthwise KxK, pointwise, the pointwise ones in G
    groups; `skip` is nothing, or a pointwise convolution where the shape changes (Wu et al., CVPR 2019).
    """
    channels, side = FBNET_STEM
    layers = []
    for depth, out, first_stride in FBNET_STAGES:
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            layers.append([block_macs(block, channels, out, side, stride) for block in blocks])
            channels, side = out, side // stride
    return np.array(layers)[np.arange(len(layers)), encodings].sum(1) / 1e6


def block_macs(block: str, channels: int, out: int, side: int, stride: int) -> int:
    """Multiply-adds of one block."""
    area = (side // stride) ** 2
    if block == "skip":
        return 0 if stride == 1 and channels == out else area * channels * out
    parts = {part[0]: int(part[1:]) for part in block.split("_")}
    hidden = channels * parts["e"]
    return (side**2 * channels + area * out) * hidden // parts.get("g", 1) + area * hidden * parts["k"] ** 2


def ridge(task: Task, counts: bool, macs: bool) -> tuple[Floats, None]:
    """Ridge regression, each setting judged by the leave-one-out mean absolute percentage error."""
    x, unseen = inputs(task, counts, macs)
    centre = x.mean(0)
    x, unseen = x - centre, unseen - centre
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    best = (np.inf, np.empty(0))
    for forward, inverse in ((np.asarray, np.asarray), (np.log, np.exp)):
        y = forward(task.latency)
        residual = y - y.mean()
        for strength in np.logspace(-4, 4, 33) * singular[0] ** 2 / len(y):
            shrink = singular**2 / (singular**2 + strength)
            fitted = y.mean() + left @ (shrink * (left.T @ residual))
            left_out = y - (y - fitted) / np.maximum(1 - 1 / len(y) - left**2 @ shrink, 1e-9)
            error = float(np.abs(inverse(left_out) / task.latency - 1).mean())
            if error < best[0]:
                weights = right.T @ (singular / (singular**2 + strength) * (left.T @ residual))
                best = (error, inverse(y.mean() + unseen @ weights))
    return best[1], None


def boosting(task: Task, macs: bool) -> tuple[Floats, None]:
    """Boosted trees."""
    x, unseen = inputs(task, True, macs)
    model = GradientBoostingRegressor(
        n_estimators=300, learning_rate=0.05, max_depth=3, subsample=0.7, max_features=0.3, random_state=0
    )
    return np.exp(model.fit(x, np.log(task.latency)).predict(unseen)), None


def gaussian_process(task: Task, macs: bool) -> tuple[Floats, Floats]:
    """scikit-learn's Gaussian process."""
    x, unseen = inputs(task, False, macs)
    centre, spread = x.mean(0), x.std(0)
    spread[spread == 0] = 1
    kernel = ConstantKernel(1, (1e-3, 1e4)) * RBF(x.shape[1] ** 0.5, (0.1, 1e4)) + WhiteKernel(0.1, (1e-6, 10))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    model.fit((x - centre) / spread, np.log(task.latency))
    mean, std = model.predict((unseen - centre) / spread, return_std=True)
    return np.exp(mean), np.exp(mean) * std


def inputs(task: Task, counts: bool, macs: bool) -> tuple[Floats, Floats]:
    """One-hot choices of the training and the test networks, with counts of choices and multiply-adds beside."""
    both = np.vstack([task.train, task.test])
    onehot = (both[:, :, None] == np.arange(task.choices)).astype(np.float64)
    features = [onehot.reshape(len(both), -1)]
    if counts:
        features.append(onehot.sum(1))
    if macs and task.macs is not None and task.test_macs is not None:
        known = np.concatenate([task.macs, task.test_macs])[:, None]
        features.append((known - task.macs.mean()) / task.macs.std())
    x = np.hstack(features)
    return x[: len(task.train)], x[len(task.train) :]


def macs_alone(task: Task) -> tuple[Floats, None]:
    """A straight line."""
    assert task.macs is not None
    assert task.test_macs is not None
    return np.maximum(np.polyval(np.polyfit(task.macs, task.latency, 1), task.test_macs), 1e-3), None


def predictor(task: Task, macs: bool) -> tuple[Floats, Floats]:
    """The predictor of this project."""
    if not macs or task.macs is None or task.test_macs is None:
        return LatencyPredictor.fit(task.train, task.latency).predict(task.test)
    fitted = LatencyPredictor.fit(task.train, task.latency, costs=task.macs[:, None])
    return fitted.predict(task.test, costs=task.test_macs[:, None])


METHODS: dict[str, Method] = {
    "ridge": partial(ridge, counts=False, macs=False),
    "ridge, counts": partial(ridge, counts=True, macs=False),
    "boosting": partial(boosting, macs=False),
    "GP": partial(gaussian_process, macs=False),
    "predictor": partial(predictor, macs=False),
}
WITH_MACS: dict[str, Method] = {
    "MACs": macs_alone,
    "ridge, MACs": partial(ridge, counts=False, macs=True),
    "ridge, counts, MACs": partial(ridge, counts=True, macs=True),
    "boosting, MACs": partial(boosting, macs=True),
    "GP, MACs": partial(gaussian_process, macs=True),
    "predictor, MACs": partial(predictor, macs=True),
}


def task_of(table: Table, device: int, size: int, seed: int) -> tuple[Task, Floats]:
    """A task, and the latencies of its test networks."""
    order = np.random.default_rng(seed).permutation(len(table.encodings))
    train, test = order[:size], order[-TESTED:]
    macs, test_macs = (None, None) if table.macs is None else (table.macs[train], table.macs[test])
    latency = table.latency[:, device]
    choices = int(table.encodings.max()) + 1
    return Task(table.encodings[train], table.encodings[test], choices, latency[train], macs, test_macs), latency[test]


def ranks(values: Floats) -> Floats:
    """Ranks, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's correlation; 0 where all values of one are equal, which orders nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def judged(predicted: Floats, std: Floats | None, truth: Floats) -> dict[str, float]:
    """Rank correlation, error in percent, and the shares within one and two standard deviations in percent."""
    result = {"spearman": spearman(predicted, truth), "mape": 100 * float(np.abs(predicted / truth - 1).mean())}
    if std is not None:
        off = np.abs(truth - predicted) / std
        result |= {f"within{k}": 100 * float((off < k).mean()) for k in (1, 2)}
    return result


def runs(tables: list[Table], sizes: list[int], seeds: int, shard: tuple[int, int]) -> Iterator[tuple[Any, ...]]:
    """(table, device, size, seed), seed after seed."""
    for seed in range(seeds):
        for table in tables:
            for device in range(shard[0], len(table.devices), shard[1]):
                for size in sizes:
                    yield table, device, size, seed


def measure(tables: list[Table], sizes: list[int], seeds: int, shard: tuple[int, int], out: Path) -> None:
    """Run what the file does not hold yet."""
    done = {tuple(line[key] for key in ("table", "device", "size", "seed")) for line in read([out])}
    for table, device, size, seed in runs(tables, sizes, seeds, shard):
        key = {"table": table.name, "device": table.devices[device], "size": size, "seed": seed}
        if tuple(key.values()) in done:
            continue
        task, truth = task_of(table, device, size, seed)
        lines = []
        for name, method in (METHODS | (WITH_MACS if table.macs is not None else {})).items():
            start = time.process_time()
            predicted, std = method(task)
            spent = time.process_time() - start
            figures = {k: round(v, 4) for k, v in judged(predicted, std, truth).items()}
            lines.append(json.dumps(key | {"method": name} | figures | {"cpu_s": round(spent, 3)}))
        with out.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def read(files: list[Path]) -> list[dict[str, Any]]:
    """Lines of files that exist."""
    return [json.loads(line) for file in files if file.exists() for line in file.read_text("utf-8").splitlines()]


def median_over_devices(lines: list[dict[str, Any]], figure: str) -> float:
    """Median over devices of the mean over seeds; NaN where there is none."""
    devices: dict[str, list[float]] = {}
    for line in lines:
        if figure in line:
            devices.setdefault(line["device"], []).append(line[figure])
    return float(np.median([np.mean(values) for values in devices.values()])) if devices else float("nan")


def print_tables(lines: list[dict[str, Any]], sizes: list[int]) -> None:
    """A Markdown table a data set."""
    for table in dict.fromkeys(line["table"] for line in lines):
        here = [line for line in lines if line["table"] == table]
        runs_held = f"{len({line['device'] for line in here})} devices, {len({line['seed'] for line in here})} seeds"
        print(f"\n{table} ({runs_held}): Spearman's correlation, mean absolute error in percent\n")
        print("| method | " + " | ".join(f"{size}: ρ | {size}: %" for size in sizes) + " |")
        print("|---" * (1 + 2 * len(sizes)) + "|")
        for method in dict.fromkeys(line["method"] for line in here):
            cells = []
            for size in sizes:
                of = [line for line in here if line["method"] == method and line["size"] == size]
                cells += [f"{median_over_devices(of, 'spearman'):.3f}", f"{median_over_devices(of, 'mape'):.2f}"]
            print(f"| {method} | " + " | ".join(cells) + " |")
        print(
            "\n| share of new measurements within 1 / 2 std, %, and CPU seconds | " + " | ".join(map(str, sizes)) + " |"
        )
        print("|---" * (1 + len(sizes)) + "|")
        for method in dict.fromkeys(line["method"] for line in here if "within1" in line):
            cells = []
            for size in sizes:
                of = [line for line in here if line["method"] == method and line["size"] == size]
                one, two, spent = (float(np.mean([line[k] for line in of])) for k in ("within1", "within2", "cpu_s"))
                cells.append(f"{one:.0f} / {two:.0f}, {spent:.2f} s")
            print(f"| {method} | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", default="10,30,100,300")
    parser.add_argument("--devices", default="all", help="all, or the first N of each table")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--out", type=Path, nargs="+", default=[Path("latency-prediction.jsonl")])
    parser.add_argument("--table", action="store_true", help="only print the tables of the files")
    parser.add_argument("--only", choices=("developed", "held-out"), help="print for these devices only")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    if not args.table:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore", ConvergenceWarning)
        folder = args.shared / "data" / "latency"
        tables = [
            load(folder / "help_fbnet.npz", "FBNet", "arch"),
            load(folder / "help_nasbench201.npz", "NAS-Bench-201", "edge_ops"),
        ]
        for table in tables:
            if table.macs is not None:
                by_device = [spearman(table.macs, column) for column in table.latency.T]
                worst = int(np.argmin(by_device))
                print(
                    f"{table.name}: multiply-adds {np.median(table.macs):.0f} M (median); their Spearman correlation "
                    f"with latency: median {np.median(by_device):.2f}, worst {by_device[worst]:.2f} "
                    f"({table.devices[worst]}), best {max(by_device):.2f}"
                )
        if args.devices != "all":
            few = int(args.devices)
            tables = [Table(t.name, t.encodings, t.devices[:few], t.latency[:, :few], t.macs) for t in tables]
        index, count = map(int, args.shard.split("/"))
        measure(tables, sizes, args.seeds, (index, count), args.out[0])
    lines = read(args.out)
    if args.only:
        lines = [line for line in lines if line["device"].startswith(DEVELOPED_ON) == (args.only == "developed")]
    print_tables(lines, sizes)


if __name__ == "__main__":
    main()
