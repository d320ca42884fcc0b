"""The report on what latency could be told from: MACs, and the predictor's word before measuring."""

from __future__ import annotations

from nas.proxy import foresight, macs_mislead
from nas.record import Outcome, TrialRecord
from nas.report.markup import Html, facts, join, tag
from nas.report.sections import Findings
from nas.wording import plural


def prediction(found: Findings) -> Html:
    """How far MACs mislead here, and how good the predictions were; nothing while too few are measured."""
    misled, foretold = macs_mislead(found.records), foresight(found.records)
    if misled is None:
        return Html("")
    rows: list[tuple[str, object]] = [
        ("Measured", plural(misled.networks, "network")),
        ("Rank correlation", f"{misled.spearman:.2f} (Spearman)"),
        ("Pairs in wrong order", f"{100 * misled.wrong_pairs:.1f} %"),
    ]
    if foretold is not None:
        rows += [
            ("Predicted first", plural(foretold.networks, "network")),
            ("Median error", f"{100 * foretold.median_error:.1f} %"),
            ("Within ±1 deviation", f"{100 * foretold.within_one:.0f} % (68 % expected)"),
            ("Within ±2 deviations", f"{100 * foretold.within_two:.0f} % (95 % expected)"),
        ]
    turned_away = [r for r in found.records if r.outcome is Outcome.REJECTED and _only_predicted(r)]
    if turned_away:
        rows.append(("Turned away unmeasured", plural(len(turned_away), "candidate")))
    sentence = "MACs and measured latency order these networks alike."
    if misled.cheaper is not None and misled.faster is not None:
        sentence = _pair(misled.cheaper, misled.faster)
    return join([tag("h2", "How far MACs mislead"), tag("section", facts(rows), tag("p", sentence, class_="soft"))])


def _only_predicted(record: TrialRecord) -> bool:
    return record.evaluation.predicted is not None and record.evaluation.latency is None


def _pair(cheaper: TrialRecord, faster: TrialRecord) -> str:
    """The pair that misleads most, in a sentence."""
    a, b = cheaper.evaluation, faster.evaluation
    assert a.cost
    assert a.latency
    assert b.cost
    assert b.latency
    return (
        f"The pair that misleads most: {cheaper.digest} has {a.cost.macs / b.cost.macs:.2f} times the MACs of "
        f"{faster.digest} and takes {a.latency.median_ms / b.latency.median_ms:.2f} times as long."
    )
