"""The Optuna study of a run: asked for parameters, told only what is recorded. It can be made again from the records."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.runs.objectives import objective, objective_values, score_of
from nas.runs.record import Outcome, TrialRecord, known_digests
from nas.runs.store import RunDirectory
from nas.search.samplers.history import ChoiceSpace, History, signs_of
from nas.search.samplers.partial import STEPS
from nas.search.storage import open_storage, study_name
from nas.search.study_journal import StudyJournal
from nas.spaces.base import Choice

STUDY_NAME = "nas"
_LIMITS = "limits"
"""Attribute of a study: the hard limits by which what it was told was judged."""

logger = logging.getLogger(__name__)


class RunStudy:
    """The study in a run's directory, or in a `storage` of many; a damaged file is moved aside."""

    def __init__(self, run: RunDirectory, storage: BaseStorage | None = None) -> None:
        settings = run.settings
        if storage is None and settings.storage is not None:
            storage = open_storage(settings.storage)
        self._shared, self._name = storage, study_name(run) if storage else STUDY_NAME
        self._path = run.study_path
        self._journal: StudyJournal | None = None
        self._objectives = settings.objectives
        self._constrained = settings.evaluation.has_budgets
        self._limits = settings.evaluation.limits
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices) for name, choices in settings.space.parameters.items()
        }
        try:
            self._study = self._open()
        except Exception as error:  # a torn or overwritten journal raises whatever its reader meets first
            if storage is not None:
                raise
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            self._path.rename(aside)
            logger.warning("%s cannot be read (%s): moved to %s, made again from the records", self._path, error, aside)
            self._study = self._open()
        if _LIMITS not in self._study.user_attrs and not (run.limits_changed and self.trials):  # a new one, or an old
            self._study.set_user_attr(_LIMITS, self._limits)
        self.size = len(self.trials)
        """How many trials there are, counted, since listing thousands takes as long as a proposal."""

    def _open(self) -> optuna.Study:
        self._storage = self._connected()
        study = optuna.create_study(
            storage=self._storage,
            study_name=self._name,
            directions=[objective(name).direction for name in self._objectives],
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(self._objectives))
        self._study_id = self._storage.get_study_id_from_name(self._name)
        return study

    def _connected(self) -> BaseStorage:
        if self._shared is not None:
            return self._shared
        self._journal = StudyJournal(self._path)
        return JournalStorage(self._journal)

    def _read_again(self) -> None:
        self._storage = self._connected()
        self._study = optuna.load_study(study_name=self._name, storage=self._storage)

    @property
    def is_judged_otherwise(self) -> bool:
        """Whether other limits than the run's of now decided what it was told."""
        return bool(self._study.user_attrs.get(_LIMITS) != self._limits)

    def rebuild(self) -> None:
        """Empty the study, for `reconcile` to fill from the records."""
        optuna.delete_study(study_name=self._name, storage=self._storage)
        self._study = self._open()
        self._study.set_user_attr(_LIMITS, self._limits)
        self.size = 0

    def rebuild_if_ahead_of(self, records: Sequence[TrialRecord]) -> None:
        """Empty it where it was told an outcome that is not recorded: the run was restored from a copy that is older or lost some."""
        recorded = {record.number for record in records}
        if any("outcome" in trial.user_attrs and trial.number not in recorded for trial in self.trials):
            where = self._path if self._shared is None else self._name
            logger.warning("the study %s knows trials that the records lack: made again from them", where)
            self.rebuild()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """A trial by its number; not to be changed."""
        return self._storage.get_trial(self._id(number))  # a study would look through all trials

    def was_queued(self, number: int) -> bool:
        """Whether somebody asked for a trial's parameters, so that no sampler proposed them."""
        return "fixed_params" in self.trial(number).system_attrs

    def forget(self, number: int) -> None:
        """End a trial of which nothing is to be recorded."""
        self._study.tell(number, state=TrialState.FAIL)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    @property
    def signs(self) -> NDArray[np.float64]:
        """Of each objective, what turns its values into losses."""
        return signs_of(self._study)

    def history(self) -> tuple[ChoiceSpace, History]:
        """The parameters, and what all trials that have ended tell, as arrays."""
        space = ChoiceSpace.of(self._distributions)
        return space, History.of(space, self._study, [trial for trial in self.trials if trial.state.is_finished()])

    def ask(self, sampler: optuna.samplers.BaseSampler) -> Trial:
        """A new trial with the parameters that are queued, or else those that the sampler proposes."""
        self._study.sampler = sampler
        trial = self._ask_own() if self._journal else self._study.ask(fixed_distributions=self._distributions)
        self.size = max(self.size, trial.number + 1)  # one that was queued is counted already
        return trial

    def _ask_own(self) -> Trial:
        """A trial that is in the study's file with all its parameters or, if this process dies before, not at all."""
        assert self._journal is not None
        try:
            with self._journal.in_one_piece():
                trial = self._study.ask(fixed_distributions=self._distributions)
        except BaseException:
            self._read_again()  # without the trial that was begun
            raise
        if self._journal.is_out_of_order:
            self._read_again()
            if self.trial(trial.number).params != trial.params:
                raise RuntimeError("another process began a trial of this study, which one driver alone may do")
            trial = Trial(self._study, self._id(trial.number))
        return trial

    def enqueue(
        self, parameters: Mapping[str, Choice], attributes: dict[str, Any] | None = None, once: bool = False
    ) -> None:
        """Queue parameters that are asked for before any proposal; `once`: not where a trial has them already."""
        self._study.enqueue_trial(dict(parameters), user_attrs=attributes, skip_if_exists=once)
        self.size = self.size + 1 if not once else len(self.trials)

    def tell(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        """Tell what one of a run's records holds, by the table of outcomes in docs/design.md."""
        trial = optuna.trial.Trial(self._study, self._id(record.number))
        for name, value in _attributes(record, self._objectives).items():
            trial.set_user_attr(name, value)
        state, values = told_as(record, self._objectives, records)
        self._constrain(trial, record, state)
        self._study.tell(record.number, values, state=state)

    def put_back(self, record: TrialRecord | None, records: Sequence[TrialRecord]) -> None:
        """Add a recorded trial that the study does not know, or in place of None one of which nothing is recorded."""
        self.size += 1
        if record is None:
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
            return
        state, values = told_as(record, self._objectives, records)
        trial = optuna.trial.create_trial(
            state=state,
            values=values,
            params=record.parameters,
            distributions=self._distributions,
            user_attrs={"architecture": record.text, "digest": record.digest} | _attributes(record, self._objectives),
        )
        self._constrain(trial, record, state)
        self._study.add_trial(trial)

    def _constrain(self, trial: Trial | FrozenTrial, record: TrialRecord, state: TrialState) -> None:
        """Say by how much a trial is over its budgets; the GP sampler wants a constraint of each trial or of none."""
        if self._constrained and state is not TrialState.FAIL:
            trial.set_constraint("budget", record.evaluation.violation or -1.0)

    def reconcile(self, records: Sequence[TrialRecord], numbers: int) -> list[FrozenTrial]:
        """Bring the study to where the records are, which are the truth; the trials that ran, unrecorded, are returned.

        As many `numbers` are taken by trials on the disk, those that the records leave out among them.

        Recorded but not told: told now. Recorded but unknown to the study (its file was lost): put back, and what had
        been lost is queued again.
        """
        recorded = {record.number: record for record in records}
        trials = self.trials
        missing = range(len(trials), numbers)
        for number in missing:
            self.put_back(recorded.get(number), records)
        if missing:
            answered = known_digests(records)
            lost = {r.digest: r for r in records if r.outcome is Outcome.LOST and r.digest not in answered}
            for loss in lost.values():
                self.enqueue(loss.parameters)
        ran = []
        for trial in trials:
            if trial.state is not TrialState.RUNNING:
                continue
            record = recorded.get(trial.number)
            if record is not None:
                self.tell(record, records)
            elif set(trial.params) == set(self._distributions):
                ran.append(trial)
            else:  # died between two parameters
                self._study.tell(trial.number, state=TrialState.FAIL)
        return ran


def _attributes(record: TrialRecord, objectives: Sequence[str]) -> dict[str, Any]:
    evaluation = record.evaluation
    attributes: dict[str, Any] = {"outcome": record.outcome.value}
    if evaluation.reason:
        attributes["reason"] = evaluation.reason
    if record.outcome.counts:
        history = evaluation.history
        so_far = (replace(evaluation, history=history[:epoch]) for epoch in range(1, len(history) + 1))
        attributes[STEPS] = [list(objective_values(known, objectives).values()) for known in so_far]
    return attributes


def told_as(
    record: TrialRecord, objectives: Sequence[str], records: Sequence[TrialRecord]
) -> tuple[TrialState, list[float] | None]:
    """State and values that the study is told for one of a run's records (the table of outcomes in docs/design.md)."""
    match record.outcome:
        case Outcome.DONE | Outcome.REJECTED | Outcome.REPEAT:
            values = record.objectives
            if record.evaluation.violation > 0:  # rejected, or the repeat of one that was
                values = _stand_ins(record, objectives, records) | values
            if all(name in values for name in objectives):
                return TrialState.COMPLETE, [values[name] for name in objectives]
            return TrialState.FAIL, None
        case Outcome.STOPPED | Outcome.SKIPPED:
            return TrialState.PRUNED, None
        case Outcome.FAILED | Outcome.LOST:
            return TrialState.FAIL, None


def _stand_ins(record: TrialRecord, objectives: Sequence[str], records: Sequence[TrialRecord]) -> dict[str, float]:
    """What the study is told in place of what a rejected candidate was not worth finding out; Optuna wants a number.

    The worst there is: a share of 0 (of another score the worst of the records before it), and the largest cost of
    these, or the latency that was predicted. Samplers mask it by the constraint.
    """
    first = record.number if record.repeat_of is None else record.repeat_of
    before = list(takewhile(lambda earlier: earlier.number != first, records))
    score = score_of(objectives)
    worst = {name: max((r.objectives.get(name, 0.0) for r in before), default=0.0) for name in objectives}
    if score.direction == "maximize":
        known = [r.objectives[score] for r in before if score in r.objectives]
        worst[score] = 0.0 if score.unit == "%" else min(known, default=0.0)
    predicted = record.evaluation.predicted
    return worst | ({"latency": predicted.mean_ms} if predicted else {})
