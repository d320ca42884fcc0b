"""Optuna's journal without its waits, without its looks through all trials, and with one entry for a new trial."""

from __future__ import annotations

import copy
import json
import os
from collections import deque
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.common.files import writing


class _Journal(JournalFileBackend):
    """The study's journal file, for one writer: it could be made again from the records, which are on the disk.

    Optuna waits for the disk after each parameter of a trial, and keeps other writers out by a link, which a driver
    that is killed leaves behind, so that the next one would wait for 30 s. The run's lock keeps other drivers out.
    Optuna also opens the file twice a parameter, to write it and to read what it wrote. Here it stays open, and what was
    written is handed back from memory, unless somebody else (optuna-dashboard) wrote to the file since.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._written: deque[bytes] = deque()  # lines that are not read yet
        self._number = self._end = -1  # lines that were read; bytes that hold these and the written ones

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations on the study. Raises `InputError` where the file cannot be written."""
        lines = [f"{json.dumps(log, separators=(',', ':'))}\n".encode() for log in logs]
        size = self._size()
        mine = size == self._end
        if not mine and size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
            lines.insert(0, b"\n")  # a line that was torn must not swallow these
        content = b"".join(lines)
        with writing(self._path):
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
        if mine and self._size() == size + len(content):
            self._written += lines
            self._end = size + len(content)
        else:
            self._end = -1

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The operations from that number on."""
        offsets = self._log_number_offset
        if log_number_from == self._number and self._size() == self._end:
            while self._written:
                line = self._written.popleft()
                offsets[self._number + 1] = offsets[self._number] + len(line)
                self._number += 1
                yield json.loads(line)
            return
        self._written.clear()
        yield from super().read_logs(log_number_from)
        self._number = max(offsets)
        self._end = offsets[self._number]

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class StudyStorage(JournalStorage):
    """The study's journal, in which trials that wait are found without a look at all that ever were.

    Optuna looks for them before each proposal. It also writes, and reads again, an entry for each parameter of a trial;
    here see `whole_trial`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_Journal(path))
        self._waiting: dict[int, tuple[int, list[int]]] = {}  # by study: trials looked at, and those that may wait
        self._drafting = False
        self._draft: tuple[int, FrozenTrial] | None = None  # with its study

    @contextmanager
    def whole_trial(self) -> Iterator[None]:
        """A trial that begins in here is written at the end, all its parameters in one entry; if that raises, not at all."""
        self._drafting = True
        try:
            yield
            if self._draft is not None:
                study_id, trial = self._draft
                if super().create_new_trial(study_id, trial) != trial._trial_id:
                    raise RuntimeError("another process began a trial of this study, which one driver alone may do")
        finally:
            self._drafting, self._draft = False, None

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a trial, or add one like the template; its id."""
        if template_trial is not None or not self._drafting:
            return super().create_new_trial(study_id, template_trial)
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = len(self._replay_result._study_id_to_trial_ids[study_id])
        trial._trial_id = len(self._replay_result._trials)
        self._draft = study_id, trial
        return trial._trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its id."""
        return self._drafted(trial_id) or super().get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Say what a parameter of a trial is."""
        if trial := self._drafted(trial_id):
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution
        else:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Say what a sampler wants to know of a trial."""
        if trial := self._drafted(trial_id):
            trial.system_attrs[key] = value
        else:
            super().set_trial_system_attr(trial_id, key, value)

    def _drafted(self, trial_id: int) -> FrozenTrial | None:
        return self._draft[1] if self._draft is not None and self._draft[1]._trial_id == trial_id else None

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study in these states, by number."""
        if states != (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            known, trials = self._replay_result._study_id_to_trial_ids[study_id], self._replay_result._trials
            looked_at, may_wait = self._waiting.get(study_id, (0, []))
            # A trial that has begun never waits again.
            waiting = [i for i in (*may_wait, *known[looked_at:]) if trials[i].state is TrialState.WAITING]
            self._waiting[study_id] = len(known), waiting
            found = [trials[i] for i in waiting]
        return copy.deepcopy(found) if deepcopy else found
