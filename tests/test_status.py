"""`nas status`, `nas stop`, the state that a driver writes, signals, and drivers on several hosts."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import call
from conftest import BRIEF, RunFactory, check_consistent, wait_for_records
from rich.console import Console

import nas.common.signals
import nas.workflows.heartbeat
from nas.cli.search import STOPPED_EARLY, _end_of_search
from nas.common.errors import InputError
from nas.common.signals import NOTICES, StopRequest, apart, gentle_signals, notices_kept
from nas.runs.record import AuditRecord, Confirmation, Evaluation, Outcome, TrialRecord
from nas.runs.settings import Resources, SearchSettings
from nas.runs.state import SILENT_S, DriverState, RunningTrial
from nas.runs.status import Phase, status_of
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.confirming import Confirmer
from nas.training.history import EpochMetrics
from nas.views.terminal.status import phase_text, status_table
from nas.workflows.heartbeat import Heartbeat
from nas.workflows.search import Finished, resume_search

NAS = [sys.executable, "-m", "nas.cli"]
HERE = socket.gethostname()
ASKED = f"Asked the search on {HERE}"

HELD = """
import time
from pathlib import Path

def accuracy(labels, predictions):
    \"\"\"Is not known while a file is there, for a minute at most: the candidate that asks for it stays in training.\"\"\"
    hold = Path({hold!r})
    for _ in range(3000):
        if not hold.exists():
            break
        hold.with_name("held").touch()
        time.sleep(0.02)
    return float((labels == predictions).mean())
"""


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(host: str = HERE, age: float = 0.0, **changes: Any) -> DriverState:
    now = time.time()
    driver = DriverState(now - age, now - age - 100, host, 4711, None, Resources(1.0, 0.0, 2))
    return replace(driver, **changes)


def add(run: RunDirectory, number: int, evaluation: Evaluation, **changes: Any) -> TrialRecord:
    values = run.settings.space.sample(random.Random(number))
    architecture = run.settings.space.architecture(values).canonical
    record = TrialRecord(number, architecture.digest, str(architecture), architecture, values, evaluation, **changes)
    run.append(record)
    return record


def shown(run: RunDirectory, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(status_table(status_of(run)))
    return console.export_text()


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_is_watched_and_stopped_gently_and_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, log, hold, held = (tmp_path / name for name in ("run", "log", "hold", "held"))
    (tmp_path / "held.py").write_text(HELD.format(hold=str(hold)))

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with log.open("w") as file:
            return subprocess.Popen(
                [*NAS, "search", *arguments], stdout=file, stderr=file, start_new_session=True, cwd=tmp_path
            )

    driver = start("--trials", "50", *BRIEF, "--metric", "held:accuracy", "--out", str(out))
    wait_for_records(driver, out, 2, log)
    hold.touch()
    wait_until(held.exists)
    wait_until(lambda: (found := open_run(out).state()) is not None and found.running)
    code, text, _ = call(capsys, "status", str(out), "--json")
    told = json.loads(text)
    assert (code, told["phase"], told["driver"]["host"], told["driver"]["pid"]) == (0, "running", HERE, driver.pid)
    assert all(trial["worker"].startswith(HERE) for trial in told["driver"]["running"])
    assert told["trained"] >= 2
    code, text, _ = call(capsys, "stop", str(out))
    assert (code, text[: len(ASKED)]) == (0, ASKED)
    assert status_of(open_run(out)).phase is Phase.STOPPING  # from the request on
    wait_until(lambda: (found := open_run(out).state()) is not None and found.stopping == "stopped by nas stop")
    # To the whole job, as SLURM does: Ray's processes are in it.
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP):
        os.killpg(driver.pid, number)
        time.sleep(0.1)
    assert status_of(open_run(out)).phase is Phase.STOPPING
    hold.unlink()
    assert driver.wait(timeout=120) == STOPPED_EARLY, log.read_text()
    held.unlink()
    assert f"To go on: nas search --resume {out}" in log.read_text()
    records = check_consistent(open_run(out))
    assert {record.outcome for record in records} == {Outcome.DONE}
    assert 2 <= len(records) < 50
    assert (out / "report.html").is_file()
    ended = status_of(open_run(out))
    assert (ended.phase, ended.resumable) == (Phase.ENDED, True)
    assert phase_text(ended).endswith(": stopped by nas stop")
    assert not open_run(out).stop_requested
    code, text, _ = call(capsys, "stop", str(out))
    assert code == 1
    assert text.startswith("Nothing to stop. Ended")

    driver = start("--resume", str(out))
    wait_for_records(driver, out, len(records) + 1, log)
    hold.touch()
    wait_until(held.exists)
    os.killpg(driver.pid, signal.SIGTERM)  # as `timeout`, systemd and SLURM do: Ray must not end by it
    wait_until(lambda: "stopping when what runs has finished" in log.read_text())
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=120) == 130, log.read_text()
    assert f"stopped at once: what had finished is kept; to go on: nas search --resume {out}" in log.read_text()
    ended = status_of(open_run(out))
    assert (ended.phase, ended.resumable) == (Phase.ENDED, True)
    assert phase_text(ended).endswith(": stopped by SIGTERM, then at once")
    assert ended.driver is not None
    assert ended.driver.running
    Broker(open_run(out))  # what a resumed search does first
    after = check_consistent(open_run(out))
    assert after[: len(records)] == records
    cut_off = {record.number for record in after if record.outcome is Outcome.LOST}
    assert cut_off == {trial.number for trial in ended.driver.running}


def test_a_driver_of_this_host_is_dead_as_soon_as_its_lock_is_free(make_run: RunFactory) -> None:
    run = make_run()
    run.write_state(state(running=(RunningTrial(3, "r8-c8k3", 1.0, 10, 2, 0.5, worker="a node"),)))
    found = status_of(run)
    assert (found.phase, found.resumable) == (Phase.DEAD, True)
    assert phase_text(found).startswith(f"Dead: the driver on {HERE} (pid 4711) is gone, last heard of 0.")
    assert "Cut off" in shown(run)
    with run.locked():  # which a second driver is not refused
        pass


def test_a_driver_that_another_one_succeeded_changes_nothing_more(make_run: RunFactory) -> None:
    """A host slept for a minute: its driver went on, and two drivers wrote one run."""
    mine = make_run()
    add(mine, 0, Evaluation(Outcome.FAILED, "x"))  # before any state: nobody else can be there
    mine.write_state(state())
    add(mine, 1, Evaluation(Outcome.FAILED, "x"))
    theirs = open_run(mine.path)
    theirs.write_state(state("elsewhere"))
    add(theirs, 2, Evaluation(Outcome.FAILED, "x"))
    before = {path.name: path.read_bytes() for path in mine.path.glob("*.json*")}
    for change in (
        lambda: add(mine, 3, Evaluation(Outcome.FAILED, "x")),
        lambda: mine.append_latencies([]),
        lambda: mine.write_state(state()),
    ):
        with pytest.raises(InputError, match=r"a search on elsewhere \(pid 4711\) goes on with it.* adds nothing more"):
            change()
    assert {path.name: path.read_bytes() for path in mine.path.glob("*.json*")} == before
    (mine.path / "state.json").write_text("{torn")  # says nothing of another driver
    add(mine, 3, Evaluation(Outcome.FAILED, "x"))


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_driver_that_slept_while_another_one_took_over_ends_and_leaves_the_run_alone(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as file:
        command = [*NAS, "search", "--trials", "50", *BRIEF, "--out", str(out)]
        driver = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, cwd=tmp_path)
    wait_for_records(driver, out, 2, log)
    wait_until(lambda: open_run(out).state() is not None)
    driver.send_signal(signal.SIGSTOP)
    other = open_run(out)
    theirs = state("elsewhere")
    other.write_state(theirs)
    records = (out / "trials.jsonl").read_bytes()
    driver.send_signal(signal.SIGCONT)
    assert driver.wait(timeout=120) != 0, log.read_text()
    assert "a search on elsewhere (pid 4711) goes on with it" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert (out / "trials.jsonl").read_bytes() == records
    assert open_run(out).state() == theirs


def test_a_driver_of_another_host_counts_as_alive_while_its_state_is_fresh(make_run: RunFactory) -> None:
    run = make_run()
    run.write_state(state("elsewhere"))
    run.request_stop()
    assert status_of(run).phase is Phase.STOPPING
    with pytest.raises(InputError, match=r"on elsewhere \(pid 4711\), heard of \d s ago; .* try again in \d\d s"):
        run.locked().__enter__()
    assert run.stop_requested  # by whom it was not meant for
    run.write_state(state("elsewhere", age=SILENT_S + 5))
    long_ago = time.time() - SILENT_S - 5
    os.utime(run.path / "state.json", (long_ago, long_ago))
    assert status_of(run).phase is Phase.DEAD
    with run.locked():
        assert not run.stop_requested  # it was asked of the one that is dead
    run.write_state(state("elsewhere", ended=time.time(), ending="stopped by SIGTERM"))
    with run.locked():
        pass


def test_what_holds_the_directory_and_has_told_nothing_starts_or_audits(
    make_run: RunFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    with run.locked():
        assert status_of(run).phase is Phase.BUSY
        run.write_state(state(age=60.0, pid=2**30))  # of one that died before
        code, text, _ = call(capsys, "stop", str(run.path))
        assert (code, text[:5]) == (0, "Busy:")
        assert run.stop_requested
        run.write_state(state(pid=os.getpid()))
        assert status_of(run).phase is Phase.STOPPING


@pytest.mark.parametrize("content", ['{"written": 1.0, "sta', "[]", "", '{"schema": 99, "beat": 3}'])
def test_a_state_that_cannot_be_read_is_reported_and_never_fatal(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    run = make_run()
    (run.path / "state.json").write_text(content)
    found = status_of(run)
    assert (found.phase, found.driver, found.resumable) == (Phase.UNKNOWN, None, True)
    assert "state.json: " in caplog.text
    with run.locked():
        pass


def test_a_run_of_another_version_has_a_status(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    assert status_of(run).phase is Phase.UNKNOWN
    assert not caplog.text
    add(run, 0, Evaluation(Outcome.DONE), objectives={"accuracy": 0.5, "latency": 1.0})
    with (run.path / "trials.jsonl").open("a") as file:
        file.write('{"schema": 99, "number": 1}\n{"torn')
    code, text, _ = call(capsys, "status", str(run.path))
    assert code == 0
    assert "1 of 30 candidates" in text
    assert "Nothing runs here that can be seen" in text
    assert f"To go on: nas search --resume {run.path}" in text
    assert "trials.jsonl:2: written by a newer version" in caplog.text


def test_failures_are_grouped_and_time_and_work_are_summed(
    make_run: RunFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run = run.with_settings(replace(run.settings, trials=20, confirm=0.1, resources=Resources(cpus_per_trial=2.0)))
    driver = state("elsewhere", address="10.0.0.1:6379")
    since = driver.started
    for number in range(9):
        values = {"accuracy": 0.5 + number / 100, "latency": 1.0 + number}
        evaluation = Evaluation(Outcome.DONE, seconds=360.0, worker=f"node {number % 2}")
        add(run, number, evaluation, objectives=values, finished=since - 300 + 40 * number)
    for number, reason in ((9, "no value after 3 steps"), (10, "no value after 12 steps"), (11, "out of memory")):
        add(run, number, Evaluation(Outcome.FAILED, reason, seconds=60.0, worker="node 1"), finished=since + number)
    lost = [add(run, number, Evaluation(Outcome.LOST, f"reason {number}")) for number in range(12, 19)]
    earlier = add(run, 19, Evaluation(Outcome.DONE, seconds=1e6), imported_from="run 1")
    again = Evaluation(Outcome.DONE, seconds=720.0, worker="node 0")
    run.append_confirmation(Confirmation(earlier.digest, 0, 7, 20, again, since, since + 50))
    run.append_audit(
        AuditRecord(0, earlier.digest, run.settings.evaluation.recipe, 8, Evaluation(Outcome.DONE, seconds=60.0))
    )
    recorded = RunningTrial(18, lost[-1].text, lost[-1].started, 10)
    running = RunningTrial(20, "r8-c8k3-h32", since + 60, 10, 4, 0.875, worker="node 1 (Ray node 12345678)")
    run.write_state(replace(driver, running=(recorded, running)))
    found = status_of(run)
    assert [(failure.reason, failure.trials) for failure in found.failures] == [
        ("no value after 12 steps", (9, 10)),
        ("out of memory", (11,)),
    ]
    assert [trial.number for trial in found.lost] == [14, 15, 16, 17, 18]
    assert {worker.worker: worker.finished for worker in found.workers} == {"node 0": 6, "node 1": 7}
    assert found.device_hours == pytest.approx(2 * (9 * 360 + 3 * 60 + 720 + 60) / 3600)
    # One candidate and a confirmation, which counts as two, took 1,260 s with the failures; 140 s of 100 s were spent on
    # trials: 1.4 ran at once. 9 candidates of 18 and half of a confirmation are left.
    assert found.seconds_left == pytest.approx(1260 / 1.4 / 3 * (20 - 9 - 2))
    assert (found.trained, found.candidates, found.confirmed, found.confirmations) == (9, 18, 1, 1)
    assert found.front == 9
    assert found.hypervolume is not None
    assert found.driver is not None
    assert found.driver.running == (running,)  # the other ended after it was told
    code, text, _ = call(capsys, "status", str(run.path), "--json")
    told = json.loads(text)
    assert code == 0
    assert told["outcomes"] == {"done": 9, "failed": 3, "lost": 7, "from earlier runs": 1}
    assert told["driver"]["running"][0]["score"] == 0.875
    for width in (80, 140):
        page = shown(run, width)
        assert max(map(len, page.split("\n"))) <= width
        for part in ("87.50", "4/10", "r8-c8k3-h32", "node 1 (Ray node 12345678)", "2 CPU cores each", "trials 9, 10"):
            assert part in page
        assert "about 45 min left" not in page
        assert "about 45 min" in page
    code, text, _ = call(capsys, "stop", str(run.path))
    assert f"nas search --resume {run.path} --address 10.0.0.1:6379" in text


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.workflows.heartbeat, "BEAT_S", 0.02)


@pytest.mark.usefixtures("quick")
def test_a_heartbeat_tells_what_runs_where_and_obeys_a_request(make_run: RunFactory) -> None:
    run = make_run()
    run.request_stop()
    with run.locked():  # an older request says nothing to this search
        confirmer = Confirmer(Broker(run))
        places: dict[int, str] = {}
        heartbeat = Heartbeat(confirmer, "10.0.0.1:6379", lambda: places)

        def running() -> tuple[RunningTrial, ...]:
            told = run.state()
            return told.running if told else ()

        with heartbeat:
            candidate = confirmer.ask()
            assert candidate is not None
            wait_until(running)
            assert (running()[0].worker, running()[0].epoch, running()[0].score) == ("", 0, None)
            places[candidate.number] = "node 1"
            heartbeat.epoch(candidate, EpochMetrics(3, 1.0, 1.0, 0.75, {"accuracy": 0.75}, 1.0, 1.0))
            wait_until(lambda: running()[0].epoch)
            assert running() == (
                RunningTrial(
                    candidate.number,
                    str(candidate.architecture.canonical),
                    candidate.started,
                    10,
                    3,
                    0.75,
                    worker="node 1",
                ),
            )
            assert status_of(run).phase is Phase.RUNNING
            run.request_stop()
            wait_until(lambda: (told := run.state()) is not None and told.stopping)
            assert confirmer.ask() is None
            wait_until(lambda: not run.stop_requested)
            assert "Stopping when what runs has finished: stopped by nas stop" in phase_text(status_of(run))
            confirmer.finish(candidate, Evaluation(Outcome.FAILED, "no"))
    ended = run.state()
    assert ended is not None
    assert (ended.ending, ended.running, ended.resumable) == ("stopped by nas stop", (), True)


@pytest.mark.usefixtures("quick")
def test_a_state_that_cannot_be_written_is_one_warning(make_run: RunFactory, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    (run.path / "state.json" / "taken").mkdir(parents=True)
    confirmer = Confirmer(Broker(run))
    with Heartbeat(confirmer):
        wait_until(lambda: caplog.text)
        time.sleep(0.1)
        run.request_stop()
        wait_until(lambda: confirmer.stopping)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warned] == ["nas.workflows.heartbeat"]
    assert "nas status will not know what runs" in caplog.text


@pytest.mark.usefixtures("quick")
def test_an_error_that_ends_a_search_is_in_its_state(make_run: RunFactory) -> None:
    run = make_run()
    with pytest.raises(RuntimeError, match="broken"), Heartbeat(Confirmer(Broker(run))):
        raise RuntimeError("broken\nfor a reason")
    found = status_of(run)
    assert (found.phase, found.resumable) == (Phase.ENDED, True)
    assert phase_text(found).endswith("an error in the search: broken for a reason")


@pytest.fixture
def handlers_kept() -> Iterator[None]:
    before = {
        number: signal.getsignal(number) for number in (*nas.common.signals.NOTICES, signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers_kept")
@pytest.mark.parametrize(
    ("signals", "at_once"),
    [
        (["SIGUSR1", "SIGUSR1", "SIGHUP", "SIGUSR1"], False),
        (["SIGINT"], False),
        (["SIGINT", "SIGUSR1"], False),
        (["SIGINT", "SIGINT"], True),
        (["SIGTERM", "later", "SIGTERM"], True),
        (["SIGTERM", "SIGTERM"], False),  # `timeout` sends it to the process and to its group
        (["SIGUSR1", "later", "SIGTERM"], True),
        (["SIGHUP", "SIGINT"], True),
    ],
)
def test_signals_stop_gently_and_a_second_order_at_once(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch, signals: list[str], at_once: bool
) -> None:
    broker = Broker(make_run())
    interrupted = False
    try:
        with gentle_signals(broker):
            for name in signals:
                if name == "later":
                    monkeypatch.setattr(nas.common.signals, "ONE_ORDER_S", 0.0)
                else:
                    signal.raise_signal(signal.Signals[name])
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted is at_once
    assert broker.stop_reason == f"stopped by {signals[0]}"
    for notice in nas.common.signals.NOTICES:
        signal.raise_signal(notice)  # which would kill a process that is about to say how to go on


@pytest.mark.usefixtures("handlers_kept")
def test_a_search_under_nohup_outlives_its_terminal(make_run: RunFactory) -> None:
    broker = Broker(make_run())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with gentle_signals(broker):
        signal.raise_signal(signal.SIGHUP)
    assert broker.stop_reason is None


@pytest.mark.usefixtures("handlers_kept")
def test_a_notice_while_ray_starts_stops_what_begins_then(make_run: RunFactory) -> None:
    broker = Broker(make_run())
    with notices_kept():
        signal.raise_signal(signal.SIGHUP)
        assert broker.stop_reason is None
        with gentle_signals(broker):
            assert broker.stop_reason == "stopped by SIGHUP"
        signal.raise_signal(signal.SIGHUP)
    later = StopRequest()
    with notices_kept(), gentle_signals(later):
        pass
    assert later.reason is None


@pytest.mark.usefixtures("handlers_kept")
@pytest.mark.parametrize("notice", NOTICES)
def test_a_search_keeps_notices_from_its_beginning_on(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch, notice: signal.Signals
) -> None:
    lost: list[int] = []
    signal.signal(notice, lambda number, frame: lost.append(number))

    def interrupted(settings: SearchSettings, address: str | None) -> None:
        signal.raise_signal(notice)
        raise InputError("no node")

    monkeypatch.setattr("nas.workflows.search.placement_of", interrupted)
    with pytest.raises(InputError, match="no node"):
        resume_search(make_run().path)
    assert not lost
    signal.raise_signal(notice)
    assert lost == [notice]


def test_what_ray_starts_ignores_notices() -> None:
    with apart():
        shown = subprocess.run(
            ["grep", "SigIgn", "/proc/self/status"], preexec_fn=int, capture_output=True, text=True, check=True
        ).stdout
    ignored = int(shown.split()[1], 16)
    assert all(ignored >> (number - 1) & 1 for number in NOTICES)


@pytest.mark.parametrize(("interrupted", "code"), [(True, STOPPED_EARLY), (False, 1)])
def test_a_search_that_is_stopped_before_its_first_trial_can_go_on(
    make_run: RunFactory, interrupted: bool, code: int
) -> None:
    with pytest.raises(typer.Exit) as end:
        _end_of_search(Finished(make_run(), "stopped by SIGHUP", True, interrupted, 1.0))
    assert end.value.exit_code == code
