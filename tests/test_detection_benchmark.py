"""The noise of benchmarks/detection.py and what it measures, against cases known by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks.detection_measures import brier, mean_and_error, ranking, reliability
from benchmarks.label_noise import flipped, look_alike, paired, structured, thinned


def clusters(sizes, centres, seed=0):
    """Tight clusters of features, and the cluster of each point."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    return np.array(centres)[cluster] + 0.01 * rng.standard_normal((len(cluster), 2)), cluster


@pytest.mark.parametrize("make", [flipped, paired])
def test_the_share_of_wrong_labels_is_exact(make):
    truth = np.arange(200) % 4
    given = make(truth, 0.3, np.random.default_rng(0))
    assert (given != truth).sum() == 60
    assert set(given) == set(truth)


def test_flips_reach_every_other_class_and_pairs_only_the_next():
    truth = np.arange(400) % 4
    steps = {
        make: set((make(truth, 0.5, np.random.default_rng(0)) - truth) % 4)
        for make in (flipped, paired)
    }
    assert steps == {flipped: {0, 1, 2, 3}, paired: {0, 1}}


def test_a_look_alike_gets_the_nearest_other_class():
    x, truth = clusters([30, 30, 30], [(1, 0), (1, 0.2), (-1, 1)])
    given = look_alike(x, truth, 1.0, np.random.default_rng(0))
    assert_array_equal(given[:60], 1 - truth[:60])


def test_structured_noise_moves_one_whole_cluster_of_each_class_to_one_class():
    # Five clusters to a class; the third has a fifth of its class, the others far more or less.
    centres = [(10 * i, 50 * c) for c in range(2) for i in range(5)]
    x, cluster = clusters([38, 12, 20, 24, 6] * 2, centres)
    truth = cluster // 5
    given = structured(x, truth, np.random.default_rng(0))
    assert_array_equal(given != truth, cluster % 5 == 2)


def test_thinning_leaves_common_classes_and_the_least_of_rare_ones():
    y = np.repeat([0, 1, 2, 3], [40, 40, 3, 3])
    left = thinned(y, 20, 6, np.random.default_rng(0))
    assert_array_equal(np.bincount(y[left]), [40, 6, 3, 3])


def test_a_perfect_ranking_and_a_reversed_one():
    wrong = np.array([True, False, False, True, False])
    assert ranking(wrong.astype(float), wrong) == (1, 1, 1)
    assert ranking(-wrong.astype(float), wrong)[::2] == (0, 0)


def test_reliability_counts_every_image_once_and_one_belongs_to_the_last_bin():
    p, wrong = np.array([0, 0.1, 0.5, 1.0]), np.array([False, True, False, True])
    bins = reliability(p, wrong)
    assert_allclose(bins[[0, 2, 4]], [[2, 0.1, 1], [1, 0.5, 0], [1, 1, 1]])
    assert bins[:, 0].sum() == 4


def test_the_true_share_for_every_image_is_the_base_of_the_brier_score():
    wrong = np.array([True, False, False, False])
    assert_allclose(brier(np.full(4, 0.25), wrong), [3 / 16, 3 / 16])


def test_missing_figures_do_not_count():
    assert mean_and_error([1.0, float("nan"), 3.0]) == (2.0, 1.0)
    assert np.isnan(mean_and_error([1.0])[1])
