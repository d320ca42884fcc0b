"""One search on one problem, with workers whose durations are simulated."""

from __future__ import annotations

import heapq
import time
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from methods import METHODS
from problems import Parameters, Problem

CHECKPOINTS = (25, 50, 100, 200, 400)
PATIENCE = 30
"""Repeats in a row after which, with a cache, a random network is tried instead (as `nas search` does)."""


@dataclass(frozen=True)
class Result:
    """Scores in percent by trials and box, CPU milliseconds a suggestion, and the share of repeats among those."""

    scores: dict[int, dict[str, float]]
    cpu_ms: float
    repeats: float


def run(problem: Problem, method: str, seed: int, trials: int, workers: int = 1, cache: bool = True) -> Result:
    """Run until `trials` are done. With `cache` a repeat is answered at once and not counted.

    A training takes a log-normal time around one, so that workers fall out of step.
    """
    objectives = len(next(iter(problem.boxes.values()))[0])
    search = METHODS[method](problem, seed, objectives)
    rng = np.random.default_rng([seed, 99])
    known: dict[Hashable, Parameters] = {}
    started: set[Hashable] = set()
    queue: list[tuple[float, int, object, Parameters, Hashable]] = []
    scores: dict[int, dict[str, float]] = {}
    clock, cpu, asked, repeats, done, in_a_row = 0.0, 0.0, 0, 0, 0, 0
    while done < trials:
        while len(queue) < workers and done + len(queue) < trials:
            begin = time.process_time()
            ticket, parameters = search.ask()
            cpu += time.process_time() - begin
            asked += 1
            identity = problem.identity(parameters)
            if identity in started:
                repeats += 1
                in_a_row += 1
                if cache:
                    search.tell(ticket, problem.told(parameters))
                    if in_a_row < PATIENCE:
                        continue
                    ticket, parameters = None, _new(problem, started, rng)
                    identity = problem.identity(parameters)
            in_a_row = 0
            started.add(identity)
            heapq.heappush(
                queue, (clock + float(np.exp(0.5 * rng.standard_normal())), asked, ticket, parameters, identity)
            )
        clock, _, ticket, parameters, identity = heapq.heappop(queue)
        if ticket is not None:
            begin = time.process_time()
            search.tell(ticket, problem.told(parameters))
            cpu += time.process_time() - begin
        known[identity] = parameters
        done += 1
        if done in CHECKPOINTS or done == trials:
            scores[done] = problem.scores(known)
    return Result(scores, 1000 * cpu / asked, repeats / asked)


def _new(problem: Problem, known: set[Hashable], rng: np.random.Generator) -> Parameters:
    while True:
        drawn = {name: options[rng.integers(len(options))] for name, options in problem.choices.items()}
        if problem.identity(drawn) not in known:
            return drawn
