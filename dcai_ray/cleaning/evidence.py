"""Evidence about labels: what does not depend on the label that it judges.

For every training image, for its given label:

    value        by the clean images, and by the other training images (self), at several K
    margin       of a leave-one-out ridge probe on all training and clean images: its prediction for
                 the given label less that for the best other one, at several penalties
    network      log odds by out-of-fold probabilities of the user's own network, if there are any
    finetuned    the same by networks that were fine-tuned fold by fold, if that was asked for

The same is known of *reference* images for every label that they might have. With a clean set they
are the clean images: each joins the training images alone, and the other clean images stay clean.
Their true labels are known, so they show what evidence of a right and of a wrong label looks like
(`planted`). Without a clean set the reference images are training images themselves.

All evidence weighs classes alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from dcai_ray.cleaning.ridge import left_out_predictions, margins

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of the ridge probe."""
CLEAN_WEIGHT = 3.0
"""Weight of a clean image in the ridge probe, relative to a training image."""
MAX_REFERENCES = 2000
"""Reference images at most; of more, as many are taken evenly from each class."""
_NEIGHBOURS = (5, 10, 20, 50, 100, 200, 500, 1000)
_SMALLEST = 1e-6  # of a probability
_DECIMALS = 6  # of a probability


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """What a leave-one-out ridge probe says of n training images and r reference images."""

    margins: NDArray[np.float64]  # (n, p) for the given labels, per penalty
    best: int
    """Index of the best penalty."""
    reference_margins: NDArray[np.float64]  # (r, C, p) for each label
    reference_predictions: NDArray[np.float64]  # (r, C) at the best penalty
    suggested: NDArray[np.int64]  # (n,) likeliest classes, at the best penalty
    suggested_probability: NDArray[np.float64]  # (n,) of that class, calibrated
    accuracy: float
    """Balanced accuracy on the clean images, or else on the given labels."""
    separation: float
    """How well it tells clean from training images of a class: mean area under the ROC curve; NaN
    without."""


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Out-of-fold predictions of networks: no image is judged by one that was trained on it."""

    name: str
    """Of the piece of evidence."""
    train: NDArray[np.float64]  # (n, C) log odds of each class
    reference: NDArray[np.float64]  # (r, C)
    judged: NDArray[np.float64] | None
    """(k, C) of the images whose labels show how accurate it is; None if it was not asked."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What is known of n training images and r reference images, by E pieces of evidence.

    The larger, the likelier is a label right.
    """

    names: tuple[str, ...]  # of the E pieces
    given: NDArray[np.float64]  # (n, E) for the given labels
    labels: NDArray[np.int64]  # (r,) class numbers of the reference images, right or as given
    reference: NDArray[np.float64]  # (r, C, E) of the reference images, for each label
    probe: Probe


def neighbour_counts(num_points: int, num_classes: int) -> tuple[int, ...]:
    """The numbers of neighbours K that values are computed for, up to n / (2 C) but at least 10."""
    return tuple(k for k in _NEIGHBOURS if k <= max(10, num_points / (2 * num_classes)))


def references(y: NDArray[np.integer], limit: int = MAX_REFERENCES) -> NDArray[np.intp]:
    """Indices of about `limit` points at most, sorted; of more, evenly from each class.

    A class gives points in proportion to its size, but at least one.

    Args:
        y: (m,) class numbers.
    """
    if len(y) <= limit:
        return np.arange(len(y))
    chosen = []
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        count = max(1, len(own) * limit // len(y))
        chosen.append(own[np.arange(count) * len(own) // count])
    return np.sort(np.concatenate(chosen))


def run_probe(
    x: NDArray[np.floating],
    y: NDArray[np.integer],
    x_clean: NDArray[np.floating],
    y_clean: NDArray[np.integer],
    rows: NDArray[np.integer],
    num_classes: int,
    copies: NDArray[np.integer] | None = None,
) -> Probe:
    """Leave-one-out predictions for all images, each class weighing alike.

    The best penalty is that of the highest balanced accuracy on the clean images; without any, on
    the given labels.

    Args:
        x: (n, d) training images.
        y: (n,) class numbers as given.
        x_clean: (m, d) clean images; m may be 0.
        y_clean: (m,).
        rows: (r,) reference images; clean images are counted after the training images.
        num_classes: C.
        copies: (p, 2) pairs of an image and another one that does not judge it, counted alike.
    """
    n, m = len(y), len(y_clean)
    labels = np.concatenate([y, y_clean])
    weights = np.repeat([1.0, CLEAN_WEIGHT], [n, m])
    weights /= np.bincount(labels, weights=weights, minlength=num_classes)[labels]
    targets = np.zeros((n + m, num_classes + (m > 0)))
    targets[np.arange(n + m), labels] = 1.0
    if m:
        targets[n:, num_classes] = 1.0  # is it clean?
    judged = slice(n, None) if m else slice(None)
    own, others, accuracy, best, number = [], [], -1.0, np.empty(0), 0
    x_all = np.concatenate([x, x_clean])
    for found in left_out_predictions(x_all, targets, weights, PENALTIES, copies):
        predictions = found[:, :num_classes]
        own.append(margins(predictions[:n], y))
        others.append(_every_margin(predictions[rows]))
        balanced = _balanced_accuracy(predictions[judged], labels[judged])
        if balanced > accuracy:
            accuracy, best, number = balanced, found, len(own) - 1
    predictions = best[:, :num_classes]
    suggested, chances = _suggestions(predictions[:n], predictions[judged], labels[judged])
    return Probe(
        margins=np.stack(own, axis=1),
        best=number,
        reference_margins=np.stack(others, axis=2),
        reference_predictions=predictions[rows],
        suggested=suggested,
        suggested_probability=chances,
        accuracy=accuracy,
        separation=_separation(best[:, -1], labels, n) if m else np.nan,
    )


def with_best_suggestions(
    probe: Probe, networks: Sequence[Network], labels: NDArray[np.integer]
) -> Probe:
    """The probe with the suggested labels of a network, where one is more accurate.

    Args:
        probe: of n training images.
        networks: predictions for them.
        labels: (k,) class numbers of the images that accuracy is judged by: the clean ones, or else
            the training images as given.
    """
    for network in networks:
        if network.judged is None:
            continue
        accuracy = _balanced_accuracy(network.judged, labels)
        if accuracy > probe.accuracy:
            suggested, chances = _suggestions(network.train, network.judged, labels)
            probe = replace(
                probe, suggested=suggested, suggested_probability=chances, accuracy=accuracy
            )
    return probe


def _balanced_accuracy(predictions: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Mean over classes of the share of predictions (k, C) that are right."""
    right = predictions.argmax(axis=1) == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def _suggestions(
    predictions: NDArray[np.float64], judged: NDArray[np.float64], labels: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest classes by predictions (n, C), and their probabilities.

    Args:
        judged: (k, C) predictions that calibrate the probabilities.
        labels: (k,) class numbers of these.
    """
    chances = softmax(_steepness(judged, labels) * predictions, axis=1)
    suggested = predictions.argmax(axis=1)
    return suggested, np.round(chances[np.arange(len(suggested)), suggested], _DECIMALS)


def _separation(domain: NDArray[np.float64], labels: NDArray[np.integer], n: int) -> float:
    """How well a prediction (N,) tells clean images from the n training images before them.

    Within classes, each weighing by its clean images: other class frequencies are no difference.
    """
    found, counts = [], []
    clean = np.arange(len(labels)) >= n
    for c in np.unique(labels[clean]):
        own = labels == c
        if not clean[own].all():
            found.append(roc_auc_score(clean[own], domain[own]))
            counts.append(np.count_nonzero(clean[own]))
    return float(np.average(found, weights=counts)) if found else np.nan


def _every_margin(predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, C) margins of each label, from predictions (r, C)."""
    count, num_classes = predictions.shape
    labels = np.broadcast_to(np.arange(num_classes), (count, num_classes))
    return margins(predictions[:, np.newaxis].repeat(num_classes, axis=1), labels)


def _steepness(predictions: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The factor at which a softmax of predictions (m, C) fits labels (m,) best, in log loss."""

    def loss(log_factor: float) -> float:
        scores = np.exp(log_factor) * predictions
        return float((logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 5.0), method="bounded").x))


def log_odds(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., C) log odds of each class, from probabilities (..., C)."""
    p = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    return np.log(p) - np.log1p(-p)


def gathered(
    values: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]],
    probe: Probe,
    y: NDArray[np.integer],
    labels: NDArray[np.integer],
    networks: Sequence[Network] = (),
) -> Evidence:
    """All pieces of evidence side by side.

    Args:
        values: per piece its name, its values of the training images (n,), and those of the
            reference images for each label (r, C).
        probe: of the training and reference images.
        y: (n,) class numbers as given.
        labels: (r,) class numbers of the reference images.
        networks: predictions for the same images.
    """
    n = len(y)
    names = [name for name, _, _ in values] + [f"margin_{penalty:g}" for penalty in PENALTIES]
    # Values times n: about 1, whatever the number of images.
    given = [n * own for _, own, _ in values] + list(probe.margins.T)
    reference = [n * others for _, _, others in values] + list(
        np.moveaxis(probe.reference_margins, 2, 0)
    )
    for network in networks:
        names.append(network.name)
        given.append(margins(network.train, y))
        reference.append(_every_margin(network.reference))
    return Evidence(
        names=tuple(names),
        given=np.stack(given, axis=1),
        labels=np.asarray(labels, np.int64),
        reference=np.stack(reference, axis=2),
        probe=probe,
    )
