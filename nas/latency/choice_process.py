"""A Gaussian process over architectures given as choice indices: what a choice costs, at its position and with others.

The kernel is a sum of three parts, of which marginal likelihood decides how much the data hold:

- *additive*: each position adds an effect of its choice. Effects of one choice at two positions are correlated: a part
  that is the same at all positions, a part that fades with their distance, and a part of the position's own (a
  hierarchical model; coregionalised kernels, Alvarez, Rosasco & Lawrence, "Kernels for vector-valued functions", 2012,
  section 4). Neighbouring indices may be alike, for choices that are ordered, such as widths.
- *scales*: the effects of a position grow or shrink along the network, as channels and map sizes do; the logarithm of
  that scale is itself a smooth Gaussian process over positions.
- *interaction*: a squared exponential of the distance that the additive part spans, so that interactions share
  between positions and choices what the effects share (Rasmussen & Williams, "Gaussian Processes for Machine
  Learning", 2006, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

FITTED_ROWS = 400
"""Networks that hyperparameters are fitted on at most; the prediction itself uses all."""
ITERATIONS = 40
LIMIT = 5.0
"""How many standard deviations of its prior a hyperparameter may leave the prior's mean."""
NOISE_FLOOR = 1e-6
OUTLIER = 2.5
"""Standard deviations: one in eighty measurements is further off if noise is normal, and on busy devices many are."""
HESSIAN_STEP = 1e-3

# Log-normal priors, targets having unit variance: (median, standard deviation of the logarithm). All are wide, as wide
# as a factor of 3 to 7 either way; they decide only while there are few networks.
_PRIORS = {
    "shared": (0.5, 1.5),  # variances of the additive part: of an effect that all positions share,
    "fading": (0.3, 1.5),  # that neighbours share,
    "own": (0.1, 1.5),  # and that the position has for itself
    "reach": (0.25, 1.0),  # distance at which correlation has fallen to 1/e, in numbers of positions
    "likeness": (0.3, 1.0),  # the same between indices of choices, in choices
    "interaction": (0.02, 2.0),
    "bend": (0.5, 1.0),  # inverse squared length of the interaction's kernel
    "cost": (0.5, 1.5),  # variance that a known cost explains
    "noise": (0.1, 1.0),
}
SCALE_SPREAD = 0.7
"""Prior standard deviation of the logarithm of a position's scale: a factor of two either way."""
CHOICE_SPREAD = 0.5
"""The same of a choice's scale."""
SCALE_REACH = 0.5
"""Reach of the correlation of positions' scales, in numbers of positions: smooth over the network, with room for stages."""
SCALE_TERMS = 8
"""Principal components of the scales' prior that are fitted at most; the rest are steps from one position to the next."""


@dataclass(frozen=True)
class Networks:
    """One-hot choices (networks, positions, choices), the choices' indices, and known costs (networks, costs).

    A process is fitted to choices that come first in `indices`, in the same order, wherever it predicts. Costs have
    mean 0 and variance about 1.
    """

    choices: Tensor
    indices: Tensor
    costs: Tensor

    def __len__(self) -> int:
        return len(self.choices)

    def take(self, rows: slice | Tensor) -> Networks:
        """Some of the networks."""
        return Networks(self.choices[rows], self.indices, self.costs[rows])


class ChoiceProcess:
    """The posterior for some networks and their targets (networks,), of mean 0 and variance about 1.

    `scaled` gives each position a scale of its own. Hyperparameters maximise the marginal likelihood times their
    priors (Rasmussen & Williams 2006, section 5.4.1), found by L-BFGS from the hyperparameters of another process, or
    from the priors' medians.

    `log_evidence` is that of the targets, hyperparameters integrated out by Laplace's method (MacKay, "Bayesian
    interpolation", 1992, section 4): what richer models gain by fitting their hyperparameters is charged for. It is
    the evidence of `fitted` targets.
    """

    def __init__(self, networks: Networks, targets: Tensor, scaled: bool, start: ChoiceProcess | None = None) -> None:
        positions = networks.choices.shape[1]
        self._centre = networks.choices.mean(0)
        index = torch.arange(positions, dtype=torch.double)
        self._distance = (index[:, None] - index).abs()
        values, vectors = torch.linalg.eigh(torch.exp(-self._distance / (SCALE_REACH * positions)))
        terms = min(positions, SCALE_TERMS) if scaled else 0
        self._scale_root = SCALE_SPREAD * (vectors * values.clamp_min(0).sqrt())[:, positions - terms :]
        self.scaled = scaled
        self._scaled_choices = networks.choices.shape[2] if scaled else 0
        self._hyperparameters = torch.zeros(len(_PRIORS) + terms + self._scaled_choices, dtype=torch.double)
        if start is not None:
            known = min(len(self._hyperparameters), len(start._hyperparameters))
            self._hyperparameters[:known] = start._hyperparameters[:known]
        rows = torch.linspace(0, len(networks) - 1, min(len(networks), FITTED_ROWS)).long()
        self._maximise(networks.take(rows), targets[rows])
        self.log_evidence, determined = self._laplace(networks.take(rows), targets[rows])
        # Hyperparameters fitted to the targets make these look closer than new ones will be: as for a variance that
        # is estimated, by the number of hyperparameters that the targets, not the priors, determine (MacKay 1992).
        self.fitted = len(rows)
        self._inflation = len(rows) / max(len(rows) - determined, len(rows) / 2)
        with torch.no_grad():
            self._features = self._effects(networks)
            self._root = _cholesky(self._covariance(self._features, self._features) + self._noise(len(networks)))
            self._weights = torch.cholesky_solve(targets[:, None], self._root)[:, 0]

    def predict(self, networks: Networks) -> tuple[Tensor, Tensor]:
        """Mean and variance (networks,) of a new measurement of each network."""
        with torch.no_grad():
            features = self._effects(networks)
            cross = self._covariance(features, self._features)
            prior = (features**2).sum(1) + 1 + self._value("interaction") + self._value("noise")
            explained = torch.linalg.solve_triangular(self._root, cross.T, upper=False).square().sum(0)
            return cross @ self._weights, self._inflation * (prior - explained).clamp_min(NOISE_FLOOR)

    def winsorized(self, targets: Tensor) -> Tensor:
        """Its targets (networks,), where one is far from what all others predict for it pulled in to `OUTLIER`.

        Winsorised residuals (Huber, "Robust Statistics", 1981, section 7.8) of leave-one-out predictions, which have a
        closed form (Rasmussen & Williams 2006, section 5.4.2).
        """
        precision = torch.cholesky_inverse(self._root).diagonal()
        error = self._weights / precision
        limit = OUTLIER / precision.sqrt()
        return targets - error + torch.maximum(torch.minimum(error, limit), -limit)

    def _value(self, name: str) -> Tensor:
        median, spread = _PRIORS[name]
        value = self._hyperparameters[list(_PRIORS).index(name)].clamp(-LIMIT, LIMIT)
        return torch.exp(math.log(median) + spread * value)

    def _noise(self, count: int) -> Tensor:
        return (self._value("noise") + NOISE_FLOOR) * torch.eye(count, dtype=torch.double)

    def _effects(self, networks: Networks) -> Tensor:
        """Features (networks, ...) whose products are the additive part of the kernel."""
        positions, choices = networks.choices.shape[1:]
        eye = torch.eye(positions, dtype=torch.double)
        reach = positions * self._value("reach")
        along = self._value("shared") + self._value("fading") * torch.exp(-self._distance / reach)
        # Divided by the positions, so that the prior of a whole network's variance is the same for any number of them.
        root = _cholesky((along + (self._value("own") + 1e-8) * eye) / positions)
        terms = self._scale_root.shape[1]
        scales = self._hyperparameters[len(_PRIORS) :].clamp(-LIMIT, LIMIT)
        root = (self._scale_root @ scales[:terms]).exp()[:, None] * root
        apart = (networks.indices[:, None] - networks.indices).abs()
        like = _cholesky(torch.exp(-apart / self._value("likeness")))
        choice_scales = pad((CHOICE_SPREAD * scales[terms:]).exp(), (0, choices - self._scaled_choices), value=1.0)
        like = choice_scales[:, None] * like
        # A choice that training has not seen has no part in the centre.
        centre = pad(self._centre, (0, choices - self._centre.shape[1]))
        effects = root.T @ ((networks.choices - centre) @ like)
        return torch.cat([self._value("cost").sqrt() * networks.costs, effects.mT.flatten(1)], 1)

    def _covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """Kernel (rows of a, rows of b) of features; 1 for the unknown mean.

        Choices that b's networks do not know stand last in a's features.
        """
        additive = a[:, : b.shape[1]] @ b.T
        distance = ((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * additive).clamp_min(0)
        return 1 + additive + self._value("interaction") * torch.exp(-0.5 * self._value("bend") * distance)

    def _loss(self, networks: Networks, targets: Tensor) -> float:
        """Minus the logarithm of likelihood times priors; its gradient is left with the hyperparameters."""
        self._hyperparameters.grad = None
        features = self._effects(networks)
        covariance = self._covariance(features, features) + self._noise(len(networks))
        with torch.no_grad():
            root = _cholesky(covariance)
            weights = torch.cholesky_solve(targets[:, None], root)
            slope = 0.5 * (torch.cholesky_inverse(root) - weights @ weights.T)
            misfit = 0.5 * targets @ weights[:, 0] + root.diagonal().log().sum()
        # The likelihood's gradient in the covariance is known: nothing need differentiate the factorisation.
        covariance.backward(slope)
        prior = 0.5 * self._hyperparameters.square().sum()
        prior.backward()
        return float(misfit + prior.detach())

    def _maximise(self, networks: Networks, targets: Tensor) -> None:
        optimiser = torch.optim.LBFGS(
            [self._hyperparameters.requires_grad_()],
            max_iter=ITERATIONS,
            tolerance_grad=1e-3,
            tolerance_change=1e-4,
            line_search_fn="strong_wolfe",
        )
        optimiser.step(lambda: self._loss(networks, targets))

    def _laplace(self, networks: Networks, targets: Tensor) -> tuple[float, float]:
        """Logarithm of the evidence, but for a constant, and how many hyperparameters the targets determine."""
        best = self._hyperparameters.detach().clone()
        loss = self._loss(networks, targets)
        slope = self._slope()
        rows = []
        for step in HESSIAN_STEP * torch.eye(len(best), dtype=torch.double):
            self._hyperparameters.data = best + step
            self._loss(networks, targets)
            rows.append((self._slope() - slope) / HESSIAN_STEP)
        self._hyperparameters = best
        hessian = torch.stack(rows)
        # The priors, of unit variance, have curvature 1. Where the likelihood's is negative, the priors decide.
        curvature = torch.linalg.eigvalsh((hessian + hessian.T) / 2).clamp_min(1)
        return -loss - 0.5 * float(curvature.log().sum()), float((1 - 1 / curvature).sum())

    def _slope(self) -> Tensor:
        assert self._hyperparameters.grad is not None
        return self._hyperparameters.grad


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor of a matrix that is positive definite but for rounding."""
    jitter = 1e-10 * matrix.detach().diagonal().mean()
    return torch.linalg.cholesky(matrix + jitter * torch.eye(len(matrix), dtype=torch.double))
