"""Shared by several test files: a run directory made without a search, a quiet, private environment, whole searches."""

from __future__ import annotations

import gc
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

# Before any test imports torch or Ray: one thread a process, and one token for all that tests start, since Ray reads it
# once in a process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.runs.front import pareto_front
from nas.runs.objectives import objective
from nas.runs.record import Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory
from nas.spaces.files import load_space

RunFactory = Callable[..., RunDirectory]
_KNEW_RAY = pytest.StashKey[bool]()

GLANCE = "warmup:0.02,seconds:0.05,attempts:1"
"""How whole searches measure for whose tests it does not matter what a latency is."""
BRIEF = (
    *("--epochs", "1", "--objectives", "accuracy,macs", "--max-concurrent", "1", "--set", "precision=float32"),
    *("--latency", GLANCE),
)
"""Flags of whole searches for whose tests it does not matter what is searched for: nothing is timed, one worker starts."""

COMPILE = pytest.param("compile", marks=pytest.mark.subprocess)
"""A mode of latency that runs a compiler, unless it finds in a cache of this machine what the compiler made."""

LONGEST = (
    *("test_search", "test_cluster", "test_status", "test_targets", "test_browse", "test_replica", "test_audit"),
    *("test_homes", "test_examples", "test_kills", "test_clean", "test_toy_task"),
    *("test_old_files", "test_family_door", "test_in_turn_search", "test_pulse", "test_data_said"),
    *("test_cluster_files", "test_workers", "test_cli"),
    *("test_baseline", "test_sampler", "test_finetune", "test_renewal", "test_broker", "test_latency_predictor"),
    *("test_latency_compare", "test_model", "test_train", "test_evaluate", "test_weights", "test_time_budget"),
)
"""Files that take the longest, in this order: begun first, they do not keep one process busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in the order of their names."""
    order = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: collections of garbage need not look through it again and again."""
    gc.freeze()


_PROGRAMS = re.compile(r"python|nas$|ray|gcs|chrom|[gc]\+\+|sh$")
"""Processes that a mark is about; `git describe` or `uname`, which libraries ask once, are none of them."""
_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.system"})
_started: list[str] = []


def _note_processes(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.fork" or (event in _STARTS and _PROGRAMS.search(Path(str(arguments[0])).name)):
        _started.append(f"{event} {arguments}")


sys.addaudithook(_note_processes)


def _knows_ray() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _started.clear()
    item.stash[_KNEW_RAY] = _knows_ray()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test of the quick ones starts no process, and no Ray, nor does what it has set up."""
    result = yield
    marks = {mark.name for mark in item.iter_markers()}
    if not marks & {"ray", "browser", "subprocess", "slow", "gpu"}:
        assert not _started, f"it starts a process, and has no mark that says so: {_started[0]:.200}"
        assert item.stash[_KNEW_RAY] or not _knows_ray(), "it starts or reaches Ray, and has no mark that says so"
    return result


@pytest.fixture(autouse=True, scope="session")
def _private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leases, decoded images and measured latencies of this test run alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_TRUST", "1")  # make_run's runs were started on another host
        patch.setenv("NAS_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
        patch.setenv("NAS_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("NAS_LATENCY_CACHE", str(tmp_path_factory.mktemp("latencies")))
        yield


def new_run(folder: Path, settings: SearchSettings | None = None) -> RunDirectory:
    """A run directory as a search has it before its first trial."""
    settings = settings or SearchSettings(space=load_space("digits"), data="digits")
    provenance = Provenance(
        created=time.time(),
        command="nas search",
        versions={"python": "3"},
        host="here",
        hardware="test",
        cpu_cores=2,
        git_commit=None,
        data_fingerprint="0" * 16,
        classes=tuple("0123456789"),
        train_images=100,
        validation_images=400,
        mean=(0.5,),
        std=(0.25,),
    )
    return RunDirectory.create(folder, settings, provenance)


@pytest.fixture
def make_run(tmp_path: Path) -> RunFactory:
    """Makes run directories of one test, by their settings and names."""

    def make(settings: SearchSettings | None = None, name: str = "run") -> RunDirectory:
        return new_run(tmp_path / name, settings)

    return make


@pytest.fixture
def brief_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands measure for a moment where nothing says how long."""

    def brief(device: str) -> LatencyProtocol:
        return replace(default_protocol(device), warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1)

    for module in ("evaluate", "measure", "space", "options"):
        monkeypatch.setattr(f"nas.cli.{module}.default_protocol", brief)


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """No Ray runs when a file's tests begin, and none is left behind."""
    import ray

    ray.shutdown()
    yield
    ray.shutdown()


def install_package(site: Path, name: str, entry_points: str, files: Mapping[str, str | Path]) -> Path:
    """What pip leaves of a package in the folder `site`: its metadata, and modules by name, from a text or a file."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, source in files.items():
        (site / f"{module}.py").write_text(source if isinstance(source, str) else source.read_text())
    return site


def wait_for_records(driver: subprocess.Popen[bytes], out: Path, count: int, log: Path) -> None:
    records = out / "trials.jsonl"
    deadline = time.monotonic() + 240
    while not (records.is_file() and records.read_bytes().count(b"\n") >= count):
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_consistent(run: RunDirectory) -> list[TrialRecord]:
    """No trial stuck, every record told as the table of outcomes says, no candidate trained twice."""
    records = run.records()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(run.study_path)))
    trials = optuna.load_study(storage=storage, study_name="nas").trials
    assert not [trial.number for trial in trials if trial.state is optuna.trial.TrialState.RUNNING]
    for record in records:
        assert trials[record.number].user_attrs["outcome"] == record.outcome
        assert trials[record.number].params == record.parameters
    done = [record for record in records if record.outcome is Outcome.DONE]
    assert len({record.digest for record in done}) == len(done)
    front = {record.digest for record in pareto_front(records, run.settings.objectives)}
    complete = [trial for trial in trials if trial.state is optuna.trial.TrialState.COMPLETE]
    best = optuna.create_study(directions=[objective(name).direction for name in run.settings.objectives])
    best.add_trials(complete)
    assert front == {trial.user_attrs["digest"] for trial in best.best_trials}
    return records
