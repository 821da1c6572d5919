"""Suspects without a clean set: images whose labels all evidence from the other images doubts.

No true label is known, so no probability of an error can be. An image is *doubted* if

    its neighbours speak against its label: its value by the other training images is not above that
    of an image without effect, 1 / (C n),
    the leave-one-out probe prefers another class,
    and the evidence looks like that of errors: wrong labels planted into the training set itself
    tell how errors look, and how many there can be at most.

The last is what keeps images from being doubted for being hard: where classes overlap, neighbours
and probe contradict many right labels, but few as clearly as most planted ones. (If the features
say next to nothing about the classes, errors cannot be told from overlap.) With f the density of
the evidence for given labels and g for planted ones, f = (1 - s) right + s g, so the share s of
errors is at most f / g wherever one looks, and P(error | evidence) = s g / f.

Source: Elkan & Noto 2008, KDD (learning from positive and unlabelled data), for the ratio.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.evidence import Evidence
from dcai_ray.cleaning.planted import error_model, label_weights, left_out_odds, share_among

NEIGHBOURS = 10
"""K of the values by the other training images; a class of as many images cannot be judged."""
_LEAST = 0.2  # s g / f of an image that is doubted: at least one in five like it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Doubts:
    """What is suspicious about n training images."""

    suspicion: NDArray[np.float64]
    """(n,) mean rank of the value over its validation error and of the margin, in [0, 1]; the most
    suspicious has the highest."""
    doubted: NDArray[np.bool_]  # (n,)


def doubts(
    evidence: Evidence,
    y: NDArray[np.integer],
    value: NDArray[np.float64],
    stderr: NDArray[np.float64],
) -> Doubts:
    """Doubt labels without any clean image.

    Args:
        evidence: with training images as reference images, with their given labels.
        y: (n,) class numbers as given.
        value: (n,) by the other training images, each class weighing alike.
        stderr: (n,) its standard error over validation points.
    """
    n, probe = len(y), evidence.probe
    weights = label_weights(evidence.labels, probe.reference_predictions, share=0.5)
    rows = np.arange(len(evidence.labels))
    given = error_model(evidence, weights, rows).decision_function(evidence.given)  # log g / f
    planted = left_out_odds(evidence, weights)
    wrong = weights.copy()
    wrong[rows, evidence.labels] = 0.0
    share = share_among(planted[rows, evidence.labels], planted.ravel(), wrong.ravel())
    likely = share * np.exp(np.clip(given, -30, 30)) > _LEAST
    against = (value <= 1 / (len(np.unique(y)) * n)) & (probe.suggested != y)
    exactly = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    certainty = np.divide(value, stderr, out=exactly, where=stderr > 0)
    margin = probe.margins[:, probe.best]
    suspicion = 1 - (_rank(certainty) + _rank(margin)) / 2
    return Doubts(suspicion=suspicion, doubted=against & likely)


def _rank(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) ranks from 0 to 1, ties by index."""
    ranks = np.empty(len(x))
    ranks[np.argsort(x, kind="stable")] = np.linspace(0, 1, len(x))
    return ranks
