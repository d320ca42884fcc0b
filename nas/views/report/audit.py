"""The report's section on trust in the ranking: can the proxy training tell which candidates are better?"""

from __future__ import annotations

import plotly.graph_objects as go

from nas.tasks.base import Score
from nas.views.audit_text import (
    COEFFICIENTS,
    INIT_COLUMNS,
    band_rows,
    counts,
    group_text,
    init_notes,
    init_rows,
    legend,
    rows,
)
from nas.views.report.curves import audit_figure
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, join, table, tag
from nas.workflows.fidelity.audit import Audit


def audit(found: Findings, figures: dict[str, go.Figure]) -> Html:
    """The section, its figure added to `figures`; nothing where there was no audit."""
    if found.audit is None:
        return Html("")
    verdict = found.audit.verdict
    parts = [
        tag("h2", "Trust in the ranking"),
        tag("p", tag("strong", verdict.sentence)),
        *(tag("p", note) for note in verdict.notes),
        tag("p", counts(found.audit)),
    ]
    if found.audit.audited:
        figures["audit"] = audit_figure(found.audit.audited, found.front, found.metric)
        caption = (
            "Mean of the full trainings against the score that the search saw; bars join the full trainings. On the "
            "dotted line a longer training changes nothing; above it, it helps."
        )
        parts.append(tag("figure", tag("div", id="audit", class_="plot"), tag("figcaption", caption)))
    for ranking in found.audit.rankings:
        head = [group_text(ranking), *COEFFICIENTS.values()]
        parts.append(table(head, rows(ranking), numeric=tuple(COEFFICIENTS.values())))
    if found.audit.rankings:
        parts.append(tag("p", legend(found.audit), class_="soft"))
    return join([*parts, *_inits(found.audit, found.metric)])


def _inits(audit: Audit, metric: Score) -> list[Html]:
    """Initial weights compared, with a verdict on each; nothing where none were."""
    if not audit.inits:
        return []
    parts = [
        tag("h3", "Which initial weights rank better"),
        *(tag("p", tag("strong", ranking.verdict.sentence)) for ranking in audit.inits if ranking.verdict),
        table(INIT_COLUMNS, init_rows(audit, metric), numeric=INIT_COLUMNS[1:]),
    ]
    head, bands = band_rows(audit)
    if bands:
        parts.append(table(head, bands, numeric=head[1:]))
    return [*parts, tag("p", " ".join(init_notes(audit)), class_="soft")]
