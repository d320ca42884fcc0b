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
BATCH_NUMBERS = 1_000_000
"""Entries of covariances that are worked out at once."""

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
_LOG_MEDIANS = torch.tensor([math.log(median) for median, _ in _PRIORS.values()], dtype=torch.double)
_SPREADS = torch.tensor([spread for _, spread in _PRIORS.values()], dtype=torch.double)
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
            self._at = _Hyperparameters(self._hyperparameters)
            self._features = self._effects(networks, self._at)
            covariance = _covariance(self._features, self._features, self._at)
            self._root = _cholesky(covariance + _noise(len(networks), self._at))
            self._weights = torch.cholesky_solve(targets[:, None], self._root)[:, 0]

    def predict(self, networks: Networks) -> tuple[Tensor, Tensor]:
        """Mean and variance (networks,) of a new measurement of each network."""
        with torch.no_grad():
            features = self._effects(networks, self._at)
            cross = _covariance(features, self._features, self._at)
            prior = (features**2).sum(1) + 1 + (self._at["interaction"] + self._at["noise"])[0]
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

    def _effects(self, networks: Networks, at: _Hyperparameters) -> Tensor:
        """Features (..., networks, ...) whose products are the additive part of the kernel."""
        positions, choices = networks.choices.shape[1:]
        eye = torch.eye(positions, dtype=torch.double)
        along = at["shared"] + at["fading"] * torch.exp(-self._distance / (positions * at["reach"]))
        # Divided by the positions, so that the prior of a whole network's variance is the same for any number of them.
        root = _cholesky((along + (at["own"] + 1e-8) * eye) / positions)
        terms = self._scale_root.shape[1]
        root = (self._scale_root @ at.scales[..., :terms, None]).exp() * root
        apart = (networks.indices[:, None] - networks.indices).abs()
        like = _cholesky(torch.exp(-apart / at["likeness"]))
        choice_scales = pad(
            (CHOICE_SPREAD * at.scales[..., terms:]).exp(), (0, choices - self._scaled_choices), value=1.0
        )
        like = choice_scales[..., None] * like
        # A choice that training has not seen has no part in the centre.
        centre = pad(self._centre, (0, choices - self._centre.shape[1]))
        effects = root.mT[..., None, :, :] @ ((networks.choices - centre) @ like[..., None, :, :])
        return torch.cat([at["cost"].sqrt() * networks.costs, effects.mT.flatten(-2)], -1)

    def _loss(self, networks: Networks, targets: Tensor, hyperparameters: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the logarithm of likelihood times priors (...,) of hyperparameters (..., parameters), and its gradient."""
        inner = hyperparameters.detach().requires_grad_()
        at = _Hyperparameters(inner)
        features = self._effects(networks, at)
        covariance = _covariance(features, features, at) + _noise(len(networks), at)
        with torch.no_grad():
            root = _cholesky(covariance)
            weights = torch.cholesky_solve(targets[:, None].expand(*root.shape[:-1], 1), root)
            slope = 0.5 * (torch.cholesky_inverse(root) - weights @ weights.mT)
            misfit = 0.5 * (targets * weights[..., 0]).sum(-1) + root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        # The likelihood's gradient in the covariance is known: nothing need differentiate the factorisation.
        (gradient,) = torch.autograd.grad(covariance, inner, slope)
        return misfit + 0.5 * hyperparameters.square().sum(-1), gradient + hyperparameters

    def _maximise(self, networks: Networks, targets: Tensor) -> None:
        optimiser = torch.optim.LBFGS(
            [self._hyperparameters],
            max_iter=ITERATIONS,
            tolerance_grad=1e-3,
            tolerance_change=1e-4,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            loss, self._hyperparameters.grad = self._loss(networks, targets, self._hyperparameters)
            return float(loss)

        optimiser.step(closure)

    def _laplace(self, networks: Networks, targets: Tensor) -> tuple[float, float]:
        """Logarithm of the evidence, but for a constant, and how many hyperparameters the targets determine."""
        best = self._hyperparameters
        loss, slope = self._loss(networks, targets, best)
        steps = (best + HESSIAN_STEP * torch.eye(len(best), dtype=torch.double)).split(
            max(1, BATCH_NUMBERS // len(networks) ** 2)
        )
        slopes = torch.cat([self._loss(networks, targets, some)[1] for some in steps])
        hessian = (slopes - slope) / HESSIAN_STEP
        # The priors, of unit variance, have curvature 1. Where the likelihood's is negative, the priors decide.
        curvature = torch.linalg.eigvalsh((hessian + hessian.T) / 2).clamp_min(1)
        return -float(loss) - 0.5 * float(curvature.log().sum()), float((1 - 1 / curvature).sum())


class _Hyperparameters:
    """Values of hyperparameters (..., parameters), by name, each (..., 1, 1), and of scales (..., scales)."""

    def __init__(self, hyperparameters: Tensor) -> None:
        within = hyperparameters.clamp(-LIMIT, LIMIT)
        values = torch.exp(_LOG_MEDIANS + _SPREADS * within[..., : len(_PRIORS)])
        self._named = dict(zip(_PRIORS, values[..., None, None].unbind(-3), strict=True))
        self.scales = within[..., len(_PRIORS) :]

    def __getitem__(self, name: str) -> Tensor:
        return self._named[name]


def _noise(count: int, at: _Hyperparameters) -> Tensor:
    return (at["noise"] + NOISE_FLOOR) * torch.eye(count, dtype=torch.double)


def _covariance(a: Tensor, b: Tensor, at: _Hyperparameters) -> Tensor:
    """Kernel (..., rows of a, rows of b) of features; 1 for the unknown mean.

    Choices that b's networks do not know stand last in a's features.
    """
    additive = a[..., : b.shape[-1]] @ b.mT
    distance = ((a**2).sum(-1)[..., None] + (b**2).sum(-1)[..., None, :] - 2 * additive).clamp_min(0)
    return 1 + additive + at["interaction"] * torch.exp(-0.5 * at["bend"] * distance)


def _cholesky(matrix: Tensor) -> Tensor:
    """The factors of matrices (..., n, n) that are positive definite but for rounding."""
    jitter = 1e-10 * matrix.detach().diagonal(dim1=-2, dim2=-1).mean(-1)
    return torch.linalg.cholesky(matrix + jitter[..., None, None] * torch.eye(matrix.shape[-1], dtype=torch.double))
