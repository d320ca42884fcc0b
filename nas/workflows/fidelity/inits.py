"""Which initial weights let the proxy training rank better? Proxy scores from each, held against the same full ones.

All of a candidate's proxy trainings that are compared have the same seed. The run's own is therefore the second one: the
first has another seed, and chose by its luck which candidates are on the front and thus audited. The difference of two
agreements has an interval of its own, from the same bootstrap samples for both (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 8): what makes some candidates hard to rank for both weights then cancels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from nas.common.text import plural
from nas.models.sources import SCRATCH
from nas.models.weights import source_of
from nas.training.recipe import Recipe, default_recipe
from nas.workflows.fidelity.agreement import Coefficient, Floats, Interval, interval, mean_correlation, resamples
from nas.workflows.fidelity.proxy import MIN_NETWORKS
from nas.workflows.fidelity.ranking import Audited, groups, interval_text

SAME_COST = 0.1
"""By how much of it a cost may differ and still be called the same."""


@dataclass(frozen=True)
class InitVerdict:
    """Whether some initial weights surely rank better than the run's own, or worse; and the sentence."""

    kind: Literal["better", "worse", "unsure"]
    sentence: str


@dataclass(frozen=True)
class InitRanking:
    """How well proxy scores from some initial weights rank the candidates that have one, and one from the run's own.

    `agreements` and the τ of `bands` of latency are there where there are enough candidates. `score` and `seconds` are means
    over them; `times` is the cost as a multiple of that of the run's own weights, on the same candidates, and `lead` by how
    much τ is above theirs. The run's own has no verdict.
    """

    init: str
    learning_rate: float
    candidates: int
    agreements: dict[Coefficient, Interval]
    bands: dict[str, Interval]
    score: float
    seconds: float
    times: float
    lead: Interval | None
    verdict: InitVerdict | None = None


def recipe_from(brief: Recipe, own: str, init: str) -> Recipe:
    """The run's proxy recipe for other initial weights.

    Where its learning rate is the default for the run's own weights, `own`, it becomes the default for those.
    """
    if brief.learning_rate != default_recipe(own != SCRATCH).learning_rate:
        return brief
    return replace(brief, learning_rate=default_recipe(init != SCRATCH).learning_rate)


def compare(ordered: Sequence[Audited], brief: Recipe, own: str, inits: Sequence[str]) -> list[InitRanking]:
    """The run's own initial weights, then the others in `inits`; the candidates have the fastest first."""
    names = short_names([own, *inits])
    found = [_ranking(ordered, brief, own, init) for init in (own, *inits)]
    return [found[0], *(replace(ranking, verdict=_verdict(ranking, names, own)) for ranking in found[1:])]


def short_names(inits: Sequence[str]) -> dict[str, str]:
    """A folder of weights by its last part, where no other one ends alike; a name as it is."""
    short = {}
    for init in inits:
        short[init] = source_of(init).short
    counts = Counter(short.values())
    return {init: name if counts[name] == 1 else init for init, name in short.items()}


def _ranking(ordered: Sequence[Audited], brief: Recipe, own: str, init: str) -> InitRanking:
    group = [candidate for candidate in ordered if {init, own} <= candidate.by_init.keys()]
    bands = groups(group)
    whole = bands.pop("all", None)
    seconds, of_own = ([candidate.by_init[name].seconds for candidate in group] for name in (init, own))
    return InitRanking(
        init=init,
        learning_rate=recipe_from(brief, own, init).learning_rate,
        candidates=len(group),
        agreements={kind: interval(_samples(kind, whole, init)) for kind in get_args(Coefficient)} if whole else {},
        bands={name: interval(_samples("kendall", band, init)) for name, band in bands.items()},
        score=_mean([candidate.by_init[init].score for candidate in group]),
        seconds=_mean(seconds),
        times=_mean(seconds) / _mean(of_own),
        lead=interval(_samples("kendall", whole, init) - _samples("kendall", whole, own)) if whole else None,
    )


def _samples(kind: Coefficient, group: Sequence[Audited], init: str) -> Floats:
    """How well the proxy scores from some weights rank what one full training gives, in each bootstrap sample."""
    scores = [candidate.by_init[init].score for candidate in group]
    full = np.array([candidate.full for candidate in group])
    return mean_correlation(kind, scores, full, resamples(len(group)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _verdict(ranking: InitRanking, names: Mapping[str, str], own: str) -> InitVerdict:
    init, lead = names[ranking.init], ranking.lead
    if lead is None:
        few = plural(ranking.candidates, "candidate has a proxy score", "candidates have a proxy score")
        return InitVerdict("unsure", f"Cannot tell with so few: {few} from {init}, and it takes {MIN_NETWORKS}.")
    if not math.isfinite(lead.value):
        return InitVerdict("unsure", f"Cannot tell whether {init} ranks better: some scores are the same for all.")
    cost = "at the same cost" if abs(ranking.times - 1) <= SAME_COST else f"at {ranking.times:.2g} times its cost"
    tau = ranking.agreements["kendall"]
    reach = f"τ {interval_text(tau)} against {tau.value - lead.value:.2f}, a difference of {interval_text(lead)}"
    if lead.low > 0 or lead.high < 0:
        kind: Literal["better", "worse"] = "better" if lead.low > 0 else "worse"
        return InitVerdict(kind, f"{init} ranks {kind} than {names[own]} {cost}: {reach}.")
    few = f"Cannot tell with so few as {plural(ranking.candidates, 'candidate')}"
    return InitVerdict("unsure", f"{few} whether {init} ranks better than {names[own]} {cost}: {reach}.")
