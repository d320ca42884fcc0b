"""What the trackers write is read back with the tools' own readers; a tracker that fails ends no search."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import RunFactory

from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.spaces.base import Cost
from nas.training.history import EpochMetrics
from nas.views import trackers as tracking
from nas.views.trackers import MLFLOW_DEFAULTS, Progresses, check_trackers, make_trackers
from nas.workflows.search import Progress

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the package tensorboard is not installed"
)
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="the package mlflow is not installed"
)

LATENCY = Latency(2.5, 2.0, 3.0, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
COST = Cost(macs=1000, params=100, size_bytes=400)
RESULTS = {
    "objective/accuracy": 0.75,
    "objective/latency": 2.5,
    "macs": 1000,
    "params": 100,
    "size_bytes": 400,  # and no peak activations, which are not known
    "latency_ms": 2.5,
    "latency_p10_ms": 2.0,
    "latency_p90_ms": 3.0,
    "trial_seconds": 9.0,
}


@dataclass(frozen=True)
class Extended(EpochMetrics):
    """Metrics as they may become: trackers take the fields as they are."""

    later: float = 0.5
    unknown: float | None = None
    note: str = "not a number"


def epochs() -> tuple[EpochMetrics, ...]:
    return tuple(
        Extended(
            epoch=epoch,
            train_loss=2.0 / epoch,
            validation_loss=3.0 / epoch,
            score=0.25 + epoch / 4,
            scores={"accuracy": 0.25 + epoch / 4},
            images_per_s=100.0,
            seconds=1.5,
        )
        for epoch in (1, 2)
    )


LOGGED = {"train_loss", "validation_loss", "score", "accuracy", "images_per_s", "seconds", "later"}


def search(broker: Broker, progress: Progress) -> tuple[Candidate, Candidate, Candidate]:
    """Three candidates at once: one is trained to the end, one fails, one does not end."""
    progress.begin(broker)
    broker.on_record = progress.record
    done, failed, running = (broker.ask() for _ in range(3))
    assert done is not None
    assert failed is not None
    assert running is not None
    for metrics in epochs():
        for candidate in (done, failed, running):
            progress.epoch(candidate, metrics)
    broker.finish(done, Evaluation(Outcome.DONE, None, COST, LATENCY, epochs(), seconds=9.0))
    broker.finish(failed, Evaluation(Outcome.FAILED, "it did not fit"))
    progress.end()
    return done, failed, running


@pytest.fixture
def broker(make_run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> Broker:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in MLFLOW_DEFAULTS.items():  # also so that nothing is left in the environment
        monkeypatch.setenv(name, value)
    return Broker(make_run())


# -------------------------------------------------------------------- choosing trackers


def test_an_unknown_tracker_lists_the_known_ones(tmp_path: Path) -> None:
    for check in (check_trackers, lambda names: make_trackers(names, tmp_path)):
        with pytest.raises(InputError, match="log wandb: unknown; choose from tensorboard, mlflow"):
            check(["wandb"])


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"log mlflow: .* not installed: pip install 'pareto-nas\[mlflow\]'"):
        check_trackers(["mlflow"])


@needs_tensorboard
def test_a_tracker_is_made_once_and_writes_nothing_yet(tmp_path: Path) -> None:
    assert len(make_trackers(["tensorboard", "tensorboard"], tmp_path)) == 1
    assert make_trackers([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------- several at once


class Told(Progress):
    """Keeps the names of what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, broker: Broker) -> None:
        self.told.append("begin")

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        self.told.append("epoch")

    def record(self, record: TrialRecord) -> None:
        self.told.append("record")

    def end(self) -> None:
        self.told.append("end")


class Broken(Told):
    """Fails at the second epoch, and again when it is ended for that."""

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        super().epoch(candidate, metrics)
        if metrics.epoch == 2:
            raise OSError("the disk is\nfull")

    def end(self) -> None:
        super().end()
        raise OSError("still full")


def test_one_that_raises_is_ended_with_one_warning(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broken, well = Broken(), Told()
    search(broker, Progresses([broken, well]))
    assert broken.told == ["begin", *["epoch"] * 4, "end"]
    assert well.told == ["begin", *["epoch"] * 6, "record", "record", "end"]
    assert [record.message for record in caplog.records] == ["Broken ended: OSError: the disk is full"]
    assert [record.outcome for record in broker.records] == [Outcome.DONE, Outcome.FAILED]


@needs_mlflow
def test_a_store_that_cannot_be_reached_ends_no_search(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    search(broker, Progresses(make_trackers(["mlflow"], broker.run.path)))
    (warning,) = (record.message for record in caplog.records if record.name == "nas.views.trackers")
    assert warning.startswith("MLflowTracker ended: ")
    assert len(broker.records) == 2


# -------------------------------------------------------------------- TensorBoard


@needs_tensorboard
def test_tensorboard_reads_back_epochs_results_and_hyperparameters(broker: Broker) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    done, failed, running = search(broker, Progresses(make_trackers(["tensorboard"], broker.run.path)))

    def read(candidate: Candidate) -> Any:
        return EventAccumulator(str(broker.run.path / "tensorboard" / f"trial-{candidate.number:05}")).Reload()

    events = read(done)
    assert set(events.Tags()["scalars"]) == LOGGED | set(RESULTS)
    for metrics in epochs():
        for name in LOGGED:
            event = events.Scalars(name)[metrics.epoch - 1]
            assert (event.step, event.value) == (metrics.epoch, pytest.approx(metrics.as_json()[name]))
    assert {name: events.Scalars(name)[0].value for name in RESULTS} == RESULTS
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = HParamsPluginData.FromString(content).session_start_info.hparams
    assert shown["architecture"].string_value == str(done.architecture.canonical)
    assert shown["digest"].string_value == done.digest
    assert shown["outcome"].string_value == "done"
    assert shown["s0.depth"].number_value == done.parameters["s0.depth"]
    assert set(shown) == {"architecture", "digest", "outcome", *done.parameters}

    assert set(read(failed).Tags()["scalars"]) == LOGGED | {"trial_seconds"}
    assert set(read(running).Tags()["scalars"]) == LOGGED


@needs_tensorboard
def test_a_single_evaluation_needs_no_search(broker: Broker, tmp_path: Path) -> None:
    candidate = broker.ask()
    assert candidate is not None
    (tracker,) = make_trackers(["tensorboard"], tmp_path / "new")
    tracker.epoch(candidate, epochs()[0])
    tracker.end()
    assert [path.name for path in (tmp_path / "new" / "tensorboard").iterdir()] == [f"trial-{candidate.number:05}"]


# -------------------------------------------------------------------- MLflow


def trials(client: Any, parent: str) -> dict[str, Any]:
    """The nested runs by name."""
    (experiment,) = client.search_experiments(filter_string="name = 'nas'")
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run for run in runs}


def parents(client: Any) -> list[Any]:
    (experiment,) = client.search_experiments(filter_string="name = 'nas'")
    return [run for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.slow
@needs_mlflow
def test_mlflow_reads_back_a_search_and_its_second_half(broker: Broker) -> None:
    from mlflow import MlflowClient

    folder = broker.run.path
    done, failed, running = search(broker, Progresses(make_trackers(["mlflow"], folder)))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    (parent,) = parents(client)
    assert (parent.info.run_name, parent.info.status) == (folder.name, "FINISHED")

    runs = trials(client, parent.info.run_id)
    assert {name: run.info.status for name, run in runs.items()} == {
        f"trial-{done.number:05}": "FINISHED",
        f"trial-{failed.number:05}": "FAILED",
        f"trial-{running.number:05}": "KILLED",
    }
    run = runs[f"trial-{done.number:05}"]
    for metrics in epochs():
        for name in LOGGED:
            metric = client.get_metric_history(run.info.run_id, name)[metrics.epoch - 1]
            assert (metric.step, metric.value) == (metrics.epoch, metrics.as_json()[name])
    assert run.data.metrics == RESULTS | {name: epochs()[-1].as_json()[name] for name in LOGGED}
    assert run.data.params == {
        "architecture": str(done.architecture.canonical),
        "digest": done.digest,
        **{name: str(value) for name, value in done.parameters.items()},
    }
    assert run.data.tags["outcome"] == "done"
    record = broker.records[0]
    assert run.info.start_time == round(1000 * record.started)
    assert run.info.end_time == round(1000 * record.finished)
    assert runs[f"trial-{failed.number:05}"].data.tags["reason"] == "it did not fit"

    # The search is resumed after a crash that left a trial running: the run goes on, that trial does not.
    client.update_run(runs[f"trial-{running.number:05}"].info.run_id, "RUNNING")
    (tracker,) = make_trackers(["mlflow"], folder)
    tracker.begin(broker)
    (again,) = parents(client)
    assert (again.info.run_id, again.info.status) == (parent.info.run_id, "RUNNING")
    assert trials(client, parent.info.run_id)[f"trial-{running.number:05}"].info.status == "KILLED"
    tracker.end()
    assert parents(client)[0].info.status == "FINISHED"


@pytest.mark.slow
@needs_mlflow
def test_mlflow_goes_where_the_environment_says(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    store = f"sqlite:///{tmp_path / 'mine.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (broker.run.path / "mlflow").mkdir()
    (broker.run.path / "mlflow" / "run-id").write_text("0" * 32)  # of a store that is used no more
    done, *_ = search(broker, Progresses(make_trackers(["mlflow"], broker.run.path)))
    client = mlflow.MlflowClient(store)
    (parent,) = parents(client)
    assert trials(client, parent.info.run_id)[f"trial-{done.number:05}"].data.tags["outcome"] == "done"
    assert not (broker.run.path / "mlflow" / "mlflow.db").exists()
    assert mlflow.active_run() is None
    assert not logging.getLogger("nas.views.trackers").disabled  # a migration of the store may configure logging
