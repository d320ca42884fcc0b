"""A quick Gaussian process over categorical parameters, for a sampler that fits one again every few trials.

It differs from the one behind the latency predictor (nas/latency/choice_process.py) in what it is for: milliseconds a fit
matter here more than the last percent of likelihood, and nothing is known of positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ITERATIONS = 30
"""Of L-BFGS on the first scale; on each other one it starts from what was found, and takes half as many."""
NOISE_FLOOR = 1e-6
OFFSETS = (math.inf, 1.0, 0.3, 0.1)
"""Offsets of the logarithm that targets may be modelled on, in spreads; infinity is the targets themselves."""

# Log-normal priors, targets having unit variance: (median, standard deviation of the logarithm).
_ADDITIVE = (0.5, 1.5)
_INTERACTION = (0.3, 1.5)
_BEND = (1.0, 1.0)
_NOISE = (0.01, 2.0)
_RELEVANCE = (1.0, 1.0)
_ORDER = (0.5, 1.5)
_SHARED = (0.5, 1.5)
_KNOWN = (0.5, 1.5)


class Embedding:
    """Turns choice indices (N, parameters) into features (N, features) whose squared distances a kernel can weigh.

    Of each parameter: one column a choice, and one a step between neighbouring choices (as choices are often listed in
    order; the likelihood decides what order weighs). Of parameters with the same list of choices also how often each
    choice was taken, as positions of a network share what a choice does. `design` (features, hyperparameters) says
    which hyperparameters each column's logarithm of weight is the sum of, `priors` their medians and spreads.
    """

    def __init__(self, choices: Sequence[tuple[object, ...]], known: int) -> None:
        columns: list[tuple[list[int], float]] = []
        self._tables = []
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, options in enumerate(choices):
            alike.setdefault(options, []).append(position)
        self._families = [positions for positions in alike.values() if len(positions) > 1]
        relevance, order = range(len(choices)), len(choices)
        shared = order + 1
        for position, options in enumerate(choices):
            count = len(options)
            table = [np.eye(count) / math.sqrt(2)]
            columns += [([relevance[position]], 1.0 / len(choices))] * count
            if count > 2:
                table.append(np.tri(count, count - 1, -1) / math.sqrt(count - 1))
                columns += [([relevance[position], order], 1.0 / len(choices))] * (count - 1)
            self._tables.append(np.hstack(table))
        for family in self._families:
            columns += [([shared], 1.0)] * self._tables[family[0]].shape[1]
        columns += [([shared + 1 + index], 1.0) for index in range(known)]
        self.priors = [_RELEVANCE] * len(choices) + [_ORDER, _SHARED] + [_KNOWN] * known
        self.design = np.zeros((len(columns), len(self.priors)))
        for row, (hyperparameters, _) in enumerate(columns):
            self.design[row, hyperparameters] = 1
        self.base = np.log([weight for _, weight in columns])
        priors = [_ADDITIVE, _INTERACTION, _BEND, _NOISE, *self.priors]
        self.medians = torch.tensor([math.log(median) for median, _ in priors], dtype=torch.double)
        self.spreads = torch.tensor([spread for _, spread in priors], dtype=torch.double)

    def __call__(self, indices: Ints, known: Floats) -> Floats:
        parts = [table[indices[:, position]] for position, table in enumerate(self._tables)]
        for family in self._families:
            parts.append(sum(parts[position] for position in family) / len(family))  # type: ignore[arg-type]
        return np.hstack([*parts, known])


@dataclass(frozen=True)
class Scale:
    """A monotone transform of targets to mean 0 and variance 1: of targets themselves, or of log(target - low)."""

    low: float
    mean: float
    spread: float

    @classmethod
    def of(cls, targets: Floats, offset: float) -> Scale:
        least = float(targets.min())
        span = float(np.quantile(targets, 0.75)) - least or float(targets.max()) - least or 1.0
        low = -math.inf if math.isinf(offset) else least - offset * span
        values = targets if math.isinf(low) else np.log(targets - low)
        return cls(low, float(values.mean()), float(values.std()) or 1.0)

    def forward(self, targets: Floats) -> Floats:
        values = targets if math.isinf(self.low) else np.log(np.maximum(targets - self.low, 1e-300))
        return (values - self.mean) / self.spread

    def backward(self, scaled: Floats) -> Floats:
        values = self.mean + self.spread * scaled
        return values if math.isinf(self.low) else self.low + np.exp(np.minimum(values, 300))

    def slope(self, targets: Floats) -> Floats:
        """By how much the transform grows with its argument, (N,)."""
        return 1 / (self.spread * (np.ones_like(targets) if math.isinf(self.low) else targets - self.low))

    def log_slope(self, targets: Floats) -> float:
        """Sum of the logarithms of the transform's slope: what makes likelihoods on two scales comparable."""
        bend = 0.0 if math.isinf(self.low) else float(np.log(targets - self.low).sum())
        return -bend - len(targets) * math.log(self.spread)


@dataclass(frozen=True)
class Fit:
    """The offset of the targets' scale, and the hyperparameters found on it."""

    offset: float
    hyperparameters: Floats


class Process:
    """The posterior of a Gaussian process given features (N, F) and targets (N,) on a scale.

    `doubt` (N,) are standard deviations, on the scale, of targets that are not observed but predicted.

    The kernel is a weighted sum of products of features (effects that add), a squared exponential of the same weighted
    distance (interactions), a constant, and noise (Rasmussen & Williams, "Gaussian Processes for Machine Learning",
    2006).
    """

    def __init__(
        self,
        embedding: Embedding,
        hyperparameters: Floats,
        scale: Scale,
        features: Floats,
        scaled: Floats,
        doubt: Floats,
    ) -> None:
        self.scale = scale
        self._kernel = _Kernel(embedding, torch.from_numpy(hyperparameters), features.mean(0))
        self._features = self._kernel.weigh(features)
        covariance = self._kernel.between(self._features, self._features)
        covariance.diagonal().add_(self._kernel.noise + torch.from_numpy(doubt).square())
        self._root = _cholesky(covariance)
        self._weights = torch.cholesky_solve(torch.from_numpy(scaled)[:, None], self._root)[:, 0]

    @property
    def noise(self) -> float:
        """Standard deviation of an observation's noise, on the process's scale."""
        return math.sqrt(self._kernel.noise)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (N,) of the noiseless targets, on the process's scale."""
        weighed = self._kernel.weigh(features)
        cross = self._kernel.between(weighed, self._features)
        explained = torch.linalg.solve_triangular(self._root, cross.T, upper=False).square().sum(0)
        prior = 1 + self._kernel.additive * weighed.square().sum(1) + self._kernel.interaction
        return (cross @ self._weights).numpy(), (prior - explained).clamp_min(1e-12).sqrt().numpy()


class _Kernel:
    def __init__(self, embedding: Embedding, hyperparameters: Tensor, centre: Floats) -> None:
        values = _values(embedding, hyperparameters)
        self.additive, self.interaction, self.bend, noise = (float(value) for value in values[:4].exp())
        self.noise = noise + NOISE_FLOOR
        self._roots = (0.5 * _log_weights(embedding, values)).exp()
        self._centre = torch.from_numpy(centre)

    def weigh(self, features: Floats) -> Tensor:
        return (torch.from_numpy(features) - self._centre) * self._roots

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        products = a @ b.T
        distance = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * products
        return 1 + self.additive * products + self.interaction * torch.exp(-0.5 * self.bend * distance.clamp_min(0))


def fit(embedding: Embedding, features: Floats, targets: Floats) -> Fit:
    """Hyperparameters and scale of most likelihood times prior.

    A pure function of its arguments: nothing of earlier fits goes into it.
    """
    columns = torch.from_numpy(features - features.mean(0))
    hyperparameters = torch.zeros(4 + len(embedding.priors), dtype=torch.double)
    best: tuple[float, Fit] | None = None
    for offset in OFFSETS:
        scale = Scale.of(targets, offset)
        iterations = ITERATIONS // (1 if best is None else 2)
        loss = _maximise(embedding, columns, torch.from_numpy(scale.forward(targets)), hyperparameters, iterations)
        score = scale.log_slope(targets) - loss
        if best is None or score > best[0]:
            best = score, Fit(offset, hyperparameters.numpy().copy())
    assert best is not None
    return best[1]


def _maximise(
    embedding: Embedding, columns: Tensor, targets: Tensor, hyperparameters: Tensor, iterations: int
) -> float:
    optimiser = torch.optim.LBFGS(
        [hyperparameters],
        max_iter=iterations,
        tolerance_grad=1e-2,
        tolerance_change=1e-3,
        line_search_fn="strong_wolfe",
    )
    loss = functools.partial(_loss, embedding, columns, targets, hyperparameters)
    optimiser.step(loss)
    return loss()


def _loss(embedding: Embedding, columns: Tensor, targets: Tensor, hyperparameters: Tensor) -> float:
    """Minus the logarithm of likelihood times priors; its gradient is left with the hyperparameters."""
    values = _values(embedding, hyperparameters)
    additive, interaction, bend, noise = values[:4].exp()
    weights = _log_weights(embedding, values).exp()
    weighed = columns * weights.sqrt()
    products = weighed @ weighed.T
    squares = products.diagonal()
    distance = (squares[:, None] + squares - 2 * products).clamp_min(0)
    bent = interaction * torch.exp(-0.5 * bend * distance)
    covariance = 1 + additive * products + bent
    covariance.diagonal().add_(noise + NOISE_FLOOR)
    root = _cholesky(covariance)
    alpha = torch.cholesky_solve(targets[:, None], root)[:, 0]
    slope = 0.5 * (torch.cholesky_inverse(root) - torch.outer(alpha, alpha))
    pull = slope * bent
    through = additive * slope + bend * pull
    # Over pairs, pull * (f_i - f_j)^2 sums to 2 (sum_i row_i f_i^2 - f' pull f), for each column f.
    by_weight = (columns * (through @ columns)).sum(0) - bend * (pull.sum(1)[:, None] * columns.square()).sum(0)
    gradient = torch.cat(
        [
            torch.stack(
                [
                    additive * (slope * products).sum(),
                    pull.sum(),
                    -0.5 * bend * (pull * distance).sum(),
                    noise * slope.diagonal().sum(),
                ]
            ),
            torch.from_numpy(embedding.design).T @ (by_weight * weights),
        ]
    )
    inside = hyperparameters.abs() < LIMIT
    hyperparameters.grad = gradient * embedding.spreads * inside + hyperparameters
    return float(0.5 * targets @ alpha + root.diagonal().log().sum() + 0.5 * hyperparameters.square().sum())


LIMIT = 6.0
"""How many standard deviations of its prior a hyperparameter may leave the prior's median."""


def _values(embedding: Embedding, hyperparameters: Tensor) -> Tensor:
    return embedding.medians + embedding.spreads * hyperparameters.clamp(-LIMIT, LIMIT)


def _log_weights(embedding: Embedding, values: Tensor) -> Tensor:
    return torch.from_numpy(embedding.base) + torch.from_numpy(embedding.design) @ values[4:]


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix that is positive definite but for rounding."""
    jitter = 0.0
    for _ in range(8):
        root, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return root
        step = max(9 * jitter, 1e-10 * float(matrix.diagonal().mean()))
        matrix.diagonal().add_(step)
        jitter += step
    raise ArithmeticError("a covariance is not positive definite")
