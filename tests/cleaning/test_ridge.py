"""Leave-one-out predictions against fitting again; margins by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dcai_ray.cleaning.ridge import left_out_predictions, margins

PENALTIES = (0.01, 0.3, 10.0)


def problem(n, d, seed=0):
    """Features of unlike scales and places, two targets, and uneven weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-2, 2, d) + rng.uniform(-50, 50, d)
    return x, rng.standard_normal((n, 2)), rng.uniform(0.1, 5, n)


def fitted_again(x, targets, weights, penalty):
    """Normal equations without each point in turn: unpenalized intercept, features standardized
    over all points, the penalty in units of all points, the others' weights as they are."""
    n, d = x.shape
    w = weights / weights.mean()
    z = x - np.average(x, axis=0, weights=w)
    deviation = np.sqrt(np.average(z**2, axis=0, weights=w))
    z = z / np.where(deviation > 0, deviation, 1)
    design = np.column_stack([np.ones(n), z])
    shrinkage = np.diag([0.0, *[penalty * n] * d])
    found = np.empty_like(targets)
    for i in range(n):
        rest = np.arange(n) != i
        a, b, c = design[rest], targets[rest], w[rest, np.newaxis]
        found[i] = design[i] @ np.linalg.solve(a.T @ (c * a) + shrinkage, a.T @ (c * b))
    return found


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 40)])
@pytest.mark.parametrize("even", [True, False])
def test_a_left_out_prediction_is_that_of_a_model_fitted_again_without_the_point(n, d, even):
    x, targets, weights = problem(n, d)
    weights = np.ones(n) if even else weights
    found = list(left_out_predictions(x, targets, weights, PENALTIES))
    for penalty, predictions in zip(PENALTIES, found, strict=True):
        expected = fitted_again(x, targets, weights, penalty)
        assert_allclose(predictions, expected, atol=2e-9)  # they are rounded to 1e-9


def test_only_the_ratios_of_the_weights_count():
    x, targets, weights = problem(30, 4)
    (once,) = left_out_predictions(x, targets, weights, [0.3])
    (thousandfold,) = left_out_predictions(x, targets, 1000 * weights, [0.3])
    assert_allclose(thousandfold, once, atol=2e-9)  # rounded


def test_a_prediction_does_not_depend_on_the_target_of_its_own_point():
    x, targets, weights = problem(30, 4)
    (before,) = left_out_predictions(x, targets, weights, [0.3])
    targets[7] += 100.0
    (after,) = left_out_predictions(x, targets, weights, [0.3])
    assert_allclose(after[7], before[7], atol=1e-8)  # rounded, of targets a hundred times as large
    assert (abs(np.delete(after - before, 7, axis=0)) > 1e-3).any(axis=1).all()


def test_a_constant_feature_changes_nothing():
    x, targets, weights = problem(30, 4)
    (without,) = left_out_predictions(x, targets, weights, [0.3])
    (found,) = left_out_predictions(np.insert(x, 2, 7.0, axis=1), targets, weights, [0.3])
    assert_allclose(found, without, atol=2e-9)  # rounded


def test_a_margin_is_the_lead_of_a_label_over_the_best_other_one():
    predictions = np.array([[0.75, 0.25, 0.0], [0.5, -0.25, 0.25], [1.0, 1.0, -1.0]])
    assert_array_equal(margins(predictions, np.array([0, 2, 1])), [0.5, -0.25, 0])
    every = np.broadcast_to(predictions[:2, np.newaxis], (2, 3, 3))
    expected = [[0.5, -0.5, -0.75], [0.25, -0.75, -0.25]]
    assert_array_equal(margins(every, np.broadcast_to(np.arange(3), (2, 3))), expected)
