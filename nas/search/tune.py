"""The Ray Tune adapter: a thin layer that lets Ray run what the broker asks for.

Tune's own state (its experiment folder, its searcher's checkpoint) is thrown away: the broker's study and
records are the only state of a search. A candidate's own errors come back as data; what Ray sees as an error is
an infrastructure error, and the candidate is queued again.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

# Before Ray is imported: no per-trial loggers (0.03 s a trial), no tables and signal
# handlers of its own, no usage statistics sent.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray._private.utils import read_ray_address
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.data import ImageData
from nas.device_lease import lease_for
from nas.errors import InputError, LostError
from nas.record import EpochMetrics, Evaluation
from nas.run import RunDirectory
from nas.search.candidate import Asker, Candidate
from nas.search.measuring import measure_on, node_name
from nas.settings import SearchSettings

logger = logging.getLogger(__name__)

_EVALUATION = TypeAdapter(Evaluation)
_CANDIDATE = TypeAdapter(Candidate)
_MAX_RESTARTS = 3


class CandidateTrainable(tune.Trainable):
    """Evaluates candidates one after another in one process; a step is an epoch of training.

    What it is given and what it reports is JSON text, since Tune flattens nested dictionaries on the way.
    """

    def setup(self, config: dict[str, Any], run: RunDirectory, data: ImageData, actors: dict[str, Any]) -> None:
        """Put the data on the device; `config` holds the first candidate, `actors` what `measurers` gave."""
        with lease_for("cpu").shared():  # importing torch is seconds of work that a measurement must not hear
            import torch

            from nas.device_data import DeviceData

            torch.set_num_threads(max(1, int(run.settings.resources.cpus_per_trial)))
            self._run = run
            self._data = DeviceData(data, run.settings.device)
            self._measure = functools.partial(measure_on, actors)
            self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        from nas.evaluate import evaluate_steps

        candidate = _CANDIDATE.validate_json(config["candidate"])
        self._architecture = candidate.architecture.canonical
        self._keep_weights = candidate.keep_weights
        hopeless = (lambda known: None) if candidate.prospect is None else candidate.prospect.hopeless
        self._steps = evaluate_steps(
            self._architecture, self._data, candidate.settings, self._measure, candidate.latency, hopeless
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next candidate in the same process."""
        self._steps.close()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch, or the end of the evaluation."""
        try:
            return {"so_far": _EVALUATION.dump_json(next(self._steps)).decode(), "worker": node_name()}
        except StopIteration as end:
            evaluated = end.value
        if evaluated.network is not None and self._keep_weights:
            self._run.save_weights(self._architecture.digest, evaluated.network.state_dict())
        evaluation = replace(evaluated.evaluation, worker=node_name())
        return {"evaluation": _EVALUATION.dump_json(evaluation).decode(), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a candidate that is interrupted starts over."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was saved."""


class AskerSearcher(Searcher):
    """Hands Tune the candidates that are asked for, and whoever asks for them Tune's results.

    An exception in a searcher would end the whole Tune run without a word, so it is kept in `error`, the search is
    stopped, and the caller raises it.
    """

    def __init__(self, asker: Asker, on_epoch: Callable[[Candidate, EpochMetrics], None]) -> None:
        super().__init__()
        self._asker = asker
        self._on_epoch = on_epoch
        self._candidates: dict[str, Candidate] = {}
        self._stopped: dict[str, Evaluation] = {}
        self.reasons: dict[str, str] = {}
        """Errors of failing trials, which Tune tells its scheduler but not a searcher."""
        self.error: BaseException | None = None
        self.limit = asker.run.settings.resources.max_concurrent
        self._lease = lease_for("cpu")
        self._on_notice = signal.getsignal(signal.SIGUSR1)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next candidate, None to be asked again later, FINISHED at the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._on_notice)  # Tune takes it, whatever it is told, to end at once
        try:
            if self._asker.finished:
                return Searcher.FINISHED
            if len(self._candidates) >= self.limit:
                return None
            with self._lease.shared():  # the sampler computes; a CPU measurement must not hear it
                candidate = self._asker.ask()
            if candidate is None:
                return Searcher.FINISHED if self._asker.finished else None
            self._candidates[trial_id] = candidate
            return {"number": candidate.number, "candidate": _CANDIDATE.dump_json(candidate).decode()}
        except Exception as error:
            self._fail(error)
            return Searcher.FINISHED

    def epoch(self, trial_id: str, result: dict[str, Any]) -> bool:
        """An epoch ended; whether the candidate is to be stopped there."""
        candidate = self._candidates.get(trial_id)
        if candidate is None or "so_far" not in result:
            return False
        try:
            so_far = _EVALUATION.validate_json(result["so_far"])
            self._on_epoch(candidate, so_far.history[-1])
            reason = self._asker.judge(candidate, so_far)
        except Exception as error:
            self._fail(error)
            return False
        if reason is not None:
            self._stopped[trial_id] = replace(so_far, reason=reason, worker=result["worker"])
        return reason is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended or was stopped, or its worker died."""
        candidate = self._candidates.pop(trial_id, None)
        stopped = self._stopped.pop(trial_id, None)
        if candidate is None:
            return
        try:
            if stopped is not None and not error:
                self._asker.finish(candidate, stopped)
            elif error or not result or "evaluation" not in result:
                reason = self.reasons.pop(trial_id, "no reason given")
                _, lost, told = reason.partition(f"{LostError.__name__}: ")
                self._asker.lose(candidate, told if lost else f"its worker died: {reason}")
            else:
                self._asker.finish(candidate, _EVALUATION.validate_json(result["evaluation"]))
        except Exception as failure:
            self._fail(failure)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self._asker.stop(f"an error in the search: {error}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the broker's study and records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher into its experiment folder, which nobody reads.
        return {}


class AskerScheduler(FIFOScheduler):
    """First in, first out; after each epoch the asker says whether the candidate goes on."""

    def __init__(self, searcher: AskerSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called before the searcher hears of the result."""
        stop = self._searcher.epoch(trial.trial_id, result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called before the searcher hears of the failure."""
        try:
            lines = Path(trial.error_file).read_text(encoding="utf-8").split("\n")
        except (OSError, TypeError):
            return
        told = [line.strip() for line in lines if line.strip() and not line.startswith("\t")]
        if told:
            self._searcher.reasons[trial.trial_id] = told[-1][:300]


def start_ray(address: str | None, gpus: bool) -> None:
    """Connect to a cluster, or start Ray on this machine, quietly; does nothing when Ray runs already.

    Started here, it has this machine's GPUs only where `gpus` says so.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would print is in the records
    if ray.is_initialized():
        return
    if address:
        _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--address {address}: no Ray cluster answers there ({reason})") from error
        return
    # Workers inherit the environment, so that they find what the driver can import (a metric of the user's own).
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    ray.init(
        address="local",  # also where RAY_ADDRESS names a cluster: --address says when to use one
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        num_gpus=None if gpus else 0,
    )


def _check_reachable(address: str) -> None:
    """Raise `InputError` when nothing listens at the address; Ray itself would try for two minutes."""
    found = os.environ.get("RAY_ADDRESS") or read_ray_address() if address == "auto" else address
    if not found:
        raise InputError("--address auto: no Ray cluster runs on this machine; start one with `ray start --head`")
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers at {found} ({error})") from error


def cluster_capacity() -> tuple[float, float]:
    """CPU cores and GPUs that Ray has."""
    resources = ray.cluster_resources()
    return float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))


def run_candidates(
    asker: Asker,
    data: ImageData,
    on_epoch: Callable[[Candidate, EpochMetrics], None] | None = None,
    actors: Mapping[str, Any] | None = None,
) -> None:
    """Evaluate on Ray what is asked for until the asker has finished. Ray must be running.

    `actors` measure the targets that no worker has (nas/search/measuring.py).
    A crash of Tune itself starts it anew, a bounded number of times; candidates that ran are queued again.
    """
    # Workers have another working directory.
    run = RunDirectory(asker.run.path.resolve(), asker.run.content)
    trainable = tune.with_resources(
        tune.with_parameters(CandidateTrainable, run=run, data=data, actors=dict(actors or {})),
        _resources(run.settings),
    )
    for attempt in range(_MAX_RESTARTS + 1):
        searcher = AskerSearcher(asker, on_epoch or (lambda candidate, metrics: None))
        try:
            with tempfile.TemporaryDirectory(prefix="nas-tune-") as scratch:
                _fit(trainable, searcher, Path(scratch))
        except KeyboardInterrupt:
            asker.stop("interrupted")
            raise
        except Exception as error:
            if searcher.error is not None or attempt == _MAX_RESTARTS:
                raise
            logger.warning("Ray Tune ended with %s; starting it again", error)
        if searcher.error is not None:
            raise searcher.error
        for candidate in list(asker.running.values()):
            asker.lose(candidate, "Ray Tune ended while it ran")
        if asker.finished:
            return
    raise RuntimeError(f"Ray Tune ended {_MAX_RESTARTS + 1} times before the search was over")


def _fit(trainable: Any, searcher: AskerSearcher, scratch: Path) -> None:
    # As many actors may start at once as trials may run. Tune's default of one lets the first actor, as soon as
    # it is idle, take the trial whose own actor is still starting; with short trials the second never comes up.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(searcher.limit)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=AskerScheduler(searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="nas",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def _resources(settings: SearchSettings) -> dict[str, float]:
    resources = {"CPU": settings.resources.cpus_per_trial}
    if settings.resources.gpus_per_trial:
        resources["GPU"] = settings.resources.gpus_per_trial
    return resources
