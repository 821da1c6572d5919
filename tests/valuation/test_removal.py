"""Removal curves against scikit-learn's classifier, fitted again without the points."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.neighbors import KNeighborsClassifier

from dcai_ray.valuation.removal import removal, right


def points(n=60, m=25, num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y, y_val = rng.integers(0, num_classes, n), rng.integers(0, num_classes, m)
    x, x_val = (rng.standard_normal((len(c), 4)) + 1.5 * np.eye(4)[c] for c in (y, y_val))
    return (x.astype(np.float32), y), (x_val.astype(np.float32), y_val)


@pytest.mark.parametrize("k", [1, 5])
def test_counts_are_those_of_a_classifier_fitted_without_the_removed_points(k):
    train, val = points()
    rng = np.random.default_rng(1)
    orders, removed = [rng.permutation(60) for _ in range(3)], [0, 1, 20, 50, 60 - k]
    game = removal(train, val, orders, removed, k=k, metric="euclidean", num_classes=3)
    expected = np.empty((3, len(removed)), dtype=np.int64)
    for o, order in enumerate(orders):
        for s, cut in enumerate(removed):
            left = np.sort(order[cut:])
            fitted = KNeighborsClassifier(k).fit(train[0][left], train[1][left])
            expected[o, s] = (fitted.predict(val[0]) == val[1]).sum()
    assert_array_equal(right(slice(0, 25), game), expected)
    parts = right(slice(0, 10), game) + right(slice(10, 25), game)
    assert_array_equal(parts, expected)


def test_of_fewer_points_than_k_all_are_neighbours():
    train, val = points()
    order = np.arange(60)
    few = removal(train, val, [order], [57], k=10, metric="cosine", num_classes=3)
    votes = np.bincount(train[1][57:], minlength=3)
    assert right(slice(0, 25), few)[0, 0] == (val[1] == votes.argmax()).sum()
