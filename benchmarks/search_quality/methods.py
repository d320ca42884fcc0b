"""The searches that are compared, all behind one pair of calls: ask for parameters, tell losses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from problems import Parameters, Problem, Values

from nas.common.pareto import on_front
from nas.search.samplers.front import FrontSampler

Ticket = Any


class Search(Protocol):
    """Asks and answers in any order; `ask` gives a ticket that `tell` takes back."""

    def ask(self) -> tuple[Ticket, Parameters]: ...

    def tell(self, ticket: Ticket, losses: Values) -> None: ...


class OptunaSearch:
    """Any sampler of Optuna, in a study in memory."""

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler, objectives: int) -> None:
        self.study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        self._space: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices) for name, choices in problem.choices.items()
        }

    def ask(self) -> tuple[Ticket, Parameters]:
        trial = self.study.ask(self._space)
        return trial, trial.params

    def tell(self, ticket: Ticket, losses: Values) -> None:
        self.study.tell(ticket, losses)


class EvolvedFront:
    """Mutation of the current front: one or two choices of a random member change; what was asked for is not again."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._rng = problem, np.random.default_rng(seed)
        self._asked: set[Any] = set()
        self._known: list[tuple[dict[str, Any], Values]] = []

    def ask(self) -> tuple[Ticket, Parameters]:

        for _ in range(200):
            parameters = {name: _draw(self._rng, choices) for name, choices in self._problem.choices.items()}
            if len(self._known) >= 10:
                losses = np.array([values for _, values in self._known])
                front = np.flatnonzero(on_front(losses))
                parameters = dict(self._known[self._rng.choice(front)][0])
                for name in self._rng.choice(list(parameters), self._rng.integers(1, 3), replace=False):
                    parameters[name] = _draw(self._rng, self._problem.choices[name])
            if self._problem.identity(parameters) not in self._asked:
                break
        self._asked.add(self._problem.identity(parameters))
        return parameters, parameters

    def tell(self, ticket: Ticket, losses: Values) -> None:
        self._known.append((ticket, losses))


class PymooSearch:
    """NSGA-II of pymoo, population 20, on choice indices; a generation is asked for one by one."""

    def __init__(self, problem: Problem, seed: int, objectives: int) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.operators.crossover.ux import UniformCrossover
        from pymoo.operators.mutation.rm import ChoiceRandomMutation
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

        class RandomChange(ChoiceRandomMutation):
            """One choice in eight or so becomes another."""

            def _do(self, problem: Any, rows: Any, **_: Any) -> Any:
                rng = np.random.default_rng(int(rows.sum()) + seed)
                other = rng.integers(problem.xl, problem.xu + 1, rows.shape)
                return np.where(rng.random(rows.shape) < 1 / rows.shape[1], other, rows)

        self._names = list(problem.choices)
        self._choices = list(problem.choices.values())
        upper = np.array([len(options) - 1 for options in self._choices])
        self._algorithm = NSGA2(
            pop_size=20, sampling=IntegerRandomSampling(), crossover=UniformCrossover(), mutation=RandomChange()
        )
        shape = PymooProblem(n_var=len(upper), n_obj=objectives, xl=0 * upper, xu=upper, vtype=int)
        self._algorithm.setup(shape, seed=seed, termination=("n_gen", 10**6))
        self._generation: list[Any] = []
        self._told: list[Any] = []
        self._whole: Any = None

    def ask(self) -> tuple[Ticket, Parameters]:
        if not self._generation:
            self._whole = self._algorithm.ask()
            self._generation, self._told = list(self._whole), []
        one = self._generation.pop(0)
        row = np.round(one.X).astype(int)
        return one, {name: options[i] for name, options, i in zip(self._names, self._choices, row, strict=True)}

    def tell(self, ticket: Ticket, losses: Values) -> None:
        ticket.F = np.array(losses)
        ticket.evaluated.add("F")
        self._told.append(ticket)
        if len(self._told) == len(self._whole):
            self._algorithm.tell(infills=self._whole)


class BotorchSearch:
    """qLogNEHVI of BoTorch on one-hot choices with Matérn processes, over 500 random candidates; 10 random ones first."""

    def __init__(self, problem: Problem, seed: int, objectives: int) -> None:
        import botorch  # noqa: F401

        self._problem, self._rng, self._seed = problem, np.random.default_rng(seed), seed
        self._known: list[tuple[list[float], Values]] = []

    def _encode(self, parameters: Parameters) -> list[float]:
        return [
            float(parameters[name] == option) for name, options in self._problem.choices.items() for option in options
        ]

    def ask(self) -> tuple[Ticket, Parameters]:
        pool = [{name: _draw(self._rng, o) for name, o in self._problem.choices.items()} for _ in range(500)]
        if len(self._known) < 10:
            return pool[0], pool[0]
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(self._seed + len(self._known))
        x = torch.tensor([row for row, _ in self._known], dtype=torch.double)
        y = -torch.tensor([values for _, values in self._known], dtype=torch.double)
        model = ModelListGP(*(SingleTaskGP(x, y[:, j : j + 1]) for j in range(y.shape[1])))
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        reference = y.min(0).values - 0.1 * (y.max(0).values - y.min(0).values)
        acquire = qLogNoisyExpectedHypervolumeImprovement(
            model, ref_point=reference.tolist(), X_baseline=x, prune_baseline=True
        )
        encoded = torch.tensor([self._encode(parameters) for parameters in pool], dtype=torch.double)
        with torch.no_grad():
            best = int(torch.cat([acquire(part[:, None]) for part in encoded.split(100)]).argmax())
        return pool[best], pool[best]

    def tell(self, ticket: Ticket, losses: Values) -> None:
        self._known.append((self._encode(ticket), losses))


def _draw(rng: np.random.Generator, options: tuple[Any, ...]) -> Any:
    return options[rng.integers(len(options))]


def _optuna(make: Callable[..., optuna.samplers.BaseSampler], **options: Any) -> Callable[[Problem, int, int], Search]:
    def build(problem: Problem, seed: int, objectives: int) -> Search:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return OptunaSearch(problem, make(seed=seed, **options), objectives)

    return build


def _told_costs(problem: Problem, seed: int, objectives: int) -> Search:
    sampler = FrontSampler(seed, costs=problem.costs, features=problem.features, canonical=problem.identity)
    return OptunaSearch(problem, sampler, objectives)


METHODS: dict[str, Callable[[Problem, int, int], Search]] = {
    "front": _optuna(FrontSampler),
    "front, told costs": _told_costs,
    "random": _optuna(optuna.samplers.RandomSampler),
    "tpe": _optuna(optuna.samplers.TPESampler),
    "tpe, multivariate": _optuna(optuna.samplers.TPESampler, multivariate=True, group=True),
    "nsga2": _optuna(optuna.samplers.NSGAIISampler, population_size=20),
    "mutation": lambda problem, seed, objectives: EvolvedFront(problem, seed),
    "gp": _optuna(optuna.samplers.GPSampler),
    "pymoo nsga2": PymooSearch,
    "botorch": BotorchSearch,
}
OURS = ("front", "front, told costs")
DEAR = {"gp": 200, "botorch": 100}
"""Methods whose suggestions take seconds, and the trials that they are given at most; they get few seeds."""
