"""Latency predictor: what it learns, how sure it is of it, and bad input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.common.errors import InputError
from nas.latency.predictor import LatencyPredictor

SHARED = Path(os.environ.get("NAS_SHARED", Path(__file__).parents[2] / "shared"))
FBNET = SHARED / "data" / "latency" / "help_fbnet.npz"
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
POSITIONS, CHOICES = 12, 4


def networks(count: int, seed: int = 0) -> Ints:
    return np.random.default_rng(seed).integers(0, CHOICES, (count, POSITIONS))


def additive(encodings: Ints, noise: float = 0.0) -> Floats:
    """Choices of 0.1 to 2 ms, more expensive towards the end of the network, upon 5 ms."""
    ms = np.array([0.1, 0.5, 1.0, 2.0])[encodings] * np.linspace(0.5, 1.5, POSITIONS)
    return (5 + ms.sum(1)) * np.exp(noise * np.random.default_rng(1).normal(size=len(encodings)))


def error(predicted: Floats, truth: Floats) -> float:
    """Mean absolute error, relative to that of the mean."""
    return float(np.abs(predicted - truth).mean() / np.abs(truth.mean() - truth).mean())


def ranks_agree(a: Floats, b: Floats) -> float:
    """Spearman's correlation of values without ties."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def test_few_networks_give_additive_costs_away() -> None:
    x, unseen = networks(40), networks(300, seed=1)
    mean, std = LatencyPredictor.fit(x, additive(x, noise=0.01)).predict(unseen)
    assert mean.shape == std.shape == (300,)
    assert mean.dtype == std.dtype == np.float64
    assert error(mean, additive(unseen)) < 0.15  # 48 costs from 40 networks: only by what positions share
    assert ranks_agree(mean, additive(unseen)) > 0.97


@pytest.mark.slow
def test_interactions_of_choices_are_found() -> None:
    def cut(x: Ints) -> Floats:
        """Choice 0 at one of the first two positions cuts off the third."""
        return 3 + (x[:, 0] + x[:, 1] + np.where((x[:, 0] == 0) | (x[:, 1] == 0), 0, 4 * x[:, 2])).astype(float)

    x, unseen = networks(120)[:, :4], networks(300, seed=1)[:, :4]
    onehot = [np.hstack([np.eye(CHOICES)[e].reshape(len(e), -1), np.ones((len(e), 1))]) for e in (x, unseen)]
    best_sum = onehot[1] @ np.linalg.lstsq(onehot[0], cut(x), rcond=None)[0]
    mean, _ = LatencyPredictor.fit(x, cut(x)).predict(unseen)
    assert error(mean, cut(unseen)) < 0.5 * error(best_sum, cut(unseen))


@pytest.mark.parametrize("noise", [0.01, pytest.param(0.1, marks=pytest.mark.slow)])
def test_the_standard_deviation_is_that_of_a_new_measurement(noise: float) -> None:
    x = networks(400, seed=2)
    y = additive(x, noise)
    mean, std = LatencyPredictor.fit(x[:100], y[:100]).predict(x[100:])
    off = np.abs(y[100:] - mean) / std
    assert 0.58 < (off < 1).mean() < 0.82
    assert (off < 2).mean() > 0.9


def test_latencies_over_decades() -> None:
    x, unseen = networks(60), networks(300, seed=1)
    y, truth = (np.exp(2 * e[:, 0] + 0.2 * e.sum(1) - 5).astype(float) for e in (x, unseen))
    mean, _ = LatencyPredictor.fit(x, y).predict(unseen)
    assert np.median(np.abs(mean / truth - 1)) < 0.1


def test_every_prediction_is_a_positive_number_of_ms() -> None:
    x = networks(8)
    y = np.where(x[:, 0] == x[0, 0], 0.05, 1000.0)
    mean, std = LatencyPredictor.fit(x, y).predict(networks(2000, seed=1))
    for values in (mean, std):
        assert np.isfinite(values).all()
        assert (values > 0).all()


def test_far_from_what_was_measured_nothing_explodes() -> None:
    x = networks(3, seed=12)
    costs = np.array([[1e6], [1e7], [1e8]])
    mean, std = LatencyPredictor.fit(x, [0.05, 4.0, 1000.0], costs).predict(x, costs * 1e3)
    assert (mean < 1e8).all()
    assert (std < 1e8).all()


@pytest.mark.slow
def test_neither_the_order_of_networks_nor_repeating_the_fit_changes_anything() -> None:
    x, unseen = networks(12), networks(50, seed=1)
    y = additive(x, noise=0.05)
    order = np.random.default_rng(3).permutation(12)
    kept = x.copy(), y.copy()
    one, again, shuffled = (
        LatencyPredictor.fit(a, b).predict(unseen) for a, b in ((x, y), (x, y), (x[order], y[order]))
    )
    for other in (again, shuffled):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_predictions_follow_the_unit_of_latency() -> None:
    x, unseen = networks(10), networks(50, seed=1)
    ms, s = (LatencyPredictor.fit(x, unit * additive(x)).predict(unseen) for unit in (1.0, 0.001))
    np.testing.assert_allclose(ms, 1000 * np.array(s), rtol=1e-3)


def test_a_choice_never_measured_is_less_sure() -> None:
    x = networks(60)
    x[:, 0] %= 2
    predictor = LatencyPredictor.fit(x, additive(x, noise=0.01))
    known, unseen, beyond = x[:20].copy(), x[:20].copy(), x[:20].copy()
    unseen[:, 0] = 3  # at this position; it was measured at others
    beyond[:, 0] = 99
    stds = [predictor.predict(e)[1].mean() for e in (known, unseen, beyond)]
    assert stds[0] < stds[1] < stds[2]


@pytest.mark.slow
def test_measuring_more_makes_it_surer() -> None:
    x, unseen = networks(60), networks(50, seed=1)
    y = additive(x, noise=0.02)
    few, many = (LatencyPredictor.fit(x[:n], y[:n]).predict(unseen)[1].mean() for n in (10, 60))
    assert many < few


def test_a_constant_parameter_changes_little() -> None:
    x, unseen = networks(40), networks(100, seed=1)
    wider, wider_unseen = (np.hstack([e, np.full((len(e), 1), 2)]) for e in (x, unseen))
    mean, _ = LatencyPredictor.fit(wider, additive(x)).predict(wider_unseen)
    assert error(mean, additive(unseen)) < 0.15


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_few_networks_as_one(count: int) -> None:
    x = networks(count)
    mean, std = LatencyPredictor.fit(x, additive(x)).predict(networks(50, seed=1))
    assert ((mean > additive(x).min() / 3) & (mean < additive(x).max() * 3)).all()
    assert (std > 0.02 * mean).all()  # so few show no spread, which is no reason to be sure


def test_equal_networks_with_equal_latency() -> None:
    mean, std = LatencyPredictor.fit(np.zeros((5, 3), dtype=int), np.full(5, 2.0)).predict([[0, 0, 0]])
    assert mean == pytest.approx(2.0, rel=0.05)
    assert 0 < std[0] < 0.5


@pytest.mark.slow
def test_a_network_measured_twice_is_predicted_between() -> None:
    x = np.vstack([networks(30), networks(30)])
    y = additive(x, noise=0.1)
    mean, std = LatencyPredictor.fit(x, y).predict(x[:30])
    assert np.abs(np.log(mean / np.sqrt(y[:30] * y[30:]))).mean() < 0.1
    assert 0.05 < np.median(std / mean) < 0.2


def test_known_costs_help_a_first_guess() -> None:
    x, unseen = networks(8), networks(200, seed=1)
    costs, unseen_costs = (additive(e)[:, None] ** 1.1 * 1e6 for e in (x, unseen))
    with_costs, _ = LatencyPredictor.fit(x, additive(x), costs=costs).predict(unseen, costs=unseen_costs)
    without, _ = LatencyPredictor.fit(x, additive(x)).predict(unseen)
    assert error(with_costs, additive(unseen)) < 0.5 * error(without, additive(unseen))


def test_one_measurement_gone_wrong_spoils_little() -> None:
    x, unseen = networks(60), networks(300, seed=1)
    y = additive(x, noise=0.01)
    y[7] *= 5
    mean, std = LatencyPredictor.fit(x, y).predict(unseen)
    assert error(mean, additive(unseen)) < 0.3
    assert np.median(std / mean) < 0.1


def test_both_spellings_of_fit() -> None:
    x, unseen = networks(4), networks(5, seed=1)
    predictor = LatencyPredictor()
    assert predictor.fit(x, additive(x)) is predictor
    other = LatencyPredictor.fit(encodings=x.tolist(), latency_ms=additive(x).tolist())
    np.testing.assert_array_equal(predictor.predict(unseen), other.predict(unseen))
    assert LatencyPredictor.fit(x, additive(x)) is not other


def test_no_networks_to_predict() -> None:
    mean, std = LatencyPredictor.fit(networks(5), additive(networks(5))).predict(networks(0))
    assert mean.shape == std.shape == (0,)


X = networks(4)
Y = additive(X)


@pytest.mark.parametrize(
    ("encodings", "latency", "costs", "message"),
    [
        (X, Y[:3], None, "4 networks need as many latencies"),
        (X[0], Y, None, r"must be \(networks, parameters\)"),
        (X[:, :0], Y, None, r"must be \(networks, parameters\)"),
        (X[:0], Y[:0], None, "no networks"),
        (X + 0.5, Y, None, "whole numbers"),
        (X - 5, Y, None, "whole numbers"),
        (X * np.nan, Y, None, "whole numbers"),
        ([["k3", "k5"]], Y[:1], None, "array of numbers"),
        ([[1, 2], [1]], Y[:2], None, "array of numbers"),
        (X, -Y, None, "positive and finite"),
        (X, 0 * Y, None, "positive and finite"),
        (X, Y * np.inf, None, "positive and finite"),
        (X, Y, Y, r"must be \(networks, costs\)"),
        (X, Y, Y[:3, None], r"must be \(networks, costs\)"),
        (X, Y, Y[:, None] * np.nan, "costs must be finite"),
    ],
)
def test_what_cannot_be_fitted(encodings: Any, latency: Any, costs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LatencyPredictor.fit(encodings, latency, costs)


def test_what_cannot_be_predicted() -> None:
    with pytest.raises(InputError, match="call fit first"):
        LatencyPredictor().predict(X)
    predictor = LatencyPredictor.fit(X, Y)
    with pytest.raises(InputError, match="fitted to 12 parameters, not to 11"):
        predictor.predict(X[:, 1:])
    with pytest.raises(InputError, match="whole numbers"):
        predictor.predict(X + 0.5)
    with pytest.raises(InputError, match="fitted with 0 costs, not 1"):
        predictor.predict(X, costs=Y[:, None])


@pytest.mark.skipif(not FBNET.exists(), reason=f"the published latency table {FBNET} is not here")
def test_orders_published_measurements_better_than_ridge_regression() -> None:
    table = np.load(FBNET)
    x, y = table["arch"].astype(int), table["latency_ms"][:, list(table["devices"]).index("2080ti_64")].astype(float)
    rows = np.random.default_rng(0).permutation(len(x))
    train, test = rows[:60], rows[60:1060]
    onehot = np.eye(9)[x].reshape(len(x), -1)
    centred = onehot - onehot[train].mean(0)
    gram = centred[train] @ centred[train].T
    ridge = [
        centred[test] @ centred[train].T @ np.linalg.solve(gram + a * np.eye(60), y[train] - y[train].mean())
        for a in (0.1, 1.0, 10.0)
    ]
    mean, _ = LatencyPredictor.fit(x[train], y[train]).predict(x[test])
    assert ranks_agree(mean, y[test]) > max(ranks_agree(values, y[test]) for values in ridge) + 0.1
