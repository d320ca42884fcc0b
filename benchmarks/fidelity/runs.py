"""Trainings of the benchmark: the backbone, supernets, and candidates from each kind of initial weights."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optuna.study._multi_objective import _is_pareto_front
from safetensors.torch import load_file, save_file
from variants import VARIANTS

from nas.architecture import Architecture
from nas.backbones import remember_source
from nas.conditions import load_images
from nas.cost import architecture_cost
from nas.device import device_name
from nas.device_data import DeviceData
from nas.evaluate import starting_network
from nas.finetune import finetune, predict
from nas.metrics import load_metric
from nas.model import build
from nas.model.blocks import Network
from nas.recipe import Recipe, default_recipe
from nas.settings import SCRATCH, EvaluationSettings
from nas.space_file import load_space
from nas.supernet_training import plan_supernet, train_supernet
from nas.weights import Backbone, recalibrate

BACKBONE = "backbone"
SEARCHED = 1000
"""Number of the first random candidate of a search."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is compared, and for how long it is trained, in epochs.

    `init` is a pretrained backbone, or None for one of here; `seed` that of supernets.
    """

    space: str
    init: str | None
    device: str
    brief: int
    full: int
    supernet: int
    seed: int


@dataclass(frozen=True)
class Start:
    """Initial weights: `scratch`, `sliced` or `elastic`, the latter of a variant of the supernet."""

    kind: str
    variant: str | None = None

    @property
    def name(self) -> str:
        return self.kind if self.variant is None else f"{self.kind}, {self.variant}"


@dataclass(frozen=True)
class Job:
    """One evaluation: a candidate by its name, weights to begin with, and epochs."""

    candidate: str
    architecture: Architecture
    start: Start
    epochs: int


class Bench:
    """The images, the backbone, and the rows so far."""

    def __init__(self, work: Path, setting: Setting) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.setting, self.space = work, setting, load_space(setting.space)
        self.init = setting.init or BACKBONE
        if setting.init is None:
            self._learn_backbone()
        data = load_images(self.space, self.space.data, 0, self.init)
        self.data = DeviceData(data, setting.device)
        self.rows_path = work / "rows.jsonl"

    def _learn_backbone(self) -> None:
        """The space's backbone, trained in full from random weights the first time."""
        path, architecture = self.work / "backbone.safetensors", self.space.backbone
        data = load_images(self.space, self.space.data, 0, SCRATCH)
        if not path.is_file():
            device = DeviceData(data, self.setting.device)
            network = build(architecture, len(data.classes), 0)
            recipe = replace(default_recipe(False), epochs=2 * self.setting.full, precision="float32")
            for epoch in finetune(network, device, architecture.input_size, recipe, load_metric("accuracy"), seed=0):
                print(f"backbone, epoch {epoch.epoch}/{recipe.epochs}: {100 * epoch.score:.2f} %", flush=True)
            save_file(network.to("cpu").to(memory_format=torch.contiguous_format).state_dict(), path)
        state = load_file(path)
        source = Backbone(BACKBONE, architecture, state, len(data.classes), data.mean, data.std)
        remember_source(BACKBONE, source)

    def rows(self) -> list[Row]:
        """All that is recorded."""
        if not self.rows_path.is_file():
            return []
        return [json.loads(line) for line in self.rows_path.read_text(encoding="utf-8").splitlines()]

    def keep(self, row: Row) -> None:
        """Record a row."""
        about = {"date": time.strftime("%Y-%m-%d"), "machine": device_name(self.setting.device)}
        with self.rows_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | about) + "\n")
        print(json.dumps(row), flush=True)

    def candidate(self, index: int) -> Architecture:
        """The index-th random candidate."""
        return self.space.architecture(self.space.sample(random.Random(index)))

    def searched(self, name: str) -> Architecture:
        """A candidate of the searches by its name."""
        return self.candidate(SEARCHED + int(name.split()[1]))

    def supernet(self, variant: str) -> Path:
        """Where the supernet of a variant lies."""
        return self.work / f"supernet-{variant.replace(' ', '-')}"

    # ---------------------------------------------------------------- evaluations

    def evaluate(self, job: Job) -> Row:
        """One evaluation, as a row; device time is that of inheritance, training and scoring on the validation part."""
        architecture, side = job.architecture, job.architecture.input_size
        began = device_time(self.setting.device)
        network = self.starting(job)
        if job.epochs:
            rate = default_recipe(job.start.kind != "scratch").learning_rate
            recipe = Recipe(epochs=job.epochs, learning_rate=rate, precision="float32")
            steps = finetune(network, self.data, side, recipe, load_metric("accuracy"), seed=0)
            history = [epoch.score for epoch in steps]
        else:
            said = predict(network, self.data, self.data.validation, side)
            history = [float((said.classes == self.data.data.validation.labels).mean())]
        seconds = device_time(self.setting.device) - began
        assert self.data.test is not None
        assert self.data.data.test is not None
        said = predict(network, self.data, self.data.test, side)
        cost = architecture_cost(architecture.canonical, len(self.data.data.classes))
        return {
            "candidate": job.candidate,
            "architecture": str(architecture.canonical),
            "macs": cost.macs,
            "params": cost.params,
            "start": job.start.name,
            "epochs": job.epochs,
            "score": history[-1],
            "history": [round(score, 4) for score in history],
            "test": float((said.classes == self.data.data.test.labels).mean()),
            "seconds": round(seconds, 3),
        }

    def starting(self, job: Job) -> Network:
        """The candidate with its initial weights."""
        if job.start.variant is None:
            init = SCRATCH if job.start.kind == "scratch" else self.init
            return starting_network(job.architecture, self.data, EvaluationSettings(init=init))[0]
        network = build(job.architecture, len(self.data.data.classes))
        network.load_state_dict(self._elastic(job.start.variant).cut_out(job.architecture))
        network.to(self.data.device).to(memory_format=torch.channels_last)
        recalibrate(network, self.data.calibration_batches(job.architecture.input_size))
        return network

    def _elastic(self, variant: str) -> Any:
        if variant not in _LOADED:
            kind, sharing = VARIANTS[variant]
            elastic = kind(self.space, len(self.data.data.classes), sharing=sharing)
            elastic.load_state_dict(load_file(self.supernet(variant) / "weights.safetensors"))
            _LOADED[variant] = elastic
        return _LOADED[variant]


_LOADED: dict[str, Any] = {}


def device_time(device: str) -> float:
    """Seconds on a clock; on a CPU those that this process computed, by one thread, whatever else the machine does."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def train_all(bench: Bench, variants: Sequence[str]) -> None:
    """Train the supernets that are not there yet."""
    done = {row["supernet"] for row in bench.rows() if "supernet" in row}
    for variant in variants:
        if variant in done:
            continue
        kind, sharing = VARIANTS[variant]
        recipe = replace(default_recipe(True), epochs=bench.setting.supernet, precision="float32")
        plan = plan_supernet(
            bench.supernet(variant),
            bench.space,
            bench.space.data,
            replace(recipe, learning_rate=0.005),
            init=bench.init,
            device=bench.setting.device,
            seed=bench.setting.seed,
            sharing=sharing,
        )
        began = device_time(bench.setting.device)
        train_supernet(plan, lambda epoch: print(epoch, flush=True), kind)
        seconds = device_time(bench.setting.device) - began
        bench.keep({"supernet": variant, "epochs": bench.setting.supernet, "seconds": round(seconds, 1)})


def reference_of(names: str) -> list[Start]:
    """The kinds of initial weights that are named."""
    return [Start(name) for name in names.split(";") if name]


def jobs(
    bench: Bench, candidates: int, variants: Sequence[str], references: Sequence[Start], untrained: bool
) -> Iterator[Job]:
    """Candidate after candidate, so that a run cut short has pairs; `untrained` are supernets' scores alone."""
    brief, full = bench.setting.brief, bench.setting.full
    starts = [Start("scratch"), Start("sliced")]
    elastic = [Start("elastic", variant) for variant in variants]
    named = [(name, arch) for name, arch in changed(bench).items()]
    named += [(f"random {index}", bench.candidate(index)) for index in range(candidates)]
    for name, architecture in named:
        for start in elastic:
            yield Job(name, architecture, start, 0)
        if untrained:
            continue
        for start in (*starts, *elastic[:1]):
            yield Job(name, architecture, start, brief)
        yield Job(name, architecture, Start("sliced"), 0)
        for start in references:
            yield Job(name, architecture, start, full)


def changed(bench: Bench) -> dict[str, Architecture]:
    """The backbone, and it with one kind of change made wherever the space offers it."""
    space = bench.space
    values = space.locate(space.backbone)
    found = {"backbone": space.backbone}
    for key, pick in (("kernel_size", max), ("dilation", max), ("expansion", min), ("separable", min), ("depth", min)):
        other = dict(values)
        for name, choices in space.parameters.items():
            if name.endswith(f".{key}"):
                other[name] = pick(choices)
        found[key] = space.architecture(other)
    return found


def score_all(
    bench: Bench,
    candidates: int,
    variants: Sequence[str],
    references: Sequence[Start],
    untrained: bool,
    shard: int,
    shards: int,
) -> None:
    """Evaluate this shard's candidates wherever no row says what came of it."""
    work(bench, list(jobs(bench, candidates, variants, references, untrained)), shard, shards)


def work(bench: Bench, todo: Sequence[Job], shard: int, shards: int) -> None:
    """Do the jobs of a shard, all of a candidate in one, that are not recorded."""
    done = {(row["candidate"], row["start"], row["epochs"]) for row in bench.rows() if "candidate" in row}
    names = list(dict.fromkeys(job.candidate for job in todo))
    for job in todo:
        key = (job.candidate, job.start.name, job.epochs)
        if key not in done and names.index(job.candidate) % shards == shard:
            bench.keep(bench.evaluate(job))


def search_all(bench: Bench, seconds: float, shard: int, shards: int) -> None:
    """Search at random with each kind of initial weights until the device time is spent; then train the fronts in full."""
    elastic = Start("elastic", next(iter(VARIANTS)))
    brief = bench.setting.brief
    methods = [(Start("scratch"), brief), (Start("sliced"), brief), (elastic, brief), (elastic, 0)]
    (supernet,) = (row["seconds"] for row in bench.rows() if row.get("supernet") == elastic.variant)
    done = {(row["candidate"], row["start"], row["epochs"]): row for row in bench.rows() if "candidate" in row}
    for start, epochs in methods[shard::shards]:
        spent, seen = supernet if start is elastic else 0.0, []
        while spent < seconds:
            job = Job(f"search {len(seen)}", bench.candidate(SEARCHED + len(seen)), start, epochs)
            row = done.get((job.candidate, start.name, epochs))
            if row is None:
                row = bench.evaluate(job)
                bench.keep(row)
            spent += row["seconds"]
            seen.append(row)
        front = front_of(seen)
        bench.keep({"search": start.name, "epochs": epochs, "seconds": seconds, "seen": len(seen), "front": front})
        # All candidates have one sequence, so that fronts share members: what another process trains is found there.
        work(bench, [Job(name, bench.searched(name), Start("sliced"), bench.setting.full) for name in front], 0, 1)


def front_of(rows: Sequence[Row]) -> list[str]:
    """The names of those on the front of score and MACs."""
    losses = np.array([[row["macs"], -row["score"]] for row in rows], dtype=np.float64)
    unique = _is_pareto_front(losses, assume_unique_lexsorted=False)
    return [row["candidate"] for row, on_front in zip(rows, unique, strict=True) if on_front]
