"""The Ray Tune adapter: a thin layer that lets Ray run what the broker asks for.

Tune's own state (its experiment folder, its searcher's checkpoint) is thrown away: the broker's study and
records are the only state of a search. A candidate's own errors come back as data; what Ray sees as an error is
an infrastructure error, and the candidate is queued again.
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.common.errors import LostError, NoSpaceError, WrongNodeError
from nas.common.scratch import scratch_folder
from nas.common.text import CUT_OFF, duration_text
from nas.runs.demands import ResourceRequest, trial_request
from nas.runs.record import Evaluation, Outcome
from nas.search.candidate import Candidate, TrialSource
from nas.search.ray.artifacts import ArtifactStore
from nas.search.ray.environment import OF_TUNE, environment
from nas.search.ray.failure import UNKNOWN, Failure, failure_of
from nas.search.ray.placement import Placement
from nas.search.ray.watchdog import Watchdog
from nas.search.ray.worker import Evaluator
from nas.training.history import EpochMetrics

logger = logging.getLogger(__name__)

_EVALUATION = TypeAdapter(Evaluation)
_CANDIDATE = TypeAdapter(Candidate)
_MAX_CRASHES = 4
_MAX_HANDED_BACK = 10
"""Times that a candidate which met a wrong node is handed to another one; afterwards it is lost."""
_AS_MANY_AS_ASKED_FOR = {"TUNE_MAX_PENDING_TRIALS_PG": "1000000"}
"""As many actors may start at once as the searcher lets trials run. Tune's default of one lets the first actor, as soon as it is
idle, take the trial whose own actor is still starting; with short trials the second never comes up."""
HUNG_S = 5.0
"""Seconds after a candidate's time is over before its process is killed: most end with their step."""
TOLD_S = 1.0
"""Seconds before it is killed in which a process tells that it hangs."""


class CandidateTrainable(tune.Trainable):
    """Evaluates candidates one after another in one process; a step is an epoch of training.

    What it is given and what it reports is JSON text, since Tune flattens nested dictionaries on the way.
    """

    def setup(
        self, config: dict[str, Any], start: Callable[[], Evaluator], keeper: ArtifactStore | None = None
    ) -> None:
        """Get ready to evaluate; `config` holds the first candidate. The `keeper` is told of what hangs.

        An error waits for the first step: of an actor that does not start Ray tells the text of its error alone.
        """
        self._watchdog: Watchdog | None = None
        self._keeper = keeper
        try:
            self._evaluate = start()
        except Exception as error:
            self._evaluate = functools.partial(_raise, error)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        candidate = _CANDIDATE.validate_json(config["candidate"])
        self._steps = self._evaluate(candidate)
        self._candidate = candidate
        self._began = time.monotonic()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next candidate in the same process."""
        self._steps.close()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch, or the end of the evaluation."""
        try:
            with self._watched():
                so_far = next(self._steps)
        except StopIteration as end:
            return self._ended(end.value)
        timeout_s = self._candidate.timeout_s
        if timeout_s is not None and time.monotonic() - self._began > timeout_s:
            return self._ended(replace(so_far, outcome=Outcome.FAILED, reason=too_long(timeout_s)))
        return {"so_far": _EVALUATION.dump_json(so_far).decode()}

    def _ended(self, evaluation: Evaluation) -> dict[str, Any]:
        return {"evaluation": _EVALUATION.dump_json(evaluation).decode(), "done": True}

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Have this process killed if it is still here when the candidate's time is over, and long since.

        A thread says so shortly before. It cannot where the step never lets go of the interpreter: then the candidate is
        taken for lost, as one whose node died is.
        """
        limits = [limit for limit in (self._candidate.timeout_s, self._candidate.left_s) if limit is not None]
        if not limits:
            yield
            return
        left_s = max(0.0, min(limits) - (time.monotonic() - self._began)) + HUNG_S
        telling = threading.Timer(left_s - TOLD_S, self._tell_hung, [self._candidate])
        telling.daemon = True
        telling.start()
        self._watchdog = self._watchdog or Watchdog()
        self._watchdog.expect_within(left_s)
        try:
            yield
        finally:
            telling.cancel()
            self._watchdog.rest()

    def _tell_hung(self, candidate: Candidate) -> None:
        if self._keeper is not None:
            self._keeper.hung(candidate)

    def cleanup(self) -> None:
        """The process is to end."""
        if self._watchdog is not None:
            self._watchdog.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a candidate that is interrupted starts over."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was saved."""


def too_long(timeout_s: float) -> str:
    """Why an evaluation failed that took longer than it may."""
    return f"it took longer than the trial timeout of {duration_text(timeout_s)}"


def _raise(error: Exception, candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """An evaluator that raises the error at its first step."""
    raise error
    yield


class SourceSearcher(Searcher):
    """Hands Tune the candidates that are asked for, and whoever asks for them Tune's results.

    An exception in a searcher would end the whole Tune run without a word, so it is kept in `error`, the search is
    stopped, and the caller raises it.
    """

    def __init__(
        self,
        source: TrialSource,
        on_epoch: Callable[[Candidate, EpochMetrics], None],
        placement: Placement,
        keeper: ArtifactStore | None = None,
    ) -> None:
        super().__init__()
        self._keeper = keeper
        self._source = source
        self._on_epoch = on_epoch
        self._placement = placement
        self._candidates: dict[str, Candidate] = {}
        self._stopped: dict[str, Evaluation] = {}
        self.failures: dict[str, Failure] = {}
        """Of trials, which Tune tells its scheduler but not a searcher."""
        self._handed_back: list[Candidate] = []
        self._times_handed_back: Counter[tuple[int, int]] = Counter()
        self.error: BaseException | None = None
        self.heard = False
        """Whether any candidate came to its end."""
        self._on_notice = signal.getsignal(signal.SIGUSR1)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next candidate, None to be asked again later, FINISHED at the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._on_notice)  # Tune takes it, whatever it is told, to end at once
        try:
            if self.error is not None or self._source.finished:  # after an error what runs may never be finished
                return Searcher.FINISHED
            if len(self._candidates) >= self._placement.limit:
                return None
            candidate = self._handed_back.pop() if self._handed_back else self._source.ask()
            if candidate is None:
                return Searcher.FINISHED if self._source.finished else None
            self._candidates[trial_id] = candidate
            text = _CANDIDATE.dump_json(replace(candidate, left_s=candidate.still_left_s)).decode()
            return {"number": candidate.number, "candidate": text, "nodes": self._placement.selector}
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
            reason = self._source.should_stop(candidate, so_far)
        except Exception as error:
            self._fail(error)
            return False
        if reason is not None:
            self._stopped[trial_id] = replace(so_far, reason=reason)
        return reason is not None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended or was stopped, or its worker died."""
        candidate = self._candidates.pop(trial_id, None)
        stopped = self._stopped.pop(trial_id, None)
        if candidate is None:
            return
        try:
            if stopped is not None and not error:
                self._source.finish(candidate, stopped)
            elif error or not result or "evaluation" not in result:
                unknown = UNKNOWN
                self._failed(candidate, self.failures.pop(trial_id, unknown))
            else:
                self._source.finish(candidate, _EVALUATION.validate_json(result["evaluation"]))
                self.heard = True
        except Exception as failure:
            self._fail(failure)

    def _failed(self, candidate: Candidate, failure: Failure) -> None:
        """A candidate gave no answer: hand it to another node, or say what became of it."""
        if isinstance(failure.cause, WrongNodeError) and self._hands_back(candidate, failure.cause.node):
            return
        if candidate.out_of_time:
            self._source.finish(candidate, Evaluation(Outcome.STOPPED, CUT_OFF))
        elif isinstance(failure.cause, LostError):
            if isinstance(failure.cause, NoSpaceError):
                self._source.stop(f"the disk of {self._source.run.path} is full")
            self._source.report_lost(candidate, str(failure.cause))
        elif candidate.timeout_s is not None and self._was_hung(candidate):
            hung = f"{too_long(candidate.timeout_s)}, and hung: its process was killed"
            self._source.finish(candidate, Evaluation(Outcome.FAILED, hung))
        else:
            self._source.report_lost(candidate, f"its worker died: {failure.text}")

    def _was_hung(self, candidate: Candidate) -> bool:
        """Whether its process said that it hung; how long ago a candidate was asked for says nothing, since nodes die and sleep."""
        return self._keeper is not None and self._keeper.was_hung(candidate)

    def _hands_back(self, candidate: Candidate, node: str) -> bool:
        """Whether a candidate that met a wrong node is to be evaluated on another one."""
        key = candidate.number, candidate.settings.seed
        if self._times_handed_back[key] >= _MAX_HANDED_BACK:
            return False
        self._times_handed_back[key] += 1
        self._placement.avoid(node)
        self._handed_back.append(candidate)
        return True

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self._source.stop(f"an error in the search: {error}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the broker's study and records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher into its experiment folder, which nobody reads.
        return {}


class SourceScheduler(FIFOScheduler):
    """First in, first out; after each epoch the source says whether the candidate goes on."""

    def __init__(self, searcher: SourceSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called before the searcher hears of the result."""
        stop = self._searcher.epoch(trial.trial_id, result)
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits; Tune's own scheduler looks for it through all trials that ever were."""
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING]
        return min(waiting, key=lambda trial: trial.config["number"], default=None)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Called before the searcher hears of the failure."""
        self._searcher.failures[trial.trial_id] = failure_of(trial)


def run_candidates(
    source: TrialSource,
    start: Callable[[], Evaluator],
    on_epoch: Callable[[Candidate, EpochMetrics], None] | None = None,
    placement: Placement | None = None,
    keeper: ArtifactStore | None = None,
) -> None:
    """Evaluate on Ray what is asked for until the source has finished. Ray must be running.

    `start` is called in each worker's process, and gives what evaluates candidates there (nas/search/ray/worker.py);
    `placement` says where and how many at once, by default on this machine as many as fit;
    the `keeper` is told what hung, which without one is lost.
    A crash of Tune itself, as where Ray kills a worker because its node is short of memory, starts it again, unless
    that happened `_MAX_CRASHES` times with nothing finished between; candidates that ran are queued again.
    """
    settings = source.run.settings
    placement = placement or Placement(settings)
    trainable = tune.with_resources(
        tune.with_parameters(CandidateTrainable, start=start, keeper=keeper),
        functools.partial(_request, trial_request(settings.resources, settings.on_gpu)),
    )
    crashes = 0
    while True:
        searcher = SourceSearcher(source, on_epoch or (lambda candidate, metrics: None), placement, keeper)
        crash: Exception | None = None
        try:
            with scratch_folder() as scratch, environment(_AS_MANY_AS_ASKED_FOR, OF_TUNE):
                _fit(trainable, searcher, scratch)
        except KeyboardInterrupt:
            source.stop("interrupted")
            raise
        except Exception as error:
            crash = error
        if searcher.error is not None:
            raise searcher.error
        why = "Ray Tune ended while it ran"
        if crash is not None:
            why += f": {' '.join(str(crash).split())[:200]}"
        for candidate in list(source.running.values()):
            source.report_lost(candidate, why)
        if source.finished:
            return
        crashes = 1 if searcher.heard else crashes + 1
        if crashes >= _MAX_CRASHES:
            raise RuntimeError(f"{why} ({crashes} times, and nothing finished between)") from crash
        logger.warning("%s; starting it again", why)


def _fit(trainable: Any, searcher: SourceSearcher, scratch: Path) -> None:
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=SourceScheduler(searcher),
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


def _request(place: ResourceRequest, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial takes, on nodes that its config allows. Tune lets trials with equal requests share processes."""
    nodes = {"bundle_label_selector": [{"ray.io/node-id": config["nodes"]}]} if config["nodes"] else {}
    return tune.PlacementGroupFactory([place.demands], **nodes)
