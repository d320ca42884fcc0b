"""Which parameters of the space decide an objective, as far as the trained candidates tell. As in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from nas.common.text import capital
from nas.runs.objectives import objective
from nas.runs.record import Outcome, TrialRecord
from nas.spaces.base import Space
from nas.views.report.figures import BLUE, GREEN, GREY, MONO, ORANGE, PURPLE, VERMILLION, layout, quiet
from nas.views.report.quantities import value_of
from nas.views.text import label

SHOWN = 15
"""Parameters shown, the most important ones."""
LEAST = 20
"""Trained candidates below which nothing can be told."""
MOST = 1_000
"""Trained candidates that are looked at, spread evenly over the search: more take minutes and change little."""
_TREES = 32
_LOOKS = ((BLUE, ""), (ORANGE, "/"), (GREEN, "."), (PURPLE, "x"), (VERMILLION, "\\"), (GREY, "-"))


def importances(records: Sequence[TrialRecord], objectives: Sequence[str], space: Space) -> dict[str, dict[str, float]]:
    """By objective, the share of each parameter in what a forest of decision trees explains; the largest first.

    Optuna's mean decrease in impurity, over candidates that were trained. An objective in which they do not differ is
    left out; all are while there are fewer than `LEAST` of them.
    """
    usable = [record for record in records if _is_usable(record, objectives, space)]
    if len(usable) < LEAST or not space.parameters:
        return {}
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances  # scikit-learn is slow

    usable = usable[:: -(-len(usable) // MOST)]
    values = {name: [value_of(record, name) or 0.0 for record in usable] for name in objectives}
    study = _study(usable, objectives, values, space)
    found = {}
    for index, name in enumerate(objectives):
        if len(set(values[name])) < 2:
            continue
        evaluator = MeanDecreaseImpurityImportanceEvaluator(n_trees=_TREES, seed=0)
        shares = get_param_importances(study, evaluator=evaluator, target=partial(_value, index))
        found[name] = {parameter: float(share) for parameter, share in shares.items()}
    return found


def importance_figure(records: Sequence[TrialRecord], objectives: Sequence[str], space: Space) -> go.Figure:
    """The `SHOWN` parameters that matter most in any objective, a bar for each objective."""
    found = importances(records, objectives, space)
    if not found:
        return quiet(f"What decides an objective can be told once {LEAST} different candidates are trained.")
    largest = {name: max(shares.get(name, 0.0) for shares in found.values()) for name in space.parameters}
    order = sorted(largest, key=lambda name: -largest[name])[:SHOWN]
    figure = go.Figure(layout=layout())
    for (name, shares), (colour, pattern) in zip(found.items(), _LOOKS, strict=False):
        hatch = {"shape": pattern, "bgcolor": colour, "fgcolor": "rgba(255,255,255,0.6)", "size": 6}
        figure.add_trace(
            go.Bar(
                x=[round(100 * shares.get(parameter, 0.0), 2) for parameter in order],
                y=order,
                orientation="h",
                name=escape(capital(label(name)), quote=False),
                marker={"color": colour, "pattern": hatch, "line": {"width": 0}},
                hovertemplate="%{y}: %{x:.1f} %",
            )
        )
    figure.update_xaxes(title="Importance (%)", rangemode="tozero")
    figure.update_yaxes(
        type="category", autorange="reversed", tickvals=order, showgrid=False, tickfont={"family": MONO, "size": 12}
    )
    return figure.update_layout(height=110 + 9 * (1 + len(found)) * len(order), bargap=0.3)


def _value(index: int, trial: FrozenTrial) -> float:
    return trial.values[index]


def _is_usable(record: TrialRecord, objectives: Sequence[str], space: Space) -> bool:
    """Whether it was trained to the end, has all values, and its choices are those of the space."""
    return (
        record.outcome is Outcome.DONE
        and all(value_of(record, name) is not None for name in objectives)
        and all(record.parameters.get(name) in choices for name, choices in space.parameters.items())
    )


def _study(
    records: Sequence[TrialRecord], objectives: Sequence[str], values: dict[str, list[float]], space: Space
) -> optuna.Study:
    """The records as a study in memory, for Optuna to look at."""
    distributions = {name: CategoricalDistribution(choices) for name, choices in space.parameters.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study
    try:
        study = optuna.create_study(directions=[objective(name).direction for name in objectives])
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: record.parameters[name] for name in distributions},
                distributions=dict(distributions),
                values=[values[name][number] for name in objectives],
            )
            for number, record in enumerate(records)
        ]
    )
    return study
