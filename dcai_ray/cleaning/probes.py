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
        y_train: (n,) class numbers; of a single one, that class is predicted for certain.
        x_val: (m, d).
        y_val: (m,).
        num_classes: C; classes missing from y_train get probability 0.
        standardize: scale features to mean 0 and variance 1 for the logistic probe.
    """
    probe = new_probe(name, standardize=standardize, num_train=len(y_train))
    # float32 would give coarse scores.
    x_train = x_train.astype(np.float64)
    x_val = x_val.astype(np.float64)
    probabilities = np.zeros((len(y_val), num_classes))
    classes = np.unique(y_train)
    if len(classes) == 1:
        probabilities[:, classes] = 1.0
    else:
        probe.fit(x_train, y_train)
        probabilities[:, probe.classes_] = probe.predict_proba(x_val)
    return {
        "loss": float(log_loss(y_val, probabilities, labels=np.arange(num_classes))),
        "accuracy": float((probabilities.argmax(axis=1) == y_val).mean()),
        "auroc": auroc(probabilities, y_val),
    }


def principal_features(
    x_train: NDArray[np.floating], x_val: NDArray[np.floating], most: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Standardized features, at most `most` of them: those along which the images vary most.

    Features of a network are far fewer than they seem, and a probe on these is several times
    faster.

    Args:
        x_train: (n, d).
        x_val: (m, d); standardized and rotated alike.
        most: largest number of features returned.
    """
    scaler = StandardScaler().fit(np.float64(x_train))
    z: Any = scaler.transform(np.float64(x_train))
    z_val: Any = scaler.transform(np.float64(x_val)) if len(x_val) else np.float64(x_val)
    if z.shape[1] > most:
        axes = np.linalg.eigh(z.T @ z)[1][:, -most:]
        z, z_val = z @ axes, z_val @ axes
    return z.astype(np.float32), z_val.astype(np.float32)


def share_losses(
    score: NDArray[np.float64],
    share: float,
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    *,
    per_class: bool = False,
    balanced: bool = False,
) -> NDArray[np.float64] | None:
    """Log losses in nats, on clean images, of a logistic probe trained without the lowest `share`.

    Args:
        score: (n,) such as values.
        share: share to drop.
        x_train: (n, d) features, standardized.
        y_train: (n,) class numbers.
        x_val: (m, d) features of the clean images.
        y_val: (m,).
        per_class: drop that share within each class rather than overall.
        balanced: let the probe weigh each class alike before anything is dropped, so that dropping
            right images of a common class is no gain because the class becomes rarer.
    Returns:
        (m,), or None if dropping that share would empty a class.
    """
    classes, place, counts = np.unique(y_train, return_inverse=True, return_counts=True)
    weights = (len(y_train) / len(classes) / counts)[place] if balanced else np.ones(len(y_train))
    kept = keep_share(score, share, y_train, per_class=per_class)
    if len(np.unique(y_train[kept])) < len(classes):
        return None
    probe = new_probe("logistic", standardize=False, num_train=int(kept.sum()))
    # float32 would give coarse losses
    probe.fit(np.float64(x_train[kept]), y_train[kept], sample_weight=weights[kept])
    log_p = probe.predict_log_proba(np.float64(x_val))
    return -log_p[np.arange(len(y_val)), np.searchsorted(classes, y_val)]
