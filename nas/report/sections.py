"""The sections of the report, each a pure function from what a run found to HTML."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nas.audit import Audit, audit_of
from nas.confirmation import Confirmed, confirmed_in
from nas.front import ReferencePoint, cheapest_first, pareto_front, primary_cost, reference_point
from nas.objectives import objective, target_objective
from nas.record import Latency, Outcome, TrialRecord
from nas.report.figures import landmarks
from nas.report.markup import Html, facts, join, table, tag
from nas.run import BaselineRecord, Provenance, RunDirectory
from nas.settings import LatencyTarget, SearchSettings
from nas.wording import (
    NOTHING,
    capital,
    closest_text,
    duration_text,
    label,
    plural,
    score_text,
    score_title,
    time_text,
    trial_text,
)

_FAILURES_SHOWN = 10
_TEXTS = ("Candidate", "Architecture")
_WORDS = {"macs": "MACs", "cpus": "CPUs", "gpus": "GPUs", "ms": "(ms)", "ema": "EMA"}


@dataclass(frozen=True)
class Findings:
    """What a run holds at one moment, worked out once for every section.

    `records` are in the order written; `scored` are those trained to the full budget with a value for every
    objective; `names` says by digest what a front member is known for; `baselines` are reference networks; `again`
    is what training candidates again gave, by digest; `audit` says whether the brief fine-tune can rank candidates, where that
    was looked into.
    """

    path: Path
    settings: SearchSettings
    provenance: Provenance
    records: tuple[TrialRecord, ...]
    scored: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    reference: ReferencePoint | None
    names: dict[str, tuple[str, ...]]
    baselines: tuple[BaselineRecord, ...] = ()
    again: dict[str, Confirmed] = field(default_factory=dict)
    audit: Audit | None = None

    @property
    def metric(self) -> str:
        """The metric behind the accuracy objective."""
        return self.settings.evaluation.metric

    @property
    def latencies(self) -> list[Latency]:
        """Every latency measured; a repeat carries the one of its original and is left out."""
        own = [record.evaluation for record in self.records if record.outcome is not Outcome.REPEAT]
        return [evaluation.latency for evaluation in own if evaluation.latency is not None]

    def on_target(self, target: LatencyTarget) -> list[Latency]:
        """Every latency measured on a further target, without those of repeats."""
        own = [record.evaluation for record in self.records if record.outcome is not Outcome.REPEAT]
        return [evaluation.latencies[target.name] for evaluation in own if target.name in evaluation.latencies]

    @property
    def device(self) -> str:
        """The device (or devices) measured on, or the one asked for while nothing is measured."""
        names = dict.fromkeys(latency.device_name for latency in self.latencies)
        return ", ".join(names) or self.settings.device

    @property
    def compared(self) -> list[BaselineRecord]:
        """The reference networks with a value for every objective."""
        return [
            record for record in self.baselines if all(name in record.objectives for name in self.settings.objectives)
        ]

    def score(self, record: TrialRecord | BaselineRecord) -> str:
        """A record's accuracy with its standard error."""
        return score_text(record.objectives["accuracy"], self.metric, self.provenance.validation_images)


def find(run: RunDirectory) -> Findings:
    """Read a run and work out its front."""
    records, objectives = run.records(), run.settings.objectives
    done = [record for record in records if record.outcome is Outcome.DONE]
    scored = [record for record in done if all(name in record.objectives for name in objectives)]
    front = pareto_front(scored, objectives)
    return Findings(
        path=run.path,
        settings=run.settings,
        provenance=run.provenance,
        records=tuple(records),
        scored=tuple(scored),
        front=tuple(front),
        reference=reference_point(scored, objectives),
        names=landmarks(front, objectives),
        baselines=tuple(cheapest_first(run.baselines(), objectives)),
        again=confirmed_in(run, scored),
        audit=audit_of(run),
    )


def headline(found: Findings) -> Html:
    """What was searched on what, what came out of it, and what it took."""
    settings, provenance = found.settings, found.provenance
    records = [record for record in found.records if record.imported_from is None]
    counts = Counter(record.outcome for record in records)
    trained = tag("small", f" of {settings.candidates:,}") if not counts[Outcome.STOPPED] else ""
    tiles: list[tuple[str, object]] = [("Trained", join([f"{counts[Outcome.DONE]:,}", trained]))]
    for name, outcome in (("Stopped early", Outcome.STOPPED), ("Skipped", Outcome.SKIPPED)):
        if counts[outcome]:
            tiles.append((name, f"{counts[outcome]:,}"))
    if found.again:
        tiles.append(("Trained again", f"{len(found.again):,}"))
    for outcome in (Outcome.REJECTED, Outcome.REPEAT, Outcome.FAILED, Outcome.LOST):
        tiles.append((outcome.value.capitalize(), f"{counts[outcome]:,}"))
    if taken_over := len(found.records) - len(records):
        tiles.append(("From earlier runs", f"{taken_over:,}"))
    if records:
        wall = max(record.finished for record in records) - min(record.started for record in records)
        tiles.append(("Wall time", duration_text(wall)))
        tiles.append(("Evaluation, total", duration_text(sum(record.evaluation.seconds for record in records))))
    data = (
        f"Data {settings.data}: {provenance.train_images:,} training and {provenance.validation_images:,} validation "
        f"images, {plural(len(provenance.classes), 'class', 'classes')}"
    )
    return tag(
        "header",
        tag("p", f"Architecture search · {time_text(provenance.created)}", class_="over"),
        tag("h1", f"{settings.space.name} on {found.device}"),
        tag("p", data, class_="soft"),
        tag("p", _answer(found), class_="lead"),
        facts(tiles, class_="tiles"),
    )


def _answer(found: Findings) -> str:
    """The result of the search in one sentence."""
    if not found.front:
        closest = closest_text(found.records)
        return (
            f"No candidate is trained yet: {closest}."
            if closest
            else "No candidate is trained yet. Write the report again when one is."
        )
    cost = primary_cost(found.settings.objectives)

    def at(record: TrialRecord) -> str:
        value = objective(cost).show(record.objectives[cost])
        value += "" if cost == "latency" else f" {label(cost)}"
        return f"{unbroken(found.score(record))} at {unbroken(value)}"

    if len(found.front) == 1:
        best = found.front[0]
        lead = (
            "One candidate is trained"
            if len(found.scored) == 1
            else f"One candidate of {len(found.scored):,} beats all"
        )
        return f"{lead}: {best.digest}, {at(best)}."
    best = max(found.front, key=lambda record: record.objectives["accuracy"])
    middle = next(record for record in found.front if "knee" in found.names.get(record.digest, ()))
    return (
        f"{len(found.front):,} of {len(found.scored):,} trained candidates are on the Pareto front, from "
        f"{at(found.front[0])} to {at(best)}. The knee, {middle.digest}, has {at(middle)}."
    )


def front_table(found: Findings) -> Html:
    """The members of the front, cheapest first; those that were trained again and the others apart."""
    if not found.again:
        return _members_table(found, found.front) if found.front else Html("")
    parts = []
    for title, again in (("Confirmed", True), ("Not confirmed", False)):
        members = [record for record in found.front if (record.digest in found.again) is again]
        parts += [tag("h3", title), _members_table(found, members)] if members else []
    return join(parts)


def _members_table(found: Findings, members: Sequence[TrialRecord]) -> Html:
    title = capital(score_title(found.metric))
    columns: dict[str, Callable[[TrialRecord], object]] = {
        "Candidate": lambda record: _candidate(record, found.names.get(record.digest, ())),
        "Architecture": lambda record: _architecture(record.text),
        title: found.score,
        "Trained again": lambda record: again_cell(found.again[record.digest]),
        "Latency": lambda record: latency_cell(record.evaluation.latency),
        **{_target_title(target): _target_cell(target) for target in found.settings.evaluation.targets},
        "MACs": lambda record: cost_cell(record, "macs"),
        "Parameters": lambda record: cost_cell(record, "params"),
        "Memory": lambda record: objective("memory").show(record.objectives["memory"]),
    }
    if "memory" not in found.settings.objectives:
        del columns["Memory"]
    if all(record.evaluation.latency is None for record in found.front):
        del columns["Latency"]
    if any(record.digest not in found.again for record in members):
        del columns["Trained again"]
    rows = [[cell(record) for cell in columns.values()] for record in members]
    return table(list(columns), rows, numeric=[name for name in columns if name not in _TEXTS], stacks=True)


def trials_table(found: Findings) -> Html:
    """Every trial, by number."""
    if not found.records:
        return tag("p", "No trial has ended yet.", class_="note")
    targets = found.settings.evaluation.targets
    costs = ["Latency", *map(_target_title, targets), "MACs", "Parameters"]
    head = ["Trial", "Outcome", "Candidate", "Architecture", "Score", *costs, "Time", "Note"]
    on_front = {record.number for record in found.front}
    rows = []
    for record in sorted(found.records, key=lambda record: record.number):
        measured = [record.evaluation.latency, *(record.evaluation.latencies.get(target.name) for target in targets)]
        rows.append(
            (
                record.number,
                tag("b", "front") if record.number in on_front else record.outcome.value,
                tag("span", record.digest, class_="code"),
                _architecture(record.text),
                _trained_score(record),
                *(NOTHING if one is None else objective("latency").show(one.median_ms) for one in measured),
                cost_cell(record, "macs"),
                cost_cell(record, "params"),
                duration_text(record.evaluation.seconds),
                tag("span", trial_note(record), class_="reason"),
            )
        )
    numeric = ("Trial", "Score", *costs, "Time")
    summary = tag("summary", f"Show {plural(len(rows), 'trial')}")
    return tag("details", summary, table(head, rows, numeric=numeric, class_="dense"))


def failures(found: Findings) -> Html:
    """Failed and lost trials with their reasons."""
    bad = [record for record in found.records if record.outcome in (Outcome.FAILED, Outcome.LOST)]
    if not bad:
        return tag("p", "No trial failed or was lost.", class_="soft")
    rows = [
        (
            record.number,
            record.outcome.value,
            join([tag("span", record.digest, class_="code"), tag("small", _architecture(record.text))]),
            tag("span", record.evaluation.reason or "no reason recorded", class_="reason"),
        )
        for record in sorted(bad, key=lambda record: record.number)
    ]
    listed = table(["Trial", "Outcome", "Candidate", "Reason"], rows, stacks=True)
    if len(rows) <= _FAILURES_SHOWN:
        return listed
    return tag("details", tag("summary", f"Show {plural(len(rows), 'trial')}"), listed)


def settings_list(found: Findings) -> Html:
    """Everything needed to run the search again."""
    groups = settings_groups(found.settings, found.provenance)
    return join(part for title, rows in groups for part in (tag("h3", title), facts(rows)))


def settings_groups(settings: SearchSettings, provenance: Provenance) -> list[tuple[str, list[tuple[str, str]]]]:
    """The same as text: names and values, under titles."""
    search = [
        ("Space", _space_size(settings)),
        ("Objectives", ", ".join(settings.objectives)),
        ("Metric", settings.evaluation.metric),
        ("Sampler", settings.sampler),
        ("Seed", str(settings.seed)),
        ("Split seed", str(settings.split_seed)),
        ("Trials", f"{settings.trials:,}"),
        ("Share for confirmation", f"{100 * settings.confirm:g} %"),
        ("Time budget", "none" if settings.time_budget_s is None else duration_text(settings.time_budget_s)),
        ("Failures allowed", str(settings.max_failures)),
        ("Tried first", ", ".join(settings.enqueue) or "none"),
        ("Warm start from", ", ".join(settings.warm_start) or "none"),
        *_fields(asdict(settings.evaluation.budgets), none="none"),
        *_fields(asdict(settings.resources)),
    ]
    recipe = [("Initial weights", settings.evaluation.init), *_fields(asdict(settings.evaluation.recipe))]
    where = [
        ("Started", time_text(provenance.created)),
        ("Host", provenance.host),
        ("Hardware", provenance.hardware),
        ("CPU cores", str(provenance.cpu_cores)),
        ("Data fingerprint", provenance.data_fingerprint),
        ("Unreadable images", f"{len(provenance.corrupt_files):,}, left out" if provenance.corrupt_files else "none"),
        ("Git commit", provenance.git_commit or "not a checkout"),
        *sorted(provenance.versions.items()),
    ]
    return [("Search", search), ("Fine-tune", recipe), ("Machine and versions", where)]


def commands(found: Findings) -> Html:
    """How to run it again, go on with it, and take a network out of it."""
    folder = shlex.quote(str(found.path))
    parts = [tag("h3", "Run it again"), tag("pre", found.provenance.command)]
    if sum(record.counts for record in found.records) < found.settings.candidates:
        parts += [tag("h3", "Go on with it"), tag("pre", f"nas search --resume {folder}")]
    if found.front:
        parts += [
            tag("h3", "Export a network"),
            tag("pre", f"nas export {folder} --pick knee --to OUT"),
            tag("p", "--pick also takes most-accurate, fastest, or a digest from the tables above.", class_="soft"),
        ]
    return join(parts)


# ---------------------------------------------------------------- cells


def _candidate(record: TrialRecord, names: Sequence[str]) -> Html:
    badges = [tag("span", name, class_=f"badge {name.replace(' ', '-')}") for name in names]
    return join([tag("span", record.digest, class_="code digest"), tag("small", trial_text(record)), *badges])


def _architecture(text: str) -> Html:
    """The compact string, which may break where a layer begins."""
    return tag("span", join(re.split(r"(?<=-)", text), between=tag("wbr")), class_="code architecture")


def _target_title(target: LatencyTarget) -> str:
    return capital(label(target_objective(target.name)))


def _target_cell(target: LatencyTarget) -> Callable[[TrialRecord], object]:
    return lambda record: latency_cell(record.evaluation.latencies.get(target.name))


def latency_cell(latency: Latency | None) -> object:
    """The median, and below it p10 to p90 and what is wrong with it."""
    if latency is None:
        return NOTHING
    flaws = [name for name, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
    band = f"{latency.p10_ms:.3f}–{latency.p90_ms:.3f}"
    return join([objective("latency").show(latency.median_ms), tag("small", " · ".join([band, *flaws]))])


def again_cell(again: Confirmed) -> Html:
    """The score of the longer trainings, and below it how many and how long they were."""
    trainings = f"{again.trainings} × {plural(again.epochs, 'epoch')}"
    return join([again.text, tag("small", trainings if again.on_front else f"{trainings} · beaten")])


def cost_cell(record: TrialRecord | BaselineRecord, name: str) -> str:
    """MACs or parameters, by the name of the objective."""
    cost = record.evaluation.cost
    return NOTHING if cost is None else objective(name).show(getattr(cost, name))


def _trained_score(record: TrialRecord) -> str:
    """The score of a candidate that was trained; a rejected one carries a stand-in that is not a measurement."""
    if not record.outcome.counts or "accuracy" not in record.objectives:
        return NOTHING
    return objective("accuracy").show(record.objectives["accuracy"])


def trial_note(record: TrialRecord) -> str:
    """Where it comes from, when it was stopped, and why it ended as it did, as far as there is something to say."""
    parts = [f"taken over from {record.imported_from}"] if record.imported_from else []
    if record.outcome is Outcome.STOPPED:
        parts.append(f"after {plural(len(record.evaluation.history), 'epoch')}")
    return ": ".join([*parts, *([record.evaluation.reason] if record.evaluation.reason else [])])


def _fields(values: Mapping[str, Any], none: str = NOTHING) -> list[tuple[str, str]]:
    """The fields of a settings value, so that a new one never goes missing here."""
    words = {name: " ".join(_WORDS.get(word, word) for word in name.split("_")) for name in values}
    return [(capital(words[name]), _shown(value, none)) for name, value in values.items()]


def _shown(value: object, none: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    return none if value is None else str(value)


def _space_size(settings: SearchSettings) -> str:
    size, parameters = settings.space.size, len(settings.space.parameters)
    mantissa, exponent = f"{size:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    count = f"{size:,}" if size < 1e6 else f"{mantissa} × 10{raised}"
    return f"{settings.space.name}, {count} networks, {parameters} parameters"


def unbroken(text: str) -> str:
    """The text with spaces at which no line breaks."""
    return text.replace(" ", "\u00a0")
