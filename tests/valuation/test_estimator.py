"""The estimator keeps scikit-learn's contract, and its values are those of the closed form."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

import dcai_ray


@parametrize_with_checks([dcai_ray.DataShapley()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(150) < 0.15
    names = np.array(["setosa", "versicolor", "virginica"])
    return x, names[np.where(wrong, (y + 1) % 3, y)], names[y], wrong


def test_values_are_those_of_the_closed_form(iris):
    x, given, true, _ = iris
    found = dcai_ray.DataShapley(k=5, class_weights="none").fit(x, given)
    assert_array_equal(found.values_, dcai_ray.knn_shapley(x, given, k=5))
    by_clean = clone(found).fit(x[:100], given[:100], x[100:], true[100:])
    assert_array_equal(
        by_clean.values_, dcai_ray.knn_shapley(x[:100], given[:100], x[100:], true[100:], k=5)
    )


def test_a_filter_drops_wrong_labels_and_no_class(iris):
    x, given, _, wrong = iris
    filtered = dcai_ray.DataShapley(metric="euclidean")
    x_kept, y_kept = filtered.fit_resample(x, given)
    kept = np.isin(np.arange(150), filtered.sample_indices_)
    assert_array_equal(x_kept, x[kept])
    assert_array_equal(y_kept, given[kept])
    assert kept[wrong].mean() < 0.1 < 0.9 < kept[~wrong].mean()
    _, labels = dcai_ray.DataShapley(threshold=np.inf).fit_resample(x, given)
    assert sorted(labels) == ["setosa", "versicolor", "virginica"]
