"""The device lease between real processes: who ran when, never how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.device_lease import DeviceLease

# Each process appends "NAME enter" / "NAME leave" to one log; appends of a short line are atomic.
_TRAINER = """
import os, sys, time
from nas.device_lease import DeviceLease
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
from nas.device_lease import DeviceLease
with getattr(DeviceLease("dev"), sys.argv[1])():
    print("up", flush=True)
    time.sleep(600)
"""
_FORKER = """
import os, sys, time
from nas.device_lease import DeviceLease
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
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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


@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_a_killed_holder_blocks_nobody(held: str) -> None:
    holder = start(_HOLDER, held)
    kill(holder)
    with DeviceLease("dev", patience_s=30).exclusive() as grant:
        assert not grant.contended


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


def test_a_forked_child_does_not_keep_its_parents_lease() -> None:
    process = start(_FORKER)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with DeviceLease("dev", patience_s=20).exclusive() as grant:
            assert not grant.contended
    finally:
        kill(process)


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
