"""A run as tables: pandas DataFrames of its trials and of its front. pandas is imported when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas.latency.result import Latency
from nas.runs.confirmation import confirmed_in
from nas.runs.front import pareto_front
from nas.runs.objectives import measured_latency, peak_memory, target_objective
from nas.runs.picks import known_as
from nas.runs.record import TrialRecord
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

PARAMETER = "parameter."
"""How the columns begin that hold what was chosen for a parameter of the space."""

_IDENTITY = ("number", "digest", "text")
_ENDING = ("outcome", "reason", "repeat_of", "imported_from", "on_front")
_COSTS = ("macs", "params", "memory")
_EFFORT = ("epochs", "seconds", "worker", "started", "finished")
_TIMES = ("started", "finished")
_MARKS = ("_noisy", "_contended", "_cached")
# With missing values: pandas' own types, since NumPy's whole numbers, truths and texts have none.
_TYPES = dict.fromkeys(("digest", "text", "outcome", "reason", "imported_from", "worker"), "str")
_TYPES |= dict.fromkeys(("repeat_of", *_COSTS), "Int64")
_TYPES |= {"number": "int64", "on_front": "bool", "epochs": "int64", "seconds": "float64"}
_OWN = {"known_as": "str", "confirmed": "float64", "confirmed_error": "float64", "confirmed_trainings": "int64"}


def trials_frame(run: RunDirectory) -> pd.DataFrame:
    """One row a trial, in their order; what is not known is missing, never 0.

    Columns: `number`, `digest`, `text` (the network's string); `outcome`, `reason`, `repeat_of`, `imported_from`, `on_front`; the
    run's objectives and the costs `macs`, `params`, `memory` (bytes) under the names that objectives have; `latency` and
    `latency:TARGET` in ms a batch, each with `_low` and `_high` (95 %), `_median`, `_p10`, `_p25`, `_p90`, `_noisy`, `_contended`,
    `_cached` behind its name; `epochs`, `seconds`, `worker`, `started`, `finished` (UTC); `parameter.NAME` for each choice.
    Latencies are the newest of the run, as the front goes by them.
    """
    return _frame(run.judged(), run.settings)


def front_frame(run: RunDirectory) -> pd.DataFrame:
    """The Pareto front, one row a member, cheapest first, by digest: the columns of `trials_frame`, and some of its own.

    `known_as` is what `pick` calls the member (`fastest`, `knee`, `most-accurate`); `confirmed`, `confirmed_error` and
    `confirmed_trainings` are what training it again gave.
    """
    records, objectives = run.judged(), run.settings.objectives
    front = pareto_front(records, objectives)
    names, again = known_as(records, objectives), confirmed_in(run, records)
    confirmed = [again.get(record.digest) for record in front]
    own: dict[str, list[Any]] = {
        "known_as": [", ".join(names.get(record.digest, ())) for record in front],
        "confirmed": [one.score if one else None for one in confirmed],
        "confirmed_error": [one.error if one else None for one in confirmed],
        "confirmed_trainings": [one.trainings if one else 0 for one in confirmed],
    }
    frame = _frame(front, run.settings).drop(columns="on_front")
    return frame.assign(**own).astype(_OWN)[[*_IDENTITY, *own, *frame.columns[len(_IDENTITY) :]]].set_index("digest")


def _frame(records: Sequence[TrialRecord], settings: SearchSettings) -> pd.DataFrame:
    import pandas as pd

    latencies = ("latency", *(target_objective(target.name) for target in settings.evaluation.targets))
    of_latencies = [column for name in latencies for column in _latency_cells(name, None)]
    named = [name for name in settings.objectives if name not in (*latencies, *_COSTS)]
    parameters = [PARAMETER + name for name in settings.space.parameters]
    columns = [*_IDENTITY, *_ENDING, *named, *of_latencies, *_COSTS, *_EFFORT, *parameters]
    front = {record.number for record in pareto_front(records, settings.objectives)}
    rows = [_row(record, named, latencies) | {"on_front": record.number in front} for record in records]
    frame = pd.DataFrame(rows, columns=columns)
    marks = {column: "boolean" if column.endswith(_MARKS) else "float64" for column in of_latencies}
    frame = frame.astype(_TYPES | marks | dict.fromkeys(named, "float64"))
    for name in _TIMES:
        frame[name] = pd.to_datetime(frame[name], unit="s", utc=True, errors="coerce").dt.as_unit("us")
    return frame


def _row(record: TrialRecord, named: Sequence[str], latencies: Sequence[str]) -> dict[str, Any]:
    evaluation = record.evaluation
    cost = evaluation.cost
    row: dict[str, Any] = {
        "number": record.number,
        "digest": record.digest,
        "text": record.text,
        "outcome": record.outcome.value,
        "reason": evaluation.reason,
        "repeat_of": record.repeat_of,
        "imported_from": record.imported_from,
        **{name: record.objectives.get(name) for name in named},
        "macs": cost.macs if cost else None,
        "params": cost.params if cost else None,
        "memory": peak_memory(evaluation),
        "epochs": evaluation.epochs,
        "seconds": evaluation.seconds,
        "worker": evaluation.worker,
        "started": record.started or None,
        "finished": record.finished or None,
    }
    for name in latencies:
        row |= _latency_cells(name, measured_latency(evaluation, name))
    return row | {PARAMETER + name: value for name, value in record.parameters.items()}


def _latency_cells(name: str, latency: Latency | None) -> dict[str, float | bool | None]:
    """The value that decides, in ms a batch, and what is needed to judge it, by column."""
    low, high = (latency.interval_ms or (None, None)) if latency else (None, None)
    return {
        name: latency.ms if latency else None,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_median": latency.median_ms if latency else None,
        f"{name}_p10": latency.p10_ms if latency else None,
        f"{name}_p25": latency.p25_ms if latency else None,
        f"{name}_p90": latency.p90_ms if latency else None,
        f"{name}_noisy": latency.noisy if latency else None,
        f"{name}_contended": latency.contended if latency else None,
        f"{name}_cached": latency.cached if latency else None,
    }
