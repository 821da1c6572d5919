"""Probes against scikit-learn's own."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.probes import principal_features, probe_scores, share_losses


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


@pytest.mark.parametrize("name", ["logistic", "10-nn"])
def test_a_single_class_is_predicted_for_certain(name):
    (x, y), (x_val, y_val) = blobs(7, 90), blobs(8, 60)
    found = probe_scores(name, x[y == 1], y[y == 1], x_val, y_val, 3)
    assert found["accuracy"] == (y_val == 1).mean()
    assert found["auroc"] == 0.5


def test_fewer_than_ten_images_all_vote():
    (x, y), (x_val, y_val) = blobs(9, 6), blobs(10, 40)
    found = probe_scores("10-nn", x, y, x_val, y_val, 3)
    assert found["accuracy"] == (np.bincount(y, minlength=3).argmax() == y_val).mean()


@pytest.fixture
def noisy():
    """Two overlapping classes; a third of the training labels is flipped, with low values."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 90)
    wrong = np.arange(90) % 3 == 0
    x = (rng.standard_normal((90, 4)) + 2 * true[:, np.newaxis]).astype(np.float32)
    y_val = rng.integers(0, 2, 60)
    x_val = (rng.standard_normal((60, 4)) + 2 * y_val[:, np.newaxis]).astype(np.float32)
    return (
        np.where(wrong, -1.0, 1.0) + rng.random(90),
        x,
        np.where(wrong, 1 - true, true),
        x_val,
        y_val,
    )


@pytest.mark.parametrize("balanced", [False, True])
def test_share_losses_are_those_of_a_logistic_regression_image_by_image(noisy, balanced):
    value, x, y, x_val, y_val = noisy
    y[:20] = 1
    kept = value.argsort()[27:]  # 30 % of 90 dropped
    weight = 45 / np.bincount(y)[y] if balanced else np.ones(90)  # of all, dropped or not
    model = LogisticRegression(C=0.01).fit(np.float64(x[kept]), y[kept], weight[kept])
    expected = -model.predict_log_proba(np.float64(x_val))[np.arange(60), y_val]
    found = share_losses(value, 0.3, x, y, x_val, y_val, balanced=balanced)
    # rtol: both stop at the optimizer's own tolerance, on rows in another order.
    assert_allclose(found, expected, rtol=1e-3)


def test_the_share_that_drops_the_flips_has_the_smallest_loss(noisy):
    value, x, y, x_val, y_val = noisy
    losses = {s: share_losses(value, s, x, y, x_val, y_val).mean() for s in (0.0, 0.15, 1 / 3, 0.6)}
    assert min(losses, key=losses.get) == 1 / 3


def test_a_share_that_would_empty_a_class_has_no_losses(noisy):
    _, x, y, x_val, y_val = noisy
    by_class = y.astype(float)
    share = (y == 0).mean()
    assert share_losses(by_class, share, x, y, x_val, y_val) is None
    assert share_losses(by_class, share - 0.02, x, y, x_val, y_val) is not None
    assert share_losses(by_class, share, x, y, x_val, y_val, per_class=True) is not None


def test_principal_features_are_standardized_and_no_more_than_asked_for():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 20)) * 5 + 7
    x_val = rng.standard_normal((50, 20))
    z, z_val = principal_features(x, x_val)
    assert z.shape == (200, 20)
    assert_allclose(z.mean(axis=0), 0, atol=1e-5)  # float32
    assert_allclose(z.std(axis=0), 1, atol=1e-5)
    assert_allclose(z_val, (x_val - x.mean(axis=0)) / x.std(axis=0), rtol=1e-4, atol=1e-5)
    few, few_val = principal_features(x, x_val, most=3)
    assert (few.shape, few_val.shape) == ((200, 3), (50, 3))
    # Three directions hold everything, so distances between images are as before.
    near = np.linalg.norm(few[:1] - few[1:], axis=1)
    assert_allclose(near, np.linalg.norm(z[:1] - z[1:], axis=1), rtol=1e-4)
