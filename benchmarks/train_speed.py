"""Images a second of the fine-tune against the usual training loop, side by side; and where a proxy training's time goes.

    python benchmarks/train_speed.py --data CIFAR10_FOLDER [--rounds 5] [--steps 40] [--batch-size 64] [--device cpu]

The usual loop is torchvision's ImageFolder behind a DataLoader with worker processes, PIL transforms (padded crop,
hflip), default memory layout and float32; ours is `nas.training.loop`. Same network, same batch size, same optimiser, same
number of steps, each round in processes of their own, in turn. The ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.models.backbones import load_backbone
from nas.models.inherit import inherit, recalibrate
from nas.models.networks import build
from nas.models.reconstruct import reconstruct
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture, StemSpec
from nas.tasks.classification_metrics import METRICS
from nas.training.allocator import own_process
from nas.training.device_data import DeviceData
from nas.training.images import normalised_for
from nas.training.loop import finetune, predict
from nas.training.recipe import Recipe

INIT = "efficientnet_lite0"
T = TypeVar("T")


def network_of(name: str) -> Architecture:
    """The backbone of a space at 32x32 pixels; that of lite0 with a stem of stride 1; or the smallest network of cifar."""
    if name == "cifar-smallest":
        return load_space("cifar").smallest
    backbone = load_space(name).backbone
    return replace(backbone, input_size=32, stem=StemSpec(3, 1, 32)) if name == "lite0" else backbone


def peak_memory_mb(device: str) -> dict[str, float]:
    """Most resident memory of this process and of its largest worker, and of the GPU where there is one."""
    peaks = {
        "process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "largest_worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3,
    }
    if device != "cpu":
        peaks["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return peaks


def usual(arguments: argparse.Namespace) -> float:
    """Images a second of the usual loop, after two steps of warm-up."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    mean, std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    images = datasets.ImageFolder(str(arguments.data / "train"), transform)
    loader = DataLoader(
        images,
        arguments.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        drop_last=True,
        pin_memory=arguments.device != "cpu",
    )
    network = build(network_of(arguments.space), len(images.classes)).to(arguments.device).train()
    network.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(network.parameters(), 0.002, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, total_steps=arguments.steps + 3)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    start = 0.0
    for step, (x, y) in enumerate(loader):
        if step == 2:
            synchronise(arguments.device)
            start = time.perf_counter()
        loss = criterion(network(x.to(arguments.device)), y.to(arguments.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == arguments.steps + 1:
            break
    synchronise(arguments.device)
    return arguments.steps * arguments.batch_size / (time.perf_counter() - start)


def ours(arguments: argparse.Namespace) -> float:
    """Images a second of `nas.training.loop`, after two steps of warm-up."""
    loaded = load_data(arguments.data, size=32).without_test()
    few = DeviceData(replace(loaded, validation=loaded.validation.subset(torch.arange(64).numpy())), arguments.device)
    network = build(network_of(arguments.space), len(loaded.classes))
    recipe = Recipe(epochs=1, batch_size=arguments.batch_size, learning_rate=0.002, precision=arguments.precision)
    list(finetune(network, few, 32, replace(recipe, steps=2), METRICS["accuracy"], seed=0))
    return list(finetune(network, few, 32, replace(recipe, steps=arguments.steps), METRICS["accuracy"], seed=0))[
        -1
    ].images_per_s


def synchronise(device: str) -> None:
    """Wait for the GPU, where there is one."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def parts(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part of one proxy training: 2,000 training and 1,000 validation images, two epochs."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = function()
        synchronise(arguments.device)
        seconds[name] = time.perf_counter() - start
        return result

    loaded = timed("data, decoded before", lambda: load_data(arguments.data, size=32))
    loaded = normalised_for(loaded, load_backbone(INIT)).without_test()
    rows = torch.randperm(len(loaded.train), generator=torch.Generator().manual_seed(0))[:2000].numpy()
    loaded = replace(loaded, train=loaded.train.subset(rows))
    loaded = replace(loaded, validation=loaded.validation.subset(torch.arange(1000).numpy()))
    data = timed("data, to the device", lambda: DeviceData(loaded, arguments.device))
    arch = network_of("lite0")
    backbone = timed("backbone's weights from disk", lambda: load_backbone(INIT))
    network = timed("building", lambda: build(arch, len(loaded.classes)))
    state = timed("inheriting", lambda: inherit(backbone, arch, len(loaded.classes)).state)
    network.load_state_dict(state)
    network.to(arguments.device).to(memory_format=torch.channels_last)
    batches = timed("calibration images", lambda: data.calibration_batches(32))
    timed("batch norm recalibration", lambda: recalibrate(network, batches))
    narrower = replace(arch, layers=tuple(replace(la, expansion=min(la.expansion, 3)) for la in arch.layers))
    halved = build(narrower, len(loaded.classes))
    halved.load_state_dict(inherit(backbone, narrower, len(loaded.classes)).state)
    halved.to(arguments.device).to(memory_format=torch.channels_last)
    timed("reconstruction, of a candidate of half the width", lambda: reconstruct(halved, narrower, backbone, batches))
    recipe = Recipe(epochs=2, learning_rate=0.002, precision=arguments.precision)
    history = timed("fine-tune", lambda: list(finetune(network, data, 32, recipe, METRICS["accuracy"], seed=0)))
    trained = sum(len(data.train) // 64 * 64 / epoch.images_per_s for epoch in history)
    seconds["  of it forward, backward, step, augmentation"] = trained
    seconds["  of it validation, twice"] = seconds["fine-tune"] - trained
    timed("one validation alone", lambda: predict(network, data, data.validation, 32))
    return seconds


def main() -> None:
    """Rounds of both loops in turn, then the parts."""
    own_process()  # as commands and workers of nas train
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as a folder with train/CLASS/*.jpg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--space", choices=["cifar", "cifar-smallest", "lite0"], default="cifar")
    parser.add_argument("--only", choices=["ours", "usual", "parts"], help="one measurement in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.only == "parts":
        print(json.dumps(parts(arguments)))
        return
    if arguments.only:
        rate = {"ours": ours, "usual": usual}[arguments.only](arguments)
        print(json.dumps({"images_per_s": rate, **peak_memory_mb(arguments.device)}))
        return

    def run(which: str) -> dict[str, float]:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", which]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return measured

    run("ours")  # decodes the images once, into the cache
    print(
        f"{time.strftime('%Y-%m-%d')}, {device_name(arguments.device)}, {arguments.workers} cores, {arguments.precision}"
    )
    print(f"network of {arguments.space} at 32x32, batch {arguments.batch_size}, {arguments.steps} steps a round")
    rounds = [(run("ours"), run("usual")) for _ in range(arguments.rounds)]
    for name, measured in (("ours", [a for a, _ in rounds]), ("usual", [b for _, b in rounds])):
        rates = sorted(one["images_per_s"] for one in measured)
        peaks = {key: max(one[key] for one in measured) for key in measured[0] if key != "images_per_s"}
        memory = ", ".join(f"{key[:-3].replace('_', ' ')} {value:,.0f} MB" for key, value in peaks.items())
        print(
            f"{name:6} {statistics.median(rates):8,.0f} images/s ({rates[0]:,.0f} to {rates[-1]:,.0f}); peak {memory}"
        )
    ratios = sorted(a["images_per_s"] / b["images_per_s"] for a, b in rounds)
    print(f"ratio  {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print("\nParts of one proxy training (Lite0's own configuration, 2,000 images, two epochs), seconds:")
    for name, value in run("parts").items():
        print(f"{value:8.2f}  {name}")


if __name__ == "__main__":
    main()
