"""Scores against scikit-learn's own; the comparison against a table worked out by hand."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.arms import ARMS
from dcai_ray.cleaning.evaluation import comparison, detection
from dcai_ray.cleaning.probes import probe_scores


def test_detection_is_that_of_sklearn():
    rng = np.random.default_rng(4)
    wrong = rng.random(300) < 0.2
    value = (rng.standard_normal(300) - wrong).round(1)  # low where wrong, with ties
    kept = value > -0.5
    found = detection(value, kept, wrong)
    assert found.auc == roc_auc_score(wrong, -value)
    assert found.precision == precision_score(wrong, ~kept)
    assert found.recall == recall_score(wrong, ~kept)
    assert (found.wrong, found.dropped) == (wrong.sum(), (~kept).sum())
    area = np.trapezoid(found.true_positive_rate, found.false_positive_rate)
    assert_allclose(area, found.auc, rtol=1e-12)  # a sum of some sixty terms
    # The curve goes through what the rule does.
    false_rate = (~kept & ~wrong).sum() / (~wrong).sum()
    at = np.flatnonzero(found.false_positive_rate == false_rate)
    assert found.recall in found.true_positive_rate[at]


def test_detection_of_nothing_wrong_is_unknown_and_of_nothing_dropped_has_no_precision():
    value, kept = np.arange(4.0), np.ones(4, bool)
    assert detection(value, kept, np.zeros(4, bool)) is None
    assert detection(value, kept, np.ones(4, bool)) is None
    found = detection(value, kept, np.array([True, False, False, False]))
    assert found.auc == 1  # the wrong one has the lowest value
    assert math.isnan(found.precision)
    assert found.recall == 0


def blobs(seed, count, classes=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    x = rng.standard_normal((count, 5)) * [1, 1, 1, 1, 100] + y[:, np.newaxis]
    return x.astype(np.float32), y


@pytest.mark.parametrize(
    ("name", "standardize", "model"),
    [
        ("logistic", True, make_pipeline(StandardScaler(), LogisticRegression(C=0.01))),
        ("logistic", False, LogisticRegression(C=0.01, max_iter=5000)),
        ("10-nn", True, KNeighborsClassifier(10)),
    ],
)
def test_probe_scores_are_those_of_sklearn(name, standardize, model):
    (x, y), (x_val, y_val) = blobs(5, 120), blobs(6, 80)
    found = probe_scores(name, x, y, x_val, y_val, 3, standardize=standardize)
    probabilities = model.fit(np.float64(x), y).predict_proba(np.float64(x_val))
    assert found["accuracy"] == (probabilities.argmax(axis=1) == y_val).mean()
    area = roc_auc_score(y_val, probabilities, multi_class="ovr")
    assert_allclose(found["auroc"], area, rtol=1e-12)
    # 10-NN gives some classes probability 0: log_loss clips it, here as there.
    assert_allclose(found["loss"], log_loss(y_val, probabilities), rtol=1e-12)


def test_a_class_missing_from_training_is_never_guessed_but_scored():
    (x, y), (x_val, y_val) = blobs(7, 90), blobs(8, 60)
    here = y != 1
    found = probe_scores("10-nn", x[here], y[here], x_val, y_val, 3)
    votes = KNeighborsClassifier(10).fit(x[here], y[here]).predict(x_val)
    assert found["accuracy"] == (votes == y_val).mean()
    assert found["loss"] > 5  # nats: the true class had probability 0 on a third of the images


def test_fewer_than_ten_images_all_vote():
    (x, y), (x_val, y_val) = blobs(9, 6), blobs(10, 40)
    found = probe_scores("10-nn", x, y, x_val, y_val, 3)
    assert found["accuracy"] == (np.bincount(y, minlength=3).argmax() == y_val).mean()


def score(model, arm, seed, accuracy, images=100):
    row = {"model": model, "arm": arm, "seed": seed, "images": images}
    return row | {"accuracy": accuracy, "auroc": accuracy / 2}


def test_comparison_pairs_the_arms_by_seed():
    scores = [
        *(score("net", "kept", seed, a, 70) for seed, a in ((2, 0.9), (0, 0.8), (1, 0.6))),
        *(score("net", "random", seed, a, 70) for seed, a in ((0, 0.7), (1, 0.6), (2, 0.6))),
        *(score("net", "all", seed, a) for seed, a in ((1, 0.7), (2, 0.5), (0, 0.6))),
        score("probe", "kept", 0, 0.5),
    ]
    rows = {(row.model, row.arm): row for row in comparison(scores)}
    kept = rows["net", "kept"]
    assert (kept.images, kept.seeds, kept.wins_over_random) == (70, 3, 2)
    # Against random: .1, 0, .3; against all: .2, -.1, .4.
    # Deviations from the mean, times 3: .1, .5, .4.
    for found, by_hand in (
        (kept.accuracy, 2.3 / 3),
        (kept.auroc, 2.3 / 6),
        (kept.spread, math.sqrt((0.1**2 + 0.5**2 + 0.4**2) / 9 / 2)),
        (kept.against_random, 0.4 / 3),
        (kept.against_all, 0.5 / 3),
        (rows["net", "all"].against_all, 0.0),
    ):
        assert found == pytest.approx(by_hand, abs=1e-12)  # decimal fractions are not exact
    alone = rows["probe", "kept"]
    assert math.isnan(alone.spread)
    assert math.isnan(alone.against_all)
    assert math.isnan(alone.against_random)
    assert alone.wins_over_random == 0


def test_comparison_pairs_only_the_seeds_both_have():
    scores = [score("net", "kept", 0, 0.9), score("net", "kept", 1, 0.5)]
    scores += [score("net", "all", 1, 0.4), score("net", "all", 2, 0.1)]
    kept = next(row for row in comparison(scores) if row.arm == "kept")
    assert kept.against_all == pytest.approx(0.1, abs=1e-12)


def test_rows_come_model_by_model_in_the_order_of_the_arms():
    scores = [score(model, arm, 0, 0.5) for model in ("b", "a") for arm in reversed(ARMS)]
    expected = [(model, arm) for model in ("b", "a") for arm in ARMS]
    assert [(row.model, row.arm) for row in comparison(scores)] == expected
