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


def fitted_again(x, targets, weights, penalty, groups=None):
    """Normal equations without each point or its group in turn: an unpenalized intercept, features
    standardized over all points, the penalty in units of all points, the others' weights as they
    are, and their targets moved to the mean of all."""
    n, d = x.shape
    w = weights / weights.mean()
    z = x - np.average(x, axis=0, weights=w)
    deviation = np.sqrt(np.average(z**2, axis=0, weights=w))
    z = z / np.where(deviation > 0, deviation, 1)
    design = np.column_stack([np.ones(n), z])
    shrinkage = np.diag([0.0, *[penalty * n] * d])
    found = np.empty_like(targets)
    for i in range(n):
        rest = ~np.isin(np.arange(n), [i] if groups is None else groups[i])
        a, c = design[rest], w[rest, np.newaxis]
        centre, others = (np.average(targets[k], axis=0, weights=w[k]) for k in (slice(n), rest))
        b = targets[rest] + centre - others
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


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 40)])
def test_copies_of_a_point_are_left_out_with_it(n, d):
    x, targets, weights = problem(n, d)
    pairs = np.array([(2, 3), (3, 2), (2, 7), (9, 0), (2, 3)])  # 0 and 7 are left out alone
    groups = [{2, 3, 7} if i == 2 else {2, 3} if i == 3 else {0, 9} if i == 9 else {i}
              for i in range(n)]  # fmt: skip
    groups = [sorted(group) for group in groups]
    alone = left_out_predictions(x, targets, weights, PENALTIES)
    found = left_out_predictions(x, targets, weights, PENALTIES, pairs)
    for penalty, predictions, others in zip(PENALTIES, found, alone, strict=True):
        assert_allclose(predictions, fitted_again(x, targets, weights, penalty, groups), atol=2e-9)
        same = np.setdiff1d(np.arange(n), [2, 3, 9])
        assert_array_equal(predictions[same], others[same])


def test_where_all_are_copies_a_point_is_left_out_alone():
    x, targets, weights = problem(4, 2)
    pairs = np.array([(i, j) for i in range(4) for j in range(4)])
    (alone,) = left_out_predictions(x, targets, weights, [0.3])
    (found,) = left_out_predictions(x, targets, weights, [0.3], pairs)
    assert_array_equal(found, alone)


def test_only_the_ratios_of_the_weights_count():
    x, targets, weights = problem(30, 4)
    (once,) = left_out_predictions(x, targets, weights, [0.3])
    (thousandfold,) = left_out_predictions(x, targets, 1000 * weights, [0.3])
    assert_allclose(thousandfold, once, atol=2e-9)  # rounded


def test_a_prediction_depends_on_the_target_of_its_own_point_through_the_mean_alone():
    x, targets, weights = problem(30, 4)
    (before,) = left_out_predictions(x, targets, weights, [0.3])
    targets[7] += 100.0
    (after,) = left_out_predictions(x, targets, weights, [0.3])
    moved = 100 * weights[7] / weights.sum()
    assert_allclose(after[7] - before[7], moved, atol=1e-7)  # rounded, of targets of about 100
    assert (abs(np.delete(after - before, 7, axis=0) - moved) > 1e-3).any(axis=1).all()


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


@pytest.mark.parametrize(
    ("d", "penalty", "error"),
    # With the mean of the others -1/59 x 2/3 = -.011 in every draw; with an intercept that is held
    # and many features about the opposite, times h / (1 - h) of leverages h of up to .9.
    [(3, 30.0, 0.001), (300, 30.0, 0.003), (300, 0.1, 0.02)],
)
def test_the_label_that_an_image_has_leaves_no_mark_on_what_is_said_of_it(d, penalty, error):
    """Pure noise: the margin of the given label is no smaller than that of any other one."""
    means = []
    for seed in range(200 if d == 3 else 40):
        rng = np.random.default_rng(seed)
        x, y = rng.standard_normal((60, d)), np.repeat([0, 1, 2], 20)
        (found,) = left_out_predictions(x, np.eye(3)[y], np.ones(60), [penalty])
        means.append(np.mean(found[np.arange(60), y] - found.mean(axis=1)))
    assert abs(np.mean(means)) < error
