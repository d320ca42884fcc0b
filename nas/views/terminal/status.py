"""The status of a run as tables and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.common.text import amount_text, duration_text, plural, resume_line, time_text
from nas.runs.objectives import objective
from nas.runs.pace import left_text
from nas.runs.state import SILENT_S, DriverState, RunningTrial
from nas.runs.status import Phase, RunStatus
from nas.views.terminal.front import counts_text
from nas.views.text import NOTHING

MOST_TRIALS = 6
"""Trials named of those that failed for one reason."""


def status_json(status: RunStatus) -> str:
    """Everything that is known of a run's status."""
    return json.dumps(asdict(status), indent=2)


def head_lines(status: RunStatus) -> list[str]:
    """Whether the search runs, and how to go on where it does not."""
    lines = [phase_text(status)]
    if status.resumable and status.phase not in (Phase.RUNNING, Phase.STOPPING, Phase.BUSY):
        lines.append(f"To go on: {resume_command(status)}")
    return lines


def status_table(status: RunStatus) -> Group:
    """The figures of a search, what runs where, what failed or was lost, and which worker finished how many."""
    parts: list[Table | Text] = [_figures(status)]
    driver, live = status.driver, status.phase in (Phase.RUNNING, Phase.STOPPING)
    if driver is not None and driver.running and status.phase is not Phase.BUSY:
        title = "Running" if live else "Cut off, to be asked for again"
        parts += [Text(f"\n{title}", style="bold"), *_running(driver, status.score_unit)]
    if status.failures:
        parts += [Text("\nFailed", style="bold"), _failed(status)]
    if status.lost:
        parts += [Text("\nLost last", style="bold"), _lost(status)]
    if status.workers:
        parts += [Text(), _workers(status)]
    return Group(*parts)


def phase_text(status: RunStatus) -> str:
    """Whether the search runs, in a sentence or two."""
    driver, phase = status.driver, status.phase
    if phase is Phase.BUSY:
        return "Busy: a search is starting on this directory, or a fidelity check runs"
    if driver is None or phase is Phase.UNKNOWN:
        return "Nothing runs here that can be seen, and no driver told how its search ended"
    who = f"{driver.host} (pid {driver.pid})"
    if phase is Phase.ENDED:
        return f"Ended {_ago(status, driver.ended or driver.written)}: {driver.ending}"
    if phase is Phase.DEAD:
        return f"Dead: the driver on {who} is gone, last heard of {_ago(status, driver.written)}"
    running = f"Running on {who} for {duration_text(driver.written - driver.started)}"
    if status.now - driver.written > SILENT_S:
        running += f". Nothing heard since {_ago(status, driver.written)}: its process is suspended, or hangs"
    if phase is Phase.RUNNING:
        return running
    if driver.stopping is None:
        return f"Asked to stop, which its driver hears of within seconds. {running}"
    return f"Stopping when what runs has finished: {driver.stopping}. {running}"


def resume_command(status: RunStatus) -> str:
    """How to go on with the search."""
    return resume_line(status.run, status.driver.address if status.driver else None)


def _at_once(driver: DriverState) -> str:
    resources = driver.resources
    parts = [_amount(resources.cpus_per_trial, "CPU core")]
    parts += [_amount(resources.gpus_per_trial, "GPU")] if resources.gpus_per_trial else []
    ray = f"Ray cluster {driver.address}" if driver.address else "Ray of its own"
    room = plural(resources.max_concurrent, "trial") if resources.max_concurrent else "as many trials as fit"
    return f"{room}, each on {' and '.join(parts)}; {ray}"


def _amount(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def _ago(status: RunStatus, when: float) -> str:
    return f"{_since(status, when)} ago ({time_text(when)})"


def _since(status: RunStatus, when: float) -> str:
    return duration_text(max(status.now - when, 0.0))


def _figures(status: RunStatus) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    done = f"{status.trained} of {plural(status.candidates, 'candidate')}"
    if status.confirmations:
        done += f", {status.confirmed} of {plural(status.confirmations, 'training')} to confirm the front"
    table.add_row("done", done)
    if status.phase is Phase.RUNNING:
        table.add_row("left", left_text(status.seconds_left).removesuffix(" left").removeprefix("time left "))
    if status.seconds is not None:
        table.add_row("wall time", duration_text(status.seconds))
    if status.driver is not None and status.phase in (Phase.RUNNING, Phase.STOPPING):
        table.add_row("at once", _at_once(status.driver))
    per_trial = _amount(status.per_trial, status.device_unit)
    table.add_row("spent", f"{status.device_hours:.3g} {status.device_unit}-hours of evaluation, {per_trial} each")
    table.add_row("trials", counts_text(status.outcomes))
    if status.limits:
        limits = ", ".join(f"{name} at most {objective(name).show(limit)}" for name, limit in status.limits.items())
        table.add_row("limits", limits + (", by which trials were judged again" if status.limits_changed else ""))
    volume = "not fixed yet" if status.hypervolume is None else f"{status.hypervolume:.3f}"
    table.add_row("front", f"{plural(status.front, 'network')}, hypervolume {volume}")
    return table


def _running(driver: DriverState, unit: str) -> list[Table | Text]:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right", no_wrap=True, style="cyan")
    for title in ("for", "epoch", f"score {unit}".rstrip()):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    networks = Table(box=None, pad_edge=False, show_header=False)
    networks.add_column(justify="right", no_wrap=True, style="cyan", min_width=len("trial"))
    networks.add_column(overflow="fold", style="dim")
    for trial in driver.running:
        table.add_row(
            str(trial.number),
            duration_text(max(driver.written - trial.started, 0.0)),
            f"{trial.epoch}/{trial.epochs}" if trial.epochs else NOTHING,
            NOTHING if trial.score is None else amount_text(trial.score, unit=unit).removesuffix(f" {unit}"),
            Text(_where(trial)),
        )
        networks.add_row(str(trial.number), Text(trial.text))
    return [table, Text(), networks]


def _where(trial: RunningTrial) -> str:
    return (trial.worker or "not known yet") + (", to confirm the front" if trial.again else "")


def _failed(status: RunStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for failure in status.failures:
        numbers = ", ".join(str(number) for number in failure.trials[-MOST_TRIALS:])
        more = "the last of them " if len(failure.trials) > MOST_TRIALS else ""
        trials = f"{more}trial{'' if len(failure.trials) == 1 else 's'} {numbers}"
        table.add_row(f"{len(failure.trials)} ×", Text(f"{failure.reason} ({trials})"))
    return table


def _lost(status: RunStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for lost in status.lost:
        table.add_row(f"trial {lost.number}", Text(f"{_ago(status, lost.finished)}: {lost.reason}"))
    return table


def _workers(status: RunStatus) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("worker", overflow="fold")
    table.add_column("finished", justify="right", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for worker in status.workers:
        table.add_row(Text(worker.worker), str(worker.finished), f"{_since(status, worker.latest)} ago")
    return table
