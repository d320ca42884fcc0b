"""Does a search lose or repeat anything when it is killed? Real drivers and workers, SIGKILL at random instants, resume.

    python benchmarks/kill_rounds.py [--victim driver] [--rounds 30] [--seed 0] [--out FILE]
    python benchmarks/kill_rounds.py --victim worker [--rounds 30]

A driver is a process of its own: `Broker` and `run_candidates` on a Ray of two cores, with an evaluator that takes a
random 0.05 to 0.3 s and notes in a file of its own, fsynced, what it begins and what it has finished. A quarter of the
drivers is killed within a second of Ray's start (the run directory is read, the study brought up to date, Tune starts),
the others within 1.5 s of their first candidate. Each is followed by one that resumes; after the last kill one finishes.
Where the budget runs out before, it is raised, as by `nas search --resume DIR --trials N`. A driver's workers
die with it: `gone_s` is how long that takes.

After each kill: every record that was on the disk is there, byte for byte; no candidate is done twice; what the study
holds as running is not what it held so at the kill before. At the end: as many done as the budget says, nothing running,
the study told as the records say, one front by records, broker and study. Work that was finished but died with its
driver before it was recorded is counted apart: it is paid twice. Exit status 1 where anything else is lost.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from made_up import made_up, new_run, settings, start_ray_with
from run_checks import check_end, check_kill, running_in, tagged

from nas.common.jsonl import append_line, read_lines
from nas.runs.record import Evaluation, Outcome
from nas.runs.settings import SearchSettings
from nas.runs.store import open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate

SLOTS = 2
LEFT = 20
"""Trials that are left at least when a driver starts; where there are fewer, the budget is raised."""
PATIENCE_S = 300.0
"""For a driver to come up, and for a killed one's processes to go."""
_TAG = "NAS_KILL_ROUNDS"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", choices=("driver", "worker"), default="driver")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON lines are added to it")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.drive:
        drive(given.drive)
        return
    kill = kill_drivers if given.victim == "driver" else kill_workers
    with tempfile.TemporaryDirectory(prefix="nas-kills-") as folder:
        rows = []
        for row in kill(Path(folder), given.rounds, random.Random(given.seed)):
            rows.append(row)
            line = json.dumps({"seed": given.seed, "date": time.strftime("%Y-%m-%d")} | row)
            print(line, flush=True)
            if given.out:
                append_line(given.out, line)
    sys.exit(bool(rows[-1]["problems"]))


# ---------------------------------------------------------------- the driver


def drive(path: Path) -> None:
    """Go on with a run on a Ray of this process; what happens is noted beside it."""
    run = open_run(path)
    with run.locked():
        start_ray_with(SLOTS)
        from nas.search.ray.tune import run_candidates

        note(path, "ray", pid=os.getpid())
        broker = Broker(run)
        note(path, "broker", trained=broker.trained)
        run_candidates(broker, lambda: functools.partial(evaluate, path=path))
        note(path, "end", front=[record.digest for record in broker.front], reason=broker.ending)


def evaluate(candidate: Candidate, path: Path) -> Generator[Evaluation, None, Evaluation]:
    """Take a moment; what is begun and finished is noted, and on the disk before the driver hears of it."""
    note(path, "begun", number=candidate.number, digest=candidate.digest, pid=os.getpid())
    evaluation = made_up(candidate, 3)
    time.sleep(random.uniform(0.05, 0.3))
    yield evaluation
    note(path, "finished", number=candidate.number, digest=candidate.digest)
    return evaluation


def note(path: Path, what: str, **more: object) -> None:
    """A line in the notes beside a run directory."""
    append_line(notes_path(path), json.dumps({"what": what, "time": time.time()} | more))


def told_front(path: Path) -> set[str]:
    """Digests of the front that the last driver told at its end."""
    return set(next(line["front"] for line in reversed(notes(path)) if line["what"] == "end"))


def notes_path(path: Path) -> Path:
    return path.with_name("notes.jsonl")


def notes(path: Path) -> list[Row]:
    """What drivers and workers noted; a line that is just being written is left out."""
    file = notes_path(path)
    lines = read_lines(file) if file.exists() else iter(())
    return [json.loads(line) for line in lines if line.endswith(b"}\n")]


# ---------------------------------------------------------------- killing


def kill_drivers(folder: Path, rounds: int, rng: random.Random) -> Iterator[Row]:
    """So many drivers killed and resumed, and one that finishes; a row each, then a summary."""
    path = new_run(folder / "run", made_up_search(rng)).path
    problems: list[str] = []
    rows: list[Row] = []
    records, running = b"", frozenset[int]()
    for number in range(1, rounds + 1):
        raise_budget(path)
        noted = len(notes(path))
        early = rng.random() < 0.25
        delay_s = rng.uniform(0, 1.0 if early else 1.5)
        with started(path, folder) as driver:
            wait_for(driver, functools.partial(count, path, "ray" if early else "begun", noted))
            time.sleep(delay_s)
            driver.kill()
            driver.wait()
            gone_s, last_to_go = until_gone(path)
        if driver.returncode > 0:
            problems.append(f"round {number}: the driver ended by itself: {tail(folder)}")
        before, records = records, (path / "trials.jsonl").read_bytes()
        since = notes(path)[noted:]
        found = check_kill(path, before, records)
        now_running = running_in(path)
        if any(line["what"] == "broker" for line in since):
            found += [f"trial {stuck} is still running" for stuck in sorted(now_running & running)]
        running = now_running
        recorded = {record.number for record in open_run(path).records()}
        unrecorded = sum(line["what"] == "finished" and line["number"] not in recorded for line in since)
        if unrecorded > SLOTS:
            found.append(f"{unrecorded} finished trials died with the driver")
        problems += [f"round {number}: {problem}" for problem in found]
        rows.append(
            {"round": number, "victim": "driver", "early": early, "delay_s": round(delay_s, 3),
             "records": len(recorded), "running": len(running), "finished_unrecorded": unrecorded,
             "torn": bool(records) and not records.endswith(b"\n"), "gone_s": gone_s, "last_to_go": last_to_go, "problems": found}
        )  # fmt: skip
        yield rows[-1]
    yield from finished(path, folder, problems, records, rounds, "driver", {
        "finished_unrecorded": sum(row["finished_unrecorded"] for row in rows),
        "most_unrecorded_a_kill": max(row["finished_unrecorded"] for row in rows),
        "running_when_killed": sum(row["running"] for row in rows),
        "torn": sum(row["torn"] for row in rows),
        "left_over": sum(row["gone_s"] is None for row in rows),
        "gone_s_most": max(row["gone_s"] or 0.0 for row in rows),
    })  # fmt: skip


def kill_workers(folder: Path, rounds: int, rng: random.Random) -> Iterator[Row]:
    """So many workers of one driver killed while they evaluate; a row each, then a summary."""
    path = new_run(folder / "run", made_up_search(rng, rounds * 4 + LEFT)).path
    problems: list[str] = []
    records = b""
    finished_before, last = 0, 0.0
    with started(path, folder) as driver:
        for number in range(1, rounds + 1):

            def ready(enough: int = finished_before, since: float = last) -> bool:
                return count(path, "finished") > enough and bool(victims(path, since))

            wait_for(driver, ready)
            time.sleep(rng.uniform(0, 0.3))
            if not (possible := victims(path, last)):
                wait_for(driver, ready)
                possible = victims(path, last)
            victim = rng.choice(possible)
            with suppress(ProcessLookupError):  # it may just have been replaced
                os.kill(victim["pid"], signal.SIGKILL)
            last, finished_before = time.time(), count(path, "finished")
            before, records = records, (path / "trials.jsonl").read_bytes()
            found = check_kill(path, before, records)
            problems += [f"round {number}: {problem}" for problem in found]
            yield {
                "round": number, "victim": "worker", "trial": victim["number"],
                "after_s": round(last - victim["time"], 3), "records": records.count(b"\n"), "problems": found,
            }  # fmt: skip
        wait_for(driver, lambda: driver.poll() is not None)
    lost = sum(record.outcome is Outcome.LOST for record in open_run(path).records())
    yield from finished(path, folder, problems, records, rounds, "worker", {"lost": lost})


def victims(path: Path, since: float) -> list[Row]:
    """Trials that were begun after a moment and are not finished."""
    lines = notes(path)
    ended = {line["number"] for line in lines if line["what"] == "finished"}
    return [line for line in lines if line["what"] == "begun" and line["time"] > since and line["number"] not in ended]


def finished(
    path: Path, folder: Path, problems: list[str], records: bytes, rounds: int, victim: str, more: Row
) -> Iterator[Row]:
    """Let a last driver finish (at once where all is done), and check what there is at the end."""
    noted = len(notes(path))
    with started(path, folder) as driver:
        wait_for(driver, lambda: driver.poll() is not None)
        if driver.returncode:
            problems.append(f"the last driver ended with {driver.returncode}: {tail(folder)}")
    problems += check_kill(path, records, (path / "trials.jsonl").read_bytes()) + check_end(path, told_front(path))
    run = open_run(path)
    done = [record for record in run.records() if record.outcome is Outcome.DONE]
    paid = count(path, "finished")
    yield {
        "summary": True, "victim": victim, "rounds": rounds, "budget": run.settings.trials, "done": len(done),
        "records": len(run.records()), "evaluations_finished": paid, "paid_twice": paid - len(done), **more,
        "seconds_of_last_driver": round(notes(path)[-1]["time"] - notes(path)[noted]["time"], 1), "problems": problems,
    }  # fmt: skip


# ---------------------------------------------------------------- processes


def made_up_search(rng: random.Random, trials: int = LEFT) -> SearchSettings:
    """Settings of a search that proposes at random."""
    return settings("cifar", trials, SLOTS, "random", ("accuracy", "macs"), seed=rng.randrange(1000))


def raise_budget(path: Path) -> None:
    """See that there is work for another driver."""
    run = open_run(path)
    done = sum(record.outcome is Outcome.DONE for record in run.records())
    if run.settings.trials - done < LEFT:
        run.with_settings(replace(run.settings, trials=done + LEFT))


@contextmanager
def started(path: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A driver in a session of its own; none of its processes is left when the context ends."""
    with (folder / "driver.log").open("wb") as log:
        driver = subprocess.Popen(
            [sys.executable, __file__, "--drive", str(path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {_TAG: str(path), "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()
        for process in tagged(_TAG, path):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def until_gone(path: Path) -> tuple[float | None, str]:
    """Seconds that a killed driver's workers stay, None where some do not go; and which goes last.

    Ray's agents and monitors, which may take a minute and compute nothing, are not waited for, but killed.
    """
    start, last = time.monotonic(), ""
    while left := [
        command for command in tagged(_TAG, path).values() if command.startswith("ray::") and "Agent" not in command
    ]:
        last = left[0].replace("\0", " ")[:60]
        if time.monotonic() - start > PATIENCE_S:
            return None, last
        time.sleep(0.05)
    return round(time.monotonic() - start, 2), last


def wait_for(driver: subprocess.Popen[bytes], what: Callable[[], object]) -> None:
    """Wait until something is so, or the driver has ended; raises `TimeoutError`."""
    deadline = time.monotonic() + PATIENCE_S
    while not what() and driver.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s for driver {driver.pid}")
        time.sleep(0.05)


def count(path: Path, what: str, since: int = 0) -> int:
    """How many notes there are of a kind, from a number of notes on."""
    return sum(line["what"] == what for line in notes(path)[since:])


def tail(folder: Path) -> str:
    """What a driver said last."""
    return (folder / "driver.log").read_text(errors="replace").strip()[-500:]


if __name__ == "__main__":
    main()
