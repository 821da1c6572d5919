"""The ridge probe against scikit-learn's; evidence on clusters whose labels are known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.evidence import (
    CLEAN_WEIGHT,
    PENALTIES,
    Network,
    gathered,
    log_odds,
    neighbour_counts,
    references,
    run_probe,
    with_best_suggestions,
)

CENTRES = 1.5 * np.random.default_rng(99).standard_normal((3, 6))
NOTHING = np.empty((0, 6)), np.empty(0, dtype=np.int64)


def clusters(count, seed, spread=1.0):
    """Points of three clusters, of which the first is the largest."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    return CENTRES[y] + spread * rng.standard_normal((count, 6)), y


@pytest.mark.parametrize(
    ("num_points", "num_classes", "counts"),
    [
        (2, 2, (5, 10)),
        (99, 2, (5, 10, 20)),  # up to 99 / 4
        (2000, 10, (5, 10, 20, 50, 100)),
        (10**6, 2, (5, 10, 20, 50, 100, 200, 500, 1000)),
    ],
)
def test_numbers_of_neighbours_go_up_to_half_a_class(num_points, num_classes, counts):
    assert neighbour_counts(num_points, num_classes) == counts


def test_few_images_are_all_reference_images():
    assert_array_equal(references(np.array([2, 0, 0, 1]), 4), [0, 1, 2, 3])


def test_of_many_images_every_class_gives_its_share_of_the_references():
    y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [700, 250, 40, 10]))
    found = references(y, 100)
    assert_array_equal(found, np.unique(found))  # sorted, none twice
    assert_array_equal(np.bincount(y[found]), [70, 25, 4, 1])
    in_order = np.flatnonzero(y == 0)
    gaps = np.diff(np.searchsorted(in_order, found[y[found] == 0]))
    assert_array_equal(gaps, 10)  # not the first ones of the class


def test_a_class_that_is_too_small_for_its_share_still_gives_a_reference():
    y = np.repeat([0, 1, 2], [990, 3, 7])
    found = references(y, 100)
    assert_array_equal(np.bincount(y[found]), [99, 1, 1])


def balanced_weights(y, y_clean):
    """What the docstrings promise: a clean image counts thrice, and each class alike."""
    labels, counts = np.concatenate([y, y_clean]), np.repeat([1.0, 3.0], [len(y), len(y_clean)])
    return counts / np.array([counts[labels == label].sum() for label in labels])


@pytest.mark.parametrize("with_clean", [True, False])
def test_margins_are_those_of_ridge_fits_without_the_image(with_clean):
    assert CLEAN_WEIGHT == 3
    (x, y), (x_clean, y_clean) = clusters(50, 0), clusters(20, 1) if with_clean else NOTHING
    x_all, labels = np.concatenate([x, x_clean]), np.concatenate([y, y_clean])
    weights = balanced_weights(y, y_clean)
    weights /= weights.mean()
    z = StandardScaler().fit(x_all, sample_weight=weights).transform(x_all)
    rows = np.array([3, 11, len(labels) - 1])
    probe = run_probe(x, y, x_clean, y_clean, rows, 3)
    assert probe.margins.shape == (50, len(PENALTIES))
    assert probe.reference_margins.shape == (3, 3, len(PENALTIES))
    mean = np.full(3, 1 / 3)  # of the targets, as classes weigh alike
    for p, penalty in enumerate(PENALTIES):
        for row, image in enumerate(rows):
            rest = np.arange(len(labels)) != image
            targets, w = np.eye(3)[labels[rest]], weights[rest]
            targets += mean - np.average(targets, axis=0, weights=w)
            model = Ridge(alpha=penalty * len(labels)).fit(z[rest], targets, sample_weight=w)
            (found,) = model.predict(z[[image]])
            expected = [found[c] - np.delete(found, c).max() for c in range(3)]
            # Predictions are rounded to 1e-9; scikit-learn solves otherwise.
            assert_allclose(probe.reference_margins[row, :, p], expected, atol=1e-8)
            if p == probe.best:
                assert_allclose(probe.reference_predictions[row], found, atol=1e-8)
            if image < 50:
                assert_allclose(probe.margins[image, p], expected[y[image]], atol=1e-8)


def accuracies(margins, y):
    """(p,) balanced accuracy of each penalty: a prediction is right if its margin is positive."""
    right = margins > 0
    return np.mean([right[y == c].mean(axis=0) for c in np.unique(y)], axis=0)


@pytest.mark.parametrize("with_clean", [True, False])
def test_the_best_penalty_has_the_highest_balanced_accuracy(with_clean):
    chosen = set()
    for seed in range(4):
        x, y = clusters(60, seed, spread=2.0)
        x_clean, y_clean = clusters(90, seed + 50, spread=2.0) if with_clean else NOTHING
        probe = run_probe(x, y, x_clean, y_clean, np.arange(60), 3)
        scores = accuracies(probe.margins, y)
        if with_clean:
            probe = run_probe(x, y, x_clean, y_clean, 60 + np.arange(90), 3)
            of_true_label = probe.reference_margins[np.arange(90), y_clean]  # (m, p)
            scores = accuracies(of_true_label, y_clean)
        assert probe.best == scores.argmax()
        assert_allclose(probe.accuracy, scores.max(), rtol=1e-12)  # a mean of three
        chosen.add(probe.best)
    assert len(chosen) > 1  # it depends on the data


def test_a_clean_image_is_predicted_without_its_own_label():
    (x, y), (x_clean, y_clean) = clusters(300, 0), clusters(60, 1)
    # A feature that the first clean image alone has: a fit to it would take its label from there.
    leak = np.zeros((360, 1))
    leak[300] = 100.0
    x, x_clean = np.hstack([x, leak[:300]]), np.hstack([x_clean, leak[300:]])
    first = np.array([300])
    before = run_probe(x, y, x_clean, y_clean, first, 3).reference_margins
    for label in range(3):
        y_clean[0] = label
        after = run_probe(x, y, x_clean, y_clean, first, 3).reference_margins
        # Its class weighs the same with and without it, so the others of that class weigh a little
        # less: by 3 in about 90, of margins of up to .7.
        assert_allclose(after, before, atol=0.03)


def test_of_few_images_with_many_features_none_keeps_its_label_for_its_own_sake():
    """Where features outnumber images, each has directions of its own."""
    true_suggested, kept = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, true = clusters(60, seed)
        wrong = np.arange(60) % 5 == 0
        y = np.where(wrong, (true + 1) % 3, true)
        x = x @ rng.standard_normal((6, 500)) + 3 * rng.standard_normal((60, 500))
        suggested = run_probe(x, y, x[:0], y[:0], np.arange(60), 3).suggested
        true_suggested.append((suggested == true)[wrong].mean())
        kept.append((suggested == y)[wrong].mean())
    assert np.mean(true_suggested) > 0.6
    assert np.mean(kept) < 0.3


def test_one_source_looks_alike_and_two_do_not():
    rows, shift = 600 + np.arange(200), [0, 0, 0, 0, 0, 6]
    alike, apart = [], []
    for seed in range(6):
        (x, y), (x_clean, y_clean) = clusters(600, seed), clusters(200, seed + 50)
        alike.append(run_probe(x, y, x_clean, y_clean, rows, 3).separation)
        apart.append(run_probe(x, y, x_clean + shift, y_clean, rows, 3).separation)
    # Without an image the share of its source is smaller, so pure noise is ranked below chance.
    assert 0.4 < np.mean(alike) < 0.52
    assert max(alike) < 0.6
    assert min(apart) > 0.97
    assert np.isnan(run_probe(x, y, *NOTHING, np.arange(600), 3).separation)


@pytest.mark.parametrize("with_clean", [True, False])
def test_of_far_clusters_the_true_label_is_suggested_whatever_the_given_one(with_clean):
    x, true = clusters(200, 0, spread=0.2)
    wrong = np.arange(200) % 7 == 0
    y = np.where(wrong, (true + 1) % 3, true)
    x_clean, y_clean = clusters(50, 1, spread=0.2) if with_clean else NOTHING
    rows = 200 + np.arange(50) if with_clean else np.arange(200)
    probe = run_probe(x, y, x_clean, y_clean, rows, 3)
    assert_array_equal(probe.suggested, true)
    margin = probe.margins[:, probe.best]
    assert margin[wrong].max() < 0 < margin[~wrong].min()


def test_suggested_labels_are_as_often_right_as_they_say():
    x, y = clusters(2000, 0, spread=3.0)
    probe = run_probe(x, y, *clusters(1000, 1, spread=3.0), 2000 + np.arange(1000), 3)
    right = probe.suggested == y
    assert 0.5 < right.mean() < 0.8  # many are wrong
    # Three standard errors of both samples: 3 * sqrt(.25 / 2000 + .25 / 1000).
    assert abs(probe.suggested_probability.mean() - right.mean()) < 0.058
    sure = probe.suggested_probability > np.median(probe.suggested_probability)
    assert right[sure].mean() > right[~sure].mean() + 0.1


def test_log_odds_are_those_of_the_logistic_function_and_finite():
    odds = np.array([[-3.0, 0.0, 5.0]])
    assert_allclose(log_odds(1 / (1 + np.exp(-odds))), odds, rtol=1e-12)
    assert_array_equal(np.isfinite(log_odds(np.array([[0.0, 1.0]]))), True)


def test_labels_are_suggested_by_whichever_is_more_accurate_on_the_judged_images():
    (x, y), (x_clean, y_clean) = clusters(40, 0), clusters(9, 1)
    probe = run_probe(x, y, x_clean, y_clean, 40 + np.arange(9), 3)
    rng = np.random.default_rng(5)
    train = rng.normal(size=(40, 3))
    knows = Network("knows", train, train[:9], np.log(0.01 + 0.98 * np.eye(3))[y_clean])
    guesses = Network("guesses", -train, train[:9], np.zeros((9, 3)))
    unasked = Network("unasked", -train, train[:9], None)
    assert with_best_suggestions(probe, [guesses, unasked], y_clean) is probe
    less = replace(probe, accuracy=0.9)
    found = with_best_suggestions(less, [guesses, knows, unasked], y_clean)
    assert_array_equal(found.suggested, train.argmax(axis=1))
    assert found.accuracy == 1.0
    assert_array_equal(found.margins, probe.margins)
    # Calibrated on images of which the network is always right: as certain as may be.
    assert found.suggested_probability.min() > 1 / 3
    assert np.median(found.suggested_probability) > 0.9


def test_evidence_stands_side_by_side_in_units_of_about_one():
    (x, y), (x_clean, y_clean) = clusters(40, 0), clusters(9, 1)
    probe = run_probe(x, y, x_clean, y_clean, 40 + np.arange(9), 3)
    rng = np.random.default_rng(5)
    values = [(name, rng.random(40) / 40, rng.random((9, 3)) / 40) for name in ("value", "self")]
    # Log odds of 1, 0 and -2 for the classes; the margin is over the best other one.
    odds = np.array([1.0, 0.0, -2.0])
    network = Network("network", np.tile(odds, (40, 1)), np.tile(odds, (9, 1)), None)
    found = gathered(values, probe, y, y_clean, [network])
    count = 2 + len(PENALTIES) + 1
    assert len(found.names) == len(set(found.names)) == count
    assert found.given.shape == (40, count)
    assert found.reference.shape == (9, 3, count)
    columns = {name: i for i, name in enumerate(found.names)}
    for name, given, reference in values:
        assert_allclose(found.given[:, columns[name]], 40 * given, rtol=1e-15)
        assert_allclose(found.reference[..., columns[name]], 40 * reference, rtol=1e-15)
    for i, penalty in enumerate(PENALTIES):
        place = columns[f"margin_{penalty:g}"]
        assert_array_equal(found.given[:, place], probe.margins[:, i])
        assert_array_equal(found.reference[..., place], probe.reference_margins[..., i])
    by_hand = np.array([1.0, -1.0, -3.0])
    assert_array_equal(found.given[:, columns["network"]], by_hand[y])
    assert_array_equal(found.reference[..., columns["network"]], np.tile(by_hand, (9, 1)))
    assert_array_equal(found.labels, y_clean)
    assert "network" not in gathered(values, probe, y, y_clean).names
