"""The front sampler: what it proposes, on small made-up problems and through the broker."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from answers import answer
from conftest import RunFactory
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from test_broker import settings

from nas.runs.store import open_run
from nas.search.broker import Broker
from nas.search.samplers.front import FIRST, FrontSampler
from nas.search.samplers.improvement import expected_improvement
from nas.search.samplers.partial import predict_final

Parameters = Mapping[str, Any]
SPACE: dict[str, BaseDistribution] = {f"layer{i}": CategoricalDistribution([0, 1, 2, 3]) for i in range(8)}


def problem(parameters: Parameters) -> tuple[float, float]:
    """Accuracy (more is better) with diminishing returns and an interaction, and a cost that adds up."""
    x = np.array([parameters[f"layer{i}"] for i in range(8)])
    merit = float((np.sqrt(x) * np.linspace(1, 0.2, 8)).sum() - 0.4 * (x[0] == x[1]) + 0.4 * (x[2] == 3) * (x[5] == 1))
    return 1 - float(np.exp(-0.5 * merit)), 1 + cost(parameters)


def cost(parameters: Parameters) -> float:
    return float(sum(parameters[f"layer{i}"] * (i + 1) for i in range(8)))


def new_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def search(
    study: optuna.Study,
    count: int,
    objective: Callable[[Parameters], tuple[float, ...]] = problem,
    space: Mapping[str, BaseDistribution] = SPACE,
) -> list[dict[str, Any]]:
    asked = []
    for _ in range(count):
        trial = study.ask(dict(space))
        asked.append(trial.params)
        study.tell(trial, objective(trial.params))
    return asked


def volume(asked: list[dict[str, Any]]) -> float:
    values = np.array([problem(parameters) for parameters in asked])
    losses = np.minimum(np.stack([1 - values[:, 0], values[:, 1] / 109], 1), 1)
    return float(compute_hypervolume(losses, np.ones(2)))


@pytest.mark.slow
def test_finds_a_better_front_than_random_told_nothing_of_costs() -> None:
    found = volume(search(new_study(FrontSampler(seed=0)), 40))
    by_chance = [volume(search(new_study(optuna.samplers.RandomSampler(seed=seed)), 120)) for seed in range(3)]
    assert found > max(by_chance)  # with a third of the trials


def test_the_seed_and_what_the_study_records_decide_the_next_proposal() -> None:
    one, other = new_study(FrontSampler(seed=3)), new_study(FrontSampler(seed=3))
    asked = search(one, 20)
    for trial in one.trials[:15]:
        other.add_trial(trial)
    other.sampler = FrontSampler(seed=3)  # as after a restart: nothing is remembered
    assert search(other, 5) == asked[15:]
    assert search(new_study(FrontSampler(seed=4)), 5) != asked[:5]


def test_spellings_of_a_network_are_proposed_once_until_there_is_nothing_new() -> None:
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution([0, 1, 2]) for name in "abc"}

    def canonical(parameters: Parameters) -> tuple[int, ...]:
        return tuple(sorted(parameters.values()))

    study = new_study(FrontSampler(seed=0, canonical=canonical))
    asked = search(study, 10, lambda p: (float(p["a"] * p["b"]), float(sum(p.values()))), space)
    assert len({canonical(parameters) for parameters in asked}) == 10  # all that there are
    search(study, 2, lambda p: (float(p["a"] * p["b"]), float(sum(p.values()))), space)  # repeats, and no error


@pytest.mark.parametrize(
    "states", [(TrialState.FAIL,), (TrialState.PRUNED,), (TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE)]
)
def test_failed_and_pruned_trials_are_not_asked_for_again(states: tuple[TrialState, ...]) -> None:
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution([0, 1]) for name in "abcd"}
    study = new_study(FrontSampler(seed=0))
    asked = []
    for number in range(16):
        trial = study.ask(dict(space))
        asked.append(tuple(trial.params.values()))
        state = states[number % len(states)]
        values = (1.0, float(sum(trial.params.values()))) if state is TrialState.COMPLETE else None
        study.tell(trial, values, state=state)
    assert len(set(asked)) == 16


def _with_stopped(seed: int, attribute: str) -> float:
    """The front's volume after 12 complete trials, 60 random ones stopped at their first step, and 10 proposals."""
    study = new_study(FrontSampler(seed=seed))
    rng = np.random.default_rng(seed)
    complete = []
    for number in range(82):
        if number < 72:
            corner = {0: 0, 1: 3}.get(number)
            study.enqueue_trial({name: int(rng.integers(4)) if corner is None else corner for name in SPACE})
        trial = study.ask(dict(SPACE))
        accuracy, dear = problem(trial.params)
        stopped = 12 <= number < 72
        # At its first step a network has half of its accuracy, and a little luck.
        steps = [[0.5 * accuracy + 0.005 * rng.standard_normal(), dear], [accuracy, dear]]
        trial.set_user_attr(attribute, steps[:1] if stopped else steps)
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, (accuracy, dear))
            complete.append(trial.params)
    return volume(complete)


@pytest.mark.slow
def test_stopped_trials_count_at_their_fidelity() -> None:
    told, not_told = ([_with_stopped(seed, attribute) for seed in range(2)] for attribute in ("steps", "other"))
    assert np.mean(told) > np.mean(not_told) + 0.01


@pytest.mark.parametrize("steps", ["nonsense", [], [[1.0]], [[None, 2.0]], [[float("nan"), 1.0]], [[1.0, 2.0], [1.0]]])
def test_a_broken_record_of_steps_is_ignored(steps: Any) -> None:
    one, other = new_study(FrontSampler(seed=3)), new_study(FrontSampler(seed=3))
    for study, broken in ((one, False), (other, True)):
        search(study, 12)
        trial = study.ask(dict(SPACE))
        if broken:
            trial.set_user_attr("steps", steps)
        study.tell(trial, state=TrialState.PRUNED)
    assert search(other, 2) == search(one, 2)


def test_a_stopped_trial_is_predicted_by_the_line_of_those_that_went_on() -> None:
    rng = np.random.default_rng(0)
    complete = []
    for early in np.linspace(0.3, 0.6, 12):
        accuracy = 0.2 + early + 0.01 * rng.standard_normal()
        complete.append(
            (np.array([[0.1, 7 * early], [early, 7 * early], [accuracy, 7 * early]]), [accuracy, 7 * early])
        )
    curves = [(steps, np.array(final)) for steps, final in complete]
    near, doubt = predict_final(np.array([0.45, 3.3]), 2, curves)
    far, more_doubt = predict_final(np.array([0.1, 0.1]), 2, curves)
    assert near == pytest.approx([0.65, 3.3], abs=0.02)
    assert far == pytest.approx([0.3, 0.1], abs=0.05)
    assert 0.005 < doubt[0] < more_doubt[0] < 0.1
    assert doubt[1] == pytest.approx(0, abs=1e-6)  # a cost does not change while training goes on
    unknown, wide = predict_final(np.array([0.45, 3.3]), 4, curves)  # nobody came so far
    assert unknown.tolist() == [0.45, 3.3]
    assert wide[0] > 5 * doubt[0]


@pytest.mark.slow
def test_running_trials_are_counted() -> None:
    study = new_study(FrontSampler(seed=0))
    search(study, 20)
    waiting = [study.ask(dict(SPACE)).params for _ in range(8)]
    assert len({tuple(parameters.values()) for parameters in waiting}) == 8
    # Not one corner eight times over: what runs is expected to come out, and its neighbours then bring less.
    costs = sorted(cost(parameters) for parameters in waiting)
    assert costs[-1] - costs[0] > 20


def test_many_workers_may_ask_before_anything_is_told() -> None:
    study = new_study(FrontSampler(seed=0))
    waiting = [study.ask(dict(SPACE)) for _ in range(32)]
    assert len({tuple(trial.params.values()) for trial in waiting}) == 32


@pytest.mark.slow
def test_a_cost_that_is_told_is_believed_over_what_was_observed() -> None:
    """Trials that report a wrong cost mislead a model of it, not a sampler that was told the function."""
    told = FrontSampler(seed=0, costs={1: lambda parameters: 1 + cost(parameters)})
    study = new_study(told)
    asked = search(study, 40, lambda parameters: (problem(parameters)[0], 1.0))
    front = optuna.study._multi_objective._is_pareto_front(
        np.array([(-problem(p)[0], problem(p)[1]) for p in asked]), assume_unique_lexsorted=False
    )
    assert front.sum() >= 12
    assert volume(asked) > volume(search(new_study(FrontSampler(seed=0)), 40, lambda p: (problem(p)[0], 1.0)))


@pytest.mark.slow
def test_infeasible_networks_are_avoided() -> None:
    study = new_study(FrontSampler(seed=0))
    over = []
    for _ in range(40):
        trial = study.ask(dict(SPACE))
        excess = cost(trial.params) / 40 - 1
        trial.set_constraint("budget", excess if excess > 0 else -1.0)
        over.append(excess > 0)
        study.tell(trial, problem(trial.params) if excess <= 0 else (0.0, 1e9))
    assert np.mean([cost(dict(zip(SPACE, row, strict=True))) > 40 for row in _some_rows()]) > 0.6
    assert sum(over[20:]) <= 4


def _some_rows() -> list[tuple[int, ...]]:
    return list(itertools.islice(itertools.product(range(4), repeat=8), 0, None, 97))


def test_where_nothing_is_feasible_yet_what_violates_least_is_looked_for() -> None:
    study = new_study(FrontSampler(seed=0))
    asked = []
    for _ in range(25):
        trial = study.ask(dict(SPACE))
        asked.append(cost(trial.params))
        trial.set_constraint("budget", 50.0 + abs(cost(trial.params) - 30))
        study.tell(trial, (0.0, 1e9))
    assert np.median([abs(dear - 30) for dear in asked[15:]]) < 8
    by_chance = [abs(cost(dict(zip(SPACE, row, strict=True))) - 30) for row in _some_rows()]
    assert np.median(by_chance) > 15


def test_an_infinite_violation_or_known_quantity_teaches_nothing_and_does_no_harm() -> None:
    def odd(parameters: Parameters) -> list[float]:
        return [float("inf") if parameters["layer0"] == 0 else 1.0 + cost(parameters)]

    study = new_study(FrontSampler(seed=0, features=odd))
    asked = []
    for number in range(14):
        trial = study.ask(dict(SPACE))
        asked.append(tuple(trial.params.values()))
        trial.set_constraint("budget", (float("inf"), 1.0, -1.0)[number % 3])
        study.tell(trial, problem(trial.params))
    assert len(set(asked)) == 14


@pytest.mark.slow
def test_three_objectives_and_both_directions() -> None:
    study = optuna.create_study(directions=["maximize", "minimize", "maximize"], sampler=FrontSampler(seed=0))

    def objective(parameters: Parameters) -> tuple[float, float, float]:
        return (*problem(parameters), float(parameters["layer7"] - parameters["layer0"]))

    asked = search(study, 30, objective)
    third = np.array([objective(parameters)[2] for parameters in asked])
    assert third[FIRST:].mean() > 0.5  # 0 by chance
    assert len({tuple(parameters.values()) for parameters in asked}) == 30


def test_infinite_values_and_constant_objectives_do_no_harm() -> None:
    study = new_study(FrontSampler(seed=0))
    asked = search(study, 25, lambda p: (5.0, float("inf") if p["layer0"] == 0 else cost(p)))
    assert len({tuple(parameters.values()) for parameters in asked}) == 25


def test_a_single_parameter_and_a_single_choice() -> None:
    space: dict[str, BaseDistribution] = {"a": CategoricalDistribution([0, 1, 2]), "b": CategoricalDistribution(["x"])}
    asked = search(new_study(FrontSampler(seed=0)), 5, lambda p: (float(p["a"]), float(p["a"] ** 2)), space)
    assert {parameters["a"] for parameters in asked[:3]} == {0, 1, 2}
    assert {parameters["b"] for parameters in asked} == {"x"}
    only: dict[str, BaseDistribution] = {"b": CategoricalDistribution(["x"])}
    assert search(new_study(FrontSampler(seed=0)), 3, lambda p: (1.0, 1.0), only) == [{"b": "x"}] * 3


@pytest.mark.slow
def test_choices_may_be_anything_that_optuna_takes_and_integers_are_choices_in_order() -> None:
    space: dict[str, BaseDistribution] = {
        "mixed": CategoricalDistribution([None, True, 2, 1.5, "one"]),
        "width": IntDistribution(8, 64, step=8),
        "drop": FloatDistribution(0.0, 0.5, step=0.1),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = search(
            new_study(FrontSampler(seed=0)), 30, lambda p: (float(p["width"] ** 0.5), p["width"] + p["drop"]), space
        )
    assert len({tuple(map(repr, parameters.values())) for parameters in asked}) == 30
    assert all(parameters["width"] in range(8, 65, 8) for parameters in asked)


def test_what_cannot_be_modelled_is_drawn_at_random_and_said() -> None:
    study = new_study(FrontSampler(seed=0))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_categorical("x", [0, 1, 2, 3])
        y = trial.suggest_float("y", 0, 1)
        z = trial.suggest_int("z", 0, 3) if x else 0
        return float(x + y), float(x + z)

    with pytest.warns(UserWarning, match="draws parameter 'y' at random"):
        study.optimize(objective, n_trials=15)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert len({trial.params["y"] for trial in study.trials}) == 15


def test_one_objective_and_a_cost_of_none_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more objectives"):
        search(optuna.create_study(sampler=FrontSampler(seed=0)), 1, lambda p: (1.0,))
    with pytest.raises(ValueError, match="no objective 2"):
        search(new_study(FrontSampler(seed=0, costs={2: cost})), 1)


@pytest.mark.parametrize("objectives", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_expected_improvement_is_what_sampling_gives(objectives: int) -> None:
    rng = np.random.default_rng(0)
    front = rng.random((6, objectives))
    front = front[optuna.study._multi_objective._is_pareto_front(front, assume_unique_lexsorted=False)]
    means, stds = rng.random((4, objectives)), np.where(rng.random((4, objectives)) < 0.3, 0.0, 0.3)
    reference = front.max(0) + 0.1 * (front.max(0) - front.min(0))
    before = compute_hypervolume(front, reference)
    expected = expected_improvement(front, means, stds)
    for mean, std, value in zip(means, stds, expected, strict=True):
        draws = mean + std * rng.standard_normal((3000, objectives))
        inside = [draw for draw in draws if (draw < reference).all()]
        growth = [compute_hypervolume(np.vstack([front, draw]), reference) - before for draw in inside]
        assert value == pytest.approx(sum(growth) / 3000, abs=4 * np.std([*growth, 0.0]) / np.sqrt(3000) + 1e-9)


@pytest.mark.slow
def test_through_the_broker_no_network_is_asked_for_twice_and_a_restart_changes_nothing(make_run: RunFactory) -> None:
    sequences = []
    for name, restart in (("whole", False), ("restarted", True)):
        run = make_run(settings(trials=14, seed=5, sampler="front"), name)
        broker = Broker(run)
        digests: list[str] = []
        while not broker.finished:
            if restart and len(digests) == 11:
                broker = Broker(open_run(run.path))
            candidate = broker.ask()
            assert candidate is not None
            digests.append(candidate.digest)
            broker.finish(candidate, answer(candidate))
        assert len(run.records()) == len(set(digests)) == 14  # and not one repeat was answered
        sequences.append(digests)
    assert sequences[0] == sequences[1]
