"""What is watched while a soak runs: processes, records, `nas status`; what is wrong goes to `broken`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faults import WORKERS
from place import Place

Broken = Callable[[str], None]
STATUS_S = 5.0


def sample(place: Place, named: dict[int, str]) -> None:
    """A line for each process in `samples.jsonl`: memory in MiB (`own_mb` is what no file backs), open files, threads; `named` ones and workers by what they are."""
    for number, command in place.processes().items():
        called = zip(("worker", "keeper"), WORKERS, strict=True)
        kind = named.get(number) or next((kind for kind, title in called if command.startswith(title)), "other")
        with suppress(OSError, IndexError, KeyError):  # it may have ended
            folder = Path("/proc") / str(number)
            memory = dict(line.split()[:2] for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
            stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            up_s = float(Path("/proc/uptime").read_text().split()[0])
            place.tell(
                "samples.jsonl",
                kind=kind,
                pid=number,
                age_s=round(up_s - int(stat[19]) / os.sysconf("SC_CLK_TCK"), 1),
                pss_mb=round(int(memory["Pss:"]) / 1024, 2),
                rss_mb=round(int(memory["Rss:"]) / 1024, 2),
                own_mb=round(int(memory["Anonymous:"]) / 1024, 2),
                files=len(os.listdir(folder / "fd")),
                threads=int(stat[17]),
                command=command.replace("\0", " ")[:60],
            )


class Records:
    """The records of a run as they were: none may be gone, changed, or of a number that another has."""

    def __init__(self, path: Path, broken: Broken) -> None:
        self._path, self._broken = path, broken
        self._seen = b""
        self._numbers: set[int] = set()
        self._done: set[str] = set()

    def look(self) -> None:
        """Compare with the file of now, and take up what is new."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            if self._seen:
                self._broken("trials.jsonl is gone")
            return
        if not content.startswith(self._seen):
            self._broken("a record that was on the disk is gone or changed")
            return
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole[len(self._seen) :].splitlines():
            self._take(line)
        self._seen = whole

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:  # torn where the disk was full; what follows begins a line
            return
        number, digest = record["number"], record["digest"]
        if number in self._numbers:
            self._broken(f"trial {number} has two records")
        self._numbers.add(number)
        if record["evaluation"]["outcome"] == "done":
            if digest in self._done:
                self._broken(f"{digest} is done twice")
            self._done.add(digest)

    @property
    def done(self) -> int:
        """How many candidates are done."""
        return len(self._done)


class Status(threading.Thread):
    """`nas status DIR --json` again and again: it answers, and what was trained stays so."""

    def __init__(self, place: Place, broken: Broken, over: threading.Event) -> None:
        super().__init__(name="status", daemon=True)
        self._place, self._broken, self._over = place, broken, over

    def run(self) -> None:
        trained = 0
        while not self._over.wait(STATUS_S):
            if not (self._place.run / "run.yaml").exists():
                continue
            start = time.perf_counter()
            answer = self._place.ask("status", str(self._place.run), "--json")
            row: dict[str, object] = {"seconds": round(time.perf_counter() - start, 2), "code": answer.returncode}
            if answer.returncode:
                self._broken(f"nas status ended with {answer.returncode}: {answer.stderr.strip()[-300:]}")
            else:
                found = json.loads(answer.stdout)
                row |= {"phase": found["phase"], "trained": found["trained"]}
                if found["trained"] < trained:
                    self._broken(f"nas status told {found['trained']} trained, after {trained}")
                trained = found["trained"]
            self._place.tell("status.jsonl", **row)
