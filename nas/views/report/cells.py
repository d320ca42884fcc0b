"""Cells of the report's tables: a record's values as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nas.common.text import plural
from nas.latency.result import Latency
from nas.runs.confirmation import Confirmed
from nas.runs.objectives import objective
from nas.runs.record import BaselineRecord, TrialRecord
from nas.runs.words import trial_text
from nas.views.report.markup import Html, join, tag
from nas.views.text import NOTHING


def candidate_cell(record: TrialRecord, names: Sequence[str]) -> Html:
    """Digest and trial, and what the candidate is known for."""
    badges = [tag("span", name, class_=f"badge {name.replace(' ', '-')}") for name in names]
    return join([tag("span", record.digest, class_="code digest"), tag("small", trial_text(record)), *badges])


def architecture_cell(text: str) -> Html:
    """The compact string, which may break where a layer begins."""
    return tag("span", join(re.split(r"(?<=-)", text), between=tag("wbr")), class_="code architecture")


def latency_cell(latency: Latency | None, letter: str | None = None) -> object:
    """The value, and below it where it lies with 95 %, what is wrong with it, and the letter of those that do not differ."""
    if latency is None:
        return NOTHING
    flaws = [name for name, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
    flaws += [text for text in ("looked up*" if latency.cached else None, letter) if text]
    band = f"{latency.range_ms[0]:.3f}–{latency.range_ms[1]:.3f}"
    return join([objective("latency").show(latency.ms), tag("small", " · ".join([band, *flaws]))])


def again_cell(again: Confirmed) -> Html:
    """The score of the longer trainings, and below it how many and how long they were."""
    trainings = f"{again.trainings} × {plural(again.epochs, 'epoch')}"
    return join([again.text, tag("small", trainings if again.on_front else f"{trainings} · beaten")])


def cost_cell(record: TrialRecord | BaselineRecord, name: str) -> str:
    """MACs or parameters, by the name of the objective."""
    cost = record.evaluation.cost
    return NOTHING if cost is None else objective(name).show(getattr(cost, name))


def unbroken(text: str) -> str:
    """The text with spaces at which no line breaks."""
    return text.replace(" ", "\u00a0")
