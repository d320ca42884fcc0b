"""Logging a search or an evaluation to TensorBoard or MLflow, on the driver, through the progress callbacks.

The records stay the source of truth; what is logged is a copy for these tools, and nothing reads it back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.common.errors import InputError, arg
from nas.common.jsonl import fields_of
from nas.runs.layout import MLFLOW, TENSORBOARD
from nas.runs.objectives import target_objective
from nas.runs.record import Confirmation, Outcome, TrialRecord
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.training.history import EpochMetrics
from nas.workflows.search import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

MLFLOW_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # The driver waits for the answer, and a search must not stand still for the minutes of MLflow's own defaults.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Environment variables that are set before MLflow is imported, unless the user did."""
_MLFLOW_BATCH = 100
"""Parameters that MLflow takes at once."""


class Progresses(Progress):
    """Passes everything on to several; one that raises is ended with a warning, and the search goes on."""

    def __init__(self, members: Sequence[Progress]) -> None:
        self._members = list(members)

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        self._tell(lambda member: member.begin(broker))

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""
        self._tell(lambda member: member.epoch(candidate, metrics))

    def record(self, record: TrialRecord) -> None:
        """A trial ended and is on disk."""
        self._tell(lambda member: member.record(record))

    def epoch_again(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate that is trained again ended."""
        self._tell(lambda member: member.epoch_again(candidate, metrics))

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""
        self._tell(lambda member: member.confirmation(confirmation))

    def in_turn(self, networks: int) -> None:
        """So many networks near the front are now measured in turn; 0: they were."""
        self._tell(lambda member: member.in_turn(networks))

    def end(self) -> None:
        """The search is over, by whatever cause."""
        self._tell(lambda member: member.end())

    def _tell(self, tell: Callable[[Progress], None]) -> None:
        for member in list(self._members):
            try:
                tell(member)
            except Exception as error:  # a full disk, a server that is gone: whatever its library raises
                self._members.remove(member)
                message = " ".join(str(error).split())[:300]
                logger.warning("%s ended: %s: %s", type(member).__name__, type(error).__name__, message)
                with contextlib.suppress(Exception):
                    member.end()


class TensorBoardTracker(Progress):
    """An event folder a trial, FOLDER/tensorboard/trial-NNNNN: its epochs, then its hyperparameters and results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TENSORBOARD
        self._writers: dict[int, SummaryWriter] = {}

    def begin(self, broker: Broker) -> None:
        """Import what takes seconds before anything is measured."""
        import torch.utils.tensorboard  # noqa: F401

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """Write the numbers of an epoch."""
        writer = self._writer(candidate.number)
        for name, value in _numbers(metrics).items():
            writer.add_scalar(name, value, metrics.epoch)

    def record(self, record: TrialRecord) -> None:
        """Write the results and close the trial's file."""
        writer = self._writer(record.number)
        hyperparameters = {"outcome": record.outcome.value, **_hyperparameters(record)}
        writer.add_hparams(hyperparameters, _results(record), run_name=".")  # not in a folder of their own
        self._writers.pop(record.number).close()

    def end(self) -> None:
        """Close the files of trials that did not end."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _writer(self, number: int) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if number not in self._writers:
            self._writers[number] = SummaryWriter(str(self._folder / _trial_name(number)))
        return self._writers[number]


class MLflowTracker(Progress):
    """A run for the search, named as its folder, and a nested run a trial, where MLFLOW_TRACKING_URI says.

    Without that variable it is FOLDER/mlflow/mlflow.db. A search that is resumed goes on in its run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._store = self._folder / MLFLOW
        self._client: MlflowClient | None = None
        self._experiment = self._parent = ""
        self._runs: dict[int, str] = {}

    def begin(self, broker: Broker) -> None:
        """Open the store before anything is measured: that takes seconds."""
        self._open()

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """Log the numbers of an epoch."""
        run = self._run(candidate.number, candidate.started)
        self._log_metrics(run, _numbers(metrics), metrics.epoch)

    def record(self, record: TrialRecord) -> None:
        """Log the results and end the trial's run."""
        from mlflow.entities import Param, RunTag

        client, run = self._open(), self._run(record.number, record.started)
        last = record.evaluation.history[-1].epoch if record.evaluation.history else 0
        self._log_metrics(run, _results(record), last)
        parameters = [Param(name, str(value)) for name, value in _hyperparameters(record).items()]
        for start in range(0, len(parameters), _MLFLOW_BATCH):
            client.log_batch(run, params=parameters[start : start + _MLFLOW_BATCH])
        tags = {"outcome": record.outcome.value, "reason": record.evaluation.reason}
        client.log_batch(run, tags=[RunTag(name, value) for name, value in tags.items() if value])
        status = {Outcome.FAILED: "FAILED", Outcome.LOST: "KILLED"}.get(record.outcome, "FINISHED")
        client.set_terminated(run, status, _milliseconds(record.finished))
        del self._runs[record.number]

    def end(self) -> None:
        """End the search's run, and those of trials that did not end."""
        if self._client is None:
            return
        while self._runs:
            self._client.set_terminated(self._runs.popitem()[1], "KILLED")
        self._client.set_terminated(self._parent)

    def _open(self) -> MlflowClient:
        if self._client is not None:
            return self._client
        for name, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._store.mkdir(parents=True, exist_ok=True)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        client = MlflowClient(given or f"sqlite:///{self._store / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "nas")
        known = client.get_experiment_by_name(name)
        artifacts = None if given else (self._store / "artifacts").as_uri()
        self._experiment = known.experiment_id if known else client.create_experiment(name, artifacts)
        self._parent = (
            self._resumed(client) or client.create_run(self._experiment, run_name=self._folder.name).info.run_id
        )
        (self._store / "run-id").write_text(self._parent)
        self._client = client
        return client

    def _resumed(self, client: MlflowClient) -> str | None:
        """The search's run from before, running again, where this store has it; its trials of then are not running."""
        from mlflow.exceptions import MlflowException

        note = self._store / "run-id"
        if not note.is_file():
            return None
        parent = note.read_text().strip()
        try:
            client.update_run(parent, "RUNNING")
        except MlflowException:
            return None
        left = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([self._experiment], left):
            client.set_terminated(run.info.run_id, "KILLED")
        return parent

    def _run(self, number: int, started: float) -> str:
        if number not in self._runs:
            run = self._open().create_run(
                self._experiment, _milliseconds(started), {"mlflow.parentRunId": self._parent}, _trial_name(number)
            )
            self._runs[number] = run.info.run_id
        return self._runs[number]

    def _log_metrics(self, run: str, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        self._open().log_batch(run, [Metric(name, value, now, step) for name, value in values.items()])


_TRACKERS: dict[str, Callable[[Path], Progress]] = {"tensorboard": TensorBoardTracker, "mlflow": MLflowTracker}


def check_trackers(names: Sequence[str]) -> None:
    """Raise `InputError` unless each name is that of a tracker, and the package of that name is installed."""
    for name in names:
        if name not in _TRACKERS:
            raise InputError(f"{arg('log')} {name}: unknown; choose from {', '.join(_TRACKERS)}")
        if find_spec(name) is None:
            raise InputError(
                f"{arg('log')} {name}: the package {name} is not installed: pip install 'pareto-nas[{name}]'"
            )


def make_trackers(names: Sequence[str], folder: Path) -> list[Progress]:
    """The trackers of these names, to be passed on to by `Progresses`; they write below `folder` (a run's path).

    Nothing is written before the first callback; a single evaluation may leave out `begin`. Raises `InputError` as
    `check_trackers` does.
    """
    check_trackers(names)
    return [_TRACKERS[name](folder) for name in dict.fromkeys(names)]


def _trial_name(number: int) -> str:
    return f"trial-{number:05}"


def _milliseconds(utc: float) -> int | None:
    """A moment as MLflow takes it; None, which it takes as now, where it is not known."""
    return round(1000 * utc) or None


def _numbers(value: Any) -> dict[str, float]:
    """The fields of a dataclass that are numbers, but for `epoch`."""
    return {
        name: float(number)
        for name, number in fields_of(value).items()
        if isinstance(number, int | float) and name != "epoch"
    }


def _hyperparameters(record: TrialRecord) -> dict[str, str | int | float | bool]:
    return {"architecture": record.text, "digest": record.digest, **record.parameters}


def _results(record: TrialRecord) -> dict[str, float]:
    """The objectives, `objective/` before their names, then cost, latency in ms, and the seconds that it all took."""
    cost, latency = record.evaluation.cost, record.evaluation.latency
    values = {f"objective/{name}": value for name, value in record.objectives.items()}
    if cost is not None:
        values |= _numbers(cost)
    if latency is not None:
        values |= {"latency_ms": latency.ms, "latency_p10_ms": latency.p10_ms, "latency_p90_ms": latency.p90_ms}
    for name, measured in record.evaluation.latencies.items():
        values[f"{target_objective(name)}_ms"] = measured.ms
    return {**values, "trial_seconds": record.evaluation.seconds}
