"""An Optuna sampler for two or more objectives over categorical parameters, made for architecture search.

It models what must be measured, takes what can be computed as it is, and asks for the network by which the front's
hypervolume is expected to grow most.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

from nas.search.improvement import expected_improvement, front_of, normal_cdf
from nas.search.proposals import crosses, mutants, random_rows, unseen
from nas.search.surrogate import Embedding, Fit, Process, Scale, fit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Parameters = Mapping[str, Any]

FIRST = 8
"""Trials spread over the space before anything is modelled."""
POOL = 300
"""Candidates that one is chosen from; as many again are neighbours of the best."""
CLIMBS = 2
MAX_STEPS = 64
"""Values of an ordered number that are choices; a parameter with more is sampled independently."""
MODELLED = 300
"""Observations that a process is given at most: those nearest to the front, and some of the rest."""
FITTED = 120
"""Observations that hyperparameters are fitted to at most."""
REFIT = 1.1
"""Hyperparameters are fitted anew when there are so many times the observations."""
DRAWS = 50
"""Attempts at finding a network that is not known yet by drawing at random."""
ENUMERABLE = 20_000
"""Settings of the parameters up to which a space is searched in full for what is not known yet."""


@dataclass
class _Space:
    """The parameters that are sampled together, and their choices in a fixed order."""

    names: list[str]
    choices: list[tuple[Any, ...]]
    fixed: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> Ints:
        return np.array([len(options) for options in self.choices], dtype=np.int64)

    @functools.cached_property
    def _indices(self) -> list[dict[Any, int]]:
        return [{option: i for i, option in enumerate(options)} for options in self.choices]

    def row(self, parameters: Parameters) -> tuple[int, ...] | None:
        """Choice indices of a trial's parameters; None where it lacks one."""
        try:
            return tuple(index[parameters[name]] for name, index in zip(self.names, self._indices, strict=True))
        except KeyError:
            return None

    def parameters(self, row: Sequence[int]) -> dict[str, Any]:
        return self.fixed | {
            name: options[index] for name, options, index in zip(self.names, self.choices, row, strict=True)
        }


@dataclass
class _History:
    """What a study knows, as arrays: rows and losses (less is better) of the feasible, and of all what they are asked."""

    rows: Ints
    losses: Floats
    constraints: dict[str, tuple[Ints, Floats]]
    running: Ints
    complete: Ints
    tried: set[tuple[int, ...]]


class FrontSampler(optuna.samplers.BaseSampler):
    """Proposes what the Pareto front is expected to grow by most, among networks not tried yet.

    `costs` gives, by the objective's index, functions from parameters to its exact value, which is then never
    modelled. `features` gives positive quantities known beforehand (multiply-adds, parameters), on whose logarithms
    other objectives may depend. `canonical` gives an identity that all spellings of one network share, so that it is
    proposed once. All three should be quick, or remember. A running trial counts as one that will come out as
    expected. Infeasible trials (`trial.set_constraint`) teach what to avoid.

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
    ) -> None:
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._costs = dict(costs or {})
        self._features = features
        self._canonical = canonical
        self._warned: set[str] = set()
        self._random = optuna.samplers.RandomSampler(seed=self._seed)

    # ---------------------------------------------------------------- what Optuna calls

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share; before there is one, those of a running trial."""
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
            space = {name: finished[-1].distributions[name] for name in sorted(shared)}
        else:
            running = (other.distributions for other in trials if other.state is TrialState.RUNNING)
            space = max(running, key=len, default={})
        return {name: space[name] for name in sorted(space) if _options(space[name]) is not None}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The first trial's parameters, and those that not every trial has or that are not choices: at random."""
        if param_name not in self._warned and len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
            self._warned.add(param_name)
            warnings.warn(
                f"FrontSampler draws parameter {param_name!r} at random: it models only parameters that every trial "
                f"has, categorical or with at most {MAX_STEPS} steps",
                stacklevel=2,
            )
        rng = np.random.default_rng([self._seed, trial.number, *param_name.encode()])
        options = _options(param_distribution)
        if options is not None:
            return options[rng.integers(len(options))]
        sampler = optuna.samplers.RandomSampler(seed=int(rng.integers(2**31)))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal."""
        options = {name: _options(distribution) for name, distribution in search_space.items()}
        space = _Space([], [])
        for name, choices in options.items():
            if choices is None:
                continue
            if len(choices) == 1:
                space.fixed[name] = choices[0]
            else:
                space.names.append(name)
                space.choices.append(choices)
        if not space.names:
            return space.fixed
        proposal = _Proposal(self, space, study, trial)
        return space.parameters(proposal.best())


def _options(distribution: BaseDistribution) -> tuple[Any, ...] | None:
    """The values of a distribution in order, or None when it has too many."""
    match distribution:
        case CategoricalDistribution():
            return tuple(distribution.choices)
        case IntDistribution() if (distribution.high - distribution.low) // distribution.step < MAX_STEPS:
            return tuple(range(distribution.low, distribution.high + 1, distribution.step))
        case FloatDistribution() if distribution.low == distribution.high:
            return (distribution.low,)
        case FloatDistribution() if distribution.step is not None:
            steps = round((distribution.high - distribution.low) / distribution.step)
            if steps < MAX_STEPS:
                return tuple(distribution.low + step * distribution.step for step in range(steps + 1))
    return None


class _Proposal:
    """One suggestion: the study read once, and the models of its objectives."""

    def __init__(self, sampler: FrontSampler, space: _Space, study: optuna.Study, trial: FrozenTrial) -> None:
        self._space = space
        self._costs = sampler._costs
        self._features = sampler._features
        self._canonical = sampler._canonical
        self._described: dict[tuple[int, ...], list[float]] = {}
        self._rng = np.random.default_rng([sampler._seed, trial.number])
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        self._signs = np.array([-1.0 if d is StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        self._history = _read(space, trials, self._signs)
        self._identities = {self._identity(row) for row in self._history.tried}

    def best(self) -> tuple[int, ...]:
        """The choice indices to try next."""
        if len(self._history.complete) < FIRST:
            return self._spread()
        return self._promising()

    # ---------------------------------------------------------------- the first trials

    def _spread(self) -> tuple[int, ...]:
        """The corners of the space, then the candidate that differs most from all that were tried."""
        sizes = self._space.sizes
        for corner in (np.zeros_like(sizes), sizes - 1):
            if self._is_new(tuple(corner.tolist())):
                return tuple(corner.tolist())
        rows = unseen(random_rows(sizes, POOL, self._rng), self._history.tried)
        if not len(rows):
            return self._any_new()
        tried = np.array(sorted(self._history.tried), dtype=np.int64)
        where, known = rows / (sizes - 1), tried / (sizes - 1)
        distance = sum(
            (rows[:, None, d] != tried[:, d]) + np.abs(where[:, None, d] - known[:, d]) for d in range(len(sizes))
        )
        return self._first_new(rows, np.asarray(distance).min(1))

    # ---------------------------------------------------------------- the model's choice

    def _promising(self) -> tuple[int, ...]:
        history, sizes, rng = self._history, self._space.sizes, self._rng
        models = _Models(self, history)
        parents = models.parents
        rows = np.vstack(
            [
                mutants(parents, sizes, POOL // 2, rng),
                crosses(parents, POOL // 5, rng),
                mutants(crosses(parents, POOL // 5, rng), sizes, POOL // 5, rng),
                random_rows(sizes, POOL // 10, rng),
            ]
        )
        rows = unseen(rows, history.tried)
        if not len(rows):
            return self._any_new()
        scores = models.score(rows)
        for _ in range(CLIMBS):
            top = rows[np.argsort(-scores, kind="stable")[:8]]
            more = unseen(mutants(top, sizes, POOL // 4, rng), history.tried | set(map(tuple, rows.tolist())))
            if len(more):
                rows, scores = np.vstack([rows, more]), np.concatenate([scores, models.score(more)])
        return self._first_new(rows, scores)

    # ---------------------------------------------------------------- identities

    def _identity(self, row: tuple[int, ...]) -> Hashable:
        return row if self._canonical is None else self._canonical(self._space.parameters(row))

    def _is_new(self, row: tuple[int, ...]) -> bool:
        return row not in self._history.tried and self._identity(row) not in self._identities

    def _first_new(self, rows: Ints, scores: Floats) -> tuple[int, ...]:
        for index in np.argsort(-scores, kind="stable"):
            row = tuple(rows[index].tolist())
            if self._is_new(row):
                return row
        return self._any_new()

    def _any_new(self) -> tuple[int, ...]:
        """A random network that is not known, as long as one can be found; then any."""
        sizes, rng = self._space.sizes, self._rng
        rows = random_rows(sizes, DRAWS, rng)
        settings = float(np.prod(sizes.astype(float)))
        if settings <= ENUMERABLE:
            everything = np.stack(np.unravel_index(np.arange(int(settings)), tuple(sizes)), 1)
            rows = np.vstack([rows, rng.permutation(everything)])
        else:
            rows = np.vstack([rows, rng.integers(0, sizes, (20 * DRAWS, len(sizes)))])
        for row in map(tuple, rows.tolist()):
            if self._is_new(row):
                return row
        return tuple(rows[0].tolist())

    # ---------------------------------------------------------------- what is known without asking

    def known(self, rows: Ints) -> Floats:
        """Features (N, known): logarithms of what `features` and `costs` give, where they are positive."""
        array = np.array([self._describe(row) for row in map(tuple, rows.tolist())], dtype=np.float64)
        return np.where(array > 0, np.log(np.maximum(array, 1e-300)), 0.0)

    def exact(self, rows: Ints, objective: int) -> Floats:
        """Losses (N,) of an objective that is told."""
        column = list(self._costs).index(objective) - len(self._costs)
        values = [self._describe(row)[column] for row in map(tuple, rows.tolist())]
        return self._signs[objective] * np.array(values, dtype=np.float64)

    def _describe(self, row: tuple[int, ...]) -> list[float]:
        if row not in self._described and (self._features or self._costs):
            parameters = self._space.parameters(row)
            features = list(self._features(parameters)) if self._features else []
            self._described[row] = features + [cost(parameters) for cost in self._costs.values()]
        return self._described.get(row, [])

    @property
    def choices(self) -> list[tuple[Any, ...]]:
        return self._space.choices

    @property
    def exact_objectives(self) -> list[int]:
        return sorted(self._costs)


def _read(space: _Space, trials: Sequence[FrozenTrial], signs: Floats) -> _History:
    rows, losses, running, complete = [], [], [], []
    tried: set[tuple[int, ...]] = set()
    constraints: dict[str, tuple[list[tuple[int, ...]], list[float]]] = {}
    for trial in trials:
        row = space.row(trial.params)
        if row is None:
            continue
        tried.add(row)
        if trial.state is TrialState.RUNNING:
            running.append(row)
        if trial.state is not TrialState.COMPLETE:
            continue
        complete.append(row)
        limits = trial.constraints
        for name, value in limits.items():
            of_name = constraints.setdefault(name, ([], []))
            of_name[0].append(row)
            of_name[1].append(value)
        if (
            all(value <= 0 for value in limits.values())
            and trial.values is not None
            and np.isfinite(trial.values).all()
        ):
            rows.append(row)
            losses.append(trial.values)
    width = len(space.names)
    return _History(
        np.array(rows, dtype=np.int64).reshape(len(rows), width),
        np.array(losses, dtype=np.float64).reshape(len(rows), len(signs)) * signs,
        {name: (np.array(r, dtype=np.int64), np.array(v)) for name, (r, v) in constraints.items()},
        np.array(running, dtype=np.int64).reshape(len(running), width),
        np.array(complete, dtype=np.int64).reshape(len(complete), width),
        tried,
    )


class _Models:
    """Processes of the objectives that are not exact and of the constraints, and the front by their means."""

    def __init__(self, proposal: _Proposal, history: _History) -> None:
        self._proposal = proposal
        # Of the rows that hyperparameters are fitted to, so that a fit can be remembered while trials come in.
        known = proposal.known(history.complete[_learnt_from(len(history.complete))])
        self._known_mean, spread = known.mean(0), known.std(0)
        self._known_spread = np.where(spread > 1e-9, spread, np.inf)
        self._embedding = Embedding(proposal.choices, known.shape[1])
        self._limits = [
            self._process(rows, values, np.arange(len(rows))[-MODELLED:])
            for rows, values in history.constraints.values()
            if values.max() > 0
        ]
        self._objectives: list[Process | None] = []
        self._front = np.empty((0, history.losses.shape[1]))
        self.parents = history.complete
        if len(history.rows) < 2:  # nothing feasible to learn from yet
            return
        kept = _near_front(history.losses)
        for objective in range(history.losses.shape[1]):
            process = None
            if objective not in proposal.exact_objectives:
                process = self._process(history.rows, history.losses[:, objective], kept, history.running)
            self._objectives.append(process)
        seen = np.vstack([history.rows[kept], history.running])
        means, _ = self._predict(seen)
        front = front_of(means)
        self._front, self.parents = means[front], seen[front]

    def _process(self, rows: Ints, targets: Floats, kept: Ints, running: Ints | None = None) -> Process:
        """The posterior given the observations kept, and running trials believed to come out as expected."""
        some = _learnt_from(len(rows))
        found = cached_fit(self._embedding, self._featurise(rows[some]), targets[some])
        scale = Scale.of(targets, found.offset)
        features, scaled = self._featurise(rows[kept]), scale.forward(targets[kept])
        process = Process(self._embedding, found.hyperparameters, scale, features, scaled)
        if running is None or not len(running):
            return process
        believed = self._featurise(running)
        features, scaled = np.vstack([features, believed]), np.concatenate([scaled, process.predict(believed)[0]])
        return Process(self._embedding, found.hyperparameters, scale, features, scaled)

    def score(self, rows: Ints) -> Floats:
        """Expected growth of the front's hypervolume times the chance to be feasible, (N,)."""
        score = np.ones(len(rows))
        if len(self._front):
            score = expected_improvement(self._front, *self._predict(rows))
        features = self._featurise(rows)
        for process in self._limits:
            mean, std = process.predict(features)
            score = score * normal_cdf((process.scale.forward(np.zeros(1)) - mean) / std)
        return score

    def _predict(self, rows: Ints) -> tuple[Floats, Floats]:
        """Means and standard deviations (N, objectives) of losses."""
        means = np.empty((len(rows), len(self._objectives)))
        stds = np.zeros_like(means)
        features = self._featurise(rows)
        for objective, process in enumerate(self._objectives):
            if process is None:
                means[:, objective] = self._proposal.exact(rows, objective)
                continue
            mean, std = process.predict(features)
            means[:, objective] = process.scale.backward(mean)
            low, high = (process.scale.backward(mean + step * std) for step in (-1, 1))
            stds[:, objective] = (high - low) / 2
        return means, stds

    def _featurise(self, rows: Ints) -> Floats:
        known = (self._proposal.known(rows) - self._known_mean) / self._known_spread
        return self._embedding(rows, known)


def _learnt_from(count: int) -> Ints:
    """Which of `count` observations hyperparameters are fitted to: evenly taken ones of all but the latest few.

    They change only every so often, so that a fit can be remembered, and depend on nothing but the count.
    """
    steps = min(FIRST, count)
    while (after := max(steps + 1, int(steps * REFIT))) <= count:
        steps = after
    return np.linspace(0, steps - 1, min(steps, FITTED)).astype(np.int64)


def _near_front(losses: Floats) -> Ints:
    """Indices, in order, of `MODELLED` observations at most: two thirds by rank of domination, the rest spread evenly."""
    if len(losses) <= MODELLED:
        return np.arange(len(losses))
    best = 2 * MODELLED // 3
    ranks = _fast_non_domination_rank(losses, n_below=best)
    order = np.argsort(ranks, kind="stable")
    rest = order[best:]
    spread = rest[np.linspace(0, len(rest) - 1, MODELLED - best).astype(int)]
    return np.sort(np.concatenate([order[:best], spread]))


_FITS: dict[bytes, Fit] = {}


def cached_fit(embedding: Embedding, features: Floats, targets: Floats) -> Fit:
    """`fit`, remembered by the content of its arguments."""
    import hashlib

    key = hashlib.sha256(features.tobytes() + targets.tobytes() + embedding.design.tobytes()).digest()
    if key not in _FITS:
        while len(_FITS) >= 64:
            del _FITS[next(iter(_FITS))]
        _FITS[key] = fit(embedding, features, targets)
    return _FITS[key]
