"""What happens in a worker's process: candidates are evaluated one after another, on data that is loaded once."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nas.common.errors import LostError
from nas.common.files import weights_content
from nas.data.sets import ImageData
from nas.latency.device import check_context
from nas.latency.lease import lease_for
from nas.models.weights import Weights, load_weights
from nas.runs.record import Evaluation, Outcome
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory
from nas.search.candidate import Candidate, InTurn
from nas.tasks.base import outputs_of
from nas.training.allocator import own_process
from nas.training.images import normalised_for

if TYPE_CHECKING:
    from nas.search.ray.artifacts import ArtifactStore

Evaluator = Callable[[Candidate], Generator[Evaluation, None, Evaluation]]
"""Evaluates a candidate; each step gives what is known by then, and the last one the outcome."""


@dataclass(frozen=True)
class Worker:
    """All that a worker's process needs, wherever it runs: sent there once, through Ray's object store.

    `weights` are what candidates inherit, by the names of initial weights: each is given the `data` as its own want them
    normalised. `actors` is what `nas.search.ray.measuring.measurers` gave. Where latencies of this
    process's devices decide something, `models` says of which models these must be.
    """

    settings: SearchSettings
    data: ImageData
    keeper: ArtifactStore
    weights: Mapping[str, Weights]
    actors: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> Evaluator:
        """Get this process ready: torch, and the data on the device; raises `WrongNodeError` on another model of device."""
        with lease_for("cpu").shared():  # importing torch is seconds of work that a measurement must not hear
            import torch

            from nas.search.ray.placement import check_models
            from nas.training.device_data import DeviceData

            check_models(self.models)
            own_process()
            torch.set_num_threads(max(1, int(self.settings.resources.cpus_per_trial)))
            return functools.partial(self._evaluate, DeviceData(self.data, self.settings.device))

    def _evaluate(self, data: Any, candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
        from nas.search.evaluate import evaluate_steps
        from nas.search.ray.measuring import measure_on, node_name

        here = node_name()
        until = None if candidate.left_s is None else time.monotonic() + candidate.left_s
        self.keeper.begin(candidate.number, here)
        if candidate.in_turn is not None:
            return self._in_turn(candidate.in_turn, here)
        dominated = (lambda known: None) if candidate.dominance is None else candidate.dominance.dominated
        weights = self.weights[candidate.settings.init]
        steps = evaluate_steps(
            candidate.architecture.canonical,
            data.normalised_as(normalised_for(self.data, weights)),
            candidate.settings,
            functools.partial(measure_on, self.actors),
            candidate.latency,
            dominated,
            until,
            weights,
        )
        while True:
            try:
                so_far = next(steps)
            except StopIteration as end:
                evaluated = end.value
                break
            yield replace(so_far, worker=here)
        evaluation = replace(evaluated.evaluation, worker=here)
        try:
            for device in self.settings.worker_devices:
                check_context(device)
        except RuntimeError as error:
            reason = evaluation.reason or " ".join(str(error).split())[:300]
            raise LostError(f"the device no longer answers this process, which is left: {reason}") from error
        if evaluated.network is not None and candidate.keep_weights:
            self.keeper.save_weights(candidate.digest, weights_content(evaluated.network.state_dict()))
        return evaluation

    def _in_turn(self, in_turn: InTurn, here: str) -> Evaluation:
        """Latencies of several networks by digest, in an evaluation that failed where they could not be measured."""
        from nas.search.ray.measuring import measure_all_on

        start = time.perf_counter()
        try:
            latencies = measure_all_on(self.actors, self.settings.evaluation, in_turn, outputs_of(self.data))
        except LostError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return Evaluation(Outcome.FAILED, reason, worker=here)
        seconds = time.perf_counter() - start
        return Evaluation(Outcome.DONE, latencies=latencies, seconds=seconds, worker=here)


@contextmanager
def worker_of(
    run: RunDirectory,
    data: ImageData,
    actors: Mapping[str, Any] | None = None,
    models: Mapping[str, str] | None = None,
    inits: Collection[str] = (),
) -> Iterator[Worker]:
    """What the workers of a run need, and a keeper for what they leave; while the context lasts. Ray must be running.

    `inits` are initial weights of candidates beside the run's own.
    """
    from nas.search.ray.artifacts import keeper_of

    weights = {init: load_weights(init) for init in sorted({run.settings.evaluation.init, *inits})}
    with keeper_of(run) as keeper:
        yield Worker(run.settings, data.without_test(), keeper, weights, dict(actors or {}), dict(models or {}))
