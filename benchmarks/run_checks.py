"""What must be so of a run directory whose search was killed, and which processes a search left: for kill_rounds.py and soak/."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.runs.front import pareto_front
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.search.study import STUDY_NAME, told_as


def check_kill(path: Path, before: bytes, now: bytes) -> list[str]:
    """What is wrong with the records, given those before."""
    problems = []
    if not now.startswith(before[: before.rfind(b"\n") + 1]):
        problems.append("a record that was on the disk is gone or changed")
    done = Counter(record.digest for record in open_run(path).records() if record.outcome is Outcome.DONE)
    problems += [f"{digest} is done {count} times" for digest, count in done.items() if count > 1]
    return problems


def check_end(path: Path, of_driver: set[str] | None = None) -> list[str]:
    """What is wrong with a search that is over; its driver told a front of these digests, if that is known."""
    problems = []
    run = open_run(path)
    records, objectives = run.records(), run.settings.objectives
    done = sum(record.outcome is Outcome.DONE for record in records)
    if done != run.settings.candidates:
        problems.append(f"{done} are done, of a budget of {run.settings.candidates}")
    if running := running_in(path):
        problems.append(f"the study holds {sorted(running)} as running")
    study = study_of(path)
    trials = study.get_trials(deepcopy=False)
    for record in records:
        state, values = told_as(record, objectives, records)
        trial = trials[record.number]
        if (trial.state, trial.values, trial.params) != (state, values, record.parameters):
            problems.append(f"trial {record.number} is {trial.state.name} {trial.values}, recorded {state} {values}")
    numbers = Counter(record.number for record in records)
    problems += [f"trial {number} has {count} records" for number, count in numbers.items() if count > 1]
    front = {record.digest for record in pareto_front(records, objectives)}
    told = {trial.user_attrs["digest"] for trial in study.best_trials}
    if front != told or of_driver not in (None, front):
        by_driver = "" if of_driver is None else f", {len(of_driver)} told"
        problems.append(f"fronts differ: {len(front)} by the records, {len(told)} by the study{by_driver}")
    return problems


def study_of(path: Path) -> optuna.Study:
    """The study, read from a copy of its file."""
    copy = path.with_name("study.copy")
    shutil.copyfile(path / "study.journal", copy)
    return optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(copy)))
    )


def running_in(path: Path) -> frozenset[int]:
    """Numbers of the trials that the study holds as running; none where there is no study yet."""
    if not (path / "study.journal").exists():
        return frozenset()
    try:
        return frozenset(trial.number for trial in study_of(path).trials if trial.state is TrialState.RUNNING)
    except Exception:  # killed while the study was made, or its last line is torn: the next driver says so
        return frozenset()


def tagged(name: str, value: object) -> dict[int, str]:
    """Processes that inherited a variable with this value, and their command lines."""
    mark = f"{name}={value}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace")
    return found
