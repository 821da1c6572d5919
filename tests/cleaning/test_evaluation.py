"""Detection against scikit-learn's own; the comparison against a table worked out by hand."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from dcai_ray.cleaning.arms import ARMS
from dcai_ray.cleaning.evaluation import comparison, detection


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
