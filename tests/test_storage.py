"""The study in a database that runs share: SQLite files everywhere, PostgreSQL where it is installed."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from answers import answer
from conftest import RunFactory
from optuna.trial import TrialState
from test_broker import TINY, finish_all, settings

from nas.common.errors import InputError
from nas.common.provenance import command_line
from nas.common.redact import without_password
from nas.runs.record import Outcome
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.storage import connected, database_errors, open_storage, study_name
from nas.views.report import write_report
from nas.workflows.plan import plan_search
from nas.workflows.search import _provenance

SECRET = "hun/ter2"


def with_trials(run: RunDirectory, trials: int) -> RunDirectory:
    return run.with_settings(replace(run.settings, trials=trials))


def in_database(path: Path) -> SearchSettings:
    return settings(TINY, trials=4, storage=f"sqlite:///{path}")


def told(run: RunDirectory, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(url or run.settings.storage or "")
    trials = optuna.load_study(study_name=study_name(run), storage=storage).trials
    return [trial for trial in trials if trial.state is not TrialState.WAITING]


def check_told(run: RunDirectory, url: str | None = None) -> None:
    """The study, but for what is queued, knows each record under its number, and nothing else."""
    trials, records = told(run, url), run.records()
    assert [trial.user_attrs["outcome"] for trial in trials] == [record.outcome for record in records]
    assert [trial.params for trial in trials] == [record.parameters for record in records]


@pytest.mark.slow
def test_runs_share_a_database_and_leave_each_other_alone(make_run: RunFactory, tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    runs = [make_run(in_database(database), name) for name in ("first", "second")]
    brokers = [Broker(run) for run in runs]
    while not all(broker.finished for broker in brokers):  # in turn
        for broker in brokers:
            candidate = broker.ask()
            if candidate is not None:
                broker.finish(candidate, answer(candidate))
    assert study_name(runs[0]) != study_name(runs[1])
    for run in runs:
        check_told(run)
        assert sum(record.outcome is Outcome.DONE for record in run.records()) == 4
        assert not run.study_path.exists()
    assert {study.study_name for study in optuna.get_all_study_summaries(f"sqlite:///{database}")} == {
        study_name(run) for run in runs
    }


def test_a_search_that_died_goes_on_in_the_database(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run(in_database(tmp_path / "studies.db"))
    broker = Broker(run)
    for _ in range(2):
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    running = broker.ask()  # which runs when the driver dies
    assert running is not None
    before = run.records()
    finish_all(Broker(open_run(run.path)))
    records = run.records()
    assert records[:2] == before
    assert records[2].outcome is Outcome.LOST
    assert running.digest in {record.digest for record in records[3:]}
    check_told(run)


@pytest.mark.parametrize("sampler", ["random", pytest.param("front", marks=pytest.mark.slow)])
def test_a_lost_database_is_filled_again_from_the_records(make_run: RunFactory, tmp_path: Path, sampler: str) -> None:
    database = tmp_path / "studies.db"
    run = make_run(replace(in_database(database), sampler=sampler))
    finish_all(Broker(run))
    database.unlink()
    proposals = []
    for path in (tmp_path / "a", tmp_path / "b"):
        shutil.copytree(run.path, path)
        more = with_trials(open_run(path), 6)
        broker = Broker(more if path.name == "a" else more.with_settings(replace(more.settings, storage=None)))
        candidate = broker.ask()
        assert candidate is not None
        proposals.append(candidate.digest)
    assert proposals[0] == proposals[1]  # in a database or a file, the same study
    finish_all(Broker(run))
    check_told(run)


@pytest.mark.slow
def test_a_run_restored_from_an_older_copy_has_its_study_made_anew(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(in_database(tmp_path / "studies.db"))
    finish_all(Broker(run))
    records = run.path / "trials.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:2]))
    before = run.records()
    finish_all(Broker(open_run(run.path)))
    assert "made again" in caplog.text
    assert run.records()[:2] == before
    check_told(run)


def files_with(folder: Path, *texts: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in sorted(files) if any(text.encode() in path.read_bytes() for text in texts)]


def test_a_password_goes_to_the_database_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes a parameter of any name in a `file:` URL."""
    database = tmp_path / "studies.db"
    url = f"sqlite:///file:{database}?uri=true&password={SECRET}"
    monkeypatch.setattr(sys, "argv", ["nas", "search", f"--storage={url}"])
    plan = plan_search(settings(TINY, trials=2, storage=url), tmp_path / "run")
    run = RunDirectory.create(plan.out, plan.settings, _provenance(plan.settings, plan.data, {"cpu": "test"}))
    finish_all(Broker(run, plan.storage))
    write_report(run)
    assert open_run(run.path).settings.storage == f"sqlite:///file:{database}?uri=true"
    check_told(run)
    assert [path.name for path in files_with(run.path, "uri=true")] == ["report.html", "run.yaml"]
    assert files_with(run.path, SECRET, "hun%2Fter2") == []
    assert SECRET.encode() not in pickle.dumps(plan.storage)
    assert SECRET not in repr(plan)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:hun/ter2@host:5432/db", "postgresql://me@host:5432/db"),
        (
            "postgresql+psycopg2://me:hunter2@host/db?sslmode=require",
            "postgresql+psycopg2://me@host/db?sslmode=require",
        ),
        ("postgresql:///db?user=me&password=hunter2&host=h", "postgresql:///db?user=me&host=h"),
        ("mysql://host/db?PASSWD=hunter2", "mysql://host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("s3://bucket/run?region=eu-central-1&scheme=https", "s3://bucket/run?region=eu-central-1&scheme=https"),
        ("https://a.blob/c/run?sv=2024&se=2026&sp=rw&sig=hunter2%3D", "https://a.blob/c/run"),
        ("s3://bucket/run?X-Amz-Signature=hunter2&region=eu&X-Amz-Credential=hunter2", "s3://bucket/run?region=eu"),
        ("https://host/run?apikey=hunter2&code=hunter2#access_token=hunter2", "https://host/run"),
        ("https://host/run#access_token=hunter2", "https://host/run"),
        ("abfs://container@account/run?hunter2", "abfs://container@account/run"),
    ],
)
def test_passwords_are_left_out_of_urls(url: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_password(url) == kept
    monkeypatch.setattr(sys, "argv", ["/bin/nas", "search", "--storage", url, f"--storage={url}", "--seed", "3"])
    assert "ter2" not in command_line()
    assert command_line().endswith(" --seed 3")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("studies.db", "not the URL of a database"),
        ("sqlite://", "names no file"),
        ("sqlite:////nowhere/at/all/studies.db", "unable to open database file"),
        ("nosuchdb://me:hunter2@host/db", "nosuchdb"),
        ("postgresql://me:hunter2@127.0.0.1:9/db", "Connection refused"),
    ],
)
def test_a_wrong_storage_is_said_before_anything_is_written(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^storage .*{says}.*it takes the URL") as refused:
        plan_search(settings(storage=url), tmp_path / "run")
    assert "hunter2" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_database_that_fails_meanwhile_ends_the_search_and_says_how_to_go_on(
    make_run: RunFactory, tmp_path: Path
) -> None:
    database = tmp_path / "studies.db"
    run = make_run(in_database(database))
    broker = Broker(run)
    candidate = broker.ask()
    assert candidate is not None
    database.write_bytes(b"no database" * 1000)
    says = f"^storage sqlite:///{database}: fails: .*--resume {run.path}"
    with pytest.raises(InputError, match=says), database_errors(run):
        broker.finish(candidate, answer(candidate))
    assert len(run.records()) == 1  # on disk before the study is told
    database.unlink()
    finish_all(Broker(open_run(run.path)))
    check_told(run)


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of the test's own, with the password `SECRET`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    user = "nobody" if os.getuid() == 0 else None  # it does not run as root
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-", dir="/tmp"))
    password = folder / "password"
    password.write_text(SECRET)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if user:
        for path in (folder, password):
            shutil.chown(path, user)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)

    program, cluster = str(programs[-1]), str(folder / "cluster")
    run(f"{program}/initdb", "-D", cluster, "-U", "me", "-A", "scram-sha-256", f"--pwfile={password}", "-N")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(f"{program}/pg_ctl", "-D", cluster, "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://me:{SECRET}@127.0.0.1:{port}/postgres"
    run(f"{program}/pg_ctl", "-D", cluster, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.subprocess
def test_a_study_in_postgresql(
    make_run: RunFactory, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, storage = connected(settings(trials=5, storage=postgres))
    run = make_run(clean)
    finish_all(Broker(run, storage))
    check_told(run, postgres)
    assert run.settings.storage == without_password(postgres)
    with pytest.raises(InputError, match=r"^storage postgresql://me@.*no password supplied.*PGPASSWORD"):
        Broker(run)
    with pytest.raises(InputError, match=r"^storage postgresql://me@.*password authentication failed") as refused:
        plan_search(settings(storage=postgres.replace("ter2", "ter3")), tmp_path / "other")
    assert "ter3" not in str(refused.value)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    finish_all(Broker(with_trials(open_run(run.path), 8)))
    check_told(run, postgres)
    assert files_with(run.path, "me@127.0.0.1")
    assert files_with(run.path, SECRET) == []
