"""The device lease between real processes: who ran when, never how long."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nas.common.errors import InputError
from nas.latency import lease as device_lease
from nas.latency.lease import DeviceLease

# Each process appends "NAME enter" / "NAME leave" to one log; appends of a short line are atomic.
_TRAINER = """
import os, sys, time
from nas.latency.lease import DeviceLease
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
lease = DeviceLease("dev")
print("up", flush=True)
while not os.path.exists(sys.argv[1] + ".stop"):
    with lease.shared():
        os.write(log, b"T enter\\n")
        time.sleep(0.01)
        os.write(log, b"T leave\\n")
"""
_HOLDER = """
import sys, time
from nas.latency.lease import DeviceLease
with getattr(DeviceLease("dev"), sys.argv[1])():
    print("up", flush=True)
    time.sleep(600)
"""
# Measures for so many seconds, or until it is told to end, and says whether it was alone.
_MEASURER = """
import sys, time
from nas.latency.lease import DeviceLease
print("up", flush=True)
with DeviceLease("dev", patience_s=float(sys.argv[1])).exclusive() as grant:
    print("has it", flush=True)
    time.sleep(float(sys.argv[2])) if len(sys.argv) > 2 else sys.stdin.readline()
print("contended" if grant.contended else "alone", flush=True)
"""
_CHILD_LEAVES = """
import os, sys
from nas.latency.lease import DeviceLease
with DeviceLease("dev").exclusive():
    child = os.fork()
    if child:
        print(os.waitpid(child, 0)[1], flush=True)
        sys.stdin.readline()
if not child:
    os._exit(0)
"""
_FORKER = """
import os, sys, time
from nas.latency.lease import DeviceLease
with DeviceLease("dev").exclusive():
    if os.fork() == 0:
        print("child", flush=True)
        time.sleep(600)
print("released", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_LEASE_DIR", str(tmp_path / "leases"))


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert line_of(process)
    return process


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.subprocess
def test_nobody_computes_during_a_measurement_and_trainers_do_not_starve_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    trainers = [start(_TRAINER, str(log)) for _ in range(3)]
    try:
        out = os.open(log, os.O_WRONLY | os.O_APPEND)
        lease = DeviceLease("dev", patience_s=30)
        for _ in range(10):
            time.sleep(0.02)
            with lease.exclusive() as grant:
                os.write(out, b"M enter\n")
                time.sleep(0.03)
                os.write(out, b"M leave\n")
            assert not grant.contended
    finally:
        (tmp_path / "log.stop").touch()
        for trainer in trainers:
            trainer.wait(timeout=30)
    inside, together, measured = 0, 0, False
    for line in log.read_text().splitlines():
        name, what = line.split()
        if name == "M":
            measured = what == "enter"
            assert inside == 0, "a trainer was computing when a measurement began or ended"
        else:
            inside += 1 if what == "enter" else -1
            together = max(together, inside)
            assert not measured, "a trainer computed during a measurement"
    assert together > 1, "trainers share the device among themselves"


@pytest.mark.subprocess
@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_a_killed_holder_blocks_nobody(held: str) -> None:
    holder = start(_HOLDER, held)
    kill(holder)
    with DeviceLease("dev", patience_s=30).exclusive() as grant:
        assert not grant.contended


@pytest.mark.subprocess
@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_a_hung_holder_is_waited_for_a_bounded_time_and_the_measurement_marked(held: str) -> None:
    holder = start(_HOLDER, held)
    try:
        with DeviceLease("dev", patience_s=0.2).exclusive() as grant:
            assert grant.contended
            assert grant.waited_s >= 0.2
        if held == "exclusive":
            with DeviceLease("dev", patience_s=0.2).shared():
                pass  # goes on in spite of it
    finally:
        kill(holder)


@pytest.mark.subprocess
def test_a_forked_child_does_not_keep_its_parents_lease() -> None:
    process = start(_FORKER)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with DeviceLease("dev", patience_s=20).exclusive() as grant:
            assert not grant.contended
    finally:
        kill(process)


@pytest.mark.subprocess
def test_a_forked_child_that_leaves_the_block_leaves_its_parents_lease_alone() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _CHILD_LEAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert line_of(parent) == "0", "the child came to a good end"
    with DeviceLease("dev", patience_s=0.2).exclusive() as grant:
        assert grant.contended, "the parent still has it"
    parent.communicate("end\n", timeout=30)


@pytest.mark.subprocess
@pytest.mark.parametrize("lost_patience", [True, False])
def test_a_measurement_knows_whether_someone_lost_patience_and_computed_beside_it(
    lost_patience: bool, caplog: pytest.LogCaptureFixture
) -> None:
    measurer = start(_MEASURER, "30")
    assert line_of(measurer) == "has it"
    lease = DeviceLease("dev", patience_s=0.2)
    if lost_patience:
        for _ in range(20):
            with lease.shared():
                pass
    out, _ = measurer.communicate("end\n", timeout=30)
    assert out.strip() == ("contended" if lost_patience else "alone")
    told = [message for message in caplog.messages if "going on" in message]
    assert len(told) == lost_patience, "patience is lost with a measurement once, not at every burst"


@pytest.mark.subprocess
def test_a_queue_longer_than_patience_is_waited_for_while_it_moves_on() -> None:
    measurers = [start(_MEASURER, "2", "0.6") for _ in range(6)]
    ended = [measurer.communicate(timeout=60)[0].split()[-1] for measurer in measurers]
    assert ended == ["alone"] * 6


@pytest.mark.subprocess
def test_a_long_wait_is_logged_before_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_lease, "_LOG_AFTER_S", 0.1)
    holder = start(_HOLDER, "exclusive")
    try:
        with DeviceLease("dev", patience_s=0.5).shared():
            assert [message.split(": ")[1].split()[0] for message in caplog.messages] == ["waiting", "a"]
    finally:
        kill(holder)


@pytest.mark.subprocess
def test_devices_do_not_hinder_each_other() -> None:
    holder = start(_HOLDER, "exclusive")
    try:
        with DeviceLease("other", patience_s=0.2).exclusive() as grant:
            assert not grant.contended
    finally:
        kill(holder)


def test_another_folder_by_environment(tmp_path: Path) -> None:
    with DeviceLease("gpu-1").shared():
        assert sorted(path.name for path in (tmp_path / "leases").iterdir()) == ["gpu-1.device", "gpu-1.turnstile"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("leases", "NAS_LEASE_DIR leases: must be an absolute path"),
        ("/proc", "NAS_LEASE_DIR /proc: its lock files cannot be opened"),
        ("/etc/passwd", "NAS_LEASE_DIR /etc/passwd: cannot be made"),
    ],
)
def test_a_folder_that_cannot_serve_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, folder: str, message: str
) -> None:
    monkeypatch.setenv("NAS_LEASE_DIR", folder)
    with pytest.raises(InputError, match=message), DeviceLease("dev").shared():
        pass


def test_without_a_variable_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any user of the machine could stop all others by the folder that all shared."""
    monkeypatch.setenv("NAS_LEASE_DIR", "")
    assert device_lease.lease_directory() == Path(f"/tmp/nas-leases-{os.getuid()}")
    own = tmp_path / "own"
    monkeypatch.setattr(device_lease, "own_directory", lambda: own)
    with DeviceLease("dev").shared():
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
    for trap in ("written by others", "a link", "another's"):
        shutil.rmtree(own)
        if trap == "a link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            own.symlink_to(tmp_path / "elsewhere")
        else:
            own.mkdir(mode=0o700)
        if trap == "written by others":
            own.chmod(0o777)
        if trap == "another's":
            if os.getuid() != 0:
                continue
            os.chown(own, 54321, 54321)
        with pytest.raises(
            InputError, match="cannot be made" if trap == "a link" else "let NAS_LEASE_DIR name another"
        ):
            DeviceLease("dev")
        if trap == "a link":
            own.unlink()
            own.mkdir()


def test_a_folder_that_users_share_by_choice_is_theirs_and_says_what_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NAS_LEASE_DIR", str(tmp_path / "shared"))
    DeviceLease("dev")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o1777
    assert not caplog.records
    (tmp_path / "shared").chmod(0o777)
    for _ in range(3):
        DeviceLease("dev")
    assert [record.getMessage() for record in caplog.records] == [
        f"NAS_LEASE_DIR {tmp_path / 'shared'}: every user can delete its files (chmod +t forbids that)"
    ]


def test_whoever_takes_a_device_again_and_again_is_waited_for_but_not_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease, held, over = DeviceLease("dev", patience_s=0.02), threading.Event(), threading.Event()
    with lease.shared():
        pass  # makes the files

    def hold() -> None:
        with (tmp_path / "leases" / "dev.turnstile").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.set()
            while not over.wait(0.01):
                os.utime(tmp_path / "leases" / "dev.device")  # as if another measurement had begun

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        for _ in range(3):
            with lease.shared():
                pass
            with lease.exclusive() as grant:
                assert grant.contended
    finally:
        over.set()
        thread.join()
    assert "going on" in caplog.text
