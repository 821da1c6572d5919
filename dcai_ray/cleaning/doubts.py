"""Suspects without a clean set: images whose labels all evidence from the other images doubts.

No true label is known, so no probability of an error can be. An image is *doubted* if

    its neighbours speak against its label: its value by the other training images is not above that
    of an image without effect, 1 / (C n),
    the leave-one-out probe prefers another class,
    and the evidence looks like that of errors: wrong labels planted into the training set itself
    tell how errors look, and how many there are that look so.

The last is what keeps images from being doubted for being hard: where classes overlap, neighbours
and probe contradict many right labels, but few as clearly as most planted ones. With f the density
of the evidence for given labels and g for planted ones, f = (1 - s) right + s g, so the share s of
errors that look like planted ones is at most f / g wherever one looks, and P(error | evidence) =
s g / f. No more than s n images and two standard deviations are doubted, those with the clearest
evidence. Where the features say so little about the classes that most given labels look like
planted ones, s may be anything: then no image is doubted.

Source: Elkan & Noto 2008, KDD (learning from positive and unlabelled data), for the ratio.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.evidence import Evidence
from dcai_ray.cleaning.planted import (
    MIN_CLEAN,
    error_model,
    label_weights,
    left_out_odds,
    share_among,
)

NEIGHBOURS = 10
"""K of the values by the other training images; a class of as many images cannot be judged."""
MAX_SHARE = 0.5
"""Share of labels like planted errors above which errors cannot be told from hard images."""
_LEAST = 0.2  # s g / f of an image that is doubted: at least one in five like it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Doubts:
    """What is suspicious about n training images."""

    suspicion: NDArray[np.float64]
    """(n,) mean rank of the value over its validation error and of the margin, in [0, 1]; the most
    suspicious has the highest."""
    doubted: NDArray[np.bool_]  # (n,)
    odds: NDArray[np.float64]
    """(n,) log odds of a wrong label, if half of the labels were wrong."""
    share: float
    """Share of the labels that look like planted errors; real ones can be harder to see."""


def doubts(
    evidence: Evidence,
    rows: NDArray[np.intp],
    y: NDArray[np.integer],
    value: NDArray[np.float64],
    stderr: NDArray[np.float64],
) -> Doubts:
    """Doubt labels without any clean image.

    Args:
        evidence: with training images as reference images, with their given labels.
        rows: (r,) indices of the reference images.
        y: (n,) class numbers as given.
        value: (n,) by the other training images, each class weighing alike.
        stderr: (n,) its standard error over validation points.
    """
    n, probe = len(y), evidence.probe
    against = (value <= 1 / (len(np.unique(y)) * n)) & (probe.suggested != y)
    weights = _weights(evidence, rows, y, against)
    wrong = weights.copy()
    wrong[np.arange(len(rows)), y[rows]] = 0.0
    given = error_model(evidence, weights, np.arange(len(rows))).decision_function(evidence.given)
    planted = left_out_odds(evidence, weights)
    share = share_among(given, planted.ravel(), wrong.ravel())
    doubted = against & (share * np.exp(np.clip(given, -30, 30)) > _LEAST)
    chance = 2 * np.sqrt(share * (1 - share) * n)
    at_most = int(share * n + chance) if share <= MAX_SHARE else 0
    clearest = np.argsort(np.where(doubted, -given, np.inf), kind="stable")
    doubted[clearest[at_most:]] = False
    exactly = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    certainty = np.divide(value, stderr, out=exactly, where=stderr > 0)
    margin = probe.margins[:, probe.best]
    suspicion = 1 - (_rank(certainty) + _rank(margin)) / 2
    return Doubts(suspicion=suspicion, doubted=doubted, odds=given, share=share)


def _weights(
    evidence: Evidence,
    rows: NDArray[np.intp],
    y: NDArray[np.integer],
    against: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(r, C) how often each label is planted in the reference images, as `label_weights`.

    Errors are planted as they seem to occur: of the images of a class, those that neighbours and
    probe give to another one tell which labels it is mistaken for. Nothing is planted in images
    whose own labels the probe contradicts.
    """
    probe, labels = evidence.probe, y[rows]
    confused = label_weights(labels, probe.reference_predictions, share=0.5, uniform=0.0)
    mistaken = np.zeros((confused.shape[1],) * 2)
    np.add.at(mistaken, (probe.suggested[against], y[against]), 1.0)
    own = np.arange(len(rows)), labels
    wrong = 2 * confused + mistaken[labels]  # as one image more
    wrong[own] = 0.0
    weights = 0.5 * wrong / wrong.sum(axis=1, keepdims=True)
    weights[own] = 0.5
    agrees = probe.suggested[rows] == labels
    if np.count_nonzero(agrees) >= MIN_CLEAN:
        weights[~agrees] = 0.0
    return weights


def _rank(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) ranks from 0 to 1, ties by index."""
    ranks = np.empty(len(x))
    ranks[np.argsort(x, kind="stable")] = np.linspace(0, 1, len(x))
    return ranks
