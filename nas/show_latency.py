"""Measured latencies as text and tables, with what is to be known before believing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from nas.record import DeviceState, Latency
from nas.wording import ms_text, plural


def latency_text(latency: Latency) -> str:
    """Median and range, with a mark where the number deserves less trust."""
    mark = "!" if latency.contended else "~" if latency.noisy else ""
    return f"{ms_text(latency.median_ms)} ({ms_text(latency.p10_ms)}-{ms_text(latency.p90_ms)}){mark}"


def marks_legend(latencies: Iterable[Latency | None]) -> list[Text]:
    """What the marks of `latency_text` mean, where one was set."""
    known = [latency for latency in latencies if latency is not None]
    meanings = []
    if any(latency.contended for latency in known):
        meanings.append("! something else used the device meanwhile")
    if any(latency.noisy and not latency.contended for latency in known):
        meanings.append("~ spread or drift too large")
    return [Text("; ".join(meanings), style="dim")] if meanings else []


def measured_table(measured: Sequence[Latency]) -> Table:
    """One row a batch size: the time of a batch, and what that is for an image."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("batch", "ms", "p10-p90", "spread", "images/s", "ms/image"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="yellow")
    for latency in measured:
        size = latency.protocol.batch_size
        marks = [text for text, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true]
        table.add_row(
            f"{size}",
            f"{latency.median_ms:.3f}",
            f"{latency.p10_ms:.3f}-{latency.p90_ms:.3f}",
            f"{100 * latency.spread:.1f} %",
            f"{1e3 * size / latency.median_ms:,.1f}",
            f"{latency.median_ms / size:.3f}",
            ", ".join(marks),
        )
    return table


def protocol_lines(measured: Sequence[Latency]) -> list[str]:
    """How latencies of one network were measured: what they share, what each batch size met, what its marks mean."""
    first, protocol = measured[0], measured[0].protocol
    versions = ", ".join(f"{name} {version}" for name, version in (first.software or {}).items())
    threads = f", {plural(protocol.threads, 'thread')}" if protocol.device == "cpu" else ""
    folded = "folded" if first.bn_folded else "not folded throughout"
    caches = "emptied before each run" if protocol.cold else "hot"
    block = "blocks of one run" if protocol.cold else f"blocks of at least {protocol.block_ms:g} ms"
    lines = [
        f"device    {first.device_name} ({protocol.device}){threads}; {versions}",
        f"network   {protocol.mode}, {protocol.dtype}, {protocol.memory_format}, batch norm {folded}, caches {caches}",
        f"timing    {protocol.warmup_s:g} s of warm-up, then {block}, {protocol.min_blocks} or more, "
        f"until the spread is below {100 * protocol.max_spread:g} % or {protocol.max_s:g} s are over",
    ]
    for latency in measured:
        lines += _circumstances(latency)
    for latency in measured:
        lines += _marks(latency)
    return lines


def _circumstances(latency: Latency) -> list[str]:
    reference = "reference network not timed"
    if latency.reference_ms:
        before, after = latency.reference_ms
        reference = f"reference network {before:.3f} → {after:.3f} ms (drift {100 * latency.drift:.1f} %)"
    use = "unknown" if latency.others is None else f"{100 * latency.others:.0f} % of the device"
    return [
        f"batch {latency.protocol.batch_size:<3} {plural(latency.blocks, 'block')} x "
        f"{plural(latency.runs_per_block, 'run')}, {plural(latency.attempts, 'attempt')}, "
        f"waited {latency.waited_s:.1f} s for the device; {reference}",
        f"          {_states(latency.before, latency.after)}; other processes: {use}",
    ]


def _states(before: DeviceState | None, after: DeviceState | None) -> str:
    """Clocks, power and temperature before and after."""
    before, after = before or DeviceState(), after or DeviceState()
    parts, unknown = [], []
    for name, unit, first, last in (
        ("clock", "MHz", before.clock_mhz, after.clock_mhz),
        ("memory clock", "MHz", before.memory_clock_mhz, after.memory_clock_mhz),
        ("power", "W", before.power_w, after.power_w),
        ("temperature", "°C", before.temperature_c, after.temperature_c),
    ):
        if first is None or last is None:
            unknown.append(name)
        else:
            parts.append(f"{name} {first:.0f} → {last:.0f} {unit}")
    if throttled := sorted({*(before.throttled or ()), *(after.throttled or ())}):
        parts.append(f"clocks held back by {', '.join(throttled)}")
    if unknown:
        parts.append(f"{', '.join(unknown)} not known here")
    return ", ".join(parts)


def _marks(latency: Latency) -> list[str]:
    """What each mark of a latency means, with the figure behind it."""
    protocol, why = latency.protocol, []
    if latency.spread >= protocol.max_spread:
        why.append(f"noisy: the spread stayed at {100 * latency.spread:.1f} %")
    if latency.drift > protocol.max_drift:
        why.append(
            f"noisy: the device changed its speed meanwhile, the reference network by {100 * latency.drift:.1f} %"
        )
    if latency.contended:
        share = f", with {100 * latency.others:.0f} % of its time" if latency.others else ""
        why.append(f"contended: others were on the device{share}")
    return [f"batch {protocol.batch_size} is {reason}" for reason in why]
