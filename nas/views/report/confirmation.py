"""The report's section on confirmation: is the front more than the luck of short trainings?"""

from __future__ import annotations

from statistics import fmean

from nas.common.text import capital, gain_text, plural
from nas.runs.record import TrialRecord
from nas.runs.words import score_title
from nas.views.report.cells import again_cell
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag


def confirmation(found: Findings) -> Html:
    """The section; nothing where no candidate was trained again."""
    again = [record for record in found.scored if record.digest in found.again]
    if not again:
        return Html("")
    return join([tag("h2", "Confirmation"), tag("p", _answer(found, again)), _table(found, again)])


def _answer(found: Findings, again: list[TrialRecord]) -> str:
    members = [record for record in again if record in found.front]
    kept = sum(found.again[record.digest].on_front for record in members)
    lift = fmean(found.again[record.digest].score - record.objectives[found.objective] for record in again)
    epochs = max(one.epochs for one in found.again.values())
    return (
        f"{len(members):,} of {plural(len(found.front), 'member')} of the front and {len(again) - len(members):,} near it "
        f"were trained again, for {plural(epochs, 'epoch')} in place of {found.settings.evaluation.recipe.epochs}, from "
        f"other seeds: {kept:,} of these members are beaten by none of the others then. The score moved by "
        f"{gain_text(lift, found.metric.unit)} on average: longer training lifts it, and what was luck is lost. Compare these scores "
        "with each other, not with those of the short trainings."
    )


def _table(found: Findings, again: list[TrialRecord]) -> Html:
    title = capital(score_title(found.metric))
    rows = [
        (
            join([tag("span", record.digest, class_="code digest"), tag("small", f"trial {record.number}")]),
            found.score(record),
            again_cell(found.again[record.digest]),
            "yes" if record in found.front else "near it",
            "yes" if found.again[record.digest].on_front else "no",
        )
        for record in sorted(again, key=lambda record: found.objective.loss(found.again[record.digest].score))
    ]
    head = ["Candidate", title, "Trained again", "On the front", "Beaten by none when trained again"]
    return table(head, rows, numeric=(title, "Trained again"), stacks=True)
