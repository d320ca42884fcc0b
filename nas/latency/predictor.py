"""Latency of architectures predicted from the ones measured so far, with how sure the prediction is.

Used to order candidates, and to reject those that are too slow, before anything is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.common.errors import InputError

if TYPE_CHECKING:
    from nas.latency.choice_process import ChoiceProcess, Networks

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
P = ParamSpec("P")
R = TypeVar("R")

POWERS = {1.0: 4.0, 0.5: 2.0, 0.0: 1.0}
"""Powers of latency that effects may add up in, and their prior weights.

A network's layers run one after another, so that their times add (power 1); effects multiply (power 0, the logarithm)
where latencies span decades.
"""
SCALED_ODDS = 3.0
"""Prior odds that effects differ in size along the network: channels and map sizes do, in nearly any space."""
NEGLIGIBLE = 0.01
"""Weight of a model, relative to the best, below which it is left out, and no richer one of its power is tried."""
UNKNOWN_SPREAD = 0.3
"""Relative spread of latencies assumed with one measurement, which shows none; it fades as 1 / networks."""
BATCH = 2000


class _OnClassOrInstance(Generic[P, R]):
    """A method that, called on the class, first makes an instance.

    Both `LatencyPredictor.fit(x, y)`, which reads as a constructor, and scikit-learn's `LatencyPredictor().fit(x, y)`
    are in use; a class method would leave the latter's instance unfitted.
    """

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self._function = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: type[Any]) -> Callable[P, R]:
        return functools.partial(self._function, owner() if instance is None else instance)


@dataclass(frozen=True)
class _Power:
    """Box-Cox transform to targets of mean 0 and variance 1 (Box & Cox, "An analysis of transformations", 1964).

    Latencies are taken relative to their geometric mean: that makes densities of different powers comparable.
    """

    power: float
    unit: float
    mean: float
    spread: float
    lowest: float
    highest: float
    """Relative latencies between which the inverse is exact. Below, it turns exponential, which never reaches zero;
    above, the logarithm's turns linear, which cannot explode. Either still orders."""

    @classmethod
    def of(cls, latency: Floats, power: float) -> _Power:
        unit = float(np.exp(np.log(latency).mean()))
        values = _box_cox(latency / unit, power)
        spread = float(np.hypot(values.std(), UNKNOWN_SPREAD / len(latency)))
        lowest, highest = float(latency.min()) / unit / 2, float(latency.max()) / unit * 2
        return cls(power, unit, float(values.mean()), spread, lowest, highest)

    def forward(self, latency: Floats) -> Floats:
        return (_box_cox(latency / self.unit, self.power) - self.mean) / self.spread

    def inverse(self, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Median and standard deviation in ms, the latter to first order."""
        value = self.mean + self.spread * mean
        if self.power:
            root = np.maximum(1 + self.power * value, 0) ** (1 / self.power)
            edge = _box_cox(np.array(self.lowest), self.power)
            tail = self.lowest * np.exp(np.clip((value - edge) / self.lowest**self.power, -50, 0))
            relative = np.where(value > edge, root, tail)
        else:
            edge = np.log(self.highest)
            relative = np.exp(np.clip(value, -50, edge)) * (1 + np.maximum(value - edge, 0))
        slope = np.clip(relative, self.lowest, self.highest) ** (1 - self.power)
        return self.unit * relative, self.unit * self.spread * std * slope


@dataclass(frozen=True)
class _Member:
    """One model of the average, and the logarithm of how likely it is, but for a constant."""

    power: _Power
    process: ChoiceProcess
    score: float


class LatencyPredictor:
    """Predicts ms from choice indices; an average of Gaussian processes that fit the measurements best.

    The models differ in the power of latency that effects add up in, and in whether positions have scales; each
    weighs what the measurements say for it, its evidence (Bayesian model averaging; Hoeting, Madigan, Raftery &
    Volinsky, 1999). The processes are those of `nas.latency.choice_process`. Nothing is random: equal input gives equal
    output, in any order of networks.
    """

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._values: Ints = np.empty(0, dtype=np.int64)
        self._positions = 0
        self._typical_cost = self._cost_mean = self._cost_spread = np.empty(0)

    @_OnClassOrInstance
    def fit(self, encodings: ArrayLike, latency_ms: ArrayLike, costs: ArrayLike | None = None) -> LatencyPredictor:
        """Fit to measured networks, and return the predictor; on the class, a new one.

        `encodings` (networks, parameters) are indices of choices from 0, `latency_ms` (networks,) is positive.
        `costs` (networks, costs), of any unit, are quantities known without measuring, such as multiply-adds;
        `predict` must then have them too. Raises `InputError` when shapes disagree or a value is not usable.
        """
        choices = _encodings(encodings)
        known = _costs(costs, len(choices))
        latency = _floats(latency_ms, "latencies")
        if latency.shape != (len(choices),):
            raise InputError(f"{len(choices)} networks need as many latencies, not an array of shape {latency.shape}")
        if not len(latency):
            raise InputError("there are no networks to fit a latency predictor to")
        if not (np.isfinite(latency) & (latency > 0)).all():
            raise InputError("latencies must be positive and finite numbers of ms")
        # One order whatever the caller's: sums round differently otherwise, and few networks stand for all in part.
        order = np.lexsort((latency, *known.T, *choices.T))
        choices, latency, known = choices[order], latency[order], known[order]
        self._positions = choices.shape[1]
        self._values = np.unique(choices)
        average = known.mean(0)
        self._typical_cost = np.where(average > 0, average, 1.0)
        features = _cost_features(known, self._typical_cost)
        self._cost_mean, spread = features.mean(0), features.std(0)
        self._cost_spread = np.where(spread > 1e-9, spread, np.inf)
        self._members = _average(self._networks(choices, known), latency)
        return self

    def predict(self, encodings: ArrayLike, costs: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Predicted ms of networks (networks, parameters), and the standard deviation of a new measurement of each.

        The predicted ms are medians of the models, averaged: always positive, and the best guess in relative terms.
        Raises `InputError` before `fit`, and where parameters or costs are not those of `fit`.
        """
        if not self._members:
            raise InputError("the latency predictor has not been fitted: call fit first")
        choices = _encodings(encodings)
        known = _costs(costs, len(choices))
        if choices.shape[1] != self._positions:
            raise InputError(f"the predictor was fitted to {self._positions} parameters, not to {choices.shape[1]}")
        if known.shape[1] != len(self._typical_cost):
            raise InputError(f"the predictor was fitted with {len(self._typical_cost)} costs, not {known.shape[1]}")
        means, stds = np.empty(len(choices)), np.empty(len(choices))
        for first in range(0, len(choices), BATCH):
            rows = slice(first, first + BATCH)
            means[rows], stds[rows] = self._mixture(self._networks(choices[rows], known[rows]))
        return means, stds

    def _mixture(self, networks: Networks) -> tuple[Floats, Floats]:
        mean, second = np.zeros(len(networks)), np.zeros(len(networks))
        weights = np.exp([member.score - self._members[0].score for member in self._members])
        for member, weight in zip(self._members, weights / weights.sum(), strict=True):
            centre, variance = (values.numpy() for values in member.process.predict(networks))
            ms, std = member.power.inverse(centre, np.sqrt(variance))
            mean += weight * ms
            second += weight * (ms**2 + std**2)
        return mean, np.sqrt(np.maximum(second - mean**2, 0))

    def _networks(self, choices: Ints, costs: Floats) -> Networks:
        import torch  # slow to import

        from nas.latency.choice_process import Networks

        values = np.concatenate([self._values, np.setdiff1d(choices, self._values)])
        features = (_cost_features(costs, self._typical_cost) - self._cost_mean) / self._cost_spread
        onehot = choices[:, :, None] == values
        return Networks(
            torch.from_numpy(onehot).double(), torch.from_numpy(values).double(), torch.from_numpy(features)
        )


def _average(networks: Networks, latency: Floats) -> list[_Member]:
    """The likely models: of each power, without scales of positions and with, measurements' outliers pulled in."""
    plain: list[_Member] = []
    for power in POWERS:
        plain.append(_member(networks, latency, power, False, plain[-1].process if plain else None))
    scaled = [_member(networks, latency, member.power.power, True, member.process) for member in _likely(plain)]
    members = _likely(plain + scaled)
    winsorized = _winsorized(members[0], latency)
    if not np.allclose(winsorized, latency, rtol=1e-6):
        members = _likely([_member(networks, winsorized, m.power.power, m.process.scaled, m.process) for m in members])
    return members


def _member(networks: Networks, latency: Floats, exponent: float, scaled: bool, start: ChoiceProcess | None) -> _Member:
    import torch  # slow to import

    from nas.latency.choice_process import ChoiceProcess

    power = _Power.of(latency, exponent)
    process = ChoiceProcess(networks, torch.from_numpy(power.forward(latency)), scaled, start)
    prior = np.log(POWERS[exponent] * (SCALED_ODDS if scaled else 1.0))
    return _Member(power, process, float(process.log_evidence - process.fitted * np.log(power.spread) + prior))


def _likely(members: list[_Member]) -> list[_Member]:
    """Those that are not negligible beside the likeliest, which comes first."""
    ordered = sorted(members, key=lambda member: -member.score)
    return [member for member in ordered if member.score > ordered[0].score + np.log(NEGLIGIBLE)]


def _winsorized(member: _Member, latency: Floats) -> Floats:
    """Latencies without the outliers that the model sees."""
    import torch

    targets = member.process.winsorized(torch.from_numpy(member.power.forward(latency))).numpy()
    return member.power.inverse(targets, np.zeros(len(targets)))[0]


def _box_cox(latency: Floats, power: float) -> Floats:
    return (latency**power - 1) / power if power else np.log(latency)


def _floats(values: ArrayLike, what: str) -> Floats:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be an array of numbers: {error}") from None


def _encodings(values: ArrayLike) -> Ints:
    floats = _floats(values, "encodings")
    if floats.ndim != 2 or not floats.shape[1]:
        raise InputError(f"encodings must be (networks, parameters), not an array of shape {floats.shape}")
    if not (np.isfinite(floats) & (floats >= 0) & (floats == np.floor(floats))).all():
        raise InputError("encodings must be indices of choices: whole numbers from 0")
    return floats.astype(np.int64)


def _costs(values: ArrayLike | None, networks: int) -> Floats:
    if values is None:
        return np.empty((networks, 0))
    costs = _floats(values, "costs")
    if costs.ndim != 2 or len(costs) != networks:
        raise InputError(f"costs of {networks} networks must be (networks, costs), not an array of shape {costs.shape}")
    if not (np.isfinite(costs) & (costs >= 0)).all():
        raise InputError("costs must be finite numbers from 0")
    return costs


def _cost_features(costs: Floats, typical: Floats) -> Floats:
    """Costs (networks, costs) relative to typical ones, and their logarithms, as latency may be linear in either."""
    relative = costs / typical
    return np.hstack([relative, np.log(np.maximum(relative, 1e-3))])
