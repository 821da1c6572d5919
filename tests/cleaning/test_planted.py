"""Planted errors where the evidence has known densities; weights and detection by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest

from dcai_ray.cleaning.evidence import Evidence, Probe, log_odds
from dcai_ray.cleaning.planted import (
    PLANTED_SHARE,
    judge,
    label_weights,
    wrong_odds,
)
from dcai_ray.cleaning.recall import class_detections, detection


def evidence_of(given, reference, labels):
    """(n, E) and (r, C, E) pieces of evidence, with a probe that confuses all classes alike."""
    (n, count), (r, num_classes, _) = given.shape, reference.shape
    probe = Probe(
        margins=np.zeros((n, 1)),
        best=0,
        reference_margins=np.zeros((r, num_classes, 1)),
        reference_predictions=np.full((r, num_classes), 1 / num_classes),
        suggested=np.zeros(n, int),
        suggested_probability=np.zeros(n),
        accuracy=1.0,
        separation=0.5,
    )
    names = tuple(f"evidence{i}" for i in range(count))
    return Evidence(names=names, given=given, labels=labels, reference=reference, probe=probe)


def gaussian_evidence(n, r, *, shares, seed, lead=1.0):
    """One piece of evidence, with mean `lead` for right labels and -`lead` for wrong ones, and
    variance 1; by class the share of wrong labels among the training images.

    Returns:
        The evidence, the class numbers as given and whether they are wrong.
    """
    rng = np.random.default_rng(seed)
    y, labels = rng.integers(0, len(shares), n), np.arange(r) % len(shares)
    wrong = rng.random(n) < np.array(shares)[y]
    given = rng.standard_normal(n) + np.where(wrong, -lead, lead)
    right = labels[:, np.newaxis] == np.arange(len(shares))
    reference = rng.standard_normal(right.shape) + np.where(right, lead, -lead)
    return evidence_of(given[:, np.newaxis], reference[..., np.newaxis], labels), y, wrong


def test_half_of_the_wrong_labels_are_uniform_and_half_are_confusions():
    predictions = np.array([[1.0, 0.75, 0.25], [0.0, 0.25, 0.25]])
    first, second = label_weights(np.array([0, 2]), predictions)
    twice = np.exp(8 * (0.75 - 0.25))  # by how much more often the second class is confused
    assert PLANTED_SHARE == 0.3
    assert_allclose(first, [0.7, 0.3 * (0.25 + twice / (1 + twice) / 2),
                            0.3 * (0.25 + 1 / (1 + twice) / 2)], rtol=1e-12)  # fmt: skip
    twice = np.exp(8 * 0.25)
    assert_allclose(second, [0.3 * (0.25 + 1 / (1 + twice) / 2),
                             0.3 * (0.25 + twice / (1 + twice) / 2), 0.7], rtol=1e-12)  # fmt: skip


@pytest.mark.parametrize("share", [0.3, 0.5])
@pytest.mark.parametrize("num_classes", [2, 5, 12, 13, 100])
def test_a_share_of_each_images_labels_is_wrong(num_classes, share):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, num_classes, 50), rng.random((50, num_classes))
    weights = label_weights(labels, predictions, share)
    assert (weights >= 0).all()
    assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert_allclose(weights[np.arange(50), labels], 1 - share, rtol=1e-12)
    planted = (weights > 0).sum(axis=1) - 1
    assert (planted == num_classes - 1).all() if num_classes <= 12 else (planted <= 10).all()


def test_of_many_classes_wrong_labels_are_drawn_as_often_as_they_would_weigh():
    # The probe confuses the first class with the second, hence that one half of the time and more.
    predictions = np.zeros((2000, 21))
    predictions[:, 1] = 5.0
    labels = np.zeros(2000, int)
    mean = label_weights(labels, predictions).mean(axis=0)
    expected = 0.3 * np.array([0, 0.5 + 0.5 / 20, *[0.5 / 20] * 19])
    # Four standard errors of 20,000 draws.
    error = 0.3 * np.sqrt(0.525 * 0.475 / 20_000)
    assert_allclose(mean[1:], expected[1:], atol=4 * error)
    assert_array_equal(label_weights(labels, predictions), label_weights(labels, predictions))


@pytest.mark.parametrize(("num_classes", "share"), [(2, 0.3), (2, 0.1), (4, 0.5)])
def test_the_probability_of_a_wrong_label_is_that_of_bayes(num_classes, share):
    evidence, y, wrong = gaussian_evidence(4000, 1500, shares=[share] * num_classes, seed=1)
    x = evidence.given[:, 0]
    exact = share * np.exp(-x) / (share * np.exp(-x) + (1 - share) * np.exp(x))
    found = judge(evidence, y)
    # The share is known to +-.02 at best: 2 sqrt(.3 * .7 / 4000), and as much for the overlap.
    assert_allclose(found.wrong_probability, exact, atol=0.06)
    assert abs(found.wrong_probability.mean() - wrong.mean()) < 0.02
    # Images of the clean set are judged as training images with the same evidence are.
    x = evidence.reference[..., 0]
    exact = share * np.exp(-x) / (share * np.exp(-x) + (1 - share) * np.exp(x))
    assert_allclose(found.reference_probability, exact, atol=0.08)


@pytest.mark.slow
def test_the_share_of_wrong_labels_lies_in_its_interval():
    inside, shares = [], (0.0, 0.02, 0.1, 0.3, 0.6, 0.9)
    for share, seed in zip(np.repeat(shares, 3), range(18), strict=True):
        evidence, y, _ = gaussian_evidence(1000, 600, shares=[share, share], seed=seed)
        found = judge(evidence, y).share
        inside.append(found.low <= share <= found.high)
        assert found.low <= found.value <= found.high
        assert found.high - found.low < 0.15
    # 95 % are 17.1 of 18; fewer than 15 have a probability of 1 %.
    assert sum(inside) >= 15


def test_without_any_wrong_label_none_is_likely_and_with_wrong_ones_alone_all_are():
    evidence, y, _ = gaussian_evidence(500, 100, shares=[0.0, 0.0], seed=3, lead=4.0)
    found = judge(evidence, y)
    assert found.share.value == found.share.low == 0
    assert_array_equal(found.wrong_probability, 0)
    evidence, y, _ = gaussian_evidence(500, 100, shares=[1.0, 1.0], seed=3, lead=4.0)
    found = judge(evidence, y)
    assert found.share.value == found.share.high == 1
    assert_array_equal(found.wrong_probability, 1)


def test_classes_have_shares_of_their_own():
    evidence, y, wrong = gaussian_evidence(1500, 200, shares=[0.05, 0.3, 0.0], seed=1, lead=2.0)
    there = y < 2
    given = evidence_of(evidence.given[there], evidence.reference, evidence.labels)
    found = judge(given, y[there]).class_shares
    for c in (0, 1):
        assert found[c].low <= wrong[y == c].mean() <= found[c].high
        assert abs(found[c].value - wrong[y == c].mean()) < 0.04  # two standard errors of a share
    assert np.isnan([found[2].value, found[2].low, found[2].high]).all()


def test_a_class_that_the_clean_set_lacks_does_not_count_as_wrong():
    evidence, y, _ = gaussian_evidence(900, 300, shares=[0.2, 0.2, 1.0], seed=0, lead=1.5)
    there, clean = y < 2, evidence.labels < 2  # all evidence speaks against the third class
    reference, labels = evidence.reference[clean], evidence.labels[clean]
    found = judge(evidence_of(evidence.given, reference, labels), y)
    alone = judge(evidence_of(evidence.given[there], reference, labels), y[there])
    assert found.share == alone.share
    assert found.share.low < 0.2 < found.share.high
    assert_array_equal(found.wrong_probability[there], alone.wrong_probability)
    assert found.class_shares[:2] == alone.class_shares[:2]
    third = found.class_shares[2]
    assert np.isnan([third.value, third.low, third.high]).all()


def test_a_clean_image_is_judged_by_models_that_have_not_seen_it():
    """The first image has a piece of evidence of its own, by which a model could tell it."""
    evidence, y, _ = gaussian_evidence(300, 60, shares=[0.2, 0.2], seed=0, lead=0.3)
    own = np.zeros((60, 2, 1))
    own[0, :, 0] = [-30.0, 30.0]  # with the right label, and with the wrong one
    leaky = evidence_of(
        np.concatenate([evidence.given, np.zeros((300, 1))], axis=1),
        np.concatenate([evidence.reference, own], axis=2),
        evidence.labels,
    )
    seen = wrong_odds(evidence_of(leaky.reference[0], leaky.reference, leaky.labels))
    plain = wrong_odds(evidence_of(evidence.reference[0], evidence.reference, evidence.labels))
    assert seen[1] - seen[0] > plain[1] - plain[0] + 2  # it would be recognized
    # No other image has that evidence, so nothing is learnt from it. The probabilities may be
    # shifted to another share of wrong labels, but that moves all log odds alike.
    found, expected = (
        np.diff(log_odds(judge(known, y).reference_probability[0])) for known in (leaky, evidence)
    )
    assert_allclose(found, expected, atol=1e-4)  # probabilities are rounded to 1e-6


def wilson(hits, count):
    """Wilson 1927 as SciPy has it."""
    found = binomtest(hits, count).proportion_ci(method="wilson")
    return hits / count, found.low, found.high


def numbers(interval):
    return interval.value, interval.low, interval.high


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_detection_counts_images_with_wilsons_interval(hits):
    labels = np.zeros(20, int)
    weights = np.tile([0.7, 0.3], (20, 1))
    flagged = np.zeros((20, 2), bool)
    flagged[:hits, 1] = True  # with the wrong label
    flagged[:5, 0] = True  # with the right one
    found = detection(flagged, labels, weights)
    # z = 1.959964, and bounds of 0 and 1 are reached but for rounding.
    assert_allclose(numbers(found.recall), wilson(hits, 20), rtol=1e-6, atol=1e-12)
    assert_allclose(numbers(found.false_alarms), wilson(5, 20), rtol=1e-6)


#                         right  wrong labels
WEIGHTS = np.array([[0.7, 0.2, 0.1], [0.7, 0.1, 0.2], [0.3, 0.7, 0.0], [0.0, 0.3, 0.7]])
TRUE = np.array([0, 0, 1, 2])
FLAGGED = np.array(
    [[False, True, False], [True, True, True], [True, False, True], [False, False, False]]
)


def test_detection_weighs_wrong_labels_as_often_as_they_are_planted():
    found = detection(FLAGGED, TRUE, WEIGHTS)
    # Of the four images .2 of .3, all .3, all .3, none of .3.
    assert found.recall.value == pytest.approx(0.8 / 1.2, rel=1e-12)
    assert found.false_alarms.value == 0.25
    first, second, third = class_detections(FLAGGED, TRUE, WEIGHTS)
    # Given the first label wrongly: the third image with weight .3, flagged; the last with none.
    assert first.recall.value == 1
    assert numbers(first.false_alarms) == pytest.approx(wilson(1, 2), rel=1e-6)
    # The second label: images 0 and 1 with .2 and .1, both flagged; 3 with .3, not.
    assert second.recall.value == pytest.approx(0.5, rel=1e-12)
    assert second.false_alarms.value == 0
    # The third: image 0 with .1, not flagged; 1 with .2, flagged; 2 with none.
    assert third.recall.value == pytest.approx(0.2 / 0.3, rel=1e-12)
    # Kish: (.1 + .2)^2 / (.1^2 + .2^2) = 1.8 images. Wilson's bounds p solve
    # (share - p)^2 = z^2 p (1 - p) / 1.8.
    for p in (third.recall.low, third.recall.high):
        assert (2 / 3 - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / 1.8, rel=1e-6)
    assert third.recall.low < 2 / 3 < third.recall.high


def test_where_nothing_is_planted_nothing_is_known():
    weights = np.array([[1.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
    labels, flagged = np.zeros(2, int), np.ones((2, 3), bool)
    assert np.isnan(numbers(detection(flagged[:1], labels[:1], weights[:1]).recall)).all()
    by_class = class_detections(flagged, labels, weights)
    assert by_class[1].recall.value == 1
    assert np.isnan(numbers(by_class[1].false_alarms)).all()  # no image of that class
    assert np.isnan([numbers(by_class[2].recall), numbers(by_class[2].false_alarms)]).all()


def test_wrong_labels_of_the_reference_images_themselves_are_noticed():
    """Two Gaussians, 3 apart; the clean images have their true label's evidence, wrong or not."""
    for wrong, expected in ((0.0, 0.0), (0.1, 0.1), (0.3, 0.3)):
        rng = np.random.default_rng(1)
        labels = np.arange(600) % 3
        true = np.where(rng.random(600) < wrong, (labels + 1) % 3, labels)
        reference = rng.normal(-1.5, 1, (600, 3, 1))
        reference[np.arange(600), true] += 3
        evidence = evidence_of(rng.normal(1.5, 1, (500, 1)), reference, labels)
        found = judge(evidence, np.zeros(500, int)).reference_errors
        assert abs(found - expected) < 0.06, wrong
