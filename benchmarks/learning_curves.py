"""Real learning curves of proxy trainings, recorded once, for benchmarks/early_stopping.py to stop early or not.

    python benchmarks/learning_curves.py drawn --count 250 --out FILE [--space digits] [--epochs 10] [--seed 0]
    python benchmarks/learning_curves.py searched --count 60 --search 0 --out FILE

One line of JSON a candidate as it ends; what the file has already is not trained again.

drawn      the space's smallest, backbone and largest network, then random ones: half uniform, a quarter each leaning
           towards the smallest and the largest
searched   what one search of nas's own sampler asks for, accuracy against MACs, one at a time: near the front, where
           a rule has the most to lose. `--search` seeds it.

`--seed` is that of the training. MACs are the exact cost; the latency beside them is as noisy as the machine was.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import torch

from nas.common.seeds import derive_seed
from nas.data.sets import ImageData, Split
from nas.latency.protocol import LatencyProtocol
from nas.models.sources import SCRATCH
from nas.runs.objectives import objective
from nas.runs.record import Outcome
from nas.runs.settings import EvaluationSettings
from nas.search.evaluate import evaluate_candidate
from nas.search.samplers import make_sampler
from nas.search.samplers.known import KnownCosts
from nas.spaces.files import load_space
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.space import SearchSpace
from nas.training.allocator import own_process
from nas.training.images import load_images
from nas.training.recipe import Recipe

Line = dict[str, object]
OBJECTIVES = ("accuracy", "macs")
PROTOCOL = LatencyProtocol(warmup_s=0.2, max_s=0.5, attempts=1)


def drawn(space: SearchSpace) -> Iterator[Architecture]:
    """Distinct networks of the space, in a fixed order, without end."""
    rng = random.Random(0)
    ends = [space.locate(space.smallest), space.locate(space.largest)]
    seen = {reference.digest: reference for reference in (space.smallest, space.backbone, space.largest)}
    yield from list(seen.values())
    number = 0
    while True:
        values = space.sample(rng)
        if number % 2:
            end, strength = ends[number // 2 % 2], rng.uniform(0.3, 0.9)
            values = {name: end[name] if rng.random() < strength else value for name, value in values.items()}
        architecture = space.architecture(values)
        if architecture.digest not in seen:
            seen[architecture.digest] = architecture
            number += 1
            yield architecture


def train(architecture: Architecture, data: ImageData, settings: EvaluationSettings) -> Line:
    """Fine-tune one network; what the file keeps of it."""
    evaluation = evaluate_candidate(architecture, data, settings).evaluation
    if evaluation.outcome is not Outcome.DONE or evaluation.cost is None or evaluation.latency is None:
        raise SystemExit(f"{architecture}: {evaluation.outcome}: {evaluation.reason}")
    latency = evaluation.latency
    return {
        "digest": architecture.digest, "text": str(architecture.canonical),
        "epochs": settings.recipe.epochs, "seed": settings.seed,
        "macs": evaluation.cost.macs, "params": evaluation.cost.params,
        "ms": round(latency.median_ms, 4), "noisy": latency.noisy, "contended": latency.contended,
        "scores": [round(epoch.score, 4) for epoch in evaluation.history],
        "seconds": round(sum(epoch.seconds for epoch in evaluation.history) / len(evaluation.history), 3),
    }  # fmt: skip


def record_searched(
    space: SearchSpace, classes: int, count: int, seed: int, answer: Callable[[Architecture], Line]
) -> None:
    """Let nas's own sampler ask for so many distinct networks, as the broker has it ask."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = KnownCosts(space, classes, OBJECTIVES)
    study = optuna.create_study(directions=[objective(name).direction for name in OBJECTIVES])
    for reference in (space.smallest, space.backbone, space.largest):
        study.enqueue_trial(space.locate(reference))
    asked: set[str] = set()
    while len(asked) < count:
        study.sampler = make_sampler("front", derive_seed(seed, "sampler", len(study.trials)), known)
        trial = study.ask()
        architecture = space.suggest(trial)
        line = answer(architecture)
        asked.add(architecture.digest)
        scores = line["scores"]
        assert isinstance(scores, list)
        study.tell(trial, [scores[-1], float(str(line["macs"]))])


def few(part: Split, count: int | None) -> Split:
    """The first `count` images of a fixed shuffle, or all."""
    if count is None or count >= len(part):
        return part
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:count]
    return part.subset(order.numpy())


def main() -> None:
    """Train what is missing."""
    own_process()  # as commands and workers of nas train
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("drawn", "searched"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="digits")
    parser.add_argument("--data", help="by default the space's own")
    parser.add_argument("--train", type=int, help="training images, by default all")
    parser.add_argument("--validation", type=int, help="validation images, by default all")
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--search", type=int, default=0, help="seed of the search, of kind searched")
    given = parser.parse_args()
    torch.set_num_threads(1)
    space = load_space(given.space)
    data = load_images(space, given.data or str(space.data), 0, SCRATCH)
    data = replace(data, train=few(data.train, given.train), validation=few(data.validation, given.validation))
    # Not the faster precision, as a search has it, since that may differ from call to call.
    recipe = Recipe(epochs=given.epochs, precision="float32")
    settings = EvaluationSettings(recipe=recipe, protocol=PROTOCOL, seed=given.seed)
    kind = given.kind if given.kind == "drawn" else f"searched {given.search}"
    lines = [json.loads(text) for text in given.out.read_text().splitlines()] if given.out.exists() else []
    setting = (given.space, kind, given.epochs, given.seed)
    known = {
        line["digest"]: line for line in lines if (line["space"], line["kind"], line["epochs"], line["seed"]) == setting
    }

    def answer(architecture: Architecture) -> Line:
        if architecture.digest not in known:
            start = time.perf_counter()
            line = {"space": given.space, "kind": kind} | train(architecture, data, settings)
            known[architecture.digest] = line
            with given.out.open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(f"{len(known)} {setting} {line['scores'][-1]} {time.perf_counter() - start:.1f} s", flush=True)
        return known[architecture.digest]

    if given.kind == "searched":
        record_searched(space, len(data.classes), given.count, given.search, answer)
        return
    for _, architecture in zip(range(given.count), drawn(space), strict=False):
        answer(architecture)


if __name__ == "__main__":
    main()
