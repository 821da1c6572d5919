"""The scores against scikit-learn's metrics, ties and absent classes included."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics

from dcai_ray.valuation.utilities.scores import (
    TIE,
    auroc,
    differences,
    empty_score,
    predicted_classes,
    score_of,
    score_range,
)

SUM_OF_FEW = 1e-13
NAMES = ("accuracy", "balanced-accuracy", "auroc", "neg-log-loss")


def drawn(seed, m, num_classes):
    """Probabilities in twentieths, so that some tie and some are 0, and true classes."""
    rng = np.random.default_rng(seed)
    scores = rng.multinomial(20, rng.dirichlet(np.full(num_classes, 0.4), m)) / 20
    return scores, rng.integers(0, num_classes, m)


def by_sklearn(name, scores, y_val):
    match name:
        case "accuracy":
            return metrics.accuracy_score(y_val, scores.argmax(axis=1))
        case "balanced-accuracy":
            # Its own warns of predicted classes that no point has; the recalls are the same.
            return metrics.recall_score(
                y_val, scores.argmax(axis=1), labels=np.unique(y_val), average="macro"
            )
        case "auroc":
            areas = [metrics.roc_auc_score(y_val == c, scores[:, c]) for c in np.unique(y_val)]
            return np.mean(areas)
    return -metrics.log_loss(y_val, scores, labels=np.arange(scores.shape[1]))


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_equals_sklearn(name, num_classes):
    for seed in range(10):
        scores, y_val = drawn(seed, 40, num_classes)
        expected = by_sklearn(name, scores, y_val)
        assert_allclose(score_of(name, scores, y_val), expected, rtol=0, atol=SUM_OF_FEW)


def test_balanced_accuracy_is_sklearns_own():
    scores, _ = drawn(0, 40, 3)
    y_val = np.arange(40) % 3
    expected = metrics.balanced_accuracy_score(y_val, scores.argmax(axis=1))
    assert_allclose(score_of("balanced-accuracy", scores, y_val), expected, atol=SUM_OF_FEW)


@pytest.mark.parametrize("name", NAMES)
def test_classes_that_no_point_has_do_not_count(name):
    scores, y_val = drawn(1, 30, 4)
    y_val[y_val == 2] = 3
    expected = by_sklearn(name, scores, y_val)
    assert_allclose(score_of(name, scores, y_val), expected, rtol=0, atol=SUM_OF_FEW)


def test_auroc_of_two_complementary_columns_is_the_binary_one():
    p = np.array([0.1, 0.4, 0.4, 0.8, 0.35])
    y_val = np.array([0, 0, 1, 1, 1])
    expected = metrics.roc_auc_score(y_val, p)
    assert_allclose(score_of("auroc", np.column_stack([1 - p, p]), y_val), expected)


def test_auroc_with_one_class_present_is_one_half():
    scores, _ = drawn(0, 6, 3)
    assert score_of("auroc", scores, np.full(6, 1)) == 0.5


def test_a_tie_within_rounding_errors_goes_to_the_smallest_class():
    half = 0.5 + 0.3 * TIE
    scores = np.array([[0.5, half], [half, 0.5], [0.5, 0.5], [0.5, 0.5 + 2 * TIE]])
    assert_array_equal(predicted_classes(scores), [0, 0, 0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_no_two_scores_differ_by_more_than_the_range(name):
    y_val = np.array([0, 1, 1, 2])
    best, worst = np.eye(3)[y_val], np.eye(3)[(y_val + 1) % 3]
    assert score_of(name, best, y_val) == pytest.approx(0.0 if name == "neg-log-loss" else 1.0)
    reach = score_of(name, best, y_val) - score_of(name, worst, y_val)
    assert reach <= score_range(name) == (math.inf if name == "neg-log-loss" else 1.0)


def test_the_empty_coalition_is_worth_a_constant_prediction():
    y_val = np.array([0, 1, 1, 1, 2])
    entropy = -(2 * 0.2 * math.log(0.2) + 0.6 * math.log(0.6))
    expected = {
        "accuracy": 0.6,
        "balanced-accuracy": 1 / 3,
        "auroc": 0.5,
        "neg-log-loss": -entropy,
    }
    for name, value in expected.items():
        assert empty_score(name, y_val, 4, None) == pytest.approx(value, abs=SUM_OF_FEW)
    assert empty_score("accuracy", y_val, 4, 0.25) == 0.25


@pytest.mark.parametrize(
    ("name", "value"),
    [("accuracy", 1.5), ("auroc", -0.1), ("neg-log-loss", 0.1), ("neg-log-loss", -np.inf)],
)
def test_an_empty_value_no_classifier_could_have_is_refused(name, value):
    with pytest.raises(ValueError, match="empty must be a value of"):
        empty_score(name, np.array([0, 1]), 2, value)
    with pytest.raises(ValueError, match="empty must be"):
        empty_score(name, np.array([0, 1]), 2, np.nan)


def test_an_unknown_score_is_named():
    with pytest.raises(ValueError, match=r"score must be accuracy, .* got 'f1'"):
        score_of("f1", np.eye(2), np.array([0, 1]))


def test_differences_begin_anew_with_each_order():
    values, offsets = np.array([0.6, 0.7, 0.4, 0.9]), np.array([0, 2, 2, 3, 4, 4])
    assert_allclose(differences(values, offsets, 0.5), [0.1, 0.1, -0.1, 0.4])
    assert len(differences(np.empty(0), np.array([0, 0]), 0.5)) == 0


def test_auroc_of_two_classes_is_that_of_the_second_alone():
    scores, y = drawn(3, 200, 2)
    assert_allclose(auroc(scores, y), metrics.roc_auc_score(y, scores[:, 1]), rtol=1e-12)


def test_auroc_of_one_class_is_unknown():
    scores, y = drawn(3, 20, 3)
    assert math.isnan(auroc(scores, np.zeros_like(y)))
