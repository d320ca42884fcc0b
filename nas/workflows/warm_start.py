"""What an earlier run gives a new search: its trials, where they can be compared, or else its front to train again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.common.errors import InputError, arg
from nas.common.text import plural
from nas.data.class_names import same_classes
from nas.data.sets import ImageData
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.limits import budget_violation
from nas.runs.objectives import objective_values, score_of
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.rivals import near_front
from nas.runs.settings import LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.runs.targets import latency_names, own_decides, targets_here
from nas.search.conditions import conditions_here
from nas.search.pinned import Pinned
from nas.spaces.base import Space
from nas.training.recipe import Recipe

if TYPE_CHECKING:
    from nas.search.ray.placement import Placement


@dataclass(frozen=True)
class WarmStart:
    """What a search begins with: records imported and, by digest, the weights of their front that are still there.

    `enqueue` are compact strings of networks to train again, first; `notes` say in a line a run what became of it.
    """

    records: tuple[TrialRecord, ...] = ()
    weights: Mapping[str, Path] = field(default_factory=dict)
    enqueue: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """Under what a search will evaluate, beside its settings: the models of its devices, and its data.

    `hardware` is that of its first latency, `trained_on` that of training; `models` are those of all devices of a trial's worker, by device;
    `measured_under` are the conditions of the latencies of a worker, by the names of objectives.
    """

    hardware: str
    trained_on: str
    data_fingerprint: str
    classes: tuple[str, ...]
    models: Mapping[str, str] = field(default_factory=dict)
    measured_under: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def open_earlier(path: str) -> RunDirectory:
    """The run that `warm_start` names; raises `InputError` when it is none."""
    if not path:
        raise InputError(f"{arg('warm_start')} '': names no run")
    try:
        return open_run(Path(path).resolve())
    except InputError as error:
        raise InputError(f"{arg('warm_start')} {path}: {error.marked}") from error


def warmed(
    settings: SearchSettings, data: ImageData, models: Mapping[str, str], placement: Placement
) -> tuple[SearchSettings, WarmStart]:
    """What the runs that the settings name give, and the settings with the networks to train again and whole paths.

    `models` are those of the devices of a trial's worker, by device. Raises `InputError` as `warm_start` does.
    """
    if not settings.warm_start:
        return settings, WarmStart()
    measured_on, trained_on = models[settings.evaluation.protocol.device], models[settings.device]
    under = placement.ask(conditions_here, settings)
    warm = warm_start(settings, Conditions(measured_on, trained_on, data.fingerprint(), data.classes, models, under))
    enqueue = tuple(dict.fromkeys((*settings.enqueue, *warm.enqueue)))
    paths = tuple(str(Path(path).resolve()) for path in settings.warm_start)
    return replace(settings, enqueue=enqueue, warm_start=paths), warm


def warm_start(settings: SearchSettings, conditions: Conditions) -> WarmStart:
    """What the runs of `settings.warm_start` give a search with these settings.

    Raises `InputError` for one that is no run, or has no network of the space.
    """
    taken: dict[str, TrialRecord] = {}
    weights: dict[str, Path] = {}
    enqueue: list[str] = []
    notes = []
    for path in settings.warm_start:
        earlier = open_earlier(path)
        ended = [record for record in earlier.recorded() if record.outcome in _KNOWN]
        # A digest names files: one that is not the network's own is not taken on trust.
        own = [record for record in ended if record.digest == record.architecture.digest]
        within = [record for record in own if _located(record, settings.space) is not None]
        if not within:
            raise InputError(
                f"{arg('warm_start')} {path}: none of its {plural(len(ended), 'network')} is in the space "
                f"{settings.space.name}"
                if ended
                else f"{arg('warm_start')} {path}: it has no finished trial yet"
            )
        reasons = differences(earlier, within, settings, conditions)
        if reasons:
            front = pareto_front(within, earlier.settings.objectives)
            enqueue += [record.text for record in front]
            notes.append(
                f"{path}: nothing is imported, as it differs ({'; '.join(reasons)}); "
                f"{plural(len(front), 'network')} of its front will be trained again, first"
            )
            continue
        before = len(taken)
        for record in within:
            found = _imported(record, earlier, settings, conditions)
            if found is not None and found.digest not in taken:
                taken[found.digest] = replace(found, number=len(taken))
                weights[found.digest] = earlier.weights_path(found.digest)
        notes.append(
            f"{path}: {len(taken) - before} of {plural(len(ended), 'trial')} imported, not counted in {arg('trials')}"
            + _latencies_note(within, settings, conditions)
        )
    records = tuple(taken.values())
    near = (*pareto_front(records, settings.objectives), *near_front(records, settings.objectives))
    wanted = {record.digest for record in near}
    kept = {digest: file for digest, file in weights.items() if digest in wanted and file.is_file()}
    return WarmStart(records, kept, tuple(enqueue), tuple(notes))


def _latencies_note(records: Iterable[TrialRecord], settings: SearchSettings, conditions: Conditions) -> str:
    """What to know of latencies that come along, or do not; empty where there is nothing."""
    unknown = Pinned(latency_names(settings)).learned(record.evaluation for record in records).unknown
    note = f"; under what conditions its {' and '.join(unknown)} was measured is not known" if unknown else ""
    others = [] if own_decides(settings) else _measured_otherwise(records, ("latency",), conditions)
    return note + (f"; latencies of {len(others)} left out, of other conditions ({others[0]})" if others else "")


def _measured_otherwise(records: Iterable[TrialRecord], names: Sequence[str], conditions: Conditions) -> list[str]:
    """Of each record with latencies of these names that are known to be of other conditions than here, in what, in words."""
    each = (Pinned(names).learned([record.evaluation]).differ_from(conditions.measured_under) for record in records)
    return [told for told in each if told]


_KNOWN = (Outcome.DONE, Outcome.STOPPED, Outcome.REJECTED)


def differences(
    earlier: RunDirectory, records: Iterable[TrialRecord], settings: SearchSettings, conditions: Conditions
) -> list[str]:
    """In what an earlier run differs so that its numbers say nothing here, in words; the seed may differ."""
    before, now = earlier.settings.evaluation, settings.evaluation
    provenance = earlier.provenance
    found = []
    same_data = provenance.data_fingerprint == conditions.data_fingerprint
    if not same_data or not same_classes(provenance.classes, conditions.classes):
        found.append(f"other data: {earlier.settings.data}, split seed {earlier.settings.split_seed}")
    if before.task != now.task:
        found.append(f"task {before.task}, here {now.task}")
    if before.metric != now.metric:
        found.append(f"metric {before.metric}, here {now.metric}")
    if before.init != now.init:
        found.append(f"initial weights {before.init}, here {now.init}")
    found += _changed("recipe", before.recipe, now.recipe)
    decides = "latency" in settings.objectives or now.budgets.max_latency_ms is not None
    if decides and provenance.hardware != conditions.hardware:
        found.append(f"device {provenance.hardware}, here {conditions.hardware}")
    elif now.recipe.seconds is not None and provenance.trained_on != conditions.trained_on:
        found.append(f"device {provenance.trained_on}, here {conditions.trained_on}")
    if decides:
        found += _changed("latency", before.protocol, now.protocol)
    elif "memory" in settings.objectives:
        found += _changed("memory", before.protocol, now.protocol, ("batch_size", "dtype"))
    found += [
        text for target in now.targets for text in _target_differs(target, earlier, records, settings, conditions)
    ]
    if others := _measured_otherwise(records, latency_names(settings), conditions):
        found.append(f"{plural(len(others), 'network')} measured under other conditions, {others[0]}")
    done = [record for record in records if record.outcome is Outcome.DONE]
    for name in settings.objectives if done and not found else ():
        if not any(objective_values(record.evaluation, [name]) for record in done):
            found.append(f"no {name} in its records")
    return found


def earlier_precision(recipe: Recipe, settings: SearchSettings, hardware: str) -> Recipe:
    """The recipe with a precision of `auto` as an earlier run settled it on this model of device.

    It is settled by timing, which may come out otherwise the next time.
    """
    for path in settings.warm_start if recipe.precision == "auto" else ():
        earlier = open_earlier(path)
        settled = earlier.settings.evaluation.recipe
        alike = replace(settled, precision="auto") == recipe
        if alike and earlier.provenance.trained_on == hardware:
            return settled
    return recipe


def with_earlier_estimators(settings: SearchSettings) -> SearchSettings:
    """The settings with latencies valued as the earlier runs did, where their protocols are else the same.

    An older run took the median wall time; with another value none of its latencies could be imported.
    """
    before = [open_earlier(path).settings.evaluation for path in settings.warm_start]
    now = settings.evaluation

    def matched(protocol: LatencyProtocol, earlier: Iterable[LatencyProtocol]) -> LatencyProtocol:
        return next((each for each in earlier if replace(each, estimator=protocol.estimator) == protocol), protocol)

    def on_target(target: LatencyTarget) -> LatencyTarget:
        same = [each.protocol for evaluation in before for each in evaluation.targets if each.name == target.name]
        return replace(target, protocol=matched(target.protocol, same))

    protocol = matched(now.protocol, [evaluation.protocol for evaluation in before])
    return replace(
        settings, evaluation=replace(now, protocol=protocol, targets=tuple(on_target(target) for target in now.targets))
    )


def _imported(
    record: TrialRecord, earlier: RunDirectory, settings: SearchSettings, conditions: Conditions
) -> TrialRecord | None:
    """An earlier run's record as one of this run, judged by this run's budgets; None where it says nothing here."""
    parameters = _located(record, settings.space)
    now, evaluation, cost = settings.evaluation, record.evaluation, record.evaluation.cost
    if parameters is None or cost is None:
        return None
    other_device = (
        earlier.provenance.hardware != conditions.hardware or earlier.settings.evaluation.protocol != now.protocol
    )
    if other_device or _measured_otherwise([record], ("latency",), conditions):
        evaluation = replace(evaluation, latency=None)  # it decides nothing here, and would be held against others
    on_targets = {target.name: target for target in now.targets if target.name in evaluation.latencies}
    evaluation = replace(
        evaluation, latencies={name: evaluation.latencies[name] for name in on_targets}, predicted=None
    )
    measured = [(target, evaluation.latencies[name]) for name, target in on_targets.items()]
    violation, reason = budget_violation(now.budgets, cost, evaluation.latency, measured)
    outcome = record.outcome
    values = objective_values(record.evaluation, settings.objectives)
    if violation > 0:
        evaluation = replace(
            evaluation, outcome=Outcome.REJECTED, reason=reason, violation=violation, history=(), fresh=()
        )
        values.pop(score_of(settings.objectives), None)
    elif outcome is Outcome.REJECTED:
        return None  # within the budgets of this run, and not trained
    elif outcome is Outcome.STOPPED:
        if not settings.stop_early:
            return None  # this run trains whatever it asks for
        values = {}
    elif len(values) < len(settings.objectives) or _unmeasured(evaluation, settings):
        return None
    return replace(
        record,
        text=str(record.architecture.canonical),
        parameters=parameters,
        evaluation=evaluation,
        objectives=values,
        repeat_of=None,
        imported_from=record.imported_from or f"{earlier.path.name}, trial {record.number}",
    )


def _unmeasured(evaluation: Evaluation, settings: SearchSettings) -> bool:
    """Whether a budget of this run cannot be judged by what was measured."""
    budgets = settings.evaluation.budgets
    return (budgets.max_latency_ms is not None and evaluation.latency is None) or any(
        target.name not in evaluation.latencies for target in settings.evaluation.targets if target.max_ms is not None
    )


def _located(record: TrialRecord, space: Space) -> dict[str, Any] | None:
    try:
        return space.locate(record.architecture)
    except InputError:
        return None


def _target_differs(
    target: LatencyTarget,
    earlier: RunDirectory,
    records: Iterable[TrialRecord],
    settings: SearchSettings,
    conditions: Conditions,
) -> list[str]:
    """A target whose device is elsewhere is the same where it asks for the same accelerator and resources."""
    before = next((each for each in earlier.settings.evaluation.targets if each.name == target.name), None)
    if before is None:
        return [f"no target {target.name}"]
    found = _changed(f"target {target.name}", before, replace(target, max_ms=before.max_ms))
    latencies = [record.evaluation.latencies.get(target.name) for record in records]
    devices = {latency.device_name for latency in latencies if latency is not None}
    if target in targets_here(settings) and (others := devices - {conditions.models[target.protocol.device]}):
        found.append(f"target {target.name} measured on {', '.join(sorted(others))}")
    return found


def _changed(what: str, before: Any, now: Any, names: Iterable[str] | None = None) -> list[str]:
    """The fields of two values of one dataclass that differ, in words."""
    old, new = asdict(before), asdict(now)
    return [f"{what}: {n} {old[n]}, here {new[n]}" for n in (old if names is None else names) if old[n] != new[n]]
