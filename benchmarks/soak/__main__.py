"""An hour of a search under random faults: is anything lost, doubled, leaked or left? Real `nas`, Ray, disk and page.

    python benchmarks/soak --minutes 60 --seed 0 --trials 1000 --out FOLDER
    python benchmarks/soak --minutes 15 --calm --out FOLDER     # no faults: what long-lived processes come to hold
    python benchmarks/soak --tables FOLDER

`nas search` trains tiny networks for two epochs each, two at a time. Meanwhile, drawn from the seed: workers are killed and stopped for a
minute, fsync takes seconds, the clock is set by an hour either way, the driver is killed, the disk of the run is full for 20 s. Whenever
the driver has ended, `nas search --resume` goes on. Ten tabs of `nas browse` ask as a page does, and `nas status` runs in a loop.

Checked every few seconds: no record is gone, changed, or of a number or a finished candidate that another has; no traceback, no end of the
driver but by what struck it, every answer of the page, `nas status` never goes back. At the end one more search, by a clock two hours
ahead, with nothing in its way: then study and records agree, and what `nas front` tells, whose weights are there, no lease is held, no temporary
file and no process is left. Memory and open files are sampled, and judged from ten minutes on by what `tables.py` takes for flat. Files in
FOLDER: `events.jsonl`, `samples.jsonl`, `answers.jsonl`, `status.jsonl`, what driver and page said, and the records. Exit code 1 where an
invariant is broken. The full disk takes root (a small tmpfs), the slow one and the clock a C compiler (`shim.c`, preloaded; files keep the
machine's time); what cannot be had is left out, and said.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # what benchmarks share

import optuna
from faults import SHARES, Faults, drawn
from place import Place
from run_checks import check_end
from tables import judged, print_tables
from tabs import Tab
from watch import Records, Status, sample

from nas.runs.front import pareto_front
from nas.runs.store import open_run
from nas.workflows import clean

SPACE = Path(__file__).with_name("tiny.yaml")
VIEWS = ("front", "front", "progress", "choices", "trials", "compare", "failures", "settings", "front", "trials")
SAMPLE_S, LOOK_S = 20.0, 4.0
AGAIN_S = 2.0
"""After the driver's end, before it is resumed."""
NO_ROOM = ("No space left on device", "is full")
SET_BACK = "the clock was set back"
STALLED_S, PATIENCE_S = 300.0, 420.0
"""Without a new record, and until a driver has ended that was told to."""
LATER_S = 7200


class Soak:
    """A search, what strikes it, and what is seen."""

    def __init__(self, place: Place, minutes: float, seed: int, trials: int) -> None:
        self.place, self._seconds, self._trials = place, minutes * 60, trials
        self._rng = random.Random(seed)
        self._faults = Faults(self, self._rng, self._seconds)
        self.problems: list[str] = []
        self._records = Records(place.run / "trials.jsonl", self.broken)
        self._driver: subprocess.Popen[bytes] | None = None
        self._page: subprocess.Popen[bytes] | None = None
        self._ended_at = 0.0
        self._killed = False
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start = self._grew_at = time.monotonic()

    def note(self, what: str, **more: object) -> None:
        """Something happened."""
        at = round(time.monotonic() - self._start, 1)
        self.place.tell("events.jsonl", what=what, at_s=at, done=self._records.done, **more)
        print(f"{at:7.1f} s  {self._records.done:4} done  {what}  {more or ''}", flush=True)

    def broken(self, problem: str) -> None:
        """Something is as it must not be."""
        self.problems.append(problem)
        self.note("BROKEN", problem=problem)

    # ------------------------------------------------------------ the search

    def search(self) -> None:
        """Start it, or go on."""
        if (self.place.run / "run.yaml").exists():
            arguments = ["--resume", str(self.place.run), "--trials", str(self._trials)]
        else:
            arguments = [
                str(SPACE), "--out", str(self.place.run), "--trials", str(self._trials), "--epochs", "2",
                "--max-concurrent", "2", "--confirm", "0.005", "--max-failures", "50", "--trial-timeout", "3m",
            ]  # fmt: skip
        with (self.place.out / "driver.log").open("ab") as log:
            log.write(f"--- nas search {' '.join(arguments)}\n".encode())
            log.flush()
            self._driver = self.place.start("search", *arguments, log=log)
        self.note("search", resumed="--resume" in arguments)

    def kill_driver(self) -> bool:
        """End the driver without a word; whether there was one."""
        if self._driver is None:
            return False
        self._driver.kill()
        self._killed = True
        self.note("driver killed")
        return True

    def _look_at_driver(self) -> None:
        if self._driver is None:
            if time.monotonic() - self._ended_at > AGAIN_S:
                self.search()
            return
        code = self._driver.poll()
        if code is None:
            return
        said = self._said()
        self._records.look()
        self._driver, self._ended_at = None, time.monotonic()
        killed = self._killed and code == -signal.SIGKILL
        full = (
            not killed and self._faults.full_until > time.monotonic() - 60.0 and any(each in said for each in NO_ROOM)
        )
        clock = code == 1 and SET_BACK in said
        why = "killed" if killed else "disk full" if full else "clock set back" if clock else "by itself"
        self.note("driver ended", code=code, why=why, said=said.strip().splitlines()[-1:])
        if why == "by itself":
            if code or self._records.done < open_run(self.place.run).settings.candidates:
                self.broken(f"the driver ended with {code}: {said.strip()[-600:]}")
            else:
                self._trials += 100
        self._killed = False

    def _said(self) -> str:
        """What the driver said since it was started last; a traceback is none of what it may say."""
        said = (self.place.out / "driver.log").read_text(errors="replace").rpartition("--- nas search ")[2]
        if "Traceback" in said:
            self.broken(f"the driver told a traceback: {said[said.index('Traceback') :][:1500]}")
        return said

    # ------------------------------------------------------------ the page

    def _open_page(self) -> None:
        log = self.place.out / "page.log"
        with log.open("wb") as file:
            self._page = self.place.start("browse", str(self.place.run), "--port", "0", "--no-open", log=file)
        while not (found := re.search(r"http://\S+", log.read_text())):
            if self._page.poll() is not None:
                raise RuntimeError(f"nas browse ended: {log.read_text()[-500:]}")
            time.sleep(0.2)

        def told(what: str, status: int, seconds: float) -> None:
            self.place.tell("answers.jsonl", what=what, status=status, seconds=round(seconds, 4))
            if status not in (200, 204):
                self.broken(f"the page answered {what} with {status} after {seconds:.1f} s")

        self._threads += [Tab(found[0], view, told, self._over) for view in VIEWS]
        self._threads.append(Status(self.place, self.broken, self._over))
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------ the hour

    def run(self) -> None:
        """Let faults strike until the time is over."""
        for kind, why in self.place.missing.items():
            self.note("left out", fault=kind, why=why)
        faults = drawn(self._rng, self._seconds, self.place.missing)
        self.search()
        while not (self.place.run / "trials.jsonl").exists():
            if self._driver is None or self._driver.poll() is not None:
                raise RuntimeError(f"nas search ended: {self._said()[-500:]}")
            time.sleep(0.5)
        self._open_page()
        began = time.monotonic()
        at, kind = next(faults)
        sampled = looked = 0.0
        while (passed := time.monotonic() - began) < self._seconds:
            self._faults.work()
            if passed >= at and self._faults.strike(kind):
                at, kind = next(faults)
            self._look_at_driver()
            if passed - looked > LOOK_S:
                looked = passed
                self._look_for_stall()
                self._check_page()
            if passed - sampled > min(SAMPLE_S, self._seconds / 12):
                sampled = passed
                sample(self.place, self._named())
            time.sleep(0.25)

    def _look_for_stall(self) -> None:
        """Records grow; where they do not, the driver is killed, so that the rest of the hour is a search."""
        before = self._records.done
        self._records.look()
        now = time.monotonic()
        if self._records.done > before:
            self._grew_at = now
        elif now - self._grew_at > STALLED_S:
            self.broken(f"no candidate was done for {STALLED_S:.0f} s: {self._said().strip()[-300:]}")
            self._grew_at = now
            self.kill_driver()

    def _named(self) -> dict[int, str]:
        return {each.pid: name for each, name in ((self._driver, "driver"), (self._page, "page")) if each is not None}

    def _check_page(self) -> None:
        if self._page is not None and self._page.poll() is not None:
            self.broken(f"the page ended with {self._page.returncode}")
            self._page = None

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """Stop the search gently, let one more finish, and check what there is."""
        self._faults.end()
        self.note("faults end")
        if self._driver is not None:
            self.place.ask("stop", str(self.place.run))
            self._wait_for_driver("nas stop")
        self._records.look()
        self._trials = self._records.done + 5
        self.place.set_clock(LATER_S)
        self.search()
        self._wait_for_driver("the last search", 0)
        self._records.look()
        self._over.set()
        for thread in self._threads:
            thread.join(120)
        for problem in check_end(self.place.run):
            self.broken(problem)
        self._check_front()
        if self._page is not None:
            self._page.terminate()
            self._page.wait(60)
        if "Traceback" in (page := (self.place.out / "page.log").read_text()):
            self.broken(f"the page told a traceback: {page[page.index('Traceback') :][:1500]}")
        self._check_left()
        for problem in judged(self.place.out):
            self.broken(problem)
        self.note("end", problems=len(self.problems))

    def _wait_for_driver(self, what: str, code: int | None = None) -> None:
        assert self._driver is not None
        try:
            ended = self._driver.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.broken(f"{what}: the driver is there after {PATIENCE_S:.0f} s: {self._said().strip()[-500:]}")
            self._driver.kill()
            ended = self._driver.wait()
        said = self._said()
        self.note("driver ended", code=ended, after=what)
        if ended not in ((75, 0) if code is None else (code,)):
            self.broken(f"{what}: the driver ended with {ended}: {said.strip()[-600:]}")
        self._driver = None

    def _check_front(self) -> None:
        """What `nas front` tells is what the records say, and its weights are there."""
        run = open_run(self.place.run)
        told = {each["digest"] for each in json.loads(self.place.ask("front", str(run.path), "--json").stdout)["front"]}
        fronts = [pareto_front(records, run.settings.objectives) for records in (run.judged(), run.records())]
        if told != {record.digest for record in fronts[0]}:
            self.broken(f"nas front tells {sorted(told)}, other than the records")
        for digest in {record.digest for front in fronts for record in front}:
            try:
                run.load_weights(digest)
            except Exception as error:
                self.broken(f"weights of {digest}, on the front: {error}")

    def _check_left(self) -> None:
        """Leases, files and processes."""
        deadline = time.monotonic() + 90.0  # Ray's agents may take a minute
        while (left := self.place.processes()) and time.monotonic() < deadline:
            time.sleep(1.0)
        for number, command in left.items():
            if (
                "Agent" in command
            ):  # Ray's: one that tells of its end as the clock is set back waits until that has caught up
                self.note("an agent of Ray is left", process=number, command=command.strip("\0")[:40])
                os.kill(number, signal.SIGKILL)
            else:
                self.broken(f"process {number} is left: {command.replace(chr(0), ' ')[:200]}")
        for path in self.place.leases.iterdir():
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    self.broken(f"the lease {path.name} is held")
        for path in self.place.run.rglob(".*.tmp"):
            self.broken(f"a half-written file is left: {path.relative_to(self.place.run)}")
        os.environ["TMPDIR"] = str(self.place.temporary)
        mine = [each for each in clean.leftovers() if each.path.is_relative_to(self.place.temporary)]
        self.note("scratch folders of killed processes", folders=len(mine), mb=sum(each.size for each in mine) >> 20)
        for each in mine:
            if not each.removable or not clean.remove(each):
                self.broken(f"nas clean leaves {each.path}: {each.reason}")
        for path in self.place.temporary.iterdir():
            self.broken(f"a temporary file is left: {path.name}")

    def close(self) -> None:
        """Nothing of ours is left running."""
        self._over.set()
        self.place.free_disk()
        for number in self.place.processes():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(1.0)
        self.place.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trials", type=int, default=1000, help="of the search; raised where they are done before the time is over"
    )
    parser.add_argument("--calm", action="store_true", help="no faults: what long-lived processes come to hold")
    parser.add_argument("--out", type=Path, help="a new folder for what is seen")
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="print those of an earlier soak")
    given = parser.parse_args()
    if given.tables:
        print_tables(given.tables)
        return
    if given.out is None or given.out.exists():
        parser.error("--out takes a folder that is not there yet")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = Place(given.out)
    if given.calm:
        place.missing |= dict.fromkeys(SHARES, "--calm")
    soak = Soak(place, given.minutes, given.seed, given.trials)
    try:
        soak.run()
        soak.finish()
    finally:
        soak.close()
    print_tables(given.out)
    sys.exit(bool(soak.problems))


if __name__ == "__main__":
    main()
