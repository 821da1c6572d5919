"""Neighbours against scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.neighbors import NearestNeighbors

from dcai_ray.cleaning.nearest import neighbours


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
