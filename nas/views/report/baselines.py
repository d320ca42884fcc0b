"""The report's section on reference networks: does the front beat what people would otherwise pick?"""

from __future__ import annotations

from collections.abc import Callable

from nas.common.text import capital, command_text, plural
from nas.models.sources import IMAGENET, SCRATCH
from nas.models.weights import licence_of
from nas.runs.front import beaten_by
from nas.runs.record import BaselineRecord, Outcome
from nas.runs.words import score_title
from nas.views.report.cells import cost_cell, latency_cell
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag
from nas.views.text import NOTHING, verdict_text

_MADE_FOR = 224
"""Pixels a side of the images that MobileNetV2 and ResNet-18 were made for; below a quarter of it, that is said."""


def baselines(found: Findings) -> Html:
    """The section, or how to have it; nothing while there is no front."""
    if found.baselines:
        return join(
            [
                tag("h2", "Against what people would otherwise pick"),
                tag("p", _answer(found)),
                _table(found),
                tag("p", _caveats(found), class_="soft"),
            ]
        )
    if not found.front or not found.settings.evaluation.recipe.epochs:
        return Html("")
    hint = "Does the front beat MobileNetV2 and ResNet-18? Measured and trained alike, they are shown here by "
    return tag("p", hint, tag("code", command_text("baseline", found.path, "--train")), class_="soft")


def _table(found: Findings) -> Html:
    title = capital(score_title(found.metric))
    columns: dict[str, Callable[[BaselineRecord], object]] = {
        "Network": _network,
        title: lambda record: found.score(record) if found.objective in record.objectives else NOTHING,
        "Latency": lambda record: latency_cell(record.evaluation.latency),
        "MACs": lambda record: cost_cell(record, "macs"),
        "Parameters": lambda record: cost_cell(record, "params"),
        "Against the front": lambda record: tag(
            "span", verdict_text(record, found.front, found.settings.objectives), class_="reason"
        ),
    }
    rows = [[cell(record) for cell in columns.values()] for record in found.baselines]
    return table(list(columns), rows, numeric=(title, "Latency", "MACs", "Parameters"), stacks=True)


def _network(record: BaselineRecord) -> Html:
    lines = [f"from {record.init}"] if record.trained else []
    lines += [record.note] if record.note else []
    return join([tag("span", record.name, class_="code digest"), *(tag("small", line) for line in lines)])


def _answer(found: Findings) -> str:
    """How many baselines the front beats, and what is not compared."""
    failed = sum(record.evaluation.outcome is not Outcome.DONE for record in found.baselines)
    untrained = sum(not record.trained for record in found.baselines) - failed
    sentences = []
    if found.compared and found.front:
        beaten = [
            record for record in found.compared if beaten_by(found.front, found.settings.objectives, record.objectives)
        ]
        text = f"The front beats {len(beaten)} of {plural(len(found.compared), 'baseline')}"
        text += ": it has a network no worse in any objective and better in one." if beaten else "."
        sentences.append(text)
    if untrained:
        text = plural(untrained, "baseline is", "baselines are")
        how = f"{command_text('baseline', found.path, '--train')} compares them"
        if not found.settings.evaluation.recipe.epochs:
            how = "the candidates were scored without fine-tuning, so that no training of these compares with theirs"
        sentences.append(f"{text} measured and not trained; {how}.")
    if failed:
        sentences.append(f"{plural(failed, 'baseline')} failed.")
    return " ".join(sentences)


def _caveats(found: Findings) -> str:
    """What to know before believing the comparison."""
    settings, sentences = found.settings, ["Same data, protocol and recipe as the candidates."]
    side = max(settings.space.input_sizes)
    if found.front and found.compared:
        sentences.append(
            "The front was selected on these validation images and the baselines were not, which favours the front a "
            "little; a lead below the scores' errors may be luck."
        )
    if side < _MADE_FOR / 4:
        sentences.append(
            f"MobileNetV2 and ResNet-18 were made for images of {_MADE_FOR}×{_MADE_FOR}: what they reach at "
            f"{side}×{side} says little of what they reach on larger ones."
        )
    if settings.evaluation.init != SCRATCH and any(record.init == SCRATCH for record in found.compared):
        sentences.append(
            f"The candidates inherit weights from {settings.evaluation.init} and baselines from scratch do not, which "
            "favours the front; --weights imagenet gives MobileNetV2 and ResNet-18 theirs."
        )
    if any(record.init == IMAGENET for record in found.baselines):
        sentences.append(f"Weights of baselines: {licence_of(IMAGENET)}")
    return " ".join(sentences)
