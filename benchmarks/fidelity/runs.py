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
from published import PUBLISHED, PUBLISHED_EPOCHS, Macro, Published, read_published
from safetensors.torch import load_file
from variants import VARIANTS

from nas.cli.options import data_name
from nas.common.files import weights_content
from nas.common.pareto import on_front
from nas.latency.device import device_name
from nas.models.blocks import Network
from nas.models.inherit import recalibrate
from nas.models.networks import build
from nas.models.sources import SCRATCH
from nas.runs.settings import EvaluationSettings
from nas.search.evaluate import starting_network
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture
from nas.tasks.classification import CLASSIFICATION
from nas.training.device_data import DeviceData, DevicePart
from nas.training.images import load_images
from nas.training.loop import finetune, predict
from nas.training.recipe import Precision, Recipe, default_recipe
from nas.workflows.supernet import plan_supernet, train_supernet

BACKBONE = "backbone"
SEARCHED = 1000
"""Number of the first random candidate of a search."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is compared, and for how long it is trained, in epochs.

    `published` is a table of trained networks, in place of random candidates and full trainings; `data` is by default the
    space's; `init` a pretrained backbone, or None for one of here; `supernet_rate` the learning rate of
    supernets as a multiple of that of a candidate that inherits, `fresh` whether they begin with random weights, `seed`
    theirs; `score_images` the validation images of scores without a training, or None for all.
    """

    space: str
    published: Path | None
    data: str | None
    init: str | None
    device: str
    backbone: int
    brief: int
    full: int
    supernet: int
    supernet_rate: float
    fresh: bool
    seed: int
    batch_size: int
    precision: Precision
    score_images: int | None

    def recipe(self, inherits: bool, epochs: int) -> Recipe:
        """The default one for so many epochs; a larger batch takes a higher learning rate, by its square root."""
        known = default_recipe(inherits)
        rate = known.learning_rate * (self.batch_size / known.batch_size) ** 0.5
        return replace(known, epochs=epochs, learning_rate=rate, batch_size=self.batch_size, precision=self.precision)


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


@dataclass(frozen=True)
class Asked:
    """Which evaluations: `untrained` are supernets' scores alone, `references` the initial weights of full trainings."""

    candidates: int
    starts: Sequence[str]
    variants: Sequence[str]
    references: Sequence[Start]
    untrained: bool


class Bench:
    """The images, the backbone, and the rows so far."""

    def __init__(self, work: Path, setting: Setting) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.setting, self.space = work, setting, load_space(setting.space)
        self.published: list[Published] = []
        if setting.published is not None:
            self.space = Macro.model_validate(self.space.model_dump(by_alias=True))
            self.published = read_published(setting.published)
        self.init = setting.init or str((work / BACKBONE).resolve())
        self.data_name = data_name(setting.data, self.space)
        if setting.init is None:
            self._learn_backbone()
        data = load_images(self.space, self.data_name, 0, self.init)
        self.data = DeviceData(data, setting.device)
        self.scored = self.data.validation
        if setting.score_images:
            part = data.validation
            numbers = np.random.default_rng(0).permutation(len(part))[: setting.score_images]
            self.scored = DevicePart(part.subset(np.sort(numbers)), self.data.device, resident=True)
        self.rows_path = work / "rows.jsonl"

    def _learn_backbone(self) -> None:
        """The space's backbone, trained in full from random weights the first time."""
        folder, architecture = self.work / BACKBONE, self.space.backbone
        path = folder / "model.safetensors"
        data = load_images(self.space, self.data_name, 0, SCRATCH)
        if not path.is_file():
            device = DeviceData(data, self.setting.device)
            network = build(architecture, len(data.classes), 0)
            recipe = self.setting.recipe(False, self.setting.backbone)
            for epoch in finetune(
                network, device, architecture.input_size, recipe, CLASSIFICATION.load_metric("accuracy"), seed=0
            ):
                print(f"backbone, epoch {epoch.epoch}/{recipe.epochs}: {100 * epoch.score:.2f} %", flush=True)
            # As nas export leaves it, so that candidates and supernets inherit from it by its path.
            folder.mkdir(exist_ok=True)
            normalisation = {"mean": data.mean, "std": data.std}
            card = {"architecture": architecture.to_json(), "classes": data.classes, "preprocessing": normalisation}
            (folder / "model.json").write_text(json.dumps(card))
            path.write_bytes(weights_content(network.state_dict()))

    def rows(self) -> list[Row]:
        """All that is recorded."""
        if not self.rows_path.is_file():
            return []
        return [json.loads(line) for line in self.rows_path.read_text(encoding="utf-8").splitlines()]

    def keep(self, row: Row, machine: str | None = None) -> None:
        """Record a row."""
        about = {"date": time.strftime("%Y-%m-%d"), "machine": machine or device_name(self.setting.device)}
        with self.rows_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | about) + "\n")
        print(json.dumps(row), flush=True)

    def candidate(self, index: int) -> Architecture:
        """The index-th random candidate."""
        if isinstance(self.space, Macro):
            return self.space.published(self.published[index])
        return self.space.architecture(self.space.sample(random.Random(index)))

    def searched(self, name: str) -> Architecture:
        """A candidate of the searches by its name."""
        return self.candidate(SEARCHED + int(name.split()[1]))

    def supernet(self, variant: str) -> Path:
        """Where the supernet of a variant lies."""
        return self.work / f"supernet-{variant.replace(' ', '-')}"

    # ---------------------------------------------------------------- evaluations

    def evaluate(self, job: Job) -> Row:
        """One evaluation, as a row; device time is that of inheritance, training and scoring on the validation split."""
        side = job.architecture.input_size
        began = device_time(self.setting.device)
        network = self.starting(job)
        if job.epochs:
            recipe = self.setting.recipe(job.start.kind != "scratch", job.epochs)
            steps = finetune(network, self.data, side, recipe, CLASSIFICATION.load_metric("accuracy"), seed=0)
            history = [epoch.score for epoch in steps]
        else:
            said = predict(network, self.data, self.scored, side)
            history = [float((said.predictions == self.scored.part.labels).mean())]
        seconds = device_time(self.setting.device) - began
        row = self.about(job) | {
            "score": history[-1],
            "history": [round(score, 4) for score in history],
            "seconds": round(seconds, 3),
        }
        if self.published:
            return row  # what it is on test images is known
        assert self.data.test is not None
        assert self.data.data.test is not None
        said = predict(network, self.data, self.data.test, side)
        return row | {"test": float((said.predictions == self.data.data.test.labels).mean())}

    def about(self, job: Job) -> Row:
        """What is evaluated."""
        cost = architecture_cost(job.architecture.canonical, len(self.data.data.classes))
        return {
            "candidate": job.candidate,
            "architecture": str(job.architecture.canonical),
            "macs": cost.macs,
            "params": cost.params,
            "start": job.start.name,
            "epochs": job.epochs,
        }

    def starting(self, job: Job) -> Network:
        """The candidate with its initial weights."""
        if job.start.variant is None:
            init = SCRATCH if job.start.kind == "scratch" else self.init
            return starting_network(job.architecture, self.data, EvaluationSettings(init=init))[0]
        network = build(job.architecture, len(self.data.data.classes))
        network.load_state_dict(self._elastic(job.start.variant).extract_subnet(job.architecture))
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
        recipe = bench.setting.recipe(True, bench.setting.supernet)
        plan = plan_supernet(
            bench.supernet(variant),
            bench.space,
            bench.data_name,
            replace(recipe, learning_rate=bench.setting.supernet_rate * recipe.learning_rate),
            init=SCRATCH if bench.setting.fresh else bench.init,
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


def jobs(bench: Bench, asked: Asked) -> Iterator[Job]:
    """Candidate after candidate, so that a run cut short has pairs."""
    brief, full = bench.setting.brief, bench.setting.full
    starts = [Start(kind) for kind in ("scratch", "sliced") if kind in asked.starts]
    elastic = [Start("elastic", variant) for variant in asked.variants if "elastic" in asked.starts]
    named = [] if bench.published else list(changed(bench).items())
    named += [(f"random {index}", bench.candidate(index)) for index in range(asked.candidates)]
    for name, architecture in named:
        for start in elastic:
            yield Job(name, architecture, start, 0)
        if asked.untrained:
            continue
        for start in (*starts, *elastic[:1]):
            yield Job(name, architecture, start, brief)
        if "sliced" in asked.starts:
            yield Job(name, architecture, Start("sliced"), 0)
        for start in asked.references:
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


def score_all(bench: Bench, asked: Asked, shard: int, shards: int) -> None:
    """Evaluate this shard's candidates wherever no row says what came of it."""
    if shard == 0:
        keep_published(bench, asked.candidates)
    work(bench, list(jobs(bench, asked)), shard, shards)


def keep_published(bench: Bench, candidates: int) -> None:
    """What the table says of the candidates, as rows of full trainings."""
    done = {row["candidate"] for row in bench.rows() if row.get("start") == PUBLISHED}
    for index, network in enumerate(bench.published[:candidates]):
        name = f"random {index}"
        if name not in done:
            job = Job(name, bench.candidate(index), Start(PUBLISHED), PUBLISHED_EPOCHS)
            found = {"digits": network.digits, "tests": network.accuracies, "test": network.mean}
            bench.keep(bench.about(job) | found, machine="NAS-Bench-Macro")


def work(bench: Bench, todo: Sequence[Job], shard: int, shards: int) -> None:
    """Do the jobs of a shard, all of a candidate in one, that are not recorded."""
    done = {(row["candidate"], row["start"], row["epochs"]) for row in bench.rows() if "candidate" in row}
    names = list(dict.fromkeys(job.candidate for job in todo))
    for job in todo:
        key = (job.candidate, job.start.name, job.epochs)
        if key not in done and names.index(job.candidate) % shards == shard:
            bench.keep(bench.evaluate(job))


def search_all(bench: Bench, variant: str, seconds: float, shard: int, shards: int) -> None:
    """Search at random with each kind of initial weights until the device time is spent; then train the fronts in full."""
    elastic = Start("elastic", variant)
    brief = bench.setting.brief
    methods = [(Start("scratch"), brief), (Start("sliced"), brief), (elastic, brief), (elastic, 0)]
    (supernet,) = (row["seconds"] for row in bench.rows() if row.get("supernet") == elastic.variant)
    done = {(row["candidate"], row["start"], row["epochs"]): row for row in bench.rows() if "candidate" in row}
    for start, epochs in methods[shard::shards]:
        spent = supernet if start is elastic else 0.0
        seen: list[Row] = []
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
    unique = on_front(losses)
    return [row["candidate"] for row, on_front in zip(rows, unique, strict=True) if on_front]
