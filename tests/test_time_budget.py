"""Time budgets: what is started, cut off, left for later and left out, and how a training is sized to them. No Ray."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answers import answer
from conftest import RunFactory
from mobile import mobile_space

from nas.cli.options import flag_of
from nas.common.errors import named
from nas.data.sets import load_data
from nas.latency.protocol import LatencyProtocol
from nas.runs.front import pareto_front
from nas.runs.record import Evaluation, Outcome
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.search.broker import DEFERRED_UNTIL, Broker
from nas.search.candidate import Candidate
from nas.search.confirming import Confirmer
from nas.search.evaluate import evaluate_steps
from nas.search.time_budget import CLOSING_S, Durations, TimeBudget
from nas.spaces.families import architecture_cost
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.workflows.forecast import ENOUGH, FEWEST, Forecast, Timed, lines, sized, with_recipe
from nas.workflows.plan import SearchPlan

DIGITS = mobile_space("digits")
ENDS = {DIGITS.smallest.digest: "smallest", DIGITS.backbone.digest: "backbone", DIGITS.largest.digest: "largest"}
HOUR = 3600.0


def macs(of: str) -> float:
    return float(architecture_cost(getattr(DIGITS, of), 10).macs)


def settings(**changes: object) -> SearchSettings:
    evaluation = EvaluationSettings(Recipe(epochs=10, precision="float32"))
    return replace(SearchSettings(DIGITS, "digits", evaluation=evaluation, trials=40), **changes)  # type: ignore[arg-type]


def asked(broker: Broker, count: int) -> list[Candidate]:
    """So many candidates, each trained before the next is asked for."""
    found = []
    for _ in range(count):
        candidate = broker.ask()
        assert candidate is not None, broker.stop_reason
        broker.finish(candidate, answer(candidate))
        found.append(candidate)
    return found


def curve(epochs: int, seconds: float) -> tuple[EpochMetrics, ...]:
    return tuple(EpochMetrics(epoch, 1.0, 1.0, 0.9, {"accuracy": 0.9}, 1.0, seconds) for epoch in range(1, epochs + 1))


def test_the_end_and_confirmation_have_their_share() -> None:
    budget = TimeBudget.of(settings(time_budget_s=1000.0, confirm=0.2), 50.0, startup_s=20.0)
    assert budget.trainings_end == 1050 - CLOSING_S - 3
    assert budget.candidates_end == budget.trainings_end - 200 - budget.measuring_s
    assert 5 < budget.measuring_s <= 100
    unmeasured = TimeBudget.of(settings(time_budget_s=1000.0, confirm=0.2, objectives=("accuracy", "macs")), 50.0, 20.0)
    assert unmeasured.measuring_s == 0
    assert TimeBudget.of(settings(time_budget_s=60.0, confirm=0.0), 50.0, 20.0).measuring_s == 6
    assert TimeBudget.of(settings(time_budget_s=20.0), 0.0, startup_s=15.0).trainings_end == 16
    assert TimeBudget.of(settings(confirm=0.2), 0.0, startup_s=15.0).candidates_end == float("inf")


@pytest.mark.parametrize("limits", [{"time_budget_s": HOUR}, {"max_macs": 10**9}, {"max_latency_ms": 1e6}])
def test_the_largest_network_waits_where_there_is_a_limit(make_run: RunFactory, limits: dict[str, float]) -> None:
    given = settings(time_budget_s=limits.pop("time_budget_s", None))
    given = replace(given, evaluation=replace(given.evaluation, budgets=Budgets(**limits)))  # type: ignore[arg-type]
    broker = Broker(make_run(given))
    names = [ENDS.get(candidate.digest, "") for candidate in asked(broker, DEFERRED_UNTIL + 1)]
    assert names[:2] == ["smallest", "backbone"]
    assert names.index("largest") == DEFERRED_UNTIL


def test_a_reference_that_takes_too_much_of_the_time_is_left_out(make_run: RunFactory) -> None:
    # An hour for candidates is to be 900 s at most for a reference; these are what the forecast says.
    forecast = [(macs("smallest"), 5.0), (macs("backbone"), 2000.0)]
    broker = Broker(make_run(settings(time_budget_s=HOUR, sampler="random")), forecast=forecast)
    names = []
    for _ in range(2 * DEFERRED_UNTIL):
        candidate = broker.ask()
        if candidate is None:
            break
        names.append(ENDS.get(candidate.digest))
        cost = architecture_cost(candidate.architecture, 10)
        broker.finish(candidate, replace(answer(candidate), seconds=5.0 + 2000 * cost.macs / macs("backbone")))
    assert len(names) > DEFERRED_UNTIL
    assert names[0] == "smallest"
    assert names.count(None) == len(names) - 1


def test_the_smallest_network_is_tried_however_little_time_there_is(make_run: RunFactory) -> None:
    broker = Broker(make_run(settings(time_budget_s=60.0)), forecast=[(macs("smallest"), 500.0)])
    (first,) = asked(broker, 1)
    assert first.digest == DIGITS.smallest.digest


@pytest.mark.parametrize("seconds", [30.0, HOUR])
def test_nothing_is_started_that_would_not_end_in_time_but_for_what_was_asked_for(
    make_run: RunFactory, seconds: float
) -> None:
    run = make_run(settings(time_budget_s=seconds, enqueue=(str(DIGITS.middle),)))
    broker = Broker(run, forecast=[(1.0, 2 * seconds)])
    for wanted in (DIGITS.middle, DIGITS.smallest):
        candidate = broker.ask()
        assert candidate is not None
        assert candidate.digest == wanted.digest
        assert candidate.left_s is not None
        assert candidate.asked + candidate.left_s == pytest.approx(broker.budget.trainings_end, abs=1.0)
        broker.finish(candidate, replace(answer(candidate), seconds=2 * seconds))
    while not broker.finished:
        assert broker.ask() is None
    assert broker.stop_reason == "what is left of the time budget is too short for another candidate"
    assert broker.resumable
    assert len(run.records()) == 2
    again = Broker(open_run(run.path), began=time.monotonic())  # what was not started is not lost, and nothing is stuck
    assert len(run.records()) == 2
    assert again.trained == 2


def test_durations_are_learned_from_what_ran(make_run: RunFactory) -> None:
    durations = Durations([(1e6, 1.0), (2e6, 2.0)])  # the machine was idle then
    assert durations.seconds(4e6) == pytest.approx(4.0)
    broker = Broker(make_run(settings(sampler="random")))
    for candidate in asked(broker, 20):
        cost = architecture_cost(candidate.architecture, 10)
        record = next(record for record in broker.records if record.number == candidate.number)
        durations.learn(replace(record, evaluation=replace(record.evaluation, seconds=3.0 + 5e-6 * cost.macs)))
    assert durations.seconds(4e6) == pytest.approx(23.0, rel=0.1)
    assert Durations().seconds(1e6) is None
    assert Durations([(1e6, 5.0)]).seconds(9e6) == 5.0


@pytest.mark.parametrize(("epochs", "seconds", "cut"), [(3, 1000.0, True), (9, 4000.0, True), (3, 10.0, False)])
def test_a_training_that_would_not_end_in_time_is_stopped_and_off_the_front(
    make_run: RunFactory, epochs: int, seconds: float, cut: bool
) -> None:
    run = make_run(settings(time_budget_s=HOUR))
    broker = Broker(run)
    asked(broker, 3)
    candidate = broker.ask()
    assert candidate is not None
    so_far = replace(answer(candidate), outcome=Outcome.STOPPED, history=curve(epochs, seconds))
    reason = broker.should_stop(candidate, so_far)
    assert (reason is not None) is cut
    if reason is None:
        return
    assert f"cut off by the time budget after epoch {epochs} of 10" in reason
    record = broker.finish(candidate, replace(so_far, reason=reason))
    assert record.outcome is Outcome.STOPPED
    assert len(record.evaluation.history) == epochs
    assert record not in pareto_front(broker.records, run.settings.objectives)
    assert Broker(open_run(run.path)).answers[record.digest].outcome is Outcome.STOPPED


def test_what_ended_no_epoch_is_asked_for_again_when_the_search_goes_on(make_run: RunFactory) -> None:
    run = make_run(settings(time_budget_s=HOUR))
    broker = Broker(run)
    first = broker.ask()
    assert first is not None
    record = broker.finish(first, Evaluation(Outcome.STOPPED, "cut off by the time budget in epoch 1 of 10"))
    assert (record.outcome, record.evaluation.reason) == (Outcome.LOST, "cut off by the time budget in epoch 1 of 10")
    broker.stop("the time budget is spent")
    later = Broker(open_run(run.path))
    assert first.digest in [candidate.digest for candidate in asked(later, 3)]


def test_a_confirmation_for_which_there_is_no_time_makes_way_for_a_shorter_one(make_run: RunFactory) -> None:
    run = make_run(settings(time_budget_s=HOUR, confirm=0.2, trials=10))
    broker = Broker(run)
    confirmer = Confirmer(broker)
    for _ in range(8):
        candidate = confirmer.ask()
        assert candidate is not None
        # Of three networks each, slow ones take ten minutes an epoch.
        each = 600.0 if candidate.digest != DIGITS.smallest.digest else 1.0
        broker.finish(candidate, replace(answer(candidate), history=curve(3, each)))
    assert broker.finished
    again = confirmer.ask()
    assert again is not None
    assert again.digest == DIGITS.smallest.digest
    assert again.left_s is not None
    assert again.asked + again.left_s == pytest.approx(broker.budget.trainings_end, abs=1.0)
    cut = confirmer.should_stop(again, replace(answer(again), outcome=Outcome.STOPPED, history=curve(1, 3000.0)))
    assert cut is not None
    assert "cut off by the time budget after epoch 1 of 20" in cut
    confirmer.finish(again, Evaluation(Outcome.STOPPED, cut, history=curve(1, 3000.0)))
    assert confirmer.confirmations == []
    assert "1 more cut off by the time budget" in confirmer.ending


# ---------------------------------------------------------------- a training that is over in the middle


@pytest.mark.slow
def test_a_training_ends_between_two_steps_and_keeps_its_curve() -> None:
    digits = load_data("digits", channels=1).without_test()
    quick = LatencyProtocol(warmup_s=0.02, max_s=0.1, min_blocks=5, attempts=1)
    evaluation = EvaluationSettings(Recipe(epochs=10_000, precision="float32"), quick)
    began = time.monotonic()
    steps = evaluate_steps(DIGITS.smallest, DeviceData(digits, "cpu"), evaluation, until=began + 4)
    seen = 0
    while True:
        try:
            next(steps)
            seen += 1
        except StopIteration as end:
            evaluated = end.value
            break
    assert evaluated.network is None
    assert evaluated.evaluation.outcome is Outcome.STOPPED
    assert len(evaluated.evaluation.history) == seen > 0
    assert evaluated.evaluation.reason == f"cut off by the time budget in epoch {seen + 1} of 10000"


# ---------------------------------------------------------------- sized before it starts


def planned(budget_s: float | None, image_s: float, images: int = 6400, **changes: object) -> Forecast:
    """A forecast for a machine on which training on an image takes so long, whatever the network."""
    data = load_data("digits", channels=1)
    many = data.train.subset(np.arange(images) % len(data.train))
    plan = SearchPlan(settings(time_budget_s=budget_s, **changes), replace(data, train=many), Path("run"))
    return Forecast(plan, (Timed(macs("smallest"), image_s, 0.0, 0.0),), 2, 1000)


def test_a_training_is_shortened_so_that_enough_candidates_fit() -> None:
    # 10 epochs of 6,400 images at 1 ms are 64 s each, 2 at a time: 600 s hold some 17 of them.
    assert sized(planned(600.0, 1e-3)).epochs == 10
    short = sized(planned(200.0, 1e-3))
    assert 1 <= short.epochs < 10
    forecast = planned(200.0, 1e-3)
    assert forecast.fitting(short) >= ENOUGH
    assert forecast.fitting(replace(short, epochs=10)) < FEWEST
    assert sized(planned(200.0, 1e-3, stop_early=True)).epochs >= 2
    # Where one epoch is too long, some steps of it; never less than 100, or than a small data set's only epoch.
    part = sized(planned(120.0, 3e-3, images=64_000))
    assert part.epochs == 1
    assert part.steps is not None
    assert 100 <= part.steps < 1000
    least = sized(planned(60.0, 1.0, images=1280))
    assert (least.epochs, least.steps) == (1, None)


def test_the_forecast_says_what_fits_and_what_more_would_take() -> None:
    forecast = planned(200.0, 1e-3)
    given = forecast.plan.settings.evaluation.recipe
    (told,) = [line for line in lines(forecast, given, fixed=True) if "fit the time budget" in line]
    assert told.startswith("About 4 of 40 candidates fit the time budget; 20 would take 1")
    assert "or a shorter training (--epochs, --set steps=N)" in named(told, flag_of)
    recipe = sized(forecast)
    plan = replace(forecast.plan, settings=with_recipe(forecast.plan.settings, recipe))
    (told,) = [
        line for line in lines(replace(forecast, plan=plan), given, fixed=False) if "fit the time budget" in line
    ]
    assert f"trained for {recipe.epochs} epochs in place of 10 epochs" in told
    unlimited = planned(None, 1e-3)
    assert lines(unlimited, given, fixed=False)[0].startswith("About 2")
    assert not [line for line in lines(unlimited, given, fixed=False) if "budget" in line]
