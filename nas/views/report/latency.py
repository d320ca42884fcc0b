"""The report's sections on latency: how it was measured, how far MACs mislead, how good the predictions were."""

from __future__ import annotations

from collections.abc import Sequence

from nas.common.text import plural
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.latency.runtimes import memory_format_text
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import LatencyTarget
from nas.views.report.cells import unbroken
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, facts, join, tag
from nas.views.text import NOTHING
from nas.workflows.fidelity.proxy import MIN_NETWORKS, foresight, macs_mislead


def latency_protocol(found: Findings) -> Html:
    """How latency was measured, on each further target too, and how well that went."""
    protocol, targets = found.settings.evaluation.protocol, found.settings.evaluation.targets
    parts = [_measured(protocol, found.latencies)]
    for target in targets:
        parts += [tag("h3", f"Target {target.name}"), _measured(target.protocol, found.on_target(target), target)]
    limits = dict.fromkeys(100 * each.noisy_width for each in (protocol, *(target.protocol for target in targets)))
    text = (
        "The 95 % interval is of one measurement alone; spread is the interquartile range over the median of its blocks, drift "
        "the change of a reference network's time meanwhile. Noisy: the interval is wider than "
        f"{' or '.join(unbroken(f'{limit:g} %') for limit in limits)} of the value, or the drift is. "
        "Contended: others used the device meanwhile, of a CPU over a quarter of its time."
    )
    return join([*parts, tag("p", text, class_="soft")])


def _measured(protocol: LatencyProtocol, measured: Sequence[Latency], target: LatencyTarget | None = None) -> Html:
    limit = unbroken(f"{100 * protocol.max_spread:g} %")
    devices = ", ".join(dict.fromkeys(latency.device_name for latency in measured))
    noisy, contended = sum(latency.noisy for latency in measured), sum(latency.contended for latency in measured)
    cached, doubted = sum(latency.cached for latency in measured), sum(bool(latency.doubted) for latency in measured)
    shapes = dict.fromkeys("×".join(str(n) for n in latency.input_shape) for latency in measured)
    rows: list[tuple[str, object]] = [
        ("Device", f"{devices} ({protocol.device})" if measured else protocol.device),
        ("Input", f"{', '.join(shapes) or f'batch {protocol.batch_size}'}, {protocol.dtype}"),
        ("Mode", f"{protocol.mode}, {memory_format_text(protocol)}"),
        ("CPU threads", protocol.threads),
        ("Batch norm", _folded(measured)),
        ("Warm-up", f"{protocol.warmup_s:g} s, then back-to-back runs (caches hot)"),
        ("Blocks", f"≥ {protocol.min_blocks}, of ≥ {protocol.block_ms:g} ms each"),
        ("Value", ", ".join(dict.fromkeys(latency.estimator for latency in measured)) or protocol.estimator),
        ("Stops at", f"95 % interval < {limit}, or {protocol.max_s:g} s"),
        ("Measured", plural(len(measured) - cached, "candidate")),
        ("Looked up", f"{plural(cached, 'candidate')}, measured before"),
        *(
            [("Not looked up", f"{plural(doubted, 'candidate')}, as the reference network took another time before")]
            if doubted
            else []
        ),
        ("Noisy", f"{noisy:,}"),
        ("Contended", f"{contended:,}"),
    ]
    if measured:
        spreads = sorted(latency.spread for latency in measured)
        rows.append(("Spread", f"median {100 * spreads[len(spreads) // 2]:.1f} %, largest {100 * spreads[-1]:.1f} %"))
        drifts = sorted(latency.drift for latency in measured if latency.drift is not None)
        known = (
            f"median {100 * drifts[len(drifts) // 2]:.1f} %, largest {100 * drifts[-1]:.1f} %"
            if drifts
            else "not known"
        )
        rows.append(("Drift", known))
        rows.append(("Measured twice or more", plural(sum(latency.attempts > 1 for latency in measured), "candidate")))
        rows.append(("Waiting for lease", f"{sum(latency.waited_s for latency in measured):.1f} s in all"))
    if target is not None:
        rows.insert(0, ("Hard budget", "none" if target.max_ms is None else f"{target.max_ms:g} ms"))
        asked = [target.accelerator, *(f"{name}={amount:g}" for name, amount in target.resources.items())]
        workers = dict.fromkeys(latency.worker for latency in measured if latency.worker)
        where = [("Ray resources", asked), ("Measured by", workers)]
        rows += [(name, ", ".join(filter(None, words))) for name, words in where if any(words)]
    return facts(rows)


def prediction(found: Findings) -> Html:
    """How far MACs mislead here, and how good the predictions were; nothing while too few are measured."""
    misled, predictions = macs_mislead(found.recorded), foresight(found.recorded)
    if misled is None:
        return Html("")
    rows: list[tuple[str, object]] = [
        ("Measured", plural(misled.networks, "network")),
        ("Rank correlation", f"{misled.spearman:.2f} (Spearman)"),
        ("Pairs in wrong order", f"{100 * misled.wrong_pairs:.1f} %"),
    ]
    if predictions is not None and predictions.networks < MIN_NETWORKS:
        few = f"{plural(predictions.networks, 'network')}, too few to say how well"
        rows.append(("Predicted first", few))
    elif predictions is not None:
        rows += [
            ("Predicted first", plural(predictions.networks, "network")),
            ("Median error", f"{100 * predictions.median_error:.1f} %"),
            ("Within ±1 deviation", f"{100 * predictions.within_one:.0f} % (68 % expected)"),
            ("Within ±2 deviations", f"{100 * predictions.within_two:.0f} % (95 % expected)"),
        ]
    rejected = [r for r in found.records if r.outcome is Outcome.REJECTED and _only_predicted(r)]
    if rejected:
        rows.append(("Rejected unmeasured", plural(len(rejected), "candidate")))
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
        f"{faster.digest} and takes {a.latency.ms / b.latency.ms:.2f} times as long."
    )


def _folded(measured: Sequence[Latency]) -> str:
    states = {latency.bn_folded for latency in measured}
    return {frozenset({True}): "folded", frozenset({False}): "not folded", frozenset(): NOTHING}.get(
        frozenset(states), "folded in some"
    )
