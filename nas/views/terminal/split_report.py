"""Tables of how a network does on a split of the data, for a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from nas.runs.record import AnyReport
from nas.tasks import report
from nas.tasks.report import Cell, Change, Column, Matrix


def split_tables(before: AnyReport | None, after: AnyReport) -> list[Table]:
    """What the task tells of a split of the data, and what it was `before`, which is of the same task."""
    found = after.tables(before)  # type: ignore[arg-type]  # the two are of one kind
    return [_matrix(each) if isinstance(each, Matrix) else _table(each) for each in found]


def _table(told: report.Table) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(told.columns):
        if column.kind in ("text", "pair"):
            table.add_column(column.name, overflow="fold")
            continue
        unit = " %" if column.kind == "share" else ""
        changed = any(isinstance(row[place], Change) and _before(row[place]) is not None for row in told.rows)
        title = f"{column.name}{unit}{' before → after' if changed else ''}"
        table.add_column(title, justify="right", no_wrap=True)
    for number, row in enumerate(told.rows):
        style = "bold" if number >= len(told.rows) - told.totals else None
        table.add_row(*(_shown(column, value) for column, value in zip(told.columns, row, strict=True)), style=style)
    return table


def _before(value: Cell) -> float | None:
    return value.before if isinstance(value, Change) else None


def _shown(column: Column, value: Cell) -> Text:
    if isinstance(value, Change):
        now, earlier = _shown(column, value.after), _shown(column, value.before)
        return now if value.before is None else Text.assemble(earlier, " → ", now)
    if isinstance(value, tuple):
        return Text(" → ".join(value))
    if value is None or isinstance(value, str):
        return Text(value or "")
    formats = {"share": f"{100 * value:.2f}", "number": f"{value:.4g}"}
    return Text(formats.get(column.kind, f"{value:,}"))


def _matrix(told: Matrix) -> Table:
    """A row a true class."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", title="true class ↓   predicted as →", title_style="dim"
    )
    table.add_column("", justify="right", style="bold")
    table.add_column("", overflow="fold")
    for index in range(len(told.names)):
        table.add_column(f"{index}", justify="right", no_wrap=True)
    for index, (name, row) in enumerate(zip(told.names, told.counts, strict=True)):
        cells = [
            Text(f"{count}" if count else "·", style="green" if column == index else "" if count else "dim")
            for column, count in enumerate(row)
        ]
        table.add_row(f"{index}", Text(name), *cells)
    return table
