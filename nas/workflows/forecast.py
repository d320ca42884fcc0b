"""What candidates and a whole search will take here, from timing a little of it; a training sized to a time budget."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nas.common.errors import arg
from nas.common.seeds import derive_seed
from nas.common.text import done_word, duration_text, plural
from nas.latency.device import torch_threads
from nas.latency.lease import lease_for
from nas.runs.settings import SearchSettings
from nas.search.evaluate import starting_network
from nas.search.time_budget import Point, TimeBudget, line_through
from nas.spaces.base import Architecture
from nas.spaces.families import architecture_cost
from nas.tasks.base import outputs_of
from nas.training.device_data import DeviceData
from nas.training.length import Length
from nas.training.loop import finetune, predict
from nas.training.recipe import Recipe
from nas.workflows.plan import SearchPlan

PROBE_S, PROBE_EPOCHS = 1.0, 12
"""Seconds of training that are timed of a network, and epochs of `few_images` that are enough where they take less."""
FEW, SHORT_S = 16, 0.05
"""Images of a step that is timed; where it takes less than this, its own cost counts, and whole batches are timed."""
DRAWN = 200
"""Random networks whose mean is a typical one."""
STARTUP_S = 12.0
"""What Ray and its workers take to start."""
FEWEST, ENOUGH = 8, 16
"""Candidates that have to fit a time budget; where fewer would, trainings are shortened until so many do."""
HELPS = 2
"""By how much faster a search has to become for a training to be shortened."""
LEAST_STEPS = 100
"""Steps below which no training is shortened that is shorter than an epoch."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timed:
    """What the parts of evaluating a network of so many multiply-adds take here, in seconds."""

    macs: float
    training_image_s: float
    scored_image_s: float
    begin_s: float


@dataclass(frozen=True)
class Forecast:
    """What was timed here, and what follows for a plan's candidates; `concurrent` train at once, one is measured at a time."""

    plan: SearchPlan
    timed: tuple[Timed, ...]
    concurrent: int
    state_bytes: int

    def seconds(self, macs: float, recipe: Recipe | None = None) -> float:
        """What a candidate of so many multiply-adds takes by a recipe, by default the plan's."""
        data, recipe = self.plan.data, recipe or self.plan.settings.evaluation.recipe
        length = Length.of(recipe, len(data.train))
        training_s = length.images * self._at(macs, "training_image_s") if length.steps else 0.0
        training_s = min(training_s, recipe.seconds or math.inf)
        scoring_s = max(1, length.epochs) * len(data.validation) * self._at(macs, "scored_image_s")
        return training_s + scoring_s + self._at(macs, "begin_s") + self.latency_s

    def _at(self, macs: float, part: str) -> float:
        base, slope = self._lines[part]
        return base + slope * macs

    @cached_property
    def _lines(self) -> dict[str, tuple[float, float]]:
        """What each part takes of a network without multiply-adds, and by how much more with each."""
        parts = ("training_image_s", "scored_image_s", "begin_s")
        points = {part: np.array([(one.macs, getattr(one, part)) for one in self.timed]) for part in parts}
        return {part: line_through(of_part, np.ones(len(of_part))) for part, of_part in points.items()}

    @cached_property
    def _typical_macs(self) -> list[float]:
        return typical_macs(self.plan)

    @property
    def latency_s(self) -> float:
        """What measuring a candidate takes, with one attempt more as on a machine with other work."""
        protocols = [target.protocol for target in self.plan.settings.evaluation.latencies]
        return sum(1.5 * (each.warmup_s + each.max_s) for each in protocols)

    def points(self, recipe: Recipe) -> tuple[Point, ...]:
        """Multiply-adds and seconds of some candidates, for `Durations` to begin with."""
        return tuple((one.macs, self.seconds(one.macs, recipe)) for one in self.timed)

    def typical_s(self, recipe: Recipe | None = None) -> float:
        """What a typical candidate takes, that is within the limits of multiply-adds and parameters."""
        return float(np.mean([self.seconds(macs, recipe) for macs in self._typical_macs]))

    def wall_s(self, recipe: Recipe | None = None) -> float:
        """By how much a typical candidate makes the search longer: trainings go on side by side, measurements do not."""
        return self.latency_s + (self.typical_s(recipe) - self.latency_s) / self.concurrent

    def whole_s(self, candidates: int, recipe: Recipe | None = None) -> float:
        """What a search of so many candidates takes in all, from now on: start-up, those that confirm and its end."""
        settings = self.plan.settings
        return STARTUP_S + candidates * self.wall_s(recipe) * settings.trials / settings.candidates + 5.0

    def fitting(self, recipe: Recipe | None = None) -> int:
        """How many candidates fit the time budget."""
        left_s = self.budget.candidates_end - time.monotonic() - STARTUP_S
        return int(max(0.0, left_s) / self.wall_s(recipe))

    @property
    def budget(self) -> TimeBudget:
        """The plan's time budget, as far as it is known before Ray has started."""
        return TimeBudget.of(self.plan.settings, self.plan.began, time.monotonic() - self.plan.began + STARTUP_S)

    @property
    def disk_bytes(self) -> int:
        """What the run directory will take."""
        trials = self.plan.settings.trials
        return 5_000_000 + trials * 15_000 + min(trials, 20) * self.state_bytes


def typical_macs(plan: SearchPlan) -> list[float]:
    """Multiply-adds of random networks of the plan's space, those over a limit that is known beforehand left out."""
    space, budgets = plan.settings.space, plan.settings.evaluation.budgets
    rng, classes = random.Random(derive_seed(plan.settings.seed, "typical")), outputs_of(plan.data)
    costs = [architecture_cost(space.architecture(space.sample(rng)), classes) for _ in range(DRAWN)]
    most_macs, most_params = budgets.max_macs or math.inf, budgets.max_params or math.inf
    within = [float(cost.macs) for cost in costs if cost.macs <= most_macs and cost.params <= most_params]
    return within or [min(float(architecture_cost(space.smallest, classes).macs), most_macs)]


def probe(plan: SearchPlan, concurrent: int) -> Forecast | None:
    """Time a few training steps and the scoring of the space's smallest network and of its backbone here.

    None, with a warning, where one of them cannot be trained here; others still may.
    """
    settings, timed = plan.settings, []
    networks = {one.digest: one for one in (settings.space.smallest, settings.space.backbone)}
    try:
        with torch_threads(max(1, int(settings.resources.cpus_per_trial))):
            for architecture in networks.values():
                one, state_bytes = _timed(plan, architecture)
                timed.append(one)
    except Exception as error:  # whatever a candidate may raise
        logger.warning("no forecast: the space's backbone could not be trained: %s", " ".join(str(error).split())[:300])
        return None
    return Forecast(plan, tuple(timed), max(1, concurrent), state_bytes)


def _timed(plan: SearchPlan, architecture: Architecture) -> tuple[Timed, int]:
    settings, recipe = plan.settings, plan.settings.evaluation.recipe
    data = DeviceData(few_images(plan.data, recipe), settings.device)
    lease, side = lease_for(settings.device), architecture.input_size
    began = time.perf_counter()
    network, _ = starting_network(architecture, data, settings.evaluation)
    begin_s = time.perf_counter() - began

    def pace(batch_size: int) -> float:
        brief = replace(recipe, epochs=PROBE_EPOCHS, steps=None, seconds=PROBE_S, patience=0, compile=False)
        brief = replace(brief, batch_size=batch_size)
        paces = [epoch.images_per_s for epoch in finetune(network, data, side, brief, None, seed=0, lease=lease)]
        return float(np.median(paces[1:] or paces))  # the first steps find the fastest kernels, and take longer

    images_per_s = math.inf
    if recipe.epochs:
        images_per_s = pace(min(FEW, recipe.batch_size))
        if FEW / images_per_s < SHORT_S:
            images_per_s = pace(recipe.batch_size)
    began = time.perf_counter()
    predict(network, data, data.validation, side, lease=lease)
    scored_s = (time.perf_counter() - began) / len(data.data.validation)
    macs = architecture_cost(architecture, outputs_of(plan.data)).macs
    parameters = sum(tensor.numel() for tensor in network.state_dict().values())
    return Timed(float(macs), 1 / images_per_s, scored_s, begin_s), 4 * parameters


def few_images(data: Any, recipe: Recipe) -> Any:
    """Two batches of the data to train on, and some images to score."""
    return replace(
        data,
        train=data.train.subset(np.arange(min(2 * recipe.batch_size, len(data.train)))),
        validation=data.validation.subset(np.arange(min(64, len(data.validation)))),
        test=None,
    )


# ---------------------------------------------------------------- a training sized to the time


def sized(forecast: Forecast) -> Recipe:
    """The plan's recipe, shortened where fewer than `FEWEST` candidates fit the time budget, so that `ENOUGH` do.

    First it has fewer epochs; a large data set's only epoch is cut to fewer steps. With `stop_early` two epochs are left.
    """
    settings = forecast.plan.settings
    recipe, images = settings.evaluation.recipe, len(forecast.plan.data.train)
    wanted = min(ENOUGH, settings.candidates)
    if recipe.epochs == 0 or forecast.fitting(recipe) >= min(FEWEST, settings.candidates):
        return recipe
    least = 2 if settings.stop_early else 1
    shorter = [replace(recipe, epochs=epochs) for epochs in range(recipe.epochs - 1, least - 1, -1)]
    whole = Length.of(recipe, images).steps_an_epoch
    if least == 1 and whole > LEAST_STEPS:
        shares = (whole * share // 4 for share in (3, 2, 1))
        shorter += [replace(recipe, epochs=1, steps=steps) for steps in shares if steps >= LEAST_STEPS]
    found = next((one for one in shorter if forecast.fitting(one) >= wanted), shorter[-1] if shorter else recipe)
    return found if forecast.wall_s(recipe) >= HELPS * forecast.wall_s(found) else recipe


def length_text(recipe: Recipe) -> str:
    """How long a recipe trains, in words."""
    limits = [plural(recipe.epochs, "epoch")]
    limits += [plural(recipe.steps, "step")] if recipe.steps else []
    limits += [duration_text(recipe.seconds)] if recipe.seconds else []
    return " or ".join(limits)


def lines(forecast: Forecast, given: Recipe, fixed: bool) -> list[str]:
    """What the search is going to take, in a sentence or two.

    The plan's recipe was sized from the one that was `given`; `fixed` says that its length was asked for.
    """
    plan, settings = forecast.plan, forecast.plan.settings
    recipe, candidates = settings.evaluation.recipe, settings.candidates
    disk = f"{forecast.disk_bytes / 1e6:.0f} MB of disk"
    at_a_time = f"{forecast.concurrent} at a time"
    whole_s, each = forecast.whole_s(candidates), _each(forecast)
    if settings.time_budget_s is None:
        return [f"About {duration_text(whole_s)} and {disk}, {at_a_time}; run directory {plan.out}", each]
    budget_s, fitting = settings.time_budget_s, min(candidates, forecast.fitting())
    told = [f"At most {duration_text(budget_s)} and {disk}, {at_a_time}; run directory {plan.out}"]
    wanted = min(candidates, 20)
    more = ""
    if fitting < min(FEWEST, candidates):
        seconds = forecast.whole_s(wanted) + time.monotonic() - plan.began
        shorter = f", or a shorter training ({arg('epochs')}, {arg('recipe.steps')})" if recipe.epochs and fixed else ""
        more = f"; {wanted} would take {duration_text(seconds)}{shorter}"
    if recipe != given:
        fit = f"so that about {fitting} fit the time budget and not {forecast.fitting(given)}"
        if not fitting:
            fit = "and even so the time budget hardly holds one"
        told.append(
            f"Each candidate is {done_word(1)} for {length_text(recipe)} in place of {length_text(given)}, {fit}{more}; "
            f"{arg('epochs')} {given.epochs} keeps its length"
        )
    elif fitting < candidates:
        told.append(f"About {fitting} of {plural(candidates, 'candidate')} fit the time budget{more}")
    return [*told, each, *_left_out(forecast)]


def _each(forecast: Forecast) -> str:
    """What candidates of different size take."""
    found = {name: forecast.seconds(macs) for name, macs in _references(forecast).items()}
    found = {"a typical candidate": forecast.typical_s()} | found
    return "About " + ", ".join(f"{duration_text(seconds)} for {name}" for name, seconds in found.items())


def _references(forecast: Forecast) -> dict[str, float]:
    space, classes = forecast.plan.settings.space, outputs_of(forecast.plan.data)
    networks = {"the smallest": space.smallest, "the backbone": space.backbone, "the largest": space.largest}
    return {name: float(architecture_cost(one, classes).macs) for name, one in networks.items()}


def _left_out(forecast: Forecast) -> Sequence[str]:
    """Which references take too much of the time budget to be queued."""
    budget = forecast.budget
    references = list(_references(forecast).items())[1:]  # the smallest is tried in any case
    dear = [name for name, macs in references if not budget.affords(forecast.seconds(macs))]
    if not dear:
        return []
    return [f"Left for later, since too much of the time budget would go to it: {' and '.join(dear)}"]


def planned(plan: SearchPlan, concurrent: int, fixed: bool) -> tuple[SearchPlan, list[str]]:
    """The plan with its training sized to its time budget, unless its length is `fixed`; and what is to be said of it."""
    forecast = probe(plan, concurrent)
    if forecast is None:
        return plan, [f"No forecast, {concurrent} at a time; run directory {plan.out}"]
    given = plan.settings.evaluation.recipe
    recipe = given if plan.settings.time_budget_s is None or fixed else sized(forecast)
    plan = replace(
        plan,
        settings=with_recipe(plan.settings, recipe),
        forecast=forecast.points(recipe),
    )
    return plan, lines(replace(forecast, plan=plan), given, fixed)


def with_recipe(settings: SearchSettings, recipe: Recipe) -> SearchSettings:
    """The settings with another recipe."""
    return replace(settings, evaluation=replace(settings.evaluation, recipe=recipe))
