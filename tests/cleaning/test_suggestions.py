"""Neighbours against scikit-learn; suggested labels against groups laid out by hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.neighbors import NearestNeighbors

from dcai_ray.cleaning.suggestions import neighbours, suggested_labels


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
