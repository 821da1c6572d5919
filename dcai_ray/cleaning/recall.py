"""How a list of suspects fares on planted errors.

It catches a share of the planted errors (recall), and would flag a share of the clean images with
their right labels (false alarms). That needs no truth about the training images, but planted errors
may be easier to find than real ones, or harder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval at 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Detection:
    """How a list of suspects fares on planted errors."""

    recall: Interval
    """Share of the planted errors that it catches."""
    false_alarms: Interval
    """Share of the right labels that it flags."""


def detection(
    flagged: NDArray[np.bool_], labels: NDArray[np.integer], weights: NDArray[np.float64]
) -> Detection:
    """What a list does to reference images.

    Args:
        flagged: (r, C) whether an image would be on the list with each label.
        labels: (r,) true class numbers.
        weights: (r, C) from `label_weights`.
    """
    rows = np.arange(len(labels))
    wrong = weights.copy()
    wrong[rows, labels] = 0.0
    return Detection(
        recall=_wilson((wrong * flagged).sum(axis=1), wrong.sum(axis=1)),
        false_alarms=_wilson(flagged[rows, labels].astype(float), np.ones(len(labels))),
    )


def class_detections(
    flagged: NDArray[np.bool_], labels: NDArray[np.integer], weights: NDArray[np.float64]
) -> tuple[Detection, ...]:
    """`detection` for each label that an image is given, wrongly or rightly."""
    found = []
    for c in range(weights.shape[1]):
        right = labels == c
        found.append(
            Detection(
                recall=_wilson(weights[~right, c] * flagged[~right, c], weights[~right, c]),
                false_alarms=_wilson(flagged[right, c].astype(float), np.ones(int(right.sum()))),
            )
        )
    return tuple(found)


def _wilson(hits: NDArray[np.float64], weights: NDArray[np.float64]) -> Interval:
    """A weighted share with Wilson's interval, for the effective number of images.

    Source: Wilson 1927, JASA 22(158); Kish 1965 for the effective number.
    """
    total = weights.sum()
    if not total > 0:
        return Interval(np.nan, np.nan, np.nan)
    share, count, z = hits.sum() / total, total**2 / (weights**2).sum(), 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Interval(float(share), float(max(middle - half, 0)), float(min(middle + half, 1)))
