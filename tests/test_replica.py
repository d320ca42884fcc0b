"""Runs copied to a real S3 server (moto's) and to folders: followed, cut off, killed, imported, and resumed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import torch
from conftest import BRIEF, RunFactory
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem
from test_run import record

import nas.runs.replica
from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.files import weights_content
from nas.runs.parts import Joined, joined
from nas.runs.record import Outcome
from nas.runs.remote_folder import MARKER, RemoteFolder
from nas.runs.replica import check_replica, fetch_run, replicated
from nas.runs.settings import EvaluationSettings, Resources, SearchSettings
from nas.runs.state import DriverState
from nas.runs.store import RunDirectory, open_run
from nas.spaces.files import load_space
from nas.training.recipe import Recipe
from nas.views.reported import resume_search
from nas.workflows.plan import plan_search

DIGITS = SearchSettings(space=load_space("digits"), data="digits", evaluation=EvaluationSettings(Recipe(epochs=1)))
QUICK = "import nas.runs.replica, nas.cli.app; nas.runs.replica.EVERY_S = 0.4; nas.cli.app.main()"


class Store:
    """An S3 server with a bucket of its own, which can be stopped and started again with what it holds."""

    def __init__(self) -> None:
        self.port = 0
        self.start()
        options = f"endpoint_override=http://127.0.0.1:{self.port}&scheme=http"
        self.uri = f"s3://bucket/{{}}?{options}".format
        FileSystem.from_uri(f"s3://bucket?{options}&allow_bucket_creation=true")[0].create_dir("bucket")

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        store = Store()
        yield store
        store.stop()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.runs.replica, "EVERY_S", 0.02)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lines(uri: str, name: str = "trials.jsonl") -> int:
    """How many records the replica holds; -1 while it has no such file."""
    there = in_whole(uri, name)
    return there.content.count(b"\n") if there.parts else -1


def in_whole(uri: str, name: str = "trials.jsonl") -> Joined:
    """A file that grows, as the replica holds it at one moment, while a driver may copy to it."""
    remote = RemoteFolder.at(uri)
    before, names = None, remote.names()
    while before != names:
        there = joined(name, names, remote.read)
        before, names = names, remote.names()
    return there


def in_replica(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def weights(run: RunDirectory, digest: str) -> None:
    run.save_weights(digest, weights_content({"w": torch.ones(3)}))


@pytest.mark.parametrize("scheme", ["s3", "file", "memory"])
def test_a_replica_follows_a_run_and_gives_it_back(
    make_run: RunFactory, tmp_path: Path, store: Store, scheme: str
) -> None:
    uri = {"s3": store.uri("follows/run"), "file": f"file://{tmp_path}/replica", "memory": "memory://follows/run"}[
        scheme
    ]
    run = make_run(replace(DIGITS, replica=uri))
    run.study_path.touch()
    with run.locked(), replicated(run):
        weights(run, "first")
        for number in range(4):
            run.append(record(number))
        wait_until(lambda: lines(uri) == 4)
        assert "weights/first.safetensors" in RemoteFolder.at(uri).names()
        for digest in "abcd":
            weights(run, digest)
        run.prune_weights(keep=())
        run.append(record(4))
        wait_until(lambda: lines(uri) == 5)
        assert [name for name in RemoteFolder.at(uri).names() if name.startswith("parts/trials.jsonl/")]
        with (run.path / "trials.jsonl").open("a") as file:
            file.write('{"torn')
        wait_until(lambda: "weights/first.safetensors" not in RemoteFolder.at(uri).names())
        (run.path / "study.journal.lock").symlink_to("study.journal")
        run.save_report("a report")
        run.request_stop()
        now = time.time()
        run.write_state(DriverState(now, now, "a host that is gone", 4711, None, Resources(1.0, 0.0, 2)))
    top = {"run.yaml", "trials.jsonl", "study.journal", "report.html", "state.json", MARKER}
    assert set(RemoteFolder.at(uri).names()) == top | {f"weights/{digest}.safetensors" for digest in "abcd"}
    assert (RemoteFolder.at(uri).read("trials.jsonl") or b"").endswith(b"}\n")
    fetch_run(uri, tmp_path / "again")
    again = open_run(tmp_path / "again")
    assert again.records() == [record(number) for number in range(5)]
    assert again.content == run.content
    assert torch.equal(again.load_weights("d")["w"], torch.ones(3))
    assert again.report_path.read_text() == "a report"
    with again.locked():  # its last driver, just heard of, was another host's
        pass


@pytest.mark.slow
def test_a_store_that_is_down_for_a_while_is_waited_for(
    make_run: RunFactory, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    uri = store.uri("down/run")
    run = make_run(replace(DIGITS, replica=uri))
    with replicated(run):
        wait_until(lambda: lines(uri) == 0)
        store.stop()
        run.append(record(0))
        wait_until(lambda: "fails and is tried again" in caplog.text)
        store.start()
        wait_until(lambda: "answers again" in caplog.text)
    assert lines(uri) == 1
    assert [message.split(uri)[0] for message in caplog.messages] == ["the replica "] * 2


def test_what_a_replica_lacks_at_the_end_is_said_and_comes_later(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "replica"
    run = make_run(replace(DIGITS, replica=f"file://{place}"))
    with replicated(run):
        wait_until((place / "run.yaml").is_file)
        place.rename(tmp_path / "elsewhere")
        place.write_text("no folder")
        run.append(record(0))
    assert caplog.messages[-1].startswith(
        f"the replica file://{place} lacks what 1 file came to hold last (trials.jsonl)"
    )
    place.unlink()
    (tmp_path / "elsewhere").rename(place)
    caplog.clear()
    check_replica(run)
    with replicated(run):
        pass
    assert caplog.messages == []
    assert (place / "trials.jsonl").read_bytes() == (run.path / "trials.jsonl").read_bytes()


def test_what_refers_to_something_is_never_newer_than_it(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that grows while it is copied: each record has its weights, and the study tells of no other trial."""
    place = tmp_path / "replica"
    uri = f"file://{place}"
    run = make_run(replace(DIGITS, replica=uri))
    run.study_path.touch()
    write, numbers = RemoteFolder.write, iter(range(1000))

    def grow(remote: RemoteFolder, name: str, content: bytes) -> None:
        if not name.startswith("weights/"):
            number = next(numbers)
            weights(run, f"t{number}")
            run.append(record(number))
            with run.study_path.open("a") as file:
                file.write(f"{number}\n")
        write(remote, name, content)

    monkeypatch.setattr(RemoteFolder, "write", grow)
    monkeypatch.setattr(nas.runs.replica, "EVERY_S", 0.01)
    seen: set[int] = set()

    def as_it_should_be() -> bool:
        if (place / "run.yaml").is_file():
            told = lines(uri, "study.journal")  # looked at in the order in which it is noted
            numbers = [json.loads(line)["number"] for line in in_whole(uri).content.splitlines()]
            assert told <= len(numbers)
            assert {f"t{number}.safetensors" for number in numbers} <= set(os.listdir(place / "weights"))
            seen.add(len(numbers))
        return len(seen) > 3

    with replicated(run):
        wait_until(as_it_should_be)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_whose_machine_is_gone_goes_on_from_the_replica_alone(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store.uri("killed/mine")
    command = [sys.executable, "-c", QUICK, "search", "--trials", "8", *BRIEF, "--confirm", "0", "--replica", uri]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        while lines(uri) < 1:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    with pytest.raises(InputError, match=r"is searching on this run .* try again in \d s"):
        fetch_run(uri, tmp_path / "too early")
    (tmp_path / "results").rename(tmp_path / "gone")
    finished = [json.loads(line)["digest"] for line in in_whole(uri).content.splitlines()]
    time.sleep(2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nas.runs.replica, "EVERY_S", 0.4)  # as above: the server computes too
    with pytest.raises(SystemExit) as ended:
        main(["search", "--resume", uri])
    assert not ended.value.code
    run = open_run(tmp_path / "results" / "mine")
    digests = [record.digest for record in run.records() if record.outcome is Outcome.DONE]
    assert digests[: len(finished)] == finished
    assert len(set(digests)) == len(digests) == 8
    assert run.settings.replica == uri
    fetch_run(uri, tmp_path / "copy")
    assert open_run(tmp_path / "copy").records() == run.records()


@pytest.mark.parametrize("key", ["hostile//{0}/evil.yaml", "hostile/weights/../../evil.yaml"])
def test_a_replica_writes_nothing_outside_of_the_run(
    make_run: RunFactory, tmp_path: Path, store: Store, key: str
) -> None:
    uri = store.uri("hostile")
    run = make_run(replace(DIGITS, replica=uri))
    with run.locked(), replicated(run):
        run.append(record(0))
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{store.port}", region_name="us-east-1")
    key = key.format(str(tmp_path).strip("/"))
    client.put_object(Bucket="bucket", Key=key, Body=b"evil")
    try:
        with pytest.raises(InputError, match=r"evil\.yaml' there is no name that a run gives a file"):
            fetch_run(uri, tmp_path / "fetched")
        assert not list(tmp_path.rglob("*evil*"))
        assert not (tmp_path / "fetched").exists()
    finally:
        for each in client.list_objects_v2(Bucket="bucket", Prefix="hostile")["Contents"]:
            client.delete_object(Bucket="bucket", Key=each["Key"])


def test_a_replica_gives_and_gets_files_of_a_run_alone(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"file://{tmp_path}/replica"
    run = make_run(replace(DIGITS, replica=uri))
    kept = {"exports/abcd/model.py", "tensorboard/trial-00001/events.out.tfevents.1.host.2.0", "mlflow/mlflow.db"}
    others = {"exports/.abcd-x7/abcd/model.py", "notes.txt", "optuna.py", "weights/optuna.py"}
    with run.locked(), replicated(run):
        for name in kept | others:
            (run.path / name).parent.mkdir(parents=True, exist_ok=True)
            (run.path / name).write_text(name)
        run.append(record(0))
    copied = in_replica(tmp_path / "replica")
    assert kept <= copied
    assert not others & copied
    (tmp_path / "replica/weights").mkdir(exist_ok=True)
    for name in ("sitecustomize.py", "weights/evil.so", "weights/\x1b[31mred.safetensors", "exports\n"):
        (tmp_path / "replica" / name).write_text("evil")
    fetch_run(uri, tmp_path / "fetched")
    assert in_replica(tmp_path / "fetched") == copied - {MARKER, "state.json"}
    left_out = r"'exports\n', sitecustomize.py, 'weights/\x1b[31mred.safetensors', weights/evil.so"
    assert f"left out what is no part of a run: {left_out}" in caplog.text


def test_names_that_others_chose_are_shown_in_plain_signs(make_run: RunFactory, tmp_path: Path) -> None:
    place = tmp_path / "replica"
    place.mkdir()
    (place / "\x1b[31mred").touch()
    run = make_run(replace(DIGITS, replica=f"file://{place}"))
    with pytest.raises(InputError, match=r"no search copied \('\\x1b\[31mred'\)"):
        plan_search(run.settings, tmp_path / "other")
    (place / "\x1b[31mred").unlink()
    with replicated(run):
        run.append(record(0))
    changed_marker(place, host="\x1b[31mred", closed=False)
    with pytest.raises(InputError, match=r": '\\x1b\[31mred' \(process") as refused:
        fetch_run(f"file://{place}", tmp_path / "fetched")
    assert "\x1b" not in str(refused.value)
    Path(os.fsdecode(os.fsencode(place) + b"/caf\xe9")).touch()
    says = rf"^resume file://{place}: the name b'{place}/caf\\xe9' there is not in UTF-8; rename or delete that file$"
    with pytest.raises(InputError, match=says):
        fetch_run(f"file://{place}", tmp_path / "fetched")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("results/replica", "not a URI"),
        ("nosuch://bucket/run", "nosuch:// is no kind of storage that pyarrow or fsspec knows"),
        ("s3://", "it names no folder"),
        ("STORE/no-bucket", "The specified bucket does not exist"),
        ("file:///proc/nas", "/proc/nas"),
        ("http://127.0.0.1:9/run", "Cannot connect"),
    ],
)
def test_a_wrong_uri_is_said_before_anything_is_written(tmp_path: Path, store: Store, uri: str, says: str) -> None:
    if uri.startswith("STORE"):
        uri = store.uri("run").replace("bucket", "no-bucket")
    with pytest.raises(InputError, match=f"^replica {re.escape(uri)}: .*{says}.*s3://bucket/prefix"):
        plan_search(replace(DIGITS, replica=uri), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_replica_does_not_lie_in_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies in the run directory"):
        plan_search(replace(DIGITS, replica=f"file://{tmp_path}/run/replica"), tmp_path / "run")


@pytest.mark.parametrize(
    "uri", ["s3://key:hunter2@bucket/run", "s3://key:hun/ter2@bucket/run", "abfs://a/b?client_secret=hunter2"]
)
def test_a_password_in_the_uri_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="put it in the environment") as refused:
        plan_search(replace(DIGITS, replica=uri), tmp_path / "run")
    assert "ter2" not in str(refused.value)


def test_another_run_and_other_files_are_left_alone(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "replica"
    first, second = (make_run(replace(DIGITS, replica=f"file://{place}"), name) for name in ("first", "second"))
    with replicated(first):
        first.append(record(0))
    before = in_replica(place)
    with pytest.raises(InputError, match="a run is there already; give another prefix, or resume"):
        plan_search(second.settings, tmp_path / "third")
    with pytest.raises(InputError, match=r"another run is there, started on here.*replica off"):
        check_replica(second)
    with replicated(second):
        weights(second, "x")
    assert "another run is there" in caplog.text
    assert in_replica(place) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"files are there that no search copied \(thesis.tex\)"):
        plan_search(replace(DIGITS, replica=f"file://{tmp_path}/mine"), tmp_path / "third")


def changed_marker(place: Path, **changes: Any) -> None:
    marker = json.loads((place / MARKER).read_text())
    (place / MARKER).write_text(json.dumps(marker | changes))


def test_a_replica_belongs_to_one_driver_at_a_time(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "replica"
    uri = f"file://{place}"
    run = make_run(replace(DIGITS, replica=uri))
    with replicated(run):
        wait_until((place / "run.yaml").is_file)
        changed_marker(place, host="other", pid=7, copied=time.time(), every_s=30)
        wait_until(lambda: "was taken over: other (process 7) copies to it" in caplog.text)
        run.append(record(0))
    assert lines(uri) == 0  # what the other driver does is not overwritten
    held = r"other \(process 7, .*\) is searching on this run and copied to the replica \d s ago; .* again in 1\d\d s"
    with pytest.raises(InputError, match=f"^resume {uri}: {held}"):
        fetch_run(uri, tmp_path / "again")
    with pytest.raises(InputError, match=f"^replica {uri}: {held}"):
        check_replica(run)
    changed_marker(place, copied=time.time() - 121)  # dead for all that can be known
    fetch_run(uri, tmp_path / "again")
    changed_marker(place, copied=time.time(), closed=True)
    check_replica(run)


def test_a_marker_of_a_wrong_clock_holds_a_replica_for_minutes_at_most(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "replica"
    run = make_run(replace(DIGITS, replica=f"file://{place}"))
    with replicated(run):
        run.append(record(0))
    now = time.time()
    changed_marker(place, host="other", closed=False, copied=now + 100, every_s=30)
    with pytest.raises(InputError, match=r"try again in 2\d\d s"):
        fetch_run(f"file://{place}", tmp_path / "fetched")
    changed_marker(place, copied=now, every_s=1e12)
    with pytest.raises(InputError, match=r"try again in (5\d\d|600|601) s"):
        fetch_run(f"file://{place}", tmp_path / "fetched")
    changed_marker(place, copied=8e9, every_s=30)
    check_replica(run)
    fetch_run(f"file://{place}", tmp_path / "fetched")
    assert "was last copied to at 2223-07-06 14:13 UTC, by a clock that is wrong" in caplog.text


def test_a_replica_to_which_a_driver_copies_again_while_it_is_fetched_is_left_to_it(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "replica"
    run = make_run(replace(DIGITS, replica=f"file://{place}"))
    with replicated(run):
        run.append(record(0))
    changed_marker(place, host="slept", copied=time.time() - 121, closed=False)
    read = RemoteFolder.read

    def awake(remote: RemoteFolder, name: str) -> bytes | None:
        if name == "trials.jsonl":
            changed_marker(place, copied=time.time())
        return read(remote, name)

    monkeypatch.setattr(RemoteFolder, "read", awake)
    with pytest.raises(
        InputError, match=r"slept \(process .*\) is searching on this run and copied to the replica 0 s ago"
    ):
        fetch_run(f"file://{place}", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_folder_that_is_behind_its_replica_does_not_overwrite_it(make_run: RunFactory, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/replica"
    run = make_run(replace(DIGITS, replica=uri))
    with replicated(run):
        run.append(record(0))
    fetch_run(uri, tmp_path / "elsewhere")
    elsewhere = open_run(tmp_path / "elsewhere")
    with replicated(elsewhere):
        elsewhere.append(record(1))
    with pytest.raises(InputError, match=f"its trials.jsonl has lines that .* lacks.*resume {uri}"):
        check_replica(run)
    assert lines(uri) == 2


def test_the_command_line_takes_out_beside_a_uri_alone_and_says_what_is_missing(
    make_run: RunFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    for arguments, says in (
        (["--resume", str(run.path), "--out", "x"], "--out cannot change in a search that is resumed"),
        (["--resume", f"file://{tmp_path}/none", "--out", str(tmp_path / "x")], "no run is there"),
        (["--resume", f"file://{tmp_path}/none", "--out", str(run.path)], "exists already"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["search", *arguments])
        assert ended.value.code == 2
        assert says in capsys.readouterr().err


def test_a_run_is_resumed_without_a_replica_that_is_gone_when_told_so(make_run: RunFactory, tmp_path: Path) -> None:
    (tmp_path / "replica").touch()
    run = make_run(replace(DIGITS, replica=f"file://{tmp_path}/replica/run", objectives=("accuracy", "macs")))
    with pytest.raises(InputError, match="the data set digits has changed"):
        resume_search(run.path, replica="off")
    with pytest.raises(InputError, match="replica off beside resume"):
        check_replica(run)


# ---------------------------------------------------------------- records that lose something, and what is sent how often


@pytest.mark.parametrize("anew", [True, False])
def test_records_that_were_lost_here_are_kept_in_the_replica(
    make_run: RunFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture, anew: bool
) -> None:
    uri = f"file://{tmp_path}/replica"
    run = make_run(replace(DIGITS, replica=uri))
    with replicated(run):
        for number in range(3):
            run.append(record(number))
        wait_until(lambda: lines(uri) == 3)
        trials = run.path / "trials.jsonl"
        content = trials.read_bytes()
        trials.unlink()
        if anew:
            trials.write_bytes(b"{}\n" + content)
        wait_until(lambda: "no longer holds" in caplog.text)
    assert f"trials.jsonl: no longer holds the {len(content)} bytes that the replica {uri} has of it" in caplog.text
    assert in_whole(uri).content == content
    wait_until(lambda: (marker := RemoteFolder.at(uri).marker()) is not None and not marker.wait_s)
    fetch_run(uri, tmp_path / "again")
    assert open_run(tmp_path / "again").records() == [record(number) for number in range(3)]


def test_a_file_that_is_replaced_while_it_is_copied_arrives_whole(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(replace(DIGITS, replica=f"file://{tmp_path}/replica"))
    weights(run, "first")
    run.save_report("short")
    write, reports = RemoteFolder.write, set()

    def grow(remote: RemoteFolder, name: str, content: bytes) -> None:
        if name == "report.html":
            reports.add(content)
        elif name == "weights/first.safetensors":  # noted before the report, which is noted already
            run.save_report("much longer than before")
        write(remote, name, content)

    monkeypatch.setattr(RemoteFolder, "write", grow)
    with replicated(run):
        wait_until(lambda: reports)
    assert reports == {b"much longer than before"}
