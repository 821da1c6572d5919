"""Probes: small classifiers on frozen features; a second each where fine-tuning takes minutes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.choices import keep_share
from dcai_ray.valuation.utilities.scores import auroc

PROBES = ("logistic", "10-nn")


def new_probe(name: str, *, standardize: bool = True, num_train: int) -> Any:
    """An unfitted probe: logistic regression (C = .01) or 10 nearest neighbours."""
    if name == "logistic":
        model = LogisticRegression(C=0.01, max_iter=5000)
        return make_pipeline(StandardScaler(), model) if standardize else model
    assert name == "10-nn"
    return KNeighborsClassifier(min(10, num_train), algorithm="brute")


def probe_scores(
    name: str,
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    num_classes: int,
    *,
    standardize: bool = True,
) -> dict[str, float]:
    """Fit a probe and score it: `loss` (nats), `accuracy`, `auroc`.

    Args:
        name: one of `PROBES`.
        x_train: (n, d).
        y_train: (n,) class numbers; at least two classes.
        x_val: (m, d).
        y_val: (m,).
        num_classes: C; classes missing from y_train get probability 0.
        standardize: scale features to mean 0 and variance 1 for the logistic probe.
    """
    probe = new_probe(name, standardize=standardize, num_train=len(y_train))
    # float32 would give coarse scores.
    x_train = x_train.astype(np.float64)
    x_val = x_val.astype(np.float64)
    probe.fit(x_train, y_train)
    probabilities = np.zeros((len(y_val), num_classes))
    probabilities[:, probe.classes_] = probe.predict_proba(x_val)
    return {
        "loss": float(log_loss(y_val, probabilities, labels=np.arange(num_classes))),
        "accuracy": float((probabilities.argmax(axis=1) == y_val).mean()),
        "auroc": auroc(probabilities, y_val),
    }


def share_loss(
    value: NDArray[np.float64],
    share: float,
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> float | None:
    """Log loss in nats, on clean images, of a logistic probe trained without the lowest `share`.

    Args:
        value: (n,).
        share: share to drop.
        x_train: (n, d) features.
        y_train: (n,) class numbers.
        x_val: (m, d) features of the clean images.
        y_val: (m,).
        per_class: drop that share within each class rather than overall.
    Returns:
        None if dropping that share would empty a class.
    """
    classes = np.unique(y_train)
    kept = keep_share(value, share, y_train, per_class=per_class)
    if len(np.unique(y_train[kept])) < len(classes):
        return None
    probe = new_probe("logistic", num_train=int(kept.sum()))
    probe.fit(np.float64(x_train[kept]), y_train[kept])  # float32 would give coarse losses
    return float(log_loss(y_val, probe.predict_proba(np.float64(x_val)), labels=classes))
