"""Measured latencies as text and tables, with what is to be known before believing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from nas.common.text import ms_text, plural
from nas.latency.compare import groups
from nas.latency.result import DeviceState, Latency
from nas.latency.runtimes import memory_format_text


def latency_text(latency: Latency) -> str:
    """The value and where it lies with 95 %, with a mark where the number deserves less trust."""
    mark = _sign(latency)
    low, high = latency.range_ms
    return f"{ms_text(latency.ms)} ({ms_text(low)}-{ms_text(high)}){mark}"


def marked_latency(latency: Latency | None, letter: str | None) -> str:
    """The same with a mark where it was looked up, and the letter of those that do not differ; nothing without a latency."""
    return f"{latency_text(latency)}{'*' if latency.cached else ''}{letter or ''}" if latency else ""


def marks_legend(latencies: Iterable[Latency | None]) -> list[Text]:
    """What the marks of `latency_text` mean, where one was set."""
    known = [latency for latency in latencies if latency is not None]
    meanings = []
    if any(latency.contended for latency in known):
        meanings.append("! something else used the device meanwhile")
    if any(latency.noisy and not latency.contended for latency in known):
        meanings.append("~ interval too wide, or the device's speed changed")
    return [Text("; ".join(meanings), style="dim")] if meanings else []


def measured_table(measured: Sequence[Latency]) -> Table:
    """One row a batch size: the time of a batch, and what that is for an image."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("batch", "ms", "95 %", "images/s", "ms/image", "wall median"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="yellow")
    for latency in measured:
        size = latency.protocol.batch_size
        table.add_row(
            f"{size}",
            f"{latency.ms:.3f}",
            _range(latency),
            f"{1e3 * size / latency.ms:,.1f}",
            f"{latency.ms / size:.3f}",
            f"{latency.median_ms:.3f}",
            _flaws(latency),
        )
    return table


def compared_table(labels: Sequence[str], measured: Sequence[Latency]) -> Table:
    """One row a network that was measured in turn with the others, fastest first; of one place are those that do not differ."""
    size = measured[0].protocol.batch_size
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("place", justify="right")
    table.add_column("network", overflow="fold")
    for column in ("ms", "95 %", "wall median", "images/s"):
        table.add_column(column, justify="right", no_wrap=True)
    place = 1
    for group in groups(measured):
        for index in group:
            latency = measured[index]
            table.add_row(
                f"{place}",
                Text(labels[index]),
                f"{latency.ms:.3f}",
                f"{_range(latency)}{_sign(latency)}",
                f"{latency.median_ms:.3f}",
                f"{1e3 * size / latency.ms:,.1f}",
            )
        place += len(group)
    return table


def protocol_lines(measured: Sequence[Latency], labels: Sequence[str] = ()) -> list[str]:
    """How latencies were measured: what they share, what each of them met, what its marks mean.

    Each is named by its label, by default its batch size.
    """
    labels = labels or [f"batch {latency.protocol.batch_size}" for latency in measured]
    first, protocol = measured[0], measured[0].protocol
    versions = ", ".join(f"{name} {version}" for name, version in (first.software or {}).items())
    threads = f", {plural(protocol.threads, 'thread')}" if protocol.device == "cpu" else ""
    folded = "folded" if all(latency.bn_folded for latency in measured) else "not folded throughout"
    dtype = protocol.dtype if not _any_left_out(measured, "dtype") else f"{protocol.dtype} where possible"
    form = memory_format_text(protocol) + (" where possible" if _any_left_out(measured, "layout") else "")
    caches = "emptied before each run" if protocol.cold else "hot"
    block = "blocks of one run" if protocol.cold else f"blocks of at least {protocol.block_ms:g} ms"
    until = (
        f"{plural(len(first.rounds_ms), 'round')} of all networks in turn"
        if first.session
        else f"{protocol.min_blocks} or more, until the 95 % interval is narrower than {100 * protocol.max_spread:g} % "
        f"or {protocol.max_s:g} s are over"
    )
    values = ", ".join(dict.fromkeys(latency.estimator for latency in measured))
    lines = [
        f"device    {first.device_name} ({protocol.device}){threads}; {versions}",
        f"network   {protocol.mode}, {dtype}, {form}, batch norm {folded}, caches {caches}",
        f"timing    {protocol.warmup_s:g} s of warm-up, then {block}, {until}",
        f"value     {values}",
    ]
    if first.session:
        lines += _in_turn(labels, measured)
    else:
        for label, latency in zip(labels, measured, strict=True):
            lines += _circumstances(label, latency)
    for label, latency in zip(labels, measured, strict=True):
        lines += [f"{label} is {reason}" for reason in _marks(latency)]
    labelled = [
        (label, line) for label, latency in zip(labels, measured, strict=True) for line in preparation_lines(latency)
    ]
    of_all = [
        line
        for line in dict.fromkeys(line for _, line in labelled)
        if [line for _, line in labelled].count(line) == len(measured)
    ]
    return lines + of_all + [f"{label} {line}" for label, line in labelled if line not in of_all]


def _any_left_out(measured: Sequence[Latency], step: str) -> bool:
    return any(step in latency.left_out for latency in measured)


def preparation_lines(latency: Latency) -> list[str]:
    """Which steps of preparing the network were left out, each with the reason, and what else to know of it."""
    steps = {
        "copy": "not copied, measured as it is",
        "eval": "not put into eval mode",
        "fold": "not folded",
        "layout": "memory format stays as it is",
        "dtype": f"not brought to {latency.protocol.dtype}",
        "inference": "not in inference mode",
    }
    left_out = [f"{steps.get(step, step)}: {reason}" for step, reason in latency.left_out.items()]
    return left_out + [f"note: {note}" for note in latency.notes]


def _range(latency: Latency) -> str:
    low, high = latency.range_ms
    return f"{low:.3f}-{high:.3f}"


def _sign(latency: Latency) -> str:
    return "!" if latency.contended else "~" if latency.noisy else ""


def _flaws(latency: Latency) -> str:
    return ", ".join(text for text, true in (("noisy", latency.noisy), ("contended", latency.contended)) if true)


def _in_turn(labels: Sequence[str], measured: Sequence[Latency]) -> list[str]:
    """Blocks of each network, then what all of them met."""
    last, waited_s = measured[-1], sum(latency.waited_s for latency in measured)
    return [
        *(f"{label:<9} {_blocks(latency)}" for label, latency in zip(labels, measured, strict=True)),
        f"all       waited {waited_s:.1f} s for the device; {_states(last.before, last.after)}; {_others(last)}",
    ]


def _blocks(latency: Latency) -> str:
    return f"{plural(latency.blocks, 'block')} x {plural(latency.runs_per_block, 'run')}"


def _others(latency: Latency) -> str:
    used = "unknown" if latency.others is None else f"{100 * latency.others:.0f} % of the device"
    return f"other processes: {used}"


def _circumstances(label: str, latency: Latency) -> list[str]:
    reference = "; reference network not timed"
    if latency.reference_ms and latency.drift is not None:
        before, after = latency.reference_ms
        reference = f"; reference network {before:.3f} → {after:.3f} ms (drift {100 * latency.drift:.1f} %)"
    return [
        f"{label:<9} {_blocks(latency)}, {plural(latency.attempts, 'attempt')}, "
        f"waited {latency.waited_s:.1f} s for the device{reference}",
        f"          {_states(latency.before, latency.after)}; {_others(latency)}",
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
    if latency.interval_ms is None and latency.spread >= protocol.max_spread:
        why.append(f"noisy: the spread stayed at {100 * latency.spread:.1f} %")
    if latency.interval_ms is not None and latency.width >= protocol.noisy_width:
        why.append(f"noisy: its 95 % interval is {100 * latency.width:.1f} % wide")
    most = protocol.max_drift if latency.interval_ms is None else protocol.noisy_drift
    if latency.drift is not None and latency.drift > most:
        why.append(
            f"noisy: the device changed its speed meanwhile, the reference network by {100 * latency.drift:.1f} %"
        )
    if latency.contended:
        share = f", with {100 * latency.others:.0f} % of its time" if latency.others else ""
        why.append(f"contended: others were on the device{share}")
    return why
