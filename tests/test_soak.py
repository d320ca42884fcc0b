"""What benchmarks/soak takes for lost, doubled and leaking, and its clock and disk; the soak itself takes minutes."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOAK = Path(__file__).resolve().parent.parent / "benchmarks" / "soak"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports one of its modules, which find one another as they do when it runs."""
    monkeypatch.syspath_prepend(SOAK)
    names = [path.stem for path in SOAK.glob("*.py")]

    def load(name: str) -> ModuleType:
        for each in names:
            monkeypatch.delitem(sys.modules, each, raising=False)
        return importlib.import_module(name)

    return load


def line(number: int, digest: str, outcome: str = "done") -> bytes:
    return json.dumps({"number": number, "digest": digest, "evaluation": {"outcome": outcome}}).encode() + b"\n"


def test_records_that_are_gone_changed_or_double_are_told(module: Callable[[str], Any], tmp_path: Path) -> None:
    broken: list[str] = []
    path = tmp_path / "trials.jsonl"
    records = module("watch").Records(path, broken.append)
    kept = line(0, "a", "lost") + line(1, "a") + b'{"number": 2, "di'
    path.write_bytes(kept)
    records.look()
    path.write_bytes(kept + b"\n" + line(2, "b"))  # a torn line stays
    records.look()
    assert (broken, records.done) == ([], 2)
    path.write_bytes(kept + b"\n" + line(2, "b") + line(3, "a"))
    records.look()
    path.write_bytes(kept + b"\n" + line(2, "b") + line(3, "a") + line(3, "c"))
    records.look()
    path.write_bytes(line(0, "a", "lost") + line(1, "b") + line(2, "b"))
    records.look()
    path.unlink()
    records.look()
    assert broken == [
        "a is done twice",
        "trial 3 has two records",
        "a record that was on the disk is gone or changed",
        "trials.jsonl is gone",
    ]


def test_what_grows_is_told_from_what_differs_from_process_to_process(
    module: Callable[[str], Any], tmp_path: Path
) -> None:
    judged = module("tables").judged
    rng = random.Random(0)

    def samples(kind: str, growth_mb: float, files: int) -> str:
        rows = []
        for at in range(0, 1800, 20):
            life, age = divmod(at, 300)
            memory = 100 + 7 * life + growth_mb * age / 60 + rng.uniform(-2, 2)
            opened = 40 + files * (age // 60)
            rows.append({"time": at, "kind": kind, "pid": life, "age_s": age, "own_mb": memory, "files": opened})
        return "".join(json.dumps(row) + "\n" for row in rows)

    (tmp_path / "samples.jsonl").write_text(samples("worker", 0.0, 0))
    assert judged(tmp_path) == []
    (tmp_path / "samples.jsonl").write_text(samples("worker", 6.0, 1))
    told = judged(tmp_path)
    assert [each.partition(" grows")[0] for each in told] == ["own_mb of worker", "files of worker"]


def test_faults_are_those_of_their_seed_and_each_comes_soon(module: Callable[[str], Any]) -> None:
    faults = module("faults")
    first, again, other = (
        list(itertools.islice(faults.drawn(random.Random(seed), 180.0, {"disk full": "no root"}), 60))
        for seed in (1, 1, 2)
    )
    kinds = set(faults.SHARES) - {"disk full"}
    assert first == again != other
    assert {kind for _, kind in first[: len(kinds)]} == {kind for _, kind in first} == kinds
    assert first[len(kinds) - 1][0] < 180.0


@pytest.mark.subprocess
def test_the_clock_and_the_disk_are_as_they_were_set(tmp_path: Path) -> None:
    shim, control = tmp_path / "shim.so", tmp_path / "control"
    compiler = ["cc", "-shared", "-fPIC", "-o", str(shim), str(SOAK / "shim.c"), "-ldl"]
    try:
        subprocess.run(compiler, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no C compiler here: {error}")
    control.write_bytes(struct.pack("qq", -3600, 300_000))
    program = """if True:
        import os, sys, threading, time
        there = time.monotonic()
        threading.Event().wait(0.05)
        waited = time.monotonic() - there
        os.fsync(os.open(sys.argv[1], os.O_RDWR))
        print(time.time(), waited, time.monotonic() - there - waited)
    """
    environment = os.environ | {"LD_PRELOAD": str(shim), "NAS_SOAK_CONTROL": str(control)}
    before = subprocess.run(["date", "+%s"], check=True, capture_output=True, text=True)
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(control)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    clock, waited, synced = map(float, told.stdout.split())
    assert clock - float(before.stdout) == pytest.approx(-3600, abs=120)
    assert waited < 1800
    assert synced >= 0.3
