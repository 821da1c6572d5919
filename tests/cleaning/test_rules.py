"""Rules against their words, and neighbours against scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.arms import arms_of, random_choice
from dcai_ray.cleaning.rules import (
    best_share,
    chance_threshold,
    check_classes_kept,
    keep_share,
    share_loss,
)
from dcai_ray.cleaning.suggestions import neighbours, suggested_labels
from dcai_ray.valuation import knn_shapley


def test_chance_threshold_moves_zero_to_the_game_whose_empty_set_guesses():
    rng = np.random.default_rng(0)
    n, k, classes = 5, 2, 3
    x, y, point, label = rng.random((n, 2)), rng.integers(0, classes, n), rng.random((1, 2)), [1]

    def v(coalition):
        if not coalition:
            return 1 / classes
        nearest = sorted(coalition, key=lambda i: ((x[i] - point[0]) ** 2).sum())[:k]
        return sum(y[i] == label[0] for i in nearest) / k

    expected = np.zeros(n)  # the mean marginal over all orders of arrival
    for order in permutations(range(n)):
        for place, i in enumerate(order):
            expected[i] += (v(order[: place + 1]) - v(order[:place])) / 120
    values = knn_shapley(x, y, point, np.array(label), k=k, metric="euclidean")
    assert_allclose(values - chance_threshold(classes, n), expected, atol=1e-14)  # 120 terms / 120


def test_share_drops_the_lowest_values_and_of_equals_the_highest_index():
    value = np.array([0.3, -1.0, 0.0, 0.0, 0.0, 0.5, -2.0, 0.3, 0.0, 1.0])
    kept = keep_share(value, 0.4, np.zeros(10, int))
    assert_array_equal(np.flatnonzero(~kept), [1, 4, 6, 8])
    assert keep_share(value, 0.0, np.zeros(10, int)).all()


def test_share_per_class_drops_that_share_of_each():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [100, 40, 20])
    value = rng.random(160) + y  # without per_class the first class alone would lose
    kept = keep_share(value, 0.25, y, per_class=True)
    assert_array_equal(np.bincount(y[~kept]), [25, 10, 5])
    for c in range(3):
        assert value[(y == c) & ~kept].max() < value[(y == c) & kept].min()
    assert_array_equal(np.bincount(y[~keep_share(value, 0.25, y)]), [40])


@pytest.fixture
def noisy():
    """Two overlapping classes; a third of the training labels is flipped, with low values."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 90)
    wrong = np.arange(90) % 3 == 0
    x = (rng.standard_normal((90, 4)) + 2 * true[:, np.newaxis]).astype(np.float32)
    y_val = rng.integers(0, 2, 60)
    x_val = (rng.standard_normal((60, 4)) + 2 * y_val[:, np.newaxis]).astype(np.float32)
    return (
        np.where(wrong, -1.0, 1.0) + rng.random(90),
        x,
        np.where(wrong, 1 - true, true),
        x_val,
        y_val,
    )


def test_share_loss_is_that_of_a_standardized_logistic_regression(noisy):
    value, x, y, x_val, y_val = noisy
    kept = value.argsort()[27:]  # 30 % of 90 dropped
    scaler = StandardScaler().fit(x[kept].astype(np.float64))
    model = LogisticRegression(C=0.01).fit(scaler.transform(x[kept].astype(np.float64)), y[kept])
    expected = log_loss(y_val, model.predict_proba(scaler.transform(x_val.astype(np.float64))))
    # rtol: both stop at the optimizer's own tolerance, on rows in another order.
    assert_allclose(share_loss(value, 0.3, x, y, x_val, y_val), expected, rtol=1e-4)


def test_the_share_that_drops_the_flips_has_the_smallest_loss(noisy):
    value, x, y, x_val, y_val = noisy
    losses = {s: share_loss(value, s, x, y, x_val, y_val) for s in (0.0, 0.15, 1 / 3, 0.9)}
    assert best_share(losses) == 1 / 3


def test_a_share_that_empties_a_class_has_no_loss(noisy):
    _, x, y, x_val, y_val = noisy
    value = y * 1.0  # all of class 0 first
    assert share_loss(value, 0.9, x, y, x_val, y_val) is None
    assert share_loss(value, 0.9, x, y, x_val, y_val, per_class=True) is not None


def test_best_share_is_the_smaller_of_equals_and_passes_over_the_impossible():
    assert best_share({0.0: 0.7, 0.3: 0.5, 0.1: 0.5, 0.9: None}) == 0.1


def test_a_rule_that_empties_classes_is_refused_by_their_names():
    y = np.array([0, 0, 1, 2, 2])
    check_classes_kept(np.array([1, 0, 1, 0, 1], bool), y, ["cat", "dog", "owl"], "zero")
    with pytest.raises(ValueError, match="rule zero would drop every image of class dog, owl"):
        check_classes_kept(np.array([1, 1, 0, 0, 0], bool), y, ["cat", "dog", "owl"], "zero")


def test_random_choice_keeps_as_many_at_random_and_something_of_each_class():
    y = np.repeat([0, 1, 2], [60, 39, 1])
    kept = np.arange(100) < 50
    draws = np.array([random_choice(kept, y, seed) for seed in range(400)])
    assert (draws.sum(axis=1) == 50).all()
    assert draws[:, 99].all()  # the only one of its class
    assert_array_equal(draws[7], random_choice(kept, y, 7))
    # 49 of the other 99: each about 198 times in 400, 5 standard deviations of sqrt(400) / 2.
    assert np.abs(draws[:, :99].sum(axis=0) - 400 * 49 / 99).max() < 50


def test_random_choice_takes_one_of_each_class_where_fewer_are_kept():
    y = np.array([0, 1, 2, 0, 1, 2])
    assert_array_equal(np.sort(y[random_choice(np.zeros(6, bool), y, 0)]), [0, 1, 2])


def test_arms_are_what_their_names_say():
    y, kept = np.array([0, 1] * 20), np.arange(40) % 4 > 0
    wrong = np.arange(40) < 6
    found = arms_of(kept, y, wrong, has_clean=True, seeds=[3, 5])
    alike = {"all": np.ones(40), "kept": kept, "clean": np.zeros(40), "kept+clean": kept}
    for arm, mask in (alike | {"truth": ~wrong}).items():
        for seed in (3, 5):
            assert_array_equal(found[arm][seed], mask)
    assert found["random"][3].sum() == found["random"][5].sum() == kept.sum()
    assert (found["random"][3] != found["random"][5]).any()
    assert found.keys() == alike.keys() | {"truth", "random"}


@pytest.mark.parametrize("wrong", [None, np.zeros(4, bool)])
def test_without_clean_set_or_known_wrong_labels_there_are_no_such_arms(wrong):
    found = arms_of(np.ones(4, bool), np.array([0, 1, 0, 1]), wrong, has_clean=False, seeds=[0])
    assert found.keys() == {"all", "kept", "random"}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_sklearn(metric, scale):
    rng = np.random.default_rng(2)
    x, queries = scale * rng.standard_normal((300, 6)), scale * rng.standard_normal((50, 6))
    centre = x.mean(axis=0)
    search = NearestNeighbors(n_neighbors=6, metric=metric, algorithm="brute").fit(x - centre)
    expected = search.kneighbors(queries - centre, return_distance=False)
    assert_array_equal(neighbours(queries, x, 6, metric, rows_at_a_time=7), expected)
    # Points among themselves: scikit-learn finds each first as its own neighbour.
    own = np.where(np.arange(300) % 2 == 0, np.arange(300), -1)
    among = search.kneighbors(x - centre, return_distance=False)
    expected = np.where(own[:, np.newaxis] >= 0, among[:, 1:], among[:, :-1])
    assert_array_equal(neighbours(x, x, 5, metric, own), expected)


def test_suggested_label_is_the_vote_of_the_kept_and_clean_without_the_image_itself():
    # Two far groups; the image in doubt is given the other group's class.
    x = np.array([[0.0], [0.1], [0.2], [10.0], [10.1], [10.2], [0.15]])
    y = np.array([0, 0, 0, 1, 1, 1, 1])
    for kept in (np.ones(7, bool), np.arange(7) < 6):
        found = suggested_labels(x, y, kept, x[:0], y[:0], k=3, metric="euclidean")
        assert_array_equal(found, [0, 0, 0, 1, 1, 1, 0])
    clean, truth = np.array([[0.06], [0.16], [0.17]]), np.array([2, 2, 2])
    found = suggested_labels(x, y, np.arange(7) > 0, clean, truth, k=1, metric="euclidean")
    assert_array_equal(found, [2, 2, 2, 1, 1, 1, 2])  # the third is nearer to .17 than to .1
    # Dropped neighbours do not vote: of the first group only the clean ones are left.
    found = suggested_labels(x, y, np.arange(7) >= 3, clean, truth, k=3, metric="euclidean")
    assert_array_equal(found[:3], [2, 2, 2])


def test_there_is_no_arm_truth_where_a_class_has_no_right_label():
    y = np.array([0, 0, 1, 1])
    for wrong, there in (([1, 0, 0, 1], True), ([0, 0, 1, 1], False), ([1, 1, 1, 1], False)):
        found = arms_of(np.ones(4, bool), y, np.array(wrong, bool), has_clean=True, seeds=[0])
        assert ("truth" in found) == there
