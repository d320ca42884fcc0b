"""Which rule of weight inheritance gives the best candidates after a proxy training? An ablation over random candidates.

    python benchmarks/inheritance.py --data CIFAR10_FOLDER [--candidates 20] [--seeds 2] [--out FILE.jsonl] [--table]

Random candidates of the space `lite0` at 32x32 pixels with stem stride 1, each fine-tuned by the same recipe from
each rule's weights; one line of JSON a run, so that a run that was cut short goes on. `--shard i/n` takes every n-th
candidate, to use more cores. The table compares each rule with `recalibrate` at the same learning rate, paired by candidate and seed.

scratch           random weights
copy              inherited weights, batch norm statistics as they were
recalibrate       inherited weights, batch norm recalibrated
reconstruct       and projections refitted to the backbone's features by least squares
probe             recalibrate, then the classifier fitted to the features by logistic regression
distil            recalibrate, then half an epoch in which the features are regressed on the backbone's
recalibrate+1     recalibrate, with one epoch more: what the time of the other rules would buy
..., head         only the head is trained: what follows the last stage
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nas.data.sets import ImageData, Split, load_data
from nas.latency.device import device_name
from nas.models.backbones import load_backbone
from nas.models.blocks import Network
from nas.models.inherit import inherit, recalibrate
from nas.models.networks import build
from nas.models.reconstruct import reconstruct
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture, StemSpec
from nas.tasks.classification_metrics import METRICS
from nas.training.allocator import own_process
from nas.training.device_data import DeviceData
from nas.training.images import normalised_for
from nas.training.loop import finetune
from nas.training.recipe import Recipe

SIDE = 32
INIT = "efficientnet_lite0"
MAIN = {
    "scratch": (0.002,),
    "recalibrate": (0.001, 0.002),
    "reconstruct": (0.001, 0.002),
    "recalibrate, head": (0.01,),
    "reconstruct, head": (0.01,),
}
"""Learning rates of the rules that run with every seed; what a rule is worth hangs on them."""
BESIDE = {"copy": (0.002,), "probe": (0.001,), "distil": (0.001,), "recalibrate+1": (0.001,)}
"""Those that run with the first seed only, for the first `--beside` candidates."""


def at_side(architecture: Architecture) -> Architecture:
    """The architecture at 32x32 pixels with a stem of stride 1."""
    return replace(architecture, input_size=SIDE, stem=StemSpec(3, 1, 32)).canonical


def candidate(index: int) -> Architecture:
    """The index-th random candidate."""
    space = load_space("lite0")
    return at_side(space.architecture(space.sample(random.Random(index))))


def few(part: Split, count: int) -> Split:
    """The first `count` images of a fixed shuffle."""
    return part.subset(np.random.default_rng(0).permutation(len(part))[:count])


def features(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) to what the classifier reads (N, features)."""
    pooled: torch.Tensor = network.head(network.blocks(network.stem(images))).mean((2, 3))
    return pooled


def fit_classifier(network: Network, data: DeviceData) -> None:
    """Logistic regression of the labels on the features of 512 training images."""
    from sklearn.linear_model import LogisticRegression

    order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))[:512]
    network.eval()
    with torch.inference_mode():
        found = torch.cat(
            [features(network, data.prepare(images, SIDE)) for images, _ in data.train.batches(order, 128)]
        )
    mean, scale = found.mean(0), found.std()
    model = LogisticRegression(C=0.01, max_iter=1000)
    model.fit(((found - mean) / scale).numpy(), data.train.labels[order].numpy())
    weight = torch.from_numpy(model.coef_).float() / scale
    with torch.no_grad():
        network.classifier.weight.copy_(weight)
        network.classifier.bias.copy_(torch.from_numpy(model.intercept_).float() - weight @ mean)


def distil(network: Network, teacher: Network, data: DeviceData, batch_size: int, seed: int) -> None:
    """Half an epoch of regression of the last block's output on the teacher's."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    order = torch.randperm(len(data.train.labels), generator=generator)[: len(data.train.labels) // 2]
    network.train()
    for pixels, _ in data.train.batches(order, batch_size):
        images = data.prepare(pixels, SIDE)
        with torch.no_grad():
            wanted = teacher.blocks(teacher.stem(images))
        loss = F.mse_loss(network.blocks(network.stem(images)), wanted) / wanted.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def prepared(rule: str, arch: Architecture, data: DeviceData, batch_size: int, seed: int) -> Network:
    """The candidate's network with the initial weights that a rule gives."""
    classes = len(data.data.classes)
    network = build(arch, classes, seed)
    if rule == "scratch":
        return network
    backbone = load_backbone(INIT)
    network.load_state_dict(inherit(backbone, arch, classes, seed).state)
    network.to(memory_format=torch.channels_last)
    batches = data.calibration_batches(SIDE)
    if rule.startswith("reconstruct"):
        reconstruct(network, arch, backbone, batches)
    elif rule != "copy":
        recalibrate(network, batches)
    if rule == "probe":
        fit_classifier(network, data)
    if rule == "distil":
        there = at_side(backbone.architecture)
        teacher = build(there, classes)
        teacher.load_state_dict(inherit(backbone, there, classes).state)
        recalibrate(teacher.to(memory_format=torch.channels_last), batches)
        distil(network, teacher.eval(), data, batch_size, seed)
    return network


def one_run(rule: str, index: int, seed: int, rate: float, data: DeviceData, recipe: Recipe) -> dict[str, object]:
    """Fine-tune one candidate from one rule's weights."""
    start = time.perf_counter()
    arch = candidate(index)
    network = prepared(rule, arch, data, recipe.batch_size, seed)
    inherit_s = time.perf_counter() - start
    epochs = recipe.epochs + (1 if rule.endswith("+1") else 0)
    trainable = "head" if rule.endswith(", head") else "all"
    recipe = replace(recipe, learning_rate=rate, epochs=epochs, trainable=trainable)
    history = list(finetune(network, data, SIDE, recipe, METRICS["accuracy"], seed=seed))
    return {
        "rule": rule, "candidate": index, "seed": seed, "rate": rate, "arch": str(arch),
        "accuracy": history[-1].score, "curve": [epoch.score for epoch in history],
        "inherit_s": round(inherit_s, 2), "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def key(run: dict[str, object]) -> tuple[object, ...]:
    """What tells one run from another."""
    return (run["rule"], run["candidate"], run["seed"], run["rate"])


def table(runs: list[dict[str, object]]) -> str:
    """Mean accuracy of each rule, and its difference to `recalibrate` at the same learning rate, as Markdown."""
    accuracy = {key(run): float(str(run["accuracy"])) for run in runs}
    lines = ["| rule | learning rate | runs | accuracy % | against recalibrate | wins | inheritance s | all s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for rate in sorted({float(str(run["rate"])) for run in runs}):
        for rule in MAIN | BESIDE:
            mine = [run for run in runs if run["rule"] == rule and run["rate"] == rate]
            if not mine:
                continue
            base = "recalibrate, head" if rule.endswith(", head") else "recalibrate"
            by_candidate: dict[object, list[float]] = {}
            for run in mine:
                if (baseline := accuracy.get((base, *key(run)[1:]))) is not None:
                    by_candidate.setdefault(run["candidate"], []).append(100 * (accuracy[key(run)] - baseline))
            gains = [gain for of_one in by_candidate.values() for gain in of_one]
            # Seeds of one candidate are not independent: the error is that over candidates.
            means = [statistics.mean(of_one) for of_one in by_candidate.values()]
            error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
            gain = "" if rule == base or not gains else f"{statistics.mean(gains):+.1f} ± {error:.1f}"
            wins = "" if not gain else f"{sum(g > 0 for g in gains)}/{len(gains)}"
            mean = 100 * statistics.mean(accuracy[key(run)] for run in mine)
            seconds = [statistics.median(float(str(run[field])) for run in mine) for field in ("inherit_s", "seconds")]
            lines.append(
                f"| {rule} | {rate} | {len(mine)} | {mean:.1f} | {gain} | {wins} | {seconds[0]:.1f} | {seconds[1]:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    own_process()  # as commands and workers of nas train
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 as a folder of images")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--beside", type=int, default=10, help="candidates on which the rules beside the main ones run")
    parser.add_argument("--train", type=int, default=960, help="training images")
    parser.add_argument("--validation", type=int, default=500, help="validation images")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--out", type=Path, default=Path("inheritance.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of what is in --out, run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in arguments.out.read_text().splitlines()]))
        return
    torch.set_num_threads(arguments.threads)
    loaded: ImageData = normalised_for(load_data(arguments.data, size=SIDE), load_backbone(INIT)).without_test()
    data = DeviceData(
        replace(
            loaded,
            train=few(loaded.train, arguments.train),
            validation=few(loaded.validation, arguments.validation),
        ),
        "cpu",
    )
    recipe = Recipe(epochs=arguments.epochs, batch_size=arguments.batch_size, precision="float32")
    shard, shards = (int(number) for number in arguments.shard.split("/"))
    known = (
        {key(json.loads(line)) for line in arguments.out.read_text().splitlines()} if arguments.out.exists() else set()
    )
    print(f"{time.strftime('%Y-%m-%d')}, {device_name('cpu')}, {arguments.threads} threads", flush=True)
    for seed in range(arguments.seeds):
        for index in range(shard, arguments.candidates, shards):
            rules = MAIN if seed or index >= arguments.beside else MAIN | BESIDE
            for rule, rate in [(rule, rate) for rule, rates in rules.items() for rate in rates]:
                if (rule, index, seed, rate) in known:
                    continue
                run = one_run(rule, index, seed, rate, data, recipe)
                with arguments.out.open("a") as out:
                    out.write(json.dumps(run) + "\n")
                print(
                    f"seed {seed} candidate {index} {rule} {rate}: {run['accuracy']} in {run['seconds']} s", flush=True
                )


if __name__ == "__main__":
    main()
