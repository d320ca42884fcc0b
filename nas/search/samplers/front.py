"""An Optuna sampler for two or more objectives over categorical parameters, made for architecture search.

It models what must be measured, takes what can be computed as it is, and asks for the network by which the front's
hypervolume is expected to grow most.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.search.samplers.base import SamplerKind
from nas.search.samplers.history import (
    MAX_STEPS,
    ChoiceSpace,
    CostTable,
    History,
    Parameters,
    Row,
    options_of,
    signs_of,
)
from nas.search.samplers.known import KnownCosts
from nas.search.samplers.proposals import crosses, mutants, random_rows, unseen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST = 8
"""Trials spread over the space before anything is modelled."""
POOL = 300
"""Candidates that one is chosen from."""
CLIMBS = 2
"""Times that neighbours of the best candidates join them."""
BEST = 8
ENUMERABLE = 20_000
"""Settings of the parameters up to which a space is searched in full for what is not known yet."""
DRAWS = 1000
"""Random settings that are looked at for the same in a larger space."""


class FrontSampler(optuna.samplers.BaseSampler):
    """Proposes what the Pareto front is expected to grow by most, among networks not tried yet.

    `costs` gives, by the objective's index, functions from parameters to its exact value, which is then never
    modelled. `features` gives positive quantities known beforehand (multiply-adds, parameters), on whose logarithms
    the other objectives may depend. `canonical` gives an identity that all spellings of one network share, so that it
    is proposed once. `bring_within` gives parameters that are allowed, the same where they are already, so that nothing else is
    proposed. All of them should be quick, or remember. A running trial counts as one that will come out as
    expected. Infeasible trials (`trial.set_constraint`) teach what to avoid. Pruned trials count at their fidelity where
    trials have the user attribute `steps`, the objectives' values after each step (nas/search/samplers/partial.py).

    A proposal depends on the seed, the number of the trial and what the study records, on nothing else: a new sampler
    with the same seed goes on as the old one would. Integers and stepped numbers of few values are choices in order;
    other parameters, and conditional ones, are drawn independently at random, with a warning.
    """

    def __init__(
        self,
        seed: int | None = None,
        costs: Mapping[int, Callable[[Parameters], float]] | None = None,
        features: Callable[[Parameters], Sequence[float]] | None = None,
        canonical: Callable[[Parameters], Hashable] | None = None,
        bring_within: Callable[[Parameters, random.Random], Parameters] | None = None,
    ) -> None:
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._costs = dict(costs or {})
        self._features = features
        self._canonical = canonical
        self._bring_within = bring_within
        self._warned: set[str] = set()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share; before there is one, those of a running or failed trial."""
        if len(study.directions) < 2:
            raise ValueError("FrontSampler needs two or more objectives; use TPESampler for one")
        for objective in self._costs:
            if not 0 <= objective < len(study.directions):
                raise ValueError(f"costs: there is no objective {objective} among {len(study.directions)}")
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        # Optuna's own intersection compares distributions, which takes a second at 2,000 trials of 40 parameters.
        finished = [other for other in trials if other.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if finished:
            shared = set(finished[0].distributions).intersection(*(other.distributions for other in finished))
            space = {name: finished[-1].distributions[name] for name in shared}
        else:
            space = max((other.distributions for other in trials), key=len, default={})
        return {name: space[name] for name in sorted(space) if options_of(space[name]) is not None}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The first trial's parameters, and those that not every trial has or that are no choices: at random."""
        if param_name not in self._warned and len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
            self._warned.add(param_name)
            warnings.warn(
                f"FrontSampler draws parameter {param_name!r} at random: it models only parameters that every trial "
                f"has, categorical or with at most {MAX_STEPS} steps",
                stacklevel=2,
            )
        rng = np.random.default_rng([self._seed, trial.number, *param_name.encode()])
        options = options_of(param_distribution)
        if options is not None:
            return options[rng.integers(len(options))]
        sampler = optuna.samplers.RandomSampler(seed=int(rng.integers(2**31)))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal."""
        space = ChoiceSpace.of(search_space)
        if not space.choices:
            return space.fixed
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        history = History.of(space, study, trials)
        table = CostTable(space, self._costs, self._features, signs_of(study))
        rng = np.random.default_rng([self._seed, trial.number])
        return space.parameters(_Proposal(space, history, table, self._canonical, self._bring_within, rng).best())


class _Proposal:
    """One choice among networks that are not known yet."""

    def __init__(
        self,
        space: ChoiceSpace,
        history: History,
        table: CostTable,
        canonical: Callable[[Parameters], Hashable] | None,
        bring_within: Callable[[Parameters, random.Random], Parameters] | None,
        rng: np.random.Generator,
    ) -> None:
        self._space = space
        self._history = history
        self._table = table
        self._canonical = canonical
        self._bring_within = bring_within
        self._rng = rng
        self._way = random.Random(int(rng.integers(2**31))) if bring_within else random.Random(0)
        self._known = {self._identity(row) for row in history.tried}

    def best(self) -> Row:
        """The choice indices to try next."""
        return self._apart() if len(self._history.complete) < FIRST else self._promising()

    def _apart(self) -> Row:
        """The corners of the space, then the candidate that differs most from all that were tried."""
        sizes = self._space.sizes
        for corner in (np.zeros_like(sizes), sizes - 1):
            row = self._within(tuple(corner.tolist()))
            if self._is_new(row):
                return row
        rows = unseen(self._all_within(random_rows(sizes, POOL, self._rng)), self._history.tried)
        tried = np.array(sorted(self._history.tried), dtype=np.int64)
        distance = np.zeros((len(rows), len(tried)))
        for one, other, steps in zip(rows.T, tried.T, sizes - 1, strict=True):
            distance += (one[:, None] != other) + np.abs(one[:, None] / steps - other / steps)
        return self._first_new(rows, distance.min(1))

    def _promising(self) -> Row:
        """The candidate of most expected improvement, after some climbing."""
        from nas.search.samplers.front_model import FrontModel  # torch, which naming this sampler does not take

        tried, sizes, rng = self._history.tried, self._space.sizes, self._rng
        model = FrontModel(self._space, self._history, self._table)
        parents = model.parents
        rows = np.vstack(
            [
                mutants(parents, sizes, POOL // 2, rng),
                crosses(parents, POOL // 5, rng),
                mutants(crosses(parents, POOL // 5, rng), sizes, POOL // 5, rng),
                random_rows(sizes, POOL // 10, rng),
            ]
        )
        rows = unseen(self._all_within(rows), tried)
        if not len(rows):
            return self._any_new()
        scores = model.score(rows)
        for _ in range(CLIMBS):
            top = rows[np.argsort(-scores, kind="stable")[:BEST]]
            near = self._all_within(mutants(top, sizes, POOL // 4, rng))
            more = unseen(near, tried.union(map(tuple, rows.tolist())))
            if len(more):
                rows, scores = np.vstack([rows, more]), np.concatenate([scores, model.score(more)])
        return self._first_new(rows, scores)

    def _first_new(self, rows: Ints, scores: Floats) -> Row:
        for index in np.argsort(-scores, kind="stable"):
            row = tuple(rows[index].tolist())
            if self._is_new(row):
                return row
        return self._any_new()

    def _any_new(self) -> Row:
        """A random network that is not known, as long as one can be found; then any."""
        sizes, rng = self._space.sizes, self._rng
        if math.prod(sizes.tolist()) <= ENUMERABLE:
            everything = np.stack(np.unravel_index(np.arange(math.prod(sizes.tolist())), tuple(sizes)), 1)
            rows = rng.permutation(everything)
        else:
            rows = random_rows(sizes, DRAWS, rng)
        for row in map(self._within, map(tuple, rows.tolist())):
            if self._is_new(row):
                return row
        return self._within(tuple(rows[0].tolist()))

    def _within(self, row: Row) -> Row:
        """The row, or one near it that is allowed."""
        if self._bring_within is None:
            return row
        found = self._space.row(self._bring_within(self._space.parameters(row), self._way))
        assert found is not None, "bring_within gave other parameters than it was given"
        return found

    def _all_within(self, rows: Ints) -> Ints:
        if self._bring_within is None:
            return rows
        return np.array([self._within(tuple(row)) for row in rows.tolist()], dtype=np.int64).reshape(rows.shape)

    def _identity(self, row: Row) -> Hashable:
        return row if self._canonical is None else self._canonical(self._space.parameters(row))

    def _is_new(self, row: Row) -> bool:
        return row not in self._history.tried and self._identity(row) not in self._known


def _front(seed: int, known: KnownCosts) -> FrontSampler:
    bring_within = known.allowed.brought_within if known.allowed.limits else None
    return FrontSampler(seed, known.costs, known.features, known.canonical, bring_within)


FRONT = SamplerKind(
    "front",
    "nas's own model of the Pareto front",
    FIRST,
    _front,
    keeps_limits=True,
    draws="spread out",
    proposes="by the model",
)
