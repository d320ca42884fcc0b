"""Tables of how a network does on a split of the data, for the report's page."""

from __future__ import annotations

from nas.common.text import capital
from nas.runs.record import AnyReport
from nas.tasks import report
from nas.tasks.report import Cell, Change, Column, Matrix
from nas.views.report.markup import Html, table, tag
from nas.views.text import NOTHING


def split_tables(before: AnyReport | None, after: AnyReport) -> list[Html]:
    """What the task tells of a split of the data, and what it was `before`, which is of the same task."""
    found = after.tables(before)  # type: ignore[arg-type]  # the two are of one kind
    return [_matrix(each) if isinstance(each, Matrix) else _table(each) for each in found]


def _table(told: report.Table) -> Html:
    """A value that changed has two columns, a pair of texts too."""
    wide = [
        column.kind == "pair" or any(isinstance(row[place], Change) for row in told.rows)
        for place, column in enumerate(told.columns)
    ]
    heads, numeric = [], []
    for column, two in zip(told.columns, wide, strict=True):
        names = _heads(column) if two else [capital(column.name)]
        heads += names
        numeric += names if column.kind not in ("text", "pair") else []
    rows = []
    for number, row in enumerate(told.rows):
        cells: list[object] = []
        for column, value, two in zip(told.columns, row, wide, strict=True):
            cells += _both(column, value) if two else [_shown(column, value)]
        if number >= len(told.rows) - told.totals:
            cells[0] = tag("b", capital(str(cells[0])))
        rows.append(cells)
    return table(heads, rows, numeric=numeric, class_="dense")


def _heads(column: Column) -> list[str]:
    if column.kind == "pair":
        return [capital(part.strip()) for part in column.name.split("→")]
    return [f"{capital(column.name)} before", capital(column.name)]


def _both(column: Column, value: Cell) -> list[str]:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Change):
        return [_shown(column, value.before), _shown(column, value.after)]
    return [NOTHING, _shown(column, value)]


def _shown(column: Column, value: Cell) -> str:
    if value is None or isinstance(value, str):
        return value or NOTHING
    assert isinstance(value, int | float)
    formats = {"share": f"{100 * value:.2f} %", "number": f"{value:.4g}"}
    return formats.get(column.kind, f"{value:,}")


def _matrix(told: Matrix) -> Html:
    numbered = [f"{number}: {name}" for number, name in enumerate(told.names)]
    columns = [f"{number}" for number in range(len(told.names))]
    rows = [
        (numbered[truth], *(tag("b", count) if taken == truth else count or "·" for taken, count in enumerate(row)))
        for truth, row in enumerate(told.counts)
    ]
    return table(["True class ↓ taken for →", *columns], rows, numeric=columns, class_="dense")
